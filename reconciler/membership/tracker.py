"""Who counts as a member, given what a registry says time and again.

A node that is listed counts at once. One that is listed no more stays a member until it was seen
missing for the member timeout, so that a restart of a machine or a hiccup of the orchestrator
moves no model. Only answers count: the time in which the registry could not be asked proves
nothing about anybody, nor does the first answer after it. An empty list is never believed: a
mistyped label must not take the models from every node at once.

Pure: no I/O, and the time is given.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.model import Member, Unavailable

EMPTY = "RegistryEmpty"
"""The registry lists no node at all, which is not believed."""
DUPLICATE = "DuplicateMember"
"""The registry lists two nodes by one name."""


@dataclass(frozen=True, slots=True)
class MemberTracker:
    """A group's members, as far as its registry is believed."""

    members: tuple[Member, ...] = ()
    """Sorted by name; empty until the registry has answered once."""
    trouble: Unavailable | None = None
    """What is wrong with the newest answer, or why there is none."""
    missing_seconds: Mapping[str, float] = field(default_factory=dict)
    """Member -> how long answer after answer has not listed it."""
    answered_at: float | None = None
    """When the newest answer came; None where the newest question got none."""

    def take(self, listed: Iterable[Member], now: float, timeout_seconds: float) -> "MemberTracker":
        """Return who are members after an answer."""
        found: dict[str, Member] = {}
        doubles: list[tuple[Member, Member]] = []
        for member in sorted(listed, key=lambda member: (member.name, member.address or "")):
            if member.name not in found:
                found[member.name] = member
            elif member != found[member.name]:
                doubles.append((found[member.name], member))
        if not found:
            return self.miss(EMPTY, "it lists no node, which is not believed; check the query")
        passed = 0.0 if self.answered_at is None else max(0.0, now - self.answered_at)
        missing = {
            member.name: self.missing_seconds[member.name] + passed
            if member.name in self.missing_seconds
            else 0.0
            for member in self.members
            if member.name not in found
        }
        missing = {name: seconds for name, seconds in missing.items() if seconds < timeout_seconds}
        staying = (member for member in self.members if member.name in missing)
        return MemberTracker(
            members=tuple(sorted((*found.values(), *staying), key=lambda member: member.name)),
            trouble=_describe_double(*doubles[0]) if doubles else None,
            missing_seconds=missing,
            answered_at=now,
        )

    def miss(self, reason: str, sentence: str) -> "MemberTracker":
        """Return who are members after a question that got no answer to go by: the same."""
        return replace(
            self,
            trouble=Unavailable(reason, f"{sentence}; {self._meanwhile}"),
            answered_at=None,
        )

    @property
    def _meanwhile(self) -> str:
        count = len(self.members)
        if not count:
            return "until it lists some, the group's members are not known"
        return f"meanwhile the group keeps the {count} member{'s'[: count != 1]} known last"


def _describe_double(first: Member, second: Member) -> Unavailable:
    return Unavailable(
        DUPLICATE,
        f"it lists two nodes as {first.name}, at {first.address} and {second.address}; give each"
        f" a name of its own (RECONCILER_NODE); meanwhile {first.address} is taken for it",
    )
