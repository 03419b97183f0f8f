"""The plan: from four snapshots and a memory to a list of steps, each with its reason.

A function of its arguments alone: no clock, no disk, no network, no chance. The agent, a dry run
and the tests call the same one. It starts from the truth every time, so it does not matter what
the plan before said or how much of it was carried out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from reconciler.model import (
    Ask,
    Available,
    Condition,
    Desired,
    Local,
    LocalVersion,
    Outcome,
    Phase,
    Progress,
    Served,
    ServerConfig,
    Snapshot,
    Unavailable,
    VersionStatus,
)
from reconciler.planning.conditions import find_conditions
from reconciler.planning.goals import Target, Trouble, remember_deployment, set_target
from reconciler.planning.memory import Memory, ModelMemory, is_active, observe
from reconciler.planning.outcome import Sight, describe, describe_leaving
from reconciler.planning.retention import Leaving, find_leaving, removable_versions
from reconciler.planning.rollout import Goal, Request, next_request
from reconciler.planning.room import find_room


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download, verify and install a version."""

    model: str
    snapshot: Snapshot
    reason: str


@dataclass(frozen=True, slots=True)
class Configure:
    """Send TensorFlow Serving this config."""

    request: Request
    reason: str


@dataclass(frozen=True, slots=True)
class WriteConfig:
    """Write the config that a restart of TensorFlow Serving is to come up with."""

    config: ServerConfig


@dataclass(frozen=True, slots=True)
class RemoveVersion:
    """Delete an installed version."""

    model: str
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class RemoveStaging:
    """Delete what a download that nobody wants any more has left."""

    model: str
    version: int
    digest: str


Step = Fetch | Configure | WriteConfig | RemoveVersion | RemoveStaging


@dataclass(frozen=True, slots=True)
class World:
    """The four snapshots, and what is going on beside the loop."""

    desired: Desired
    available: Available
    local: Local
    served: Served | Unavailable
    restart_config: ServerConfig | None = None
    """What the server's config file says; None where there is none that can be read."""
    git_trouble: Unavailable | None = None
    """Why the newest commit is not known; what was read before stands in `desired`."""
    fetching: Mapping[tuple[str, int], Progress] | None = None
    """Downloads that run: (model, version) -> how far."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that a plan depends on."""

    settle_seconds: float = 10.0
    poll_seconds: float = 1.0
    is_file_driven: bool = False
    """Whether the server polls its config file instead of taking reloads."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, what to remember, and what to say."""

    steps: tuple[Step, ...]
    memory: Memory
    outcomes: tuple[Outcome, ...]
    conditions: tuple[Condition, ...]

    @property
    def converged(self) -> bool:
        """Whether the node is as its commit says and nothing is left to do."""
        settled = all(o.phase in (Phase.DEPLOYED, Phase.STOPPED) for o in self.outcomes)
        return settled and not self.steps


def plan(world: World, memory: Memory, limits: Limits, now: float) -> Plan:
    """Compute the next steps for one node.

    `now` is a steady clock in seconds, the same one that earlier calls were given.
    """
    desired, local, served = world.desired, world.local, world.served
    unreachable = served.sentence if isinstance(served, Unavailable) else None
    seen = {} if isinstance(served, Unavailable) else served.models
    if isinstance(served, Served):
        memory = observe(memory, served, now, limits.poll_seconds)
        if limits.is_file_driven and world.restart_config != memory.asked_config:
            memory = replace(memory, confirmed=False)  # someone else wrote the file
    targets, memory = _set_targets(world, memory, limits)
    leaving = find_leaving(desired, memory, local.versions, _find_doubt(world))
    goals = _set_goals(targets, leaving, local)
    room = find_room(targets, local, world.fetching or {}, desired.group)

    steps: list[Step] = list(_fetches(targets, room, memory, now))
    request = None
    if isinstance(served, Served):
        request = next_request(goals, memory, served.models, now, limits.poll_seconds)
        memory = _forget_good(memory, goals)
        restart_config = _restart_config(memory, local.versions)
        if (
            memory.confirmed
            and not limits.is_file_driven
            and restart_config != world.restart_config
        ):
            steps.append(WriteConfig(restart_config))
        if request and _may_reload(request, memory, now):
            steps.append(Configure(request, _explain(request, memory)))
    if _find_doubt(world) is None and memory.confirmed and memory.reload_started_at is None:
        steps += _removals(targets, goals, leaving, memory, seen, local, desired.policy.keep)

    def sight(model: str) -> Sight:
        return Sight(
            memory=memory.of(model),
            seen=seen.get(model, {}),
            now=now,
            unreachable=unreachable,
            broken=desired.broken.get(model),
            refused={v: trouble for (m, v), trouble in room.items() if m == model},
            progress={v: p for (m, v), p in (world.fetching or {}).items() if m == model},
        )

    group = desired.group.name if desired.group else ""
    outcomes = [describe(target, sight(target.deployment.model)) for target in targets]
    outcomes += [
        describe_leaving(model, group, leaving.held_because, sight(model))
        for model in leaving.models
    ]
    outcomes.sort(key=lambda outcome: outcome.deployment.model)
    conditions = find_conditions(
        desired, world.git_trouble, world.available, served, local, memory, leaving, now
    )
    return Plan(tuple(steps), memory, tuple(outcomes), conditions)


def _set_targets(world: World, memory: Memory, limits: Limits) -> tuple[list[Target], Memory]:
    targets = []
    for deployment in world.desired.deployments:
        model = deployment.model
        known = remember_deployment(memory.of(model), deployment)
        found = world.local.versions.get(model, {})
        known = _forget_replaced(known, found)
        target = set_target(deployment, world.available, found, known, limits.settle_seconds)
        if deployment.version is None and target.goal.main is not None:
            known = replace(known, resolved={deployment.source: target.goal.main})
        memory = memory.with_model(model, known)
        targets.append(target)
    return targets, memory


