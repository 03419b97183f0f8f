"""Whether a fleet that has come to rest is as the newest commit says, told from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reconciler.model import Deployment, Desired, Outcome, Phase
from reconciler.planning.retention import REMOVALS_HELD
from reconciler.planning.room import DISK_FULL, GROUP_QUOTA_EXCEEDED
from reconciler.planning.steps import Plan
from reconciler.planning.waves import ROLLOUT_HALTED, WAITS_FOR_WAVE, find_turn
from tests.simulation.node import Node

if TYPE_CHECKING:
    from tests.simulation.fleet import Simulation


def find_divergences(simulation: Simulation) -> Iterator[str]:
    """Yield what is otherwise than git says on any node that is on, and nothing excuses."""
    for name, node in simulation.alive.items():
        desired, made = simulation.read(simulation.repo.head, name), node.made
        if made is None or node.desired is None or node.desired.commit != desired.commit:
            yield f"{name} has not seen the newest commit"
            continue
        for outcome in made.outcomes:
            if mistake := _find_mistake(simulation, node, desired, outcome):
                yield (
                    f"{name}: {outcome.deployment.model} {outcome.phase} {outcome.reason}"
                    f" ({outcome.sentence}), but {mistake}"
                )
        yield from _find_extras(simulation, node, desired, made)


def _find_mistake(
    simulation: Simulation, node: Node, desired: Desired, outcome: Outcome
) -> str | None:
    """Return what an outcome should be instead, None where it is right."""
    deployment = outcome.deployment
    model, version = deployment.model, _wanted(simulation, deployment)
    serving = node.server.serving.get(model, set())
    if deployment.suspend:
        return None
    if deployment.stop:
        return None if outcome.phase is Phase.STOPPED and not serving else "it is to be stopped"
    if outcome.phase is Phase.DEPLOYED:
        is_right = outcome.wanted == version and version in serving <= {
            version,
            *deployment.labels.values(),
        }
        return None if is_right else f"it is to serve {version} and serves {serving}"
    if outcome.reason in (WAITS_FOR_WAVE, ROLLOUT_HALTED):
        if _must_wait(simulation, desired, deployment, version, node.name):
            return None
        return "nobody before it is in the way"
    if outcome.phase is not Phase.FAILED:
        return f"it is to serve {version}"
    if outcome.reason == DISK_FULL:
        used_bytes = sum(v.size_bytes for found in node.disk.values() for v in found.values())
        needed_bytes = simulation.bucket.size_bytes(model)
        has_room = used_bytes + 2 * needed_bytes <= node.traits.disk_bytes
        return "there is room on the disk" if has_room else None
    if outcome.reason == GROUP_QUOTA_EXCEEDED:
        return None if _exceeds(simulation, desired) else "all of it fits into the quota"
    asked = {version, *deployment.labels.values()}
    if any((model, v) in node.server.bad for v in asked):
        return None
    if any(v > simulation.bucket.newest(model) for v in asked):
        return None
    return "nothing is wrong with it"


def _wanted(simulation: Simulation, deployment: Deployment) -> int:
    newest = simulation.bucket.newest(deployment.model)
    return newest if deployment.version is None else deployment.version


def _must_wait(
    simulation: Simulation, desired: Desired, deployment: Deployment, version: int, name: str
) -> bool:
    holders = desired.holders[deployment.model]
    for other in find_turn(deployment.rollout.waves, holders, name).before:
        node = simulation.alive.get(other)
        if node is None or not simulation.setup.with_addresses:
            return True
        serving = node.server.serving.get(deployment.model, set())
        if version not in serving or simulation.is_failing(node):
            return True
    return False


def _exceeds(simulation: Simulation, desired: Desired) -> bool:
    bucket, group = simulation.bucket, desired.group
    live = [item for item in desired.deployments if not item.stop]
    used = sum(
        bucket.size_bytes(item.model) * len({_wanted(simulation, item), *item.labels.values()})
        for item in live
    )
    # A version that serves until its successor does counts as well.
    used += sum(bucket.size_bytes(item.model) for item in live)
    quota = group.quota if group else None
    if quota is None:
        return False
    too_many = quota.models is not None and len(live) > quota.models
    return too_many or (quota.disk_bytes is not None and used > quota.disk_bytes)


def _find_extras(simulation: Simulation, node: Node, desired: Desired, made: Plan) -> Iterator[str]:
    """Yield what a node has beyond what it holds, and nothing excuses."""
    held = {item.model for item in desired.deployments}
    excused = {item.deployment.model for item in made.removals if item.reason == REMOVALS_HELD}
    for model in sorted({*node.disk, *(m for m, v in node.server.serving.items() if v)}):
        if model in held | excused or desired.group is None:
            continue
        holders = desired.holders.get(model, ())
        deployment = simulation.repo.find(simulation.repo.head, model)
        if deployment is not None and deployment.suspend:
            continue
        others = [simulation.alive[name] for name in holders if name in simulation.alive]
        if holders and not any(other.serves(model) for other in others):
            continue  # the last copy stays
        if deployment is not None and not holders and not deployment.stop:
            continue  # nobody is left to take it
        if any(_awaits_turn(other, model) for other in others):
            continue  # whether that is right is asked of its outcome
        yield f"{node.name} still has {model}, which is others' to serve or nobody's"


def _awaits_turn(node: Node, model: str) -> bool:
    outcomes = node.made.outcomes if node.made else ()
    turn = (WAITS_FOR_WAVE, ROLLOUT_HALTED)
    return any(item.deployment.model == model and item.reason in turn for item in outcomes)
