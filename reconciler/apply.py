"""Carries out a plan: starts what is new in it, cancels what it no longer asks for.

Short steps are done on the spot. Downloads, reloads and trials run as tasks beside the loop and
report an event when they end. Every step may be repeated: after a kill the next plan starts from
what is on disk and in the server, and whatever was half done is either not visible to anyone or
done again.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.errors import ReconcilerError
from reconciler.logs import Note, about
from reconciler.model import Progress, ServerConfig
from reconciler.planning.events import (
    Event,
    Fetched,
    FetchFailed,
    Reloaded,
    ReloadFailed,
    ReloadStarted,
    TrialFailed,
    Tried,
)
from reconciler.planning.steps import (
    Configure,
    Fetch,
    Plan,
    RemoveStaging,
    RemoveVersion,
    Step,
    Try,
    WriteConfig,
)
from reconciler.planning.trial_names import trial_name
from reconciler.serving.client import ReloadError
from reconciler.serving.config_file import OwnFile
from reconciler.serving.golden import GoldenError, try_version
from reconciler.sources.registry import Sources
from reconciler.store.collect import remove_model_folder, remove_staging, remove_version
from reconciler.store.layout import version_folder
from reconciler.store.store import Store
from reconciler.threads import run_beside
from reconciler.tracing import Tracing

_log = logging.getLogger(__name__)


class Server(Protocol):
    """Something that takes a whole config: by RPC, or by a file that it polls."""

    async def reload(self, config: ServerConfig, deadline_seconds: float) -> None:
        """Make `config` the server's; raises ReloadError."""


@dataclass(frozen=True, slots=True)
class PolledFile:
    """A server that takes its config from a file, which it reads again every few seconds."""

    file: OwnFile
    poll_seconds: float

    async def reload(self, config: ServerConfig, deadline_seconds: float) -> None:
        """Write the file and wait until the server must have read it."""
        await asyncio.to_thread(self.file.write, config)
        await asyncio.sleep(min(self.poll_seconds, deadline_seconds))


@dataclass(slots=True)
class _Download:
    digest: str
    task: asyncio.Task[None]
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Trial:
    step: Try
    task: asyncio.Task[None]