def _forget_replaced(known: ModelMemory, found: Mapping[int, LocalVersion]) -> ModelMemory:
    """Tie each load failure to the bytes that failed, and forget it once others are there."""
    failures = {}
    for version, failure in known.load_failures.items():
        digest = (found[version].digest or "") if version in found else ""
        if not failure.digest:
            failure = replace(failure, digest=digest)
        if not digest or failure.digest == digest:
            failures[version] = failure
    return known if failures == known.load_failures else replace(known, load_failures=failures)


def _find_doubt(world: World) -> str | None:
    """Return why this is no time to remove anything, or None."""
    if world.git_trouble is not None:
        return f"the newest commit is not known ({world.git_trouble.sentence})"
    if isinstance(world.served, Unavailable):
        return f"TensorFlow Serving does not answer ({world.served.sentence})"
    return None


def _set_goals(targets: Iterable[Target], leaving: Leaving, local: Local) -> dict[str, Goal]:
    goals = {t.deployment.model: t.goal for t in targets if not t.deployment.stop}
    for model in leaving.held:
        ready = (v for v, found in local.versions.get(model, {}).items() if found.intact)
        goals[model] = Goal(None, ready=frozenset(ready))
    return goals


def _fetches(
    targets: Iterable[Target],
    room: Mapping[tuple[str, int], Trouble],
    memory: Memory,
    now: float,
) -> Iterable[Fetch]:
    for target in targets:
        model = target.deployment.model
        if target.deployment.stop:
            continue
        for version, snapshot in sorted(target.snapshots.items()):
            failure = memory.of(model).fetch_failures.get(version)
            waits = failure and failure.digest == snapshot.digest and now < failure.retry_at
            if (model, version) not in room and not waits:
                yield Fetch(model, snapshot, f"{target.deployment.path} wants version {version}")


def _may_reload(request: Request, memory: Memory, now: float) -> bool:
    """Whether the request may be sent: one at a time, and one that failed waits its back-off."""
    if memory.reload_started_at is not None:
        return False
    failure = memory.reload_failure
    is_the_same = failure is not None and failure.digest == request.fingerprint
    return failure is None or not is_the_same or now >= failure.retry_at


def _explain(request: Request, memory: Memory) -> str:
    """Return what the request changes, model by model."""
    changes = []
    for model in sorted(request.config.keys() | memory.models.keys()):
        before, after = memory.of(model).asked, request.config.get(model)
        if before == after:
            continue
        if after is None:
            changes.append(f"drops {model}")
        elif before is None:
            changes.append(f"adds {model} {_join(after.versions)}")
        elif before.versions != after.versions:
            old, new = _join(before.versions), _join(after.versions)
            changes.append(f"{model} {old or 'none'} -> {new or 'none'}")
        else:
            changes.append(f"moves labels of {model}")
    if not changes:
        reminded = ", ".join(sorted(request.reminders))
        return f"reminds the server of {reminded}" if reminded else "says again what is served"
    return "; ".join(changes)


def _join(versions: Iterable[int]) -> str:
    return "+".join(str(version) for version in sorted(versions))


def _forget_good(memory: Memory, goals: Mapping[str, Goal]) -> Memory:
    """Drop from the restart config what was unloaded on purpose."""
    for model, known in memory.models.items():
        if known.good and not known.asked and model not in goals:
            memory = memory.with_model(model, replace(known, good=None))
    return memory


def _restart_config(
    memory: Memory, local: Mapping[str, Mapping[int, LocalVersion]]
) -> dict[str, Ask]:
    """Return what has been seen to work, as far as its files are there.

    A server that finds one model of its config missing does not come up at all.
    """
    config = {}
    for model, known in memory.models.items():
        if known.good is None:
            continue
        versions = known.good.versions & local.get(model, {}).keys()
        labels = {label: v for label, v in known.good.labels.items() if v in versions}
        if versions:
            config[model] = Ask(versions, labels)
    return config


def _removals(
    targets: Iterable[Target],
    goals: Mapping[str, Goal],
    leaving: Leaving,
    memory: Memory,
    seen: Mapping[str, Mapping[int, VersionStatus]],
    local: Local,
    keep: int,
) -> Iterable[Step]:
    by_model = {target.deployment.model: target for target in targets}
    for model, versions in sorted(local.versions.items()):
        known = memory.of(model)
        target = by_model.get(model)
        if target is None:
            if model not in leaving.going or known.asked is not None:
                continue
            if any(is_active(status) for status in seen.get(model, {}).values()):
                continue
            reason = "the model left the config repo"
        elif not target.is_certain:
            continue
        else:
            reason = "nothing needs it any more"
        goal = None
        if target is not None:
            # A stopped model keeps the version that it would start with.
            last = known.proven[-1] if known.proven else None
            goal = goals.get(model) or replace(target.goal, main=target.goal.main or last)
        for version in removable_versions(versions, known, seen.get(model, {}), goal, keep):
            yield RemoveVersion(model, version, reason)
    wanted = {
        (target.deployment.model, snapshot.version, snapshot.digest)
        for target in targets
        for snapshot in target.snapshots.values()
    }
    uncertain = {target.deployment.model for target in targets if not target.is_certain}
    for staged in local.staged:
        key = (staged.model, staged.version, staged.digest)
        if key not in wanted and staged.model not in uncertain:
            yield RemoveStaging(staged.model, staged.version, staged.digest)
