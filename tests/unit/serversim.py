"""A small, stepwise model of TensorFlow Serving's config handling, for tests of the rollout.

No threads and no clock: a test calls `reload`, `poll` and `tick` in whatever order it likes, and so
reaches interleavings that a real server shows once a year. It follows release 2.20: a reload is
checked against the states before it, a poll hands on complete sets, a set that mentions a version
that is held but not wanted is postponed, one action a tick, unloads before loads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.model import Ask, ServerConfig, State, VersionStatus


class RefusedError(Exception):
    """The server would answer FAILED_PRECONDITION."""


@dataclass
class Managed:
    state: str = "new"  # new, ready, unloading, error
    aspired: bool = True


@dataclass
class Model:
    managed: dict[int, Managed] = field(default_factory=dict)
    pending: frozenset[int] | None = None


@dataclass
class ServerSim:
    """One server; `bad` names the (model, version) that fail to load."""

    bad: set[tuple[str, int]] = field(default_factory=set)
    on_disk: dict[str, set[int]] = field(default_factory=dict)
    config: dict[str, Ask] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    states: dict[str, dict[int, VersionStatus]] = field(default_factory=dict)
    waiting: frozenset[str] = frozenset()
    """New names that the reload in progress waits for; empty when the lock is free."""
    events: list[tuple[str, int, State]] = field(default_factory=list)
    loads_crash: set[tuple[str, int]] = field(default_factory=set)

    def reload(self, config: ServerConfig) -> None:
        """Take a config; if new names are in it the reload goes on until `is_blocked` is over."""
        assert not self.waiting, "a second reload was sent while one is outstanding"
        for model, ask in config.items():
            for version in ask.labels.values():
                if self._state(model, version) is not State.AVAILABLE:
                    raise RefusedError(model)
        new = config.keys() - self.config.keys()
        for gone in self.config.keys() - config.keys():
            self._model(gone).pending = frozenset()
        self.config = dict(config)
        self.waiting = frozenset(new)
        self.events.clear()

    @property
    def is_blocked(self) -> bool:
        return bool(self.waiting)

    @property
    def seen(self) -> Mapping[str, Mapping[int, VersionStatus]]:
        return {model: dict(states) for model, states in self.states.items()}

    def available(self, model: str) -> set[int]:
        states = self.states.get(model, {})
        return {v for v, status in states.items() if status.state is State.AVAILABLE}

    def poll(self) -> None:
        """Read the folders and hand on each model's complete set."""
        for model, ask in self.config.items():
            self._model(model).pending = ask.versions & self.on_disk.get(model, set())

    def tick(self) -> None:
        """Flush, take pending sets, do one thing."""
        for model in self.models.values():
            model.managed = {
                v: m for v, m in model.managed.items() if m.aspired or m.state in ("ready",)
            }
        for name, model in self.models.items():
            self._take_pending(name, model)
        if not self._unload_one():
            self._load_one()

    def _take_pending(self, name: str, model: Model) -> None:
        wanted = model.pending
        if wanted is None:
            return
        if any(v in wanted and not m.aspired for v, m in model.managed.items()):
            return  # postponed as a whole, until that version is gone
        model.pending = None
        for version, managed in model.managed.items():
            managed.aspired = version in wanted
        for version in sorted(wanted - model.managed.keys()):
            model.managed[version] = Managed()
            self._publish(name, version, VersionStatus(State.START))

    def _unload_one(self) -> bool:
        for name, model in self.models.items():
            leaving = sorted(
                v for v, m in model.managed.items() if not m.aspired and m.state == "ready"
            )
            wanted = [m for m in model.managed.values() if m.aspired]
            if leaving and (
                not wanted or any(m.state == "ready" for m in wanted) or len(leaving) > 1
            ):
                del model.managed[leaving[0]]
                self._publish(name, leaving[0], VersionStatus(State.END))
                return True
        return False

    def _load_one(self) -> None:
        for name, model in self.models.items():
            new = sorted(v for v, m in model.managed.items() if m.aspired and m.state == "new")
            if not new:
                continue
            version = new[-1]
            if (name, version) in self.bad:
                model.managed[version].state = "error"
                self._publish(name, version, VersionStatus(State.END, "OUT_OF_RANGE", "junk"))
            else:
                model.managed[version].state = "ready"
                self._publish(name, version, VersionStatus(State.AVAILABLE))
            return

    def _publish(self, model: str, version: int, status: VersionStatus) -> None:
        self.states.setdefault(model, {})[version] = status
        if status.state in (State.AVAILABLE, State.END):
            self.waiting -= {model}

    def _state(self, model: str, version: int) -> State | None:
        status = self.states.get(model, {}).get(version)
        return status.state if status else None

    def _model(self, name: str) -> Model:
        return self.models.setdefault(name, Model())

    def restart(self, config: ServerConfig) -> None:
        """Start again from a config file; every model in it must come up."""
        self.models, self.states, self.waiting = {}, {}, frozenset()
        self.config = dict(config)
        self.poll()
        for _ in range(50):
            self.tick()
        for model, ask in config.items():
            assert self.available(model), f"{model} {ask} keeps the server from starting"
