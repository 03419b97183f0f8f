"""When TensorFlow Serving itself must be restarted, and when that would do harm.

Two things end only with the server (2.20 source, server_core.cc and
file_system_storage_path_source.cc): a config without a platform that another client had it store,
after which it refuses every other one, and a reload that waits for a folder which never comes. A
restart brings the server up with its config file, so it is safe as long as that file names what is
served and the files are there. Neither is a load that still goes on worth breaking off: it may end
well, and a restart would begin it again.
"""

from dataclasses import dataclass

from reconciler.model import Served, ServerSpec, State, Unavailable
from reconciler.planning.conditions import RELOAD_STUCK, SERVER_POISONED, SERVING_ACCEPTS
from reconciler.planning.events import RELOAD_UNANSWERED
from reconciler.planning.holds import FROZEN, Hold, find_node_hold
from reconciler.planning.memory import Memory, is_available, without_ghosts
from reconciler.planning.server_turns import find_turn_hold
from reconciler.planning.steps import Limits, Plan, World
from reconciler.planning.trial_names import is_trial
from reconciler.planning.wording import join_words

STUCK_SECONDS = 600.0
"""A reload without an answer for so long, while nothing is being loaded, will have none."""
_RESTART_HELPS = frozenset({SERVER_POISONED, RELOAD_STUCK, RELOAD_UNANSWERED})


@dataclass(frozen=True, slots=True)
class RestartNeed:
    """Only a restart of the server helps."""

    reason: str
    """Of the condition ServingAccepts."""
    obstacle: str | None
    """Why it must not be restarted now; None where it may."""


@dataclass(frozen=True, slots=True)
class ServerSight:
    """What one tick knows of the server that matters to whoever looks after its container."""

    need: RestartNeed | None
    wanted: ServerSpec | None
    """What git says of the server; None where it says nothing."""
    hold: str | None
    """Who wants the node left as it is: a pause, `suspend` or a freeze."""
    obstacle: str | None
    """What stopping the server now would cost."""
    serves_proven: bool
    """Whether it serves all that its config file holds."""
    connection: int | None
    """The connection by which this was seen; None where the server did not answer."""
    turn: Hold | None = None
    """Which other node comes first, where it is not this one's turn to replace its server."""


def sight_server(world: World, made: Plan, limits: Limits, now: float) -> ServerSight:
    """Return what is to be known of the server, by the plan that was `made` from `world`."""
    hold = find_node_hold(world.desired, world.pause, world.wall_seconds)
    group, served = world.desired.group, world.served
    return ServerSight(
        need=find_restart_need(world, made, limits, now),
        wanted=group.serving if group else None,
        hold=hold.sentence if hold else None,
        obstacle=find_obstacle(world, made.memory, limits, now),
        serves_proven=serves_proven(world),
        connection=None if isinstance(served, Unavailable) else served.connection,
        turn=None if serves_nothing(world) else find_turn_hold(world.desired, world.peers or {}),
    )


def find_restart_need(world: World, made: Plan, limits: Limits, now: float) -> RestartNeed | None:
    """Return whether only a restart helps, by the plan that was `made` from `world` at `now`."""
    accepts = next(item for item in made.conditions if item.name == SERVING_ACCEPTS)
    if accepts.holds or accepts.reason not in _RESTART_HELPS:
        return None
    memory = made.memory
    if accepts.reason == RELOAD_STUCK and not _is_overdue(memory, now):
        return None
    obstacle = _find_restart_hold(world) or find_obstacle(world, memory, limits, now)
    if obstacle is None and accepts.reason != SERVER_POISONED:
        obstacle = _find_blindness(world, memory)
    return RestartNeed(accepts.reason, obstacle)


def find_obstacle(world: World, memory: Memory, limits: Limits, now: float) -> str | None:
    """Return what stopping the server now would cost that it does not get back by itself."""
    if isinstance(world.served, Unavailable):
        return f"what the server serves is not known: {world.served.sentence}"
    seen = without_ghosts(memory, world.served.models, now, limits.poll_seconds)
    loading = [
        f"{model} {version}"
        for model, versions in sorted(seen.items())
        for version, status in sorted(versions.items())
        if status.state in (State.START, State.LOADING)
    ]
    if loading:
        return f"{join_words(loading)} is being loaded, which may end"
    lost = _find_lost(world, world.served, memory)
    if lost:
        return (
            f"{join_words(lost)} would not come back: the config file that the server starts from"
            " does not name it, or its files are not as they were installed"
        )
    return None


def serves_nothing(world: World) -> bool:
    """Whether the server answers and has nothing that could be asked: it can go at any time."""
    served = world.served
    return not isinstance(served, Unavailable) and not any(
        is_available(status) for versions in served.models.values() for status in versions.values()
    )


def serves_proven(world: World) -> bool:
    """Whether the server answers and serves all that its config file holds."""
    served = world.served
    if isinstance(served, Unavailable):
        return False
    return all(
        is_available(served.models.get(model, {}).get(version))
        for model, ask in (world.restart_config or {}).items()
        for version in ask.versions
    )


def _is_overdue(memory: Memory, now: float) -> bool:
    started_at = memory.reload_started_at
    return started_at is not None and now - started_at >= STUCK_SECONDS


def _find_restart_hold(world: World) -> str | None:
    """Return what forbids even a repair; a freeze does not: it holds wishes, not machines."""
    hold = find_node_hold(world.desired, world.pause, world.wall_seconds)
    return hold.sentence if hold and hold.reason != FROZEN else None


def _find_lost(world: World, served: Served, memory: Memory) -> list[str]:
    """Return the served versions that a restarted server would not serve.

    What is no longer asked for may go, but not the last version of a model that is to stay.
    """
    lost = []
    for model, versions in sorted(served.models.items()):
        available = {v for v, status in versions.items() if is_available(status)}
        known = memory.of(model)
        if is_trial(model) or not available or (known.asked is None and known.good is None):
            continue
        entry = (world.restart_config or {}).get(model)
        installed = world.local.versions.get(model, {})
        kept = {
            version
            for version in (entry.versions if entry else ())
            if version in installed and installed[version].intact
        }
        wanted = available & known.asked.versions if known.asked else frozenset()
        missing = wanted - kept or (available if not available & kept else frozenset())
        lost += [f"{model} {version}" for version in sorted(missing)]
    return lost


def _find_blindness(world: World, memory: Memory) -> str | None:
    """Return why it is not sure that a restarted server would find the models folder.

    A reload also hangs where the agent names a folder that the server does not see. A server
    that then starts from a file with that folder serves nothing at all.
    """
    if isinstance(world.served, Unavailable):
        return world.served.sentence
    known = [memory.of(model) for model in world.served.models]
    if any(item.available for item in known) and not any(
        item.available - item.adopted for item in known
    ):
        return (
            "all that it serves was loaded before this agent came, so whether it sees the models"
            " folder as RECONCILER_SERVING_MODELS_DIR says is not known; restart it by hand"
        )
    return None
