"""Why a model is to be left as it is: the node is paused, something is suspended, a freeze is on.

A freeze lets three things through. A version that served here before may come back, because a
freeze must never stand in the way of a rollback. A change that the node had begun goes on to its
end, because half of one can be worse than either side of it. And a node without any past, one that
replaces a broken machine, takes up what git says.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from reconciler.model import Deployment, Desired, Pause
from reconciler.planning.freeze import find_freeze
from reconciler.planning.memory import Memory, ModelMemory
from reconciler.planning.rollout import Goal

PAUSED = "Paused"
SUSPENDED = "Suspended"
FROZEN = "Frozen"
HOLD_REASONS = frozenset({PAUSED, SUSPENDED, FROZEN})


@dataclass(frozen=True, slots=True)
class Hold:
    """Why something is left as it is: the reason word and a sentence."""

    reason: str
    sentence: str
    ends_in_seconds: float | None = None
    """When it ends by itself; None where a commit has to end it."""


def find_node_hold(desired: Desired, pause: Pause | None, wall_seconds: float) -> Hold | None:
    """Return what holds the whole node at `wall_seconds` (Unix time), the strongest first."""
    if pause is not None and wall_seconds < pause.until_seconds:
        until = _show(pause.until_seconds, "UTC")
        sentence = f"this node is paused until {until}: {pause.reason}"
        return Hold(PAUSED, sentence, pause.until_seconds - wall_seconds)
    group = desired.group
    if group is None:
        return None
    if group.suspend:
        return Hold(SUSPENDED, f"suspend: true in {group.path}")
    frozen = find_freeze(desired.policy.freezes, group.name, wall_seconds)
    if frozen is not None:
        until = _show(frozen.until_seconds, frozen.timezone)
        sentence = f"frozen until {until}: {frozen.reason}"
        return Hold(FROZEN, sentence, frozen.until_seconds - wall_seconds)
    return None


def find_hold(
    deployment: Deployment,
    goal: Goal,
    known: ModelMemory,
    node_hold: Hold | None,
    *,
    admitted: bool,
    brings_other_bytes: bool = False,
) -> Hold | None:
    """Return what holds one deployment, None where it may be carried out.

    `admitted` tells whether the node had begun with just this before, or has no past at all;
    `brings_other_bytes` whether a version that is here would be replaced under its number.
    """
    if deployment.suspend and (node_hold is None or node_hold.reason != PAUSED):
        return Hold(SUSPENDED, f"suspend: true in {deployment.path}")
    if node_hold is None or node_hold.reason != FROZEN:
        return node_hold
    is_back = has_served(goal, known) and not deployment.stop and not brings_other_bytes
    # `latest` without a lock asks the same for ever; what it comes to may be new.
    is_same = admitted and (deployment.named_version is not None or not _find_served(known))
    return None if is_back or is_same else node_hold


def has_served(goal: Goal, known: ModelMemory) -> bool:
    """Whether everything that is wanted has served on this node before."""
    return bool(goal.versions) and goal.versions <= _find_served(known)


def _find_served(known: ModelMemory) -> set[int]:
    return {*known.proven, *(known.good.versions if known.good else ())}


def has_no_past(memory: Memory) -> bool:
    """Whether this node has never carried out anything."""
    return not any(known.admitted or known.proven or known.good for known in memory.models.values())


def _show(seconds: float, timezone: str) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC).astimezone(ZoneInfo(timezone))
    except (OverflowError, OSError, ValueError):
        return "an end that no calendar has"
    return f"{moment:%a %Y-%m-%d %H:%M} {timezone}"
