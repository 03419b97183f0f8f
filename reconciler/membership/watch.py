"""Keeps the members of those groups whose nodes git does not list.

Each group's registry is asked every 5 seconds, larger groups less often: a hundred nodes ask every
10 seconds, so that neither the registry nor, with DNS, the nodes themselves get more questions
than a fleet of that size is worth. Questions run side by side, and a registry that is slow holds
up nobody else's group.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ReconcilerError
from reconciler.membership.memory import MemberMemory
from reconciler.membership.registry import UNREACHABLE, Registries, describe
from reconciler.membership.tracker import MemberTracker
from reconciler.model import Group, Member, Membership, Unavailable

_log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 5.0
_INTERVAL_SECONDS_PER_MEMBER = 0.1
_DEADLINE_SECONDS = 60.0
"""For one question with all that belongs to it; each registry has shorter ones for its parts."""
_JITTER = 0.1


@dataclass(slots=True)
class _Entry:
    membership: Membership
    due_at: float
    asking: asyncio.Task[tuple[Member, ...] | Unavailable] | None = None


class MembershipWatch:
    """Who is in each group, as far as its registry has said."""

    def __init__(
        self, registries: Registries, *, state_file: Path, clock: Callable[[], float]
    ) -> None:
        self._registries = registries
        self._clock = clock
        self._memory = MemberMemory(state_file)
        self._trackers = {
            group: MemberTracker(members) for group, members in self._memory.load().items()
        }
        self._entries: dict[str, _Entry] = {}
        self._timeout_seconds = 0.0

    @property
    def members(self) -> Mapping[str, tuple[Member, ...]]:
        """Group name -> its members by name, for the groups of which something is known."""
        return {
            group: tracker.members for group, tracker in self._trackers.items() if tracker.members
        }

    @property
    def troubles(self) -> Mapping[str, Unavailable]:
        """Group name -> why its members may not be the newest."""
        return {
            group: Unavailable(
                trouble.reason,
                f"group {group}, looked up as {describe(self._entries[group].membership)}:"
                f" {trouble.sentence}",
            )
            for group, tracker in self._trackers.items()
            if (trouble := tracker.trouble) is not None
        }

    @property
    def answered(self) -> bool:
        """Whether of each group something is known: its members, or why they are not."""
        return all(tracker.members or tracker.trouble for tracker in self._trackers.values())

    def want(self, groups: Iterable[Group], member_timeout_seconds: float) -> bool:
        """Set whose members are to be kept; return whether something is due.

        Groups that git lists the nodes of are passed over.
        """
        self._timeout_seconds = member_timeout_seconds
        wanted = {group.name: group.membership for group in groups if group.membership}
        for name in self._entries.keys() - wanted.keys():
            self._stop_asking(self._entries.pop(name))
        self._trackers = {
            name: self._trackers.get(name, MemberTracker()) for name in sorted(wanted)
        }
        for name, membership in wanted.items():
            entry = self._entries.get(name)
            if entry is not None and entry.membership != membership:
                # What one query listed says nothing of who is missing from another.
                self._trackers[name] = MemberTracker(self._trackers[name].members)
                self._stop_asking(entry)
            if entry is None or entry.membership != membership:
                self._entries[name] = _Entry(membership, self._clock())
        return self.next_due_seconds() <= 0

    def next_due_seconds(self) -> float:
        """Return how long `refresh` has nothing to do or wait for, negative when overdue."""
        if any(entry.asking for entry in self._entries.values()):
            return 0.0
        return self._seconds_to_question()

    async def refresh(self) -> bool:
        """Ask what is due, wait for an answer and return whether anything is other than before.

        Returns with the first answer, or when another question is due; what is still being asked
        goes on and is taken up by a later call.
        """
        now = self._clock()
        for name, entry in self._entries.items():
            if entry.asking is None and entry.due_at <= now:
                entry.asking = asyncio.create_task(
                    self._ask(entry.membership), name=f"members of {name}"
                )
        asking = [entry.asking for entry in self._entries.values() if entry.asking]
        if not asking:
            return False
        await asyncio.wait(
            asking, timeout=self._seconds_to_question(), return_when=asyncio.FIRST_COMPLETED
        )
        changes = [self._fold(name, entry) for name, entry in self._entries.items()]
        self._memory.save(self.members)
        return any(changes)

    async def close(self) -> None:
        """Give up what is being asked."""
        asking = [entry.asking for entry in self._entries.values() if entry.asking]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, membership: Membership) -> tuple[Member, ...] | Unavailable:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return await self._registries.open(membership.registry).list(membership)
        except ReconcilerError as error:
            return Unavailable(error.reason, str(error))
        except TimeoutError:
            return Unavailable(UNREACHABLE, f"no answer came within {_DEADLINE_SECONDS:.0f} s")

    def _fold(self, name: str, entry: _Entry) -> bool:
        """Take up the answer about a group, if it has come."""
        if entry.asking is None or not entry.asking.done():
            return False
        answer, entry.asking = entry.asking.result(), None
        now, before = self._clock(), self._trackers[name]
        if isinstance(answer, Unavailable):
            tracker = before.miss(answer.reason, answer.sentence)
        else:
            tracker = before.take(answer, now, self._timeout_seconds)
        self._trackers[name] = tracker
        if tracker.trouble is not None and tracker.trouble != before.trouble:
            _log.warning("%s", self.troubles[name].sentence)
        _log_change(name, before.members, tracker.members)
        interval_seconds = max(
            _INTERVAL_SECONDS, len(tracker.members) * _INTERVAL_SECONDS_PER_MEMBER
        )
        entry.due_at = now + interval_seconds * random.uniform(1, 1 + _JITTER)  # noqa: S311
        return (before.members, before.trouble) != (tracker.members, tracker.trouble)

    def _seconds_to_question(self) -> float:
        """Return how long no further question is due."""
        waiting = [entry.due_at for entry in self._entries.values() if entry.asking is None]
        return max(0.0, min(waiting) - self._clock()) if waiting else _INTERVAL_SECONDS

    @staticmethod
    def _stop_asking(entry: _Entry) -> None:
        if entry.asking is not None:
            entry.asking.cancel()


def _log_change(name: str, before: tuple[Member, ...], after: tuple[Member, ...]) -> None:
    old, new = ({member.name for member in members} for members in (before, after))
    if new - old:
        _log.info("joined group %s: %s", name, ", ".join(sorted(new - old)))
    if old - new:
        _log.info("left group %s: %s", name, ", ".join(sorted(old - new)))
