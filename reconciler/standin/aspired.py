"""Brings what is served towards what should be served, by one action per tick over all models.

Every tick drops what is over, takes the sets of versions that arrived since, and loads or unloads
one version (TensorFlow Serving 2.20 source, core/aspired_versions_manager.cc and
core/availability_preserving_policy.cc). Two rules here are behind most surprises:

- A set that names a version which is still managed but no longer wanted waits as a whole until
  that version is gone; a newer set of the same model replaces it. If the version cannot go,
  because its successor failed and it alone still serves, the set waits for ever.
- A version that failed is not tried again while it stays in the set.
"""

import threading
from collections.abc import Iterable

from reconciler.standin.manager import Managed, Manager, Phase
from reconciler.standin.source import AspiredVersion
from reconciler.standin.threads import PeriodicFunction


class AspiredVersionsManager:
    """Keeps one pending set per model and ticks."""

    def __init__(self, manager: Manager, tick_seconds: float) -> None:
        self._manager = manager
        self._tick_lock = threading.Lock()
        self._pending_lock = threading.Lock()
        self._pending: dict[str, tuple[AspiredVersion, ...]] = {}
        self._ticking = PeriodicFunction(self.tick, tick_seconds, "manage-state")

    def set_aspired(self, name: str, versions: tuple[AspiredVersion, ...]) -> None:
        """Make `versions` the set that the model should have; it replaces one still pending."""
        with self._pending_lock:
            self._pending[name] = versions

    def tick(self) -> None:
        """Drop what is over, take pending sets, carry out one action."""
        with self._tick_lock:
            self._drop_finished()
            with self._pending_lock:
                self._take_pending()
            self._act()

    def _drop_finished(self) -> None:
        for versions in self._manager.snapshot().values():
            for managed in versions:
                over = managed.phase in (Phase.NEW, Phase.DISABLED, Phase.ERROR)
                if over and not managed.aspired:
                    self._manager.drop(managed)

    def _take_pending(self) -> None:
        for name in sorted(self._pending):
            wanted = {aspired.version for aspired in self._pending[name]}
            managed = {item.id.version: item for item in self._manager.snapshot().get(name, [])}
            if any(not item.aspired and number in wanted for number, item in managed.items()):
                continue  # wanted again before it was gone: the set waits
            for number, item in managed.items():
                if number not in wanted:
                    self._manager.unaspire(item)
            for aspired in self._pending.pop(name):
                if aspired.version not in managed:
                    self._manager.manage(name, aspired)

    def _act(self) -> None:
        loads: list[Managed] = []
        for versions in self._manager.snapshot().values():
            managed, unload = choose_action(versions)
            if managed is not None and unload:
                return self._manager.unload(managed)
            if managed is not None:
                loads.append(managed)
        if loads:
            self._manager.load(loads[0])
        return None


def choose_action(versions: Iterable[Managed]) -> tuple[Managed | None, bool]:
    """Return the version of one model to act on, if any, and whether to unload it.

    Availability first: while nothing wanted is ready, one unwanted version is kept.
    """
    versions = sorted(versions, key=lambda managed: managed.id)
    wanted = [managed for managed in versions if managed.aspired]
    leaving = [item for item in versions if not item.aspired and item.phase is Phase.READY]
    can_spare = not wanted or any(item.phase is Phase.READY for item in wanted) or len(leaving) > 1
    if leaving and can_spare:
        return leaving[0], True
    new = [managed for managed in wanted if managed.phase is Phase.NEW]
    return (new[-1] if new else None), False
