"""When a look may end before there is a plan: nothing is other than when the last one was made.

A plan is a function of what is seen, what is remembered and the time. On a node at rest the first
two stay as they are for hours, and of time a plan says itself when it would matter. So a look that
finds the same as the one before would only make the same plan again. It is made again now and then
all the same, for what nobody thought of must heal, too.
"""

from dataclasses import dataclass, replace
from operator import attrgetter

from reconciler.model import Served
from reconciler.planning.holds import find_node_hold
from reconciler.planning.memory import Memory
from reconciler.planning.quiet import name_hold
from reconciler.planning.room import DISK_FULL
from reconciler.planning.steps import Plan, World

LONGEST_SECONDS = 30.0
"""After this a plan is made, whatever was seen."""

_SAME = attrgetter("desired", "available", "restart_config")
_EQUAL = attrgetter(
    "git_trouble",
    "source_verified",
    "fetching",
    "pause",
    "peers",
    "namesake",
    "members_trouble",
    "notifications",
    "supervised",
    "server",
)


@dataclass(frozen=True, slots=True)
class Rest:
    """What a plan that left nothing to do was made from, and until when it holds."""

    world: World
    memory: Memory
    until: float


def find_rest(world: World, made: Plan, now: float) -> Rest | None:
    """Return the rest that begins with a plan, None where there is more to be done or seen."""
    if made.in_motion or made.steps or made.relist or made.ask_peers:
        return None
    if not isinstance(world.served, Served) or made.memory.reload_failure is not None:
        return None
    outcomes = (*made.outcomes, *made.removals)
    if any(outcome.reason == DISK_FULL for outcome in outcomes):
        return None  # room is made by others, and nobody says so
    waits = [item.retry_in_seconds for item in outcomes if item.retry_in_seconds is not None]
    return Rest(world, made.memory, now + min((*waits, LONGEST_SECONDS)))


def goes_on(rest: Rest, world: World, memory: Memory, now: float) -> bool:
    """Whether `world` is what the rest began with, as far as a plan depends on it."""
    before = rest.world
    served, was_served = world.served, before.served
    if now >= rest.until or memory is not rest.memory:
        return False
    if not (isinstance(served, Served) and isinstance(was_served, Served)):
        return False
    return (
        served.models is was_served.models
        and served.connection == was_served.connection
        and world.local.versions is before.local.versions
        and world.local.staged == before.local.staged
        and world.local.strays == before.local.strays
        and all(new is old for new, old in zip(_SAME(world), _SAME(before), strict=True))
        and _EQUAL(world) == _EQUAL(before)
        and _name_node_hold(world) == _name_node_hold(before)
    )


def note_look(rest: Rest, now: float) -> Rest:
    """Return the rest after a look that changed nothing: the server has answered."""
    return replace(rest, memory=replace(rest.memory, seen_at=now))


def _name_node_hold(world: World) -> str:
    return name_hold(find_node_hold(world.desired, world.pause, world.wall_seconds))
