"""The yes-or-no facts about a node: what holds, and what a person should look at.

`holds` is True when all is well. Every condition is there at every look, so that an alert can name
one and its absence is never mistaken for health.
"""

from collections.abc import Collection, Mapping

from reconciler.model import (
    Available,
    Condition,
    Desired,
    Local,
    LocalVersion,
    Outcome,
    Served,
    Unavailable,
)
from reconciler.planning.holds import HOLD_REASONS, PAUSED, Hold
from reconciler.planning.memory import Memory
from reconciler.planning.retention import REMOVALS_HELD, Leaving
from reconciler.planning.steps import World
from reconciler.planning.wording import format_seconds

GIT_REACHABLE = "GitReachable"
SOURCE_VERIFIED = "SourceVerified"
CONFIG_VALID = "ConfigValid"
NODE_KNOWN = "NodeKnown"
MEMBERS_KNOWN = "MembersKnown"
NAME_UNIQUE = "NameUnique"
BUCKET_REACHABLE = "BucketReachable"
NOTIFICATIONS_READ = "NotificationsRead"
SERVING_REACHABLE = "ServingReachable"
SERVING_ACCEPTS = "ServingAccepts"
REMOVALS_ALLOWED = "RemovalsAllowed"
MODELS_INTACT = "ModelsIntact"
CHANGES_ALLOWED = "ChangesAllowed"

SERVER_SUPERVISED = "ServerSupervised"

SERVER_POISONED = "ServerPoisoned"
RELOAD_STUCK = "ReloadStuck"
SLOW_RELOAD_SECONDS = 30.0
_WELL = "AsExpected"
# TensorFlow Serving 2.20 stores a config before it has checked the platforms of its new models;
# from then on every reload fails while reading what is stored, until a restart.
_POISONED = ("Illegal setting neither", "Illegal setting both")
SIGNATURES_OFF = Condition(SOURCE_VERIFIED, True, _WELL, "no commit needs to be signed")
NOT_NOTIFIED = Condition(
    NOTIFICATIONS_READ,
    True,
    "Off",
    "no bucket tells this node of uploads, its sources are polled",
)
NOT_SUPERVISED = Condition(
    SERVER_SUPERVISED,
    True,
    "Off",
    "the server's container is left to whoever runs it (RECONCILER_SUPERVISE is off)",
)


def find_conditions(
    world: World, memory: Memory, leaving: Leaving, elsewhere: tuple[str, ...], now: float
) -> tuple[Condition, ...]:
    """Return the conditions of the snapshots, in the order in which trouble spreads."""
    return (
        _git(world.desired, world.git_trouble),
        world.source_verified or SIGNATURES_OFF,
        _config(world.desired),
        _node(world.desired),
        _members(world.desired, world.members_trouble),
        _name(world.desired, world.namesake),
        _bucket(world.available),
        world.notifications or NOT_NOTIFIED,
        _reachable(world.served),
        _accepts(memory, elsewhere, now),
        world.supervised or NOT_SUPERVISED,
        _removals(leaving),
        _intact(world.local),
    )


def find_change_condition(hold: Hold | None, outcomes: Collection[Outcome]) -> Condition:
    """Return whether changes are carried out; False where one waits, and during any pause."""
    held = {outcome.reason for outcome in outcomes} & HOLD_REASONS
    waiting = sorted(o.deployment.model for o in outcomes if o.reason in (*held, REMOVALS_HELD))
    if hold is None and not held:
        return Condition(CHANGES_ALLOWED, True, _WELL, "changes are carried out at once")
    reason = hold.reason if hold else min(held)
    sentence = hold.sentence if hold else "some deployments are suspended"
    if not waiting and reason != PAUSED:
        return Condition(CHANGES_ALLOWED, True, reason, f"{sentence}; nothing waits for it")
    verb = "waits" if len(waiting) == 1 else "wait"
    what = f"{', '.join(waiting)} {verb}" if waiting else "nothing is changed on this node"
    return Condition(CHANGES_ALLOWED, False, reason, f"{sentence}; {what}")


def _git(desired: Desired, trouble: Unavailable | None) -> Condition:
    if trouble is None:
        return Condition(GIT_REACHABLE, True, _WELL, "the config repo was fetched")
    sentence = f"{trouble.sentence}; commit {desired.commit.id[:8]} stays in force"
    return Condition(GIT_REACHABLE, False, trouble.reason, sentence)


def _config(desired: Desired) -> Condition:
    if not desired.problems:
        return Condition(CONFIG_VALID, True, _WELL, "every file of the config repo is valid")
    more = len(desired.problems) - 1
    sentence = (
        f"{desired.problems[0]}{f' (and {more} more)' if more else ''}; the last valid text of"
        " such a file stays in force, and no model is removed meanwhile"
    )
    return Condition(CONFIG_VALID, False, "InvalidConfig", sentence)


