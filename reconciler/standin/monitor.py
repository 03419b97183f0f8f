"""What GetModelStatus shows: the last state that was published for each version, for ever.

Nothing here is ever forgotten while the process lives, so a model that was removed long ago still
answers with its END entries. A reload waits on a monitor of its own that starts empty, which is
how it tells a new load from an old one - and why it waits for ever for a model that has nothing
new to say (ServableStateMonitor).
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from reconciler.standin.errors import StatusError


@dataclass(frozen=True, slots=True, order=True)
class ServableId:
    """One version of one model. The path it is loaded from is not part of it."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"


class State(IntEnum):
    """The states of GetModelStatus, by their wire numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class ServableState:
    """One published state; `error` is set on the END of a version that failed."""

    id: ServableId
    state: State
    error: StatusError | None = None


class EventBus:
    """Hands every published state to every subscriber, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: list[Callable[[ServableState], None]] = []

    def subscribe(self, subscriber: Callable[[ServableState], None]) -> None:
        """Hand all later states to `subscriber`."""
        with self._lock:
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[ServableState], None]) -> None:
        """Stop doing so."""
        with self._lock:
            self._subscribers.remove(subscriber)

    def publish(self, state: ServableState) -> None:
        """Hand `state` to the subscribers before returning."""
        with self._lock:
            for subscriber in self._subscribers:
                subscriber(state)


class StateMonitor:
    """The last state of every version since the monitor was made."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self._lock = threading.Lock()
        self._states: dict[str, dict[int, ServableState]] = {}
        self._waiters: list[_Waiter] = []
        bus.subscribe(self._handle)

    def close(self) -> None:
        """Take no further states."""
        self._bus.unsubscribe(self._handle)

    def state(self, servable: ServableId) -> ServableState | None:
        """Return the last state of one version."""
        with self._lock:
            return self._states.get(servable.name, {}).get(servable.version)

    def versions(self, name: str) -> list[ServableState]:
        """Return the last states of all versions of a model, the highest version first."""
        with self._lock:
            return self._descending(name)

    def wait_until_decided(self, names: Iterable[str]) -> dict[ServableId, ServableState]:
        """Wait until every model has some version AVAILABLE or END; return the deciding ones.

        There is no deadline. The first version to get there decides; of several it is the highest.
        """
        waiter = _Waiter(tuple(names), threading.Event(), {})
        with self._lock:
            self._waiters.append(waiter)
            self._notify()
        waiter.decided.wait()
        return waiter.reached

    def _handle(self, state: ServableState) -> None:
        with self._lock:
            self._states.setdefault(state.id.name, {})[state.id.version] = state
            self._notify()

    def _notify(self) -> None:
        # At the event, not when a waiter wakes up: by then the state may be another one.
        for waiter in list(self._waiters):
            reached = [self._deciding(name) for name in waiter.names]
            if all(reached):
                waiter.reached.update((state.id, state) for state in reached if state)
                self._waiters.remove(waiter)
                waiter.decided.set()

    def _deciding(self, name: str) -> ServableState | None:
        return next(
            (
                state
                for state in self._descending(name)
                if state.state in (State.AVAILABLE, State.END)
            ),
            None,
        )

    def _descending(self, name: str) -> list[ServableState]:
        return [state for _, state in sorted(self._states.get(name, {}).items(), reverse=True)]


@dataclass(frozen=True, slots=True)
class _Waiter:
    names: tuple[str, ...]
    decided: threading.Event
    reached: dict[ServableId, ServableState]
