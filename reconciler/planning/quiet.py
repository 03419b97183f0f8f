"""The models that a plan need not think about again.

On a node with thousands of models nearly all of them are as they are to be, and stay so from one
plan to the next. What a plan says of a model follows from its deployment, its files, its states in
the server, its listing and what is remembered of it. While these are the very same values as last
time, the answer is, too. So a plan hands its answers on, and the next one takes over those whose
grounds have not changed: a change of one model among 10,000 costs the thought for one.

Only models at rest are handed on, of which time alone changes nothing: served as git asks, without
a failure, a label to move, a version to remove or a remark to make. With and without the answers
of the last one a plan comes to the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from reconciler.model import Available, Desired, Outcome, Phase, State, Unavailable, VersionStatus
from reconciler.planning.calm import Calm, Quiet
from reconciler.planning.goals import Target
from reconciler.planning.holds import Hold
from reconciler.planning.memory import Memory, ModelMemory
from reconciler.planning.outcome import SERVING
from reconciler.planning.retention import removable_versions
from reconciler.planning.steps import World
from reconciler.planning.trial_names import is_trial, trial_name


def find_still_quiet(
    last: Calm, world: World, memory: Memory, node_hold: Hold | None
) -> dict[str, Quiet]:
    """Return the models of the last plan of which nothing has changed since."""
    desired, served = world.desired, world.served
    if isinstance(served, Unavailable) or served.connection != memory.connection:
        return {}
    if last.hold != name_hold(node_hold) or last.policy != desired.policy:
        return {}
    relisted = _find_relisted(last.available, world.available)
    known, found, seen = memory.models, world.local.versions, served.models
    still = {}
    for deployment in desired.deployments:
        model = deployment.model
        quiet = last.models.get(model)
        if (
            quiet is not None
            and quiet.deployment is deployment
            and quiet.known is known.get(model)
            and quiet.found is found.get(model)
            and quiet.seen is seen.get(model)
            and deployment.source not in relisted
            and model not in desired.broken
        ):
            still[model] = quiet
    return still


@dataclass(frozen=True, slots=True)
class Interest:
    """Which models the server is to be asked about, and the disk looked at for."""

    models: frozenset[str]
    """All of them; the names of trials count as models."""
    restless: frozenset[str]
    """Those to be looked at each time: they were not at rest, or something changed."""


def find_interest(last: Calm, desired: Desired, memory: Memory) -> Interest:
    """Return what is worth a look after the plan that found `last`."""
    models = {deployment.model for deployment in desired.deployments}
    models |= memory.models.keys()
    # A trial may be left over in the server from an agent that was stopped.
    models |= {trial_name(item.model) for item in desired.deployments if item.rollout.golden}
    resting = set()
    for deployment in desired.deployments:
        quiet = last.models.get(deployment.model)
        if (
            quiet is not None
            and quiet.deployment is deployment
            and quiet.known is memory.models.get(deployment.model)
        ):
            resting.add(deployment.model)
            if deployment.rollout.golden:
                resting.add(trial_name(deployment.model))
    restless = models - (resting - _find_running_trials(memory))
    return Interest(frozenset(models), frozenset(restless))


def _find_running_trials(memory: Memory) -> set[str]:
    return {name for name in memory.models if is_trial(name)}


def find_quiet(
    targets: Iterable[Target],
    outcomes: Iterable[Outcome],
    memory: Memory,
    world: World,
) -> dict[str, Quiet]:
    """Return which of the models that were thought about are at rest."""
    said = {outcome.deployment.model: outcome for outcome in outcomes}
    served = {} if isinstance(world.served, Unavailable) else world.served.models
    quiet = {}
    for target in targets:
        deployment = target.deployment
        model = deployment.model
        if model not in served or model in world.desired.broken:
            continue
        item = Quiet(
            deployment,
            world.local.versions.get(model, {}),
            served[model],
            memory.of(model),
            target,
            said[model],
        )
        if _is_at_rest(item, world.desired.policy.keep):
            quiet[model] = item
    return quiet


def name_hold(hold: Hold | None) -> str:
    """Return a text that is the same while the same holds the node back."""
    return f"{hold.reason} {hold.sentence}" if hold else ""


def _is_at_rest(item: Quiet, keep: int) -> bool:
    """Whether nothing is to be done about the model, now or after some time."""
    target, known, goal = item.target, item.known, item.target.goal
    asked = known.asked
    return (
        (item.outcome.phase, item.outcome.reason) == (Phase.DEPLOYED, SERVING)
        and asked is not None
        and asked == known.good
        and asked.versions == goal.versions == known.available
        and asked.labels == goal.labels
        and goal.versions <= goal.ready
        and target.is_certain
        and not (target.hold or target.snapshots or target.troubles)
        and not (target.remarks or target.obsolete or target.waits_for)
        and not (known.load_failures or known.fetch_failures or known.refusal)
        and known.moved_at is None
        and known.nudges == 0
        and all(_is_settled(version, status, known) for version, status in item.seen.items())
        and not removable_versions(item.found, known, item.seen, goal, keep)
    )


def _is_settled(version: int, status: VersionStatus, known: ModelMemory) -> bool:
    is_available = status.state is State.AVAILABLE
    return is_available == (version in known.available) and (
        is_available or status.state is State.END
    )


def _find_relisted(before: Available, after: Available) -> set[str]:
    """Return the sources of which something else is known than before."""
    if before is after:
        return set()
    relisted: set[str] = set()
    for old, new in ((before.listings, after.listings), (before.troubles, after.troubles)):
        relisted |= {query.source for query, said in new.items() if old.get(query) is not said}
        relisted |= {query.source for query in old.keys() - new.keys()}
    return relisted
