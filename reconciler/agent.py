"""The agent: four snapshots in, one plan out, carried out, reported; then again.

`tick` is the whole of it. Everything else here keeps the snapshots fresh beside the loop and
decides how soon the next look is worth it. One asyncio loop runs a handful of named root tasks;
if one of them dies the process ends, and the orchestrator starts a fresh one.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler import __version__, memory_file, pause_file
from reconciler.apply import Hands, PolledFile
from reconciler.errors import ReconcilerError
from reconciler.herald import Herald
from reconciler.logs import about, turn_to
from reconciler.model import (
    Condition,
    Desired,
    Local,
    Phase,
    Progress,
    Query,
    Served,
    Unavailable,
)
from reconciler.planning.conditions import GIT_REACHABLE, MODELS_INTACT
from reconciler.planning.events import (
    Event,
    Fetched,
    FetchFailed,
    Reloaded,
    ReloadFailed,
    TrialFailed,
    Tried,
    fold,
)
from reconciler.planning.goals import wanted_queries
from reconciler.planning.outcome import SERVER_UNREACHABLE
from reconciler.planning.peers import ServerStanding
from reconciler.planning.plan import plan
from reconciler.planning.restart import find_restart_config
from reconciler.planning.server_turns import find_others
from reconciler.planning.steps import Limits, Plan, World
from reconciler.planning.supervision import sight_server
from reconciler.planning.trial_names import trial_name
from reconciler.serving.client import SERVER_SILENT, ServingClient
from reconciler.serving.config_file import parse, read_own, read_text, write_config
from reconciler.settings import Settings
from reconciler.sources.registry import Sources
from reconciler.status.board import StatusBoard
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.peers import Badge, describe_namesake
from reconciler.store.collect import clear_leftovers
from reconciler.store.store import Store
from reconciler.supervision.supervisor import Supervisor
from reconciler.tracing import Tracing
from reconciler.watches import Watches, sleep_until

_log = logging.getLogger(__name__)

BUSY_TICK_SECONDS = 0.1
"""Between two looks while something loads, unloads or downloads."""
_HEARTBEAT_TICKS = 10
_MIN_HEARTBEAT_SECONDS = 60.0
_LOOK_PATIENCE_SECONDS = 0.8
_SERVER_PATIENCE_SECONDS = 10.0
"""How long a single pass waits for a server that does not answer."""


class Agent:
    """One node's agent."""

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        self._settings = settings
        self._tracing = tracing or Tracing()
        self._clock = time.monotonic
        self._wake = asyncio.Event()
        badge = Badge(settings.node, secrets.token_hex(8))
        sources = Sources(settings.user_project)
        self.metrics = Metrics(__version__)
        self.watches = Watches(
            settings,
            sources,
            badge,
            clock=self._clock,
            wake=self._wake.set,
            note_fetch=self.metrics.note_fetch,
            tracing=self._tracing,
        )
        self._store = Store(settings.models_dir, connections=settings.connections)
        self._config_file = settings.serving_config_file
        self._base = settings.serving_base
        self._client = ServingClient(settings.serving, self._base)
        self.board = StatusBoard(
            Journal(settings.state_dir / "history.jsonl"),
            self.metrics,
            self.sync,
            wake_git=self.watches.wake_git,
            badge=str(badge),
            heartbeat_limit_seconds=max(_MIN_HEARTBEAT_SECONDS, settings.tick * _HEARTBEAT_TICKS),
        )
        self._hands = Hands(
            store=self._store,
            sources=sources,
            server=self._client
            if settings.serving_mode == "rpc"
            else PolledFile(self._config_file, self._base, settings.serving_poll),
            address=settings.serving,
            config_file=self._config_file,
            base=self._base,
            reload_deadline_seconds=settings.reload_deadline,
            wake=self._wake.set,
            count_bytes=self.metrics.count_downloaded,
            tracing=self._tracing,
        )
        self._limits = Limits(
            settle_seconds=settings.settle,
            poll_seconds=settings.serving_poll,
            is_file_driven=settings.serving_mode == "file",
        )
        self._supervisor = (
            None
            if settings.supervise == "off"
            else Supervisor(settings, clock=self._clock, wake=self._wake.set)
        )
        self._memory, self._applied = memory_file.load(self._memory_path)
        self._looking: asyncio.Task[Served] | None = None
        self._memory_written: bytes | None = None
        self._memory_failed = False
        self._herald = Herald(self.board, badge)
        self.plan: Plan | None = None

    # --- the tick -------------------------------------------------------------------------

    async def tick(self) -> None:
        """Look at everything once, plan, carry out what is new, and say so."""
        begun_at = self._clock()
        self._tracing.begin_look()
        git = self.watches.git
        desired = git.desired
        turn_to(commit=desired.commit.id if desired else None)
        self._fold_events()
        self.watches.want_members(desired)
        if desired is None:
            trouble = git.trouble or Unavailable("Starting", "the config repo is being read")
            condition = Condition(GIT_REACHABLE, False, trouble.reason, trouble.sentence)
            if not git.source_verified.holds:
                condition = git.source_verified
            await self._herald.wait(condition, self._applied, self._server)
            return
        try:
            local = await asyncio.to_thread(self._store.read_inventory)
        except ReconcilerError as error:
            condition = Condition(MODELS_INTACT, False, error.reason, str(error))
            await self._herald.wait(condition, self._applied, self._server)
            return
        self._want_listings(local)
        world = World(
            desired=desired,
            available=self.watches.buckets.available,
            local=local,
            served=await self._look(local),
            restart_config=await asyncio.to_thread(read_own, self._config_file, self._base),
            git_trouble=git.trouble,
            source_verified=git.source_verified,
            fetching=self._hands.fetching,
            wall_seconds=time.time(),
            pause=await asyncio.to_thread(pause_file.load, self._settings.state_dir),
            peers=self.watches.peers.peers,
            namesake=self._find_namesake(),
            members_trouble=self.watches.find_members_trouble(desired),
            notifications=self.watches.notifications,
            supervised=self._supervisor.condition if self._supervisor else None,
            server=self._server,
        )
        now = self._clock()
        with self._tracing.span("plan"):
            newest = plan(world, self._memory, self._limits, now)
        if self._supervisor is not None:
            self._supervisor.note(sight_server(world, newest, self._limits, now))
        done = await self._hands.carry_out(newest)
        self.plan, self._memory = newest, newest.memory
        for query, wait_seconds in newest.relist.items():
            self.watches.buckets.hasten(query, wait_seconds)
        self.watches.want_peers(desired, {*newest.ask_peers, *self._find_server_peers(desired)})
        if newest.settled and world.git_trouble is None:
            self._applied = desired.commit
        self._remember()
        await self._herald.tell(world, newest, done, self._applied)
        self._tracing.end_look(
            newest.steps,
            is_moving=self._hands.busy or newest.in_motion or not self.watches.answered,
            commit=desired.commit.id,
            settled=newest.settled,
        )
        self.metrics.observe_tick(self._clock() - begun_at)

    def _fold_events(self) -> None:
        for event in self._hands.take_events():
            self._memory = fold(self._memory, event, self._clock())
            model, version = getattr(event, "model", None), getattr(event, "version", None)
            with about(model=model, version=version):
                self._tell_event(event)

    def _tell_event(self, event: Event) -> None:
        match event:
            case Fetched(model, version):
                _log.info("installed %s %s", model, version)
            case FetchFailed(model, version, _, reason, sentence):
                self.metrics.count_download_error(reason)
                _log.warning("%s %s: %s", model, version, sentence)
                desired = self.watches.git.desired
                for deployment in desired.deployments if desired else ():
                    if deployment.model == model:
                        self.watches.buckets.hasten_source(deployment.source)
            case Tried(model, version, _, count):
                asked = "1 golden request" if count == 1 else f"{count} golden requests"
                _log.info("%s %s answered its %s", model, version, asked)
            case TrialFailed(model, version, _, sentence):
                _log.warning("%s %s failed its golden requests: %s", model, version, sentence)
            case Reloaded():
                self.metrics.count_reload("OK")
            case ReloadFailed(_, code, message):
                self.metrics.count_reload(code)
                _log.warning("TensorFlow Serving answered a reload: %s: %s", code, message)

    def _want_listings(self, local: Local) -> None:
        desired = self.watches.git.desired
        queries: dict[Query, bool] = {}
        for deployment in desired.deployments if desired else ():
            found = local.versions.get(deployment.model, {})
            known = self._memory.of(deployment.model)
            for query, is_recheck in wanted_queries(
                deployment, found, known, self.watches.buckets.available
            ).items():
                queries[query] = is_recheck and queries.get(query, True)
        self.watches.want_listings(queries)

    async def _look(self, local: Local) -> Served | Unavailable:
        desired = self.watches.git.desired
        models = {deployment.model for deployment in desired.deployments} if desired else set()
        models |= local.versions.keys() | self._memory.models.keys()
        # A trial may be left over in the server from an agent that was stopped.
        deployments = desired.deployments if desired else ()
        models |= {trial_name(item.model) for item in deployments if item.rollout.golden}
        if self._looking is None:
            self._looking = asyncio.create_task(self._client.read(models))
        # A server that is silent must not keep the tick from cancelling a download; the question
        # stays open and is taken up by a later tick.
        done, _ = await asyncio.wait({self._looking}, timeout=_LOOK_PATIENCE_SECONDS)
        if not done:
            sentence = f"TensorFlow Serving at {self._client.address} has not answered yet"
            return Unavailable(SERVER_SILENT, sentence)
        looking, self._looking = self._looking, None
        try:
            return looking.result()
        except ReconcilerError as error:
            return Unavailable(error.reason, str(error))

    def _find_namesake(self) -> Unavailable | None:
        found = self.watches.peers.namesake
        if found is None and self.board.has_namesake:
            return describe_namesake(self._settings.node, "has asked this one for its status")
        return found

    @property
    def _server(self) -> ServerStanding | None:
        return self._supervisor.standing if self._supervisor else None

    def _find_server_peers(self, desired: Desired) -> tuple[str, ...]:
        is_asking = self._supervisor is not None and self._supervisor.awaits_turn
        return find_others(desired) if is_asking else ()

    @property
    def fetching(self) -> Mapping[tuple[str, int], Progress]:
        """Downloads that run: (model, version) -> how far."""
        return self._hands.fetching

    @property
    def _memory_path(self) -> Path:
        return self._settings.state_dir / "memory.json"

    def _remember(self) -> None:
        """Keep the memory on disk; a full disk there is said once and holds nothing up."""
        try:
            self._memory_written = memory_file.save(
                self._memory_path, self._memory, self._applied, self._memory_written
            )
            self._memory_failed = False
        except OSError as error:
            if not self._memory_failed:
                _log.warning("%s cannot be written, trying on: %s", self._memory_path, error)
            self._memory_failed = True

    # --- beside the tick ------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what an earlier run left: the mirror, the config file, half-done removals."""
        self._settings.models_dir.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(clear_leftovers, self._settings.models_dir)
        text = read_text(self._config_file)
        config = parse(text) if text is not None else None
        if config is None:
            # Also when nothing has worked yet: a server that starts from an empty list takes its
            # first reload well, one that starts from no list does not.
            local = await asyncio.to_thread(self._store.read_inventory)
            proven = find_restart_config(self._memory, local.versions)
            await asyncio.to_thread(write_config, self._config_file, proven, self._base)
        for model, ask in (config or {}).items():
            known = self._memory.of(model)
            if known.good is None:
                self._memory = self._memory.with_model(model, replace(known, good=ask))
        await self.watches.git.restore()

    def sync(self) -> None:
        """Look at git, the buckets and the node now: POST /sync."""
        self.watches.wake_all()
        self._wake.set()

    async def run(self, *others: Coroutine[Any, Any, None]) -> None:
        """Run until cancelled, with `others` as root tasks too; raises when one of them dies."""
        await self.start()
        async with asyncio.TaskGroup() as group:
            for name, task in self.watches.follow().items():
                group.create_task(task, name=name)
            group.create_task(self._client.watch_connection(), name="connection")
            group.create_task(self._verify_installed(), name="verify")
            group.create_task(self._tick_for_ever(), name="ticks")
            if self._supervisor is not None:
                group.create_task(self._supervisor.run(), name="supervision")
            for other in others:
                group.create_task(other)

    async def run_once(self, timeout_seconds: float) -> bool:
        """Make one full pass and return whether the node came to be as its commit says."""
        begun_at = self._clock()
        await self.start()
        connection = asyncio.create_task(self._client.watch_connection())
        try:
            await self.watches.fetch_git()
            await self._verify_installed()
            while True:
                was_known = self.watches.git.desired is not None
                await self.tick()
                await self.watches.refresh()
                newest, passed_seconds = self.plan, self._clock() - begun_at
                if passed_seconds > timeout_seconds:
                    return False
                if newest is None:
                    # Registries are asked once a commit was read, and may have it followed.
                    is_news = not was_known and self.watches.git.desired is not None
                    if self.watches.answered and not is_news:
                        return False
                elif self._is_done(newest, passed_seconds):
                    git = self.watches.git
                    is_newest = git.trouble is None and git.unverified is None
                    return newest.converged and is_newest
                await asyncio.sleep(BUSY_TICK_SECONDS)
        finally:
            connection.cancel()

    def _is_done(self, newest: Plan, passed_seconds: float) -> bool:
        if newest.converged:
            return True
        if self._hands.busy or newest.in_motion or not self.watches.answered:
            return False
        if any(o.reason == SERVER_UNREACHABLE for o in newest.outcomes):
            return passed_seconds > _SERVER_PATIENCE_SECONDS
        is_settling = newest.relist and any(o.phase is Phase.DEPLOYING for o in newest.outcomes)
        return not is_settling

    async def _verify_installed(self) -> None:
        """Hold what an earlier run installed against its manifests, once, beside the loop."""
        local = await asyncio.to_thread(self._store.read_inventory)
        for model, versions in local.versions.items():
            for version, found in versions.items():
                if found.digest is not None and not await self._store.verify(model, version):
                    with about(model=model, version=version):
                        _log.warning(
                            "%s %s on disk is damaged and is fetched again", model, version
                        )
                    self._wake.set()

    async def _tick_for_ever(self) -> None:
        while True:
            await self.tick()
            is_moving = self._hands.busy or (self.plan is not None and self.plan.in_motion)
            interval_seconds = self._settings.tick
            if is_moving:
                interval_seconds = min(BUSY_TICK_SECONDS, interval_seconds)
            await sleep_until(self._wake, interval_seconds, 0.0)

    async def close(self) -> None:
        """Stop what runs beside the loop."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self.watches.close()
        await self._hands.close()
        await asyncio.to_thread(self._tracing.close)
        await self._client.close()
