"""Asks many nodes at once how they are, and keeps the last answer of each.

Every node is asked by itself: one that is dead, slow, endless or talks nonsense is its own trouble
and neither holds up nor hides the others. A thread that hangs beyond the deadline, as a name server
can make it, is not given a second one beside it. The history of a node is asked for only when its
deployments are other than before.

Times are by the asker's monotonic clock: what a node's own clock says is compared, not trusted.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from reconciler.fleet.answers import Answer, read_answer
from reconciler.status.access import OPEN_ACCESS, Access
from reconciler.status.client import NodeChange, StatusError, fetch_history, fetch_status
from reconciler.threads import run_beside

_log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 2.0
DEADLINE_SECONDS: Final = 3.0
_HISTORY_DEADLINE_SECONDS = 1.0
_HANGS_AFTER_SECONDS = DEADLINE_SECONDS + _HISTORY_DEADLINE_SECONDS + 0.5
"""A node that dies just after an answer is asked again within this, and is known as dead another
such time later at the latest: together less than 10 s."""
_MAX_ASKED_AT_ONCE = 400
_HISTORY_LIMIT = 20
_INSTANCES_REMEMBERED = 8
_NAMESAKE_SECONDS = 60.0
"""How long two agents behind one address are remembered: not every question meets the other."""


@dataclass(frozen=True, slots=True)
class Target:
    """A node that is to be asked."""

    address: str | None
    """host:port or a URL; None where nobody knows."""
    name: str | None = None
    """What git calls it; None where it was given by its address alone."""
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of one node."""

    target: Target
    answer: Answer | None = None
    """The last good one, however old."""
    answered_at: float | None = None
    """When that was, monotonic."""
    trouble: str | None = None
    """Why there was no good answer when it was last asked; None if there was, or none was due."""
    clock_ahead_seconds: float = 0.0
    """How far the node's clock was ahead of the asker's, when it answered."""
    restarts: int = 0
    """How many times another agent answered than before."""
    has_namesake: bool = False
    """Whether two agents answer in turns at this address."""
    changes: tuple[NodeChange, ...] = ()
    """The newest, as of the last time that its deployments were other than before."""


@dataclass(slots=True)
class _Memory:
    """What is remembered of one target beyond what is shown."""

    sighting: Sighting
    asking: "asyncio.Task[None] | None" = None
    instances: deque[str] = field(default_factory=lambda: deque(maxlen=_INSTANCES_REMEMBERED))
    namesake_at: float | None = None
    deployed: Hashable = None
    """What its deployments were when its history was asked for."""


class FleetPoller:
    """Asks the nodes it is told to. Belongs to one event loop."""

    def __init__(
        self,
        *,
        access: Access = OPEN_ACCESS,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._access = access
        self.clock = clock
        self.wall_clock = wall_clock
        self._memories: dict[Target, _Memory] = {}
        self._free = asyncio.Semaphore(_MAX_ASKED_AT_ONCE)

    def follow(self, targets: Iterable[Target]) -> None:
        """Set which nodes are asked; what is known of those that stay is kept."""
        known = self._memories
        self._memories = {
            target: known.get(target) or _Memory(Sighting(target)) for target in targets
        }
        for target in known.keys() - self._memories.keys():
            task = known[target].asking
            if task is not None:
                task.cancel()

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """What is known of each node now, in the order in which they were given."""
        return tuple(memory.sighting for memory in self._memories.values())

    async def ask_all(self) -> None:
        """Ask every node once; done when all have answered or should have."""
        asked = [memory for memory in self._memories.values() if memory.sighting.target.address]
        for memory in asked:
            if memory.asking is None or memory.asking.done():
                memory.asking = asyncio.create_task(self._ask(memory))
        tasks = {memory.asking for memory in asked if memory.asking is not None}
        if not tasks:
            return
        await asyncio.wait(tasks, timeout=_HANGS_AFTER_SECONDS)
        for memory in asked:
            if memory.asking is not None and not memory.asking.done():
                address = memory.sighting.target.address
                sentence = f"{address} has not been found within {_HANGS_AFTER_SECONDS:g} s"
                memory.sighting = replace(memory.sighting, trouble=sentence)

    async def stop(self) -> None:
        """Wait for nobody any more."""
        tasks = [memory.asking for memory in self._memories.values() if memory.asking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, memory: _Memory) -> None:
        address = memory.sighting.target.address or ""
        known, deployed = memory.sighting.changes, memory.deployed

        def ask() -> tuple[Answer, Hashable, tuple[NodeChange, ...]]:
            answer = read_answer(fetch_status(address, DEADLINE_SECONDS, access=self._access))
            newest = _fingerprint(answer)
            is_new = newest != deployed
            return answer, newest, self._ask_history(address, known) if is_new else known

        async with self._free:
            try:
                answer, memory.deployed, changes = await run_beside(ask, f"ask {address}")
            except StatusError as error:
                memory.sighting = replace(memory.sighting, trouble=str(error))
                return
            except Exception as error:  # or the last answer would go on to pass for a new one
                _log.exception("%s could not be asked, please report it as a bug", address)
                words = f"{address} could not be asked ({type(error).__name__})"
                memory.sighting = replace(memory.sighting, trouble=words)
                return
        now = self.clock()
        restarts = memory.sighting.restarts + self._notice(memory, answer.instance, now)
        is_recent = memory.namesake_at is not None and now - memory.namesake_at < _NAMESAKE_SECONDS
        memory.sighting = Sighting(
            target=memory.sighting.target,
            answer=answer,
            answered_at=now,
            clock_ahead_seconds=answer.generated_at_seconds - self.wall_clock(),
            restarts=restarts,
            has_namesake=is_recent,
            changes=changes,
        )

    def _ask_history(self, address: str, known: tuple[NodeChange, ...]) -> tuple[NodeChange, ...]:
        try:
            return tuple(
                fetch_history(address, _HISTORY_DEADLINE_SECONDS, _HISTORY_LIMIT, self._access)
            )
        except StatusError:
            return known  # the node answers: its history is no trouble of the fleet

    @staticmethod
    def _notice(memory: _Memory, instance: str, now: float) -> int:
        """Return 1 where another agent answers than before: it restarted, or there are two."""
        if not instance or (memory.instances and memory.instances[-1] == instance):
            return 0
        is_first = not memory.instances
        if instance in memory.instances:  # one that is gone never comes back
            memory.namesake_at = now
            memory.instances.remove(instance)
        memory.instances.append(instance)
        return 0 if is_first else 1


def _fingerprint(answer: Answer) -> Hashable:
    """Return what differs when the node's history has something new."""
    tellings = (
        (telling.model, telling.phase, telling.wanted, telling.serving)
        for telling in answer.tellings
    )
    return (answer.node, answer.instance, *tellings)