def _node(desired: Desired) -> Condition:
    if desired.group is not None:
        sentence = f"node {desired.node} belongs to group {desired.group.name}"
        return Condition(NODE_KNOWN, True, _WELL, sentence)
    sentence = (
        f"no group names node {desired.node!r}; add it to a file in groups/, or give the agent the"
        " name that stands there (RECONCILER_NODE); nothing is removed meanwhile"
    )
    return Condition(NODE_KNOWN, False, "NodeUnknown", sentence)


def _members(desired: Desired, trouble: Unavailable | None) -> Condition:
    if trouble is not None:
        return Condition(MEMBERS_KNOWN, False, trouble.reason, trouble.sentence)
    group = desired.group
    where = f"{group.membership.registry} says" if group and group.membership else "git lists"
    return Condition(MEMBERS_KNOWN, True, _WELL, f"{where} which nodes the group has")


def _name(desired: Desired, namesake: Unavailable | None) -> Condition:
    if namesake is not None:
        return Condition(NAME_UNIQUE, False, namesake.reason, namesake.sentence)
    return Condition(NAME_UNIQUE, True, _WELL, f"no other agent calls itself {desired.node}")


def _bucket(available: Available) -> Condition:
    # A source may be asked for all versions (None) and for one: the two do not compare.
    queries = sorted(available.troubles, key=lambda query: (query.source, query.version or 0))
    troubles = [available.troubles[query] for query in queries]
    if troubles:
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        return Condition(BUCKET_REACHABLE, False, troubles[0].reason, troubles[0].sentence + more)
    return Condition(BUCKET_REACHABLE, True, _WELL, "every listing that is needed was read")


def _reachable(served: Served | Unavailable) -> Condition:
    if isinstance(served, Unavailable):
        return Condition(SERVING_REACHABLE, False, served.reason, served.sentence)
    return Condition(SERVING_REACHABLE, True, _WELL, "TensorFlow Serving answers")


def _accepts(memory: Memory, elsewhere: tuple[str, ...], now: float) -> Condition:
    if elsewhere:
        sentence = (
            f"the server serves {', '.join(elsewhere)} from a folder that is not in this agent's"
            " models folder; it is told nothing until their versions are moved there, or it is"
            " restarted without them"
        )
        return Condition(SERVING_ACCEPTS, False, "ServedFromElsewhere", sentence)
    failure = memory.reload_failure
    if failure is not None:
        if any(words in failure.message for words in _POISONED):
            sentence = (
                f"TensorFlow Serving refuses every config ({failure.message}) because another"
                " client sent it one without a platform; only a restart of the server helps:"
                " models go on being served, and it will come up with what worked last"
            )
            return Condition(SERVING_ACCEPTS, False, SERVER_POISONED, sentence)
        sentence = (
            f"TensorFlow Serving did not take the last config: {failure.message}; tried again in"
            f" {format_seconds(max(0.0, failure.retry_at - now))}"
        )
        return Condition(SERVING_ACCEPTS, False, failure.reason or "ReloadFailed", sentence)
    if memory.reload_started_at is not None:
        age_seconds = now - memory.reload_started_at
        if age_seconds > SLOW_RELOAD_SECONDS:
            sentence = (
                f"a reload has been without an answer for {format_seconds(age_seconds)}: a new"
                " model is still being loaded, or the server does not see its folder"
                " (RECONCILER_SERVING_MODELS_DIR), or a folder of a configured model is missing."
                " Models go on being served, no change is possible until it ends; if it never"
                " does, restart the server"
            )
            return Condition(SERVING_ACCEPTS, False, RELOAD_STUCK, sentence)
    return Condition(SERVING_ACCEPTS, True, _WELL, "no reload is refused or overdue")


def _removals(leaving: Leaving) -> Condition:
    if not leaving.models or leaving.held_because is None:
        return Condition(REMOVALS_ALLOWED, True, _WELL, "no removal is held back")
    verb = "stays" if len(leaving.models) == 1 else "stay"
    sentence = f"{', '.join(leaving.models)} left git and {verb} here: {leaving.held_because}"
    return Condition(REMOVALS_ALLOWED, False, REMOVALS_HELD, sentence)


def _intact(local: Local) -> Condition:
    damaged = _damaged(local.versions)
    if damaged:
        sentence = f"{', '.join(damaged)} on disk is not what was installed; it is fetched again"
        return Condition(MODELS_INTACT, False, "Damaged", sentence)
    if local.strays:
        sentence = (
            f"{', '.join(local.strays[:5])} in the models folder was not put there by this agent;"
            " move it away, TensorFlow Serving may take it for a version"
        )
        return Condition(MODELS_INTACT, False, "Strays", sentence)
    return Condition(MODELS_INTACT, True, _WELL, "every installed version is as it was installed")


def _damaged(versions: Mapping[str, Mapping[int, LocalVersion]]) -> list[str]:
    damaged = [
        (model, version)
        for model, found in versions.items()
        for version, local in found.items()
        if not local.intact and local.digest is not None
    ]
    return [f"{model} {version}" for model, version in sorted(damaged)]