@dataclass(slots=True)
class Hands:
    """The side of the agent that changes things."""

    store: Store
    sources: Sources
    server: Server
    address: str
    """Of TensorFlow Serving's gRPC."""
    config_file: OwnFile
    """What the server starts from."""
    reload_deadline_seconds: float
    wake: Callable[[], None]
    count_bytes: Callable[[int], None]
    tracing: Tracing = field(default_factory=Tracing)
    _downloads: dict[tuple[str, int], _Download] = field(default_factory=dict)
    _ending: dict[tuple[str, int], asyncio.Task[None]] = field(default_factory=dict)
    """Downloads that were cancelled, and may be putting their files in place all the same: what is
    asked of these versions waits for a later look, which asks for it again."""
    _reload: asyncio.Task[None] | None = None
    _trial: _Trial | None = None
    _events: list[Event] = field(default_factory=list)

    @property
    def fetching(self) -> dict[tuple[str, int], Progress]:
        """Downloads that run: (model, version) -> how far."""
        return {key: download.progress for key, download in self._downloads.items()}

    @property
    def busy(self) -> bool:
        """Whether something runs beside the loop."""
        return bool(self._downloads) or self._reload is not None or self._trial is not None

    def take_events(self) -> list[Event]:
        """Return what has happened since the last call."""
        events, self._events = self._events, []
        return events

    async def carry_out(self, plan: Plan) -> list[Note]:
        """Carry out `plan` and return a sentence for each thing that was done at once."""
        done: list[Note] = []
        self._set_downloads([step for step in plan.steps if isinstance(step, Fetch)])
        self._set_trial(next((step for step in plan.steps if isinstance(step, Try)), None))
        for step in plan.steps:
            if self._must_wait(step):
                continue
            facts = _facts_of(step)
            with about(**facts):
                try:
                    sentence = await self._do(step)
                except (OSError, ReconcilerError) as error:
                    _log.warning("%s failed and is tried again: %s", type(step).__name__, error)
                else:
                    done += [Note(sentence, facts)] if sentence else []
        return done

    async def _do(self, step: Step) -> str | None:
        """Do a step that is done at once, and return the sentence about it, if it is worth one."""
        facts = _facts_of(step)
        match step:
            case WriteConfig(config):
                with self.tracing.span("write config"):
                    await asyncio.to_thread(self.config_file.write, config)
            case Configure(_, reason):
                self._send(step)
                return f"asks TensorFlow Serving: {reason}"
            case RemoveVersion(model, version, reason):
                with self.tracing.span("remove", **facts):
                    await asyncio.to_thread(self._remove, step)
                return f"removed {model} {version} from disk: {reason}"
            case RemoveStaging(model, version, digest):
                with self.tracing.span("remove download", **facts):
                    models_dir = self.store.models_dir
                    await asyncio.to_thread(remove_staging, models_dir, model, version, digest)
            case Fetch() | Try():
                pass
        return None

    def _must_wait(self, step: Step) -> bool:
        if not isinstance(step, RemoveVersion | RemoveStaging):
            return False
        return (step.model, step.version) in self._ending

    def _remove(self, step: RemoveVersion) -> None:
        remove_version(self.store.models_dir, step.model, step.version)
        if step.is_last:
            remove_model_folder(self.store.models_dir, step.model)

    def _set_downloads(self, wanted: list[Fetch]) -> None:
        """Run exactly the downloads that are wanted."""
        steps = {(step.model, step.snapshot.version): step for step in wanted}
        self._ending = {key: task for key, task in self._ending.items() if not task.done()}
        for key, download in list(self._downloads.items()):
            step = steps.get(key)
            if step is None or step.snapshot.digest != download.digest:
                download.task.cancel()
                del self._downloads[key]
                self._ending[key] = download.task
        for key, step in steps.items():
            if key not in self._downloads and key not in self._ending:
                snapshot = step.snapshot
                task = asyncio.create_task(self._fetch(step))
                progress = Progress(0, snapshot.size_bytes)
                self._downloads[key] = _Download(snapshot.digest, task, progress)

    async def _fetch(self, step: Fetch) -> None:
        model, snapshot = step.model, step.snapshot
        key = (model, snapshot.version)
        own = asyncio.current_task()

        def show(progress: Progress) -> None:
            download = self._downloads.get(key)
            if download is not None and download.task is own:
                self.count_bytes(max(0, progress.done_bytes - download.progress.done_bytes))
                download.progress = progress

        try:
            with self.tracing.span("download", **_facts_of(step)):
                source = await run_beside(lambda: self.sources.open(snapshot.source), "open source")
                await self.store.fetch(
                    model,
                    snapshot,
                    source,
                    show,
                    sha256=step.sha256,
                    most_bytes=step.most_bytes,
                )
            event: Event = Fetched(model, snapshot.version)
        except ReconcilerError as error:
            event = FetchFailed(model, snapshot.version, snapshot.digest, error.reason, str(error))
        except OSError as error:
            sentence = f"version {snapshot.title} could not be stored: {error}"
            event = FetchFailed(model, snapshot.version, snapshot.digest, "DiskFailed", sentence)
        except Exception as error:
            _log.exception("a download ended by a bug; please report it")
            sentence = f"version {snapshot.title} was not fetched because of a bug: {error!r}"
            event = FetchFailed(model, snapshot.version, snapshot.digest, "Bug", sentence)
        download = self._downloads.get(key)
        if download is not None and download.task is own:
            del self._downloads[key]
            self._report(event)

    def _set_trial(self, wanted: Try | None) -> None:
        """Ask exactly the golden requests that are wanted."""
        if self._trial is not None and self._trial.step != wanted:
            self._trial.task.cancel()
            self._trial = None
        if self._trial is None and wanted is not None:
            self._trial = _Trial(wanted, asyncio.create_task(self._try(wanted)))

    async def _try(self, step: Try) -> None:
        model, version, digest = step.model, step.version, step.digest
        event: Event
        try:
            folder = version_folder(self.store.models_dir, model, version)
            name = trial_name(model)
            with self.tracing.span("try", **_facts_of(step)):
                count = await try_version(
                    self.address, folder, step.golden, name=name, version=version
                )
            event = Tried(model, version, digest, count)
        except GoldenError as error:
            event = TrialFailed(model, version, digest, str(error))
        except Exception as error:
            _log.exception("a trial ended by a bug; please report it")
            event = TrialFailed(model, version, digest, f"they were not asked: a bug: {error!r}")
        if self._trial is not None and self._trial.task is asyncio.current_task():
            self._trial = None
            self._report(event)

    def _send(self, step: Configure) -> None:
        if self._reload is None:
            self._events.append(ReloadStarted())
            self._reload = asyncio.create_task(self._reload_once(step))

    async def _reload_once(self, step: Configure) -> None:
        request = step.request
        event: Event
        try:
            with self.tracing.span("reload", why=step.reason):
                await self.server.reload(request.config, self.reload_deadline_seconds)
            event = Reloaded(request)
        except ReloadError as error:
            event = ReloadFailed(request, error.code, str(error))
        except OSError as error:
            event = ReloadFailed(request, "INTERNAL", f"{self.config_file.path}: {error}")
        except Exception as error:
            _log.exception("a reload ended by a bug; please report it")
            event = ReloadFailed(request, "INTERNAL", f"a bug: {error!r}")
        self._reload = None
        self._report(event)

    def _report(self, event: Event) -> None:
        self._events.append(event)
        self.wake()

    async def close(self) -> None:
        """Cancel what runs; a reload that was sent is not waited for."""
        tasks = [download.task for download in self._downloads.values()]
        tasks += self._ending.values()
        tasks += [self._reload] if self._reload else []
        tasks += [self._trial.task] if self._trial else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _facts_of(step: Step) -> dict[str, str | int]:
    """Return what log lines and traces of a step are about."""
    match step:
        case Fetch(model, snapshot):
            return {"model": model, "version": snapshot.version}
        case RemoveVersion(model, version) | RemoveStaging(model, version) | Try(model, version):
            return {"model": model, "version": version}
        case Configure() | WriteConfig():
            return {}
