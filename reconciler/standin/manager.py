"""Loads and unloads single versions and hands them out to requests.

The locks are TensorFlow Serving's (2.20 source, core/basic_manager.cc), because its stalls come
from them:

- `_lock` guards the managed versions. It is held over the resource estimate with all its retries,
  and over every exchange of the serving map, which waits for all requests that began on the old
  one. So one hung Predict of any model stops every transition of all models, and the caller that
  decides about them (aspired.py), but neither Predict nor GetModelStatus.
- `_load_lock` is held while a load is scheduled - with 0 load threads, over the load itself.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from reconciler.serving.protocol.control_pb2 import Code
from reconciler.standin.errors import StatusError
from reconciler.standin.loader import LoadedModel
from reconciler.standin.monitor import EventBus, ServableId, ServableState, State
from reconciler.standin.source import AspiredVersion
from reconciler.standin.threads import make_executor

_LOG = logging.getLogger(__name__)


class ModelLoader(Protocol):
    """Makes a model of a folder; both calls raise StatusError when they cannot."""

    def estimate(self, path: str) -> None:
        """Look at every file, as the estimate of the memory it will take does."""

    def load(self, path: str) -> LoadedModel:
        """Load the model."""


class Phase(Enum):
    """How far a managed version is; finer than the states that are published."""

    NEW = auto()
    LOAD_REQUESTED = auto()
    LOADING = auto()
    READY = auto()
    UNLOAD_REQUESTED = auto()
    QUIESCING = auto()
    DISABLED = auto()
    ERROR = auto()


@dataclass(slots=True)
class Managed:
    """One version in the manager's hands."""

    id: ServableId
    path: str
    aspired: bool = True
    phase: Phase = Phase.NEW
    cancelled: bool = False
    model: LoadedModel | None = None


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how quickly a failed load is tried again."""

    max_retries: int
    interval_seconds: float

    def run(self, attempt: Callable[[], None], is_cancelled: Callable[[], bool]) -> None:
        """Call `attempt` until it succeeds; raise its last error when the tries are used up.

        Cancelling is noticed after an attempt only, never during the sleep before it.
        """
        tries = 0
        while True:
            if tries > 0 and self.interval_seconds > 0:
                time.sleep(self.interval_seconds)
            tries += 1
            try:
                return attempt()
            except StatusError:
                if is_cancelled() or tries > self.max_retries:
                    raise


@dataclass(slots=True)
class _ServingMap:
    """What requests find, and how many of them still use it."""

    models: dict[tuple[str, int | None], Managed]
    users: int = 0
    unused: threading.Condition = field(default_factory=threading.Condition)


class Manager:
    """Carries out loads and unloads, each by its own executor."""

    def __init__(
        self,
        loader: ModelLoader,
        bus: EventBus,
        retries: Retries,
        load_threads: int,
        unload_threads: int,
    ) -> None:
        self._loader = loader
        self._bus = bus
        self._retries = retries
        self._lock = threading.Lock()
        self._managed: dict[str, dict[int, Managed]] = {}
        self._load_lock = threading.Lock()
        self._load_threads = load_threads
        self._load_executor = make_executor(load_threads, "load")
        self._unload_executor = make_executor(unload_threads, "unload")
        self._decision_lock = threading.Lock()
        self._map_lock = threading.Lock()
        self._map = _ServingMap({})

    @property
    def load_threads(self) -> int:
        """The size of the load executor."""
        return self._load_threads

    def set_load_threads(self, threads: int) -> None:
        """Finish all scheduled loads, then load with another number of threads."""
        with self._load_lock:
            self._load_executor.close()
            self._load_threads = threads
            self._load_executor = make_executor(threads, "load")

    @contextmanager
    def borrow(self, name: str, version: int | None) -> Iterator[tuple[int, LoadedModel]]:
        """Keep a ready version for one request; no version means the highest ready one.

        Raises NOT_FOUND. A transition that began meanwhile waits for the end of the block.
        """
        with self._map_lock:
            serving = self._map
            with serving.unused:
                serving.users += 1
        try:
            managed = serving.models.get((name, version))
            if managed is None or managed.model is None:
                wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise StatusError(Code.NOT_FOUND, f"Servable not found for request: {wanted}")
            yield managed.id.version, managed.model
        finally:
            with serving.unused:
                serving.users -= 1
                serving.unused.notify_all()

    def snapshot(self) -> dict[str, list[Managed]]:
        """Return all managed versions by model, the model that was added last first."""
        with self._lock:
            return {
                name: list(versions.values())
                for name, versions in reversed(self._managed.items())
                if versions
            }

    def manage(self, name: str, aspired: AspiredVersion) -> None:
        """Take a version in hand; it is then START."""
        with self._lock:
            versions = self._managed.setdefault(name, {})
            servable = ServableId(name, aspired.version)
            if aspired.version in versions:
                _LOG.error("Internal error: this servable is already being managed: %s", servable)
                return
            versions[aspired.version] = Managed(servable, aspired.path)
            self._bus.publish(ServableState(servable, State.START))

    def unaspire(self, managed: Managed) -> None:
        """Mark a version as no longer wanted, and give up its load after the present attempt."""
        with self._lock:
            managed.aspired = False
            managed.cancelled = True

    def drop(self, managed: Managed) -> None:
        """Let go of a version that is not loaded; what was published of it stays."""
        with self._lock:
            versions = self._managed.get(managed.id.name, {})
            if managed.phase in (Phase.NEW, Phase.DISABLED, Phase.ERROR):
                versions.pop(managed.id.version, None)
            if not versions:
                self._managed.pop(managed.id.name, None)

    def load(self, managed: Managed) -> None:
        """Schedule the load of a new version."""
        with self._lock:
            managed.phase = Phase.LOAD_REQUESTED
        with self._load_lock:
            self._load_executor.schedule(lambda: self._load(managed))

    def unload(self, managed: Managed) -> None:
        """Schedule the unload of a ready version."""
        with self._lock:
            managed.phase = Phase.UNLOAD_REQUESTED
        self._unload_executor.schedule(lambda: self._unload(managed))

    def _load(self, managed: Managed) -> None:
        servable = managed.id
        try:
            with self._decision_lock, self._lock:
                self._reserve(managed)
            self._publish(servable, State.LOADING)
            self._attempt_load(managed)
        except StatusError as error:
            _LOG.error("Servable %s cannot be loaded: %s", servable, error)
            # The state first: once the phase says so, a tick may drop the version and start anew.
            self._publish(servable, State.END, error)
            managed.phase = Phase.ERROR
            return
        with self._lock:
            self._exchange_map()
        self._publish(servable, State.AVAILABLE)

    def _reserve(self, managed: Managed) -> None:
        try:
            self._retries.run(
                lambda: self._loader.estimate(managed.path), lambda: managed.cancelled
            )
        except StatusError as error:
            raise StatusError(
                error.code,
                "Error while attempting to reserve resources to load servable"
                f" {managed.id}: {error.message}",
            ) from None
        managed.phase = Phase.LOADING

    def _attempt_load(self, managed: Managed) -> None:
        loaded: list[LoadedModel] = []
        self._retries.run(
            lambda: loaded.append(self._loader.load(managed.path)), lambda: managed.cancelled
        )
        if managed.cancelled:
            loaded[0].close()
            raise StatusError(Code.CANCELLED, "Loading of servable cancelled")
        managed.model = loaded[0]
        managed.phase = Phase.READY

    def _unload(self, managed: Managed) -> None:
        with self._decision_lock, self._lock:
            managed.phase = Phase.QUIESCING
        with self._lock:
            self._publish(managed.id, State.UNLOADING)
            self._exchange_map()
        if managed.model is not None:
            managed.model.close()
            managed.model = None
        self._publish(managed.id, State.END)
        managed.phase = Phase.DISABLED

    def _exchange_map(self) -> None:
        """Make the ready versions the ones that requests find; wait for those on the old map."""
        models: dict[tuple[str, int | None], Managed] = {}
        for name, versions in self._managed.items():
            for version in sorted(versions):
                if versions[version].phase is Phase.READY:
                    models[name, version] = models[name, None] = versions[version]
        with self._map_lock:
            old, self._map = self._map, _ServingMap(models)
        with old.unused:
            old.unused.wait_for(lambda: old.users == 0)

    def _publish(
        self, servable: ServableId, state: State, error: StatusError | None = None
    ) -> None:
        self._bus.publish(ServableState(servable, state, error))
