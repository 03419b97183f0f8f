"""The plan: from four snapshots and a memory to a list of steps, each with its reason.

A function of its arguments alone: no clock, no disk, no network, no chance. The agent, a dry run
and the tests call the same one. It starts from the truth every time, so it does not matter what
the plan before said or how much of it was carried out.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from reconciler.model import (
    NUMBER,
    Deployment,
    Desired,
    Local,
    LocalVersion,
    Outcome,
    Query,
    Served,
    Unavailable,
    VersionStatus,
)
from reconciler.planning.calm import Calm, Quiet
from reconciler.planning.conditions import find_change_condition, find_conditions
from reconciler.planning.events import FINAL_REASONS, RELOAD_UNANSWERED
from reconciler.planning.goals import (
    Target,
    Trouble,
    fingerprint,
    remember_deployment,
    resolved_key,
    set_target,
)
from reconciler.planning.golden import (
    TRYING,
    find_trials,
    note_trial_failures,
    remember_trials,
)
from reconciler.planning.handover import Handover, find_handovers
from reconciler.planning.holds import (
    PAUSED,
    Hold,
    find_hold,
    find_node_hold,
    has_no_past,
)
from reconciler.planning.memory import Memory, ModelMemory, is_active, observe, without_ghosts
from reconciler.planning.outcome import (
    DOWNLOADING,
    LISTING,
    LOADING,
    MOVING_LABELS,
    SERVER_UNREACHABLE,
    UNLOADING,
    WAITING,
    Sight,
    describe,
    describe_handover,
    describe_leaving,
)
from reconciler.planning.quiet import find_quiet, find_still_quiet, name_hold
from reconciler.planning.restart import find_restart_config, forget_good, keep_safe
from reconciler.planning.retention import Leaving, find_leaving, find_removals
from reconciler.planning.rollout import Goal, Request, explain, next_request
from reconciler.planning.room import find_room, limit_unpacked
from reconciler.planning.steadiness import time_deployed
from reconciler.planning.steps import (
    Configure,
    Fetch,
    Limits,
    Plan,
    Step,
    World,
    WriteConfig,
)
from reconciler.planning.trial_names import model_of, trial_name
from reconciler.planning.waves import await_turn

_MOVING = frozenset({DOWNLOADING, LOADING, WAITING, MOVING_LABELS, UNLOADING, LISTING, TRYING})


def plan(
    world: World, memory: Memory, limits: Limits, now: float, last: Calm | None = None
) -> Plan:
    """Compute the next steps for one node.

    `now` is a steady clock in seconds, the same one that earlier calls were given. `last` is what
    the plan before found at rest; it saves work and changes nothing.
    """
    desired, local, served = world.desired, world.local, world.served
    node_hold = find_node_hold(desired, world.pause, world.wall_seconds)
    quiet = find_still_quiet(last, world, memory, node_hold) if last else {}
    seen = {} if isinstance(served, Unavailable) else served.models
    if isinstance(served, Served):
        memory = observe(memory, served, now, limits.poll_seconds, quiet)
        if limits.is_file_driven and world.restart_config != keep_safe(
            memory.asked_config, local.versions, limits
        ):
            memory = replace(memory, confirmed=False)  # someone else wrote the file
        seen = without_ghosts(memory, seen, now, limits.poll_seconds, quiet)
    memory = note_trial_failures(memory)
    quiet = {model: item for model, item in quiet.items() if item.known is memory.of(model)}
    live, memory = _set_targets(world, memory, limits, node_hold, quiet)
    doubt = node_hold.sentence if node_hold else _find_doubt(world)
    handovers, memory = find_handovers(
        desired, local.versions, memory, world.peers, now, is_held=node_hold is not None
    )
    leaving = find_leaving(desired, memory, local.versions, doubt, handovers)
    targets = [*(item.target for item in quiet.values()), *live]
    deployed = {deployment.model for deployment in desired.deployments}
    unknown = [model for model in desired.broken if model not in deployed]
    held = [target.deployment.model for target in live if target.hold]
    goals = _set_goals(targets, (*leaving.held, *unknown, *held), local, memory)
    trials = find_trials(live, local, memory, seen, now)
    goals = trials.withhold(goals)
    room = find_room(targets, local, world.fetching or {}, desired.group)
    limits_bytes = limit_unpacked(targets, local, desired.group, room)

    steps: list[Step] = [*_fetches(live, room, limits_bytes, memory, now), *trials.steps]
    elsewhere: tuple[str, ...] = ()
    if isinstance(served, Served):
        elsewhere = _find_elsewhere(memory, local, quiet)
        memory = remember_trials(trials, live, forget_good(memory, goals))
        if not elsewhere:
            steps += _steer(world, goals, leaving, memory, seen, limits, now, quiet)
    elif served.reason == SERVER_UNREACHABLE and world.restart_config is not None:
        # It may be down because of what its file says; what has worked is the best it can get.
        steps += _write_restart_config(memory, world, quiet)
    if doubt is None and _is_known(memory) and world.restart_config is not None:
        told = next((step.request.config for step in steps if isinstance(step, Configure)), {})
        steps += find_removals(live, goals, leaving, memory, seen, world, told, quiet)
    if node_hold is not None and node_hold.reason == PAUSED:
        steps = []  # someone works on this node by hand

    schemes = {target.deployment.model: target.deployment.scheme for target in live}

    def sight(model: str) -> Sight:
        return Sight(
            memory=memory.of(model),
            seen=seen.get(model, {}),
            now=now,
            unreachable=served.sentence if isinstance(served, Unavailable) else None,
            broken=desired.broken.get(model),
            refused={v: trouble for (m, v), trouble in room.items() if m == model},
            progress={v: p for (m, v), p in (world.fetching or {}).items() if m == model},
            installed=tuple(
                version
                for version, found in sorted(local.versions.get(model, {}).items())
                if found.digest is not None
            ),
            trials=trials.withheld.get(model, {}),
            titles={v: found.title for v, found in local.versions.get(model, {}).items()},
            scheme=schemes.get(model, NUMBER),
        )

    group = desired.group.name if desired.group else ""
    described = [describe(target, sight(target.deployment.model)) for target in live]
    for model in unknown:
        nameless = Deployment(model, group, desired.broken[model].path, source="")
        described.append(describe(Target(nameless, goals[model]), sight(model)))
    removals = (
        *(
            describe_leaving(model, group, leaving.held_because, sight(model))
            for model in leaving.models
        ),
        *(describe_handover(item, sight(model)) for model, item in leaving.handovers.items()),
    )
    is_blind = isinstance(served, Unavailable)
    described, memory = time_deployed(described, memory, now, is_blind=is_blind)
    quiet |= find_quiet(live, described, memory, world)
    outcomes = _in_order(desired, described, quiet)
    conditions = (
        *find_conditions(world, memory, leaving, elsewhere, now),
        find_change_condition(node_hold, (*outcomes, *removals)),
    )
    return Plan(
        steps=tuple(steps),
        memory=_prune(memory, world, seen),
        outcomes=outcomes,
        removals=removals,
        conditions=conditions,
        relist=_relist(live),
        in_motion=bool(steps) or _is_in_motion(described, memory, seen, quiet),
        ask_peers=_name_peers(live, handovers.values(), desired.node),
        calm=Calm(quiet, desired.policy, name_hold(node_hold), world.available),
    )


def _in_order(
    desired: Desired, described: Iterable[Outcome], quiet: Mapping[str, Quiet]
) -> tuple[Outcome, ...]:
    """Return the outcomes in the order of the deployments, those without one last."""
    by_model = {outcome.deployment.model: outcome for outcome in described}
    known = [
        by_model.pop(model) if model in by_model else quiet[model].outcome
        for model in (deployment.model for deployment in desired.deployments)
    ]
    return (*known, *by_model.values())


def _is_in_motion(
    outcomes: Iterable[Outcome],
    memory: Memory,
    seen: Mapping[str, Mapping[int, VersionStatus]],
    quiet: Collection[str],
) -> bool:
    if memory.reload_started_at is not None or any(o.reason in _MOVING for o in outcomes):
        return True
    for model in seen.keys() - quiet:
        versions, known = seen[model], memory.of(model)
        asked = known.asked.versions if known.asked else frozenset()
        held = {version for version, status in versions.items() if is_active(status)}
        awaited = {v for v in asked - known.available if not known.has_failed(v)}
        if held - asked or (awaited and known.nudges <= 1):
            return True
    return False


def _relist(targets: Iterable[Target]) -> dict[Query, float]:
    relist = {}
    for target in targets:
        waits = [
            trouble.retry_in_seconds
            for trouble in (*target.remarks, *target.troubles.values())
            if trouble.retry_in_seconds is not None
        ]
        if waits:
            relist[target.deployment.query] = min(waits)
    return relist


def _prune(memory: Memory, world: World, seen: Mapping[str, Mapping[int, VersionStatus]]) -> Memory:
    """Forget models of which nothing is left, so that the memory does not grow for ever."""
    wanted = {deployment.model for deployment in world.desired.deployments}
    wanted |= {trial_name(d.model) for d in world.desired.deployments if d.rollout.golden}
    forgotten = {
        model
        for model in memory.models.keys() - wanted - world.local.versions.keys()
        if not memory.models[model].asked
        and not memory.models[model].good
        and not any(is_active(status) for status in seen.get(model, {}).values())
    }
    if not forgotten:
        return memory
    models = memory.models.items()
    return replace(memory, models={m: known for m, known in models if m not in forgotten})


def _set_targets(
    world: World,
    memory: Memory,
    limits: Limits,
    node_hold: Hold | None,
    quiet: Collection[str],
) -> tuple[list[Target], Memory]:
    """Return the targets of all that is not quiet, and what to remember of it."""
    targets = []
    changed: dict[str, ModelMemory] = {}
    is_new = has_no_past(memory)
    for deployment in world.desired.deployments:
        model = deployment.model
        if model in quiet:
            continue
        known = remember_deployment(memory.of(model), deployment)
        found = world.local.versions.get(model, {})
        known = _forget_replaced(known, found)
        target = set_target(deployment, world.available, found, known, limits.settle_seconds)
        known = _forget_other_bytes(known, target.obsolete)
        asked = fingerprint(deployment)
        admitted = is_new or known.admitted == asked
        hold = find_hold(
            deployment,
            target.goal,
            known,
            node_hold,
            admitted=admitted,
            brings_other_bytes=bool(target.obsolete),
        )
        if hold is None:
            hold, before = await_turn(world.desired, target, known, world.peers)
            target = replace(target, waits_for=before)
        if hold is not None:
            target = replace(target, hold=hold, snapshots={}, is_certain=False)
        else:
            known = replace(known, admitted=asked)
            if deployment.version is None and target.goal.main is not None:
                known = replace(known, resolved={resolved_key(deployment): target.goal.main})
        changed[model] = known
        targets.append(target)
    return targets, memory.with_models(changed)


def _name_peers(
    targets: Iterable[Target], handovers: Iterable[Handover], node: str
) -> tuple[str, ...]:
    names = {name for item in handovers for name in item.asks}
    names |= {name for target in targets for name in target.waits_for}
    return tuple(sorted(names - {node}))


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


def _forget_other_bytes(known: ModelMemory, obsolete: frozenset[int]) -> ModelMemory:
    """Forget that versions have served of which the wanted bytes have not.

    They would else be taken for the way back, which no wave and no golden request holds up.
    """
    if not obsolete.intersection(known.proven):
        return known
    return replace(known, proven=tuple(v for v in known.proven if v not in obsolete))


def _find_doubt(world: World) -> str | None:
    """Return why this is no time to remove anything, or None."""
    if world.git_trouble is not None:
        return f"the newest commit is not known ({world.git_trouble.sentence})"
    if isinstance(world.served, Unavailable):
        return f"TensorFlow Serving does not answer ({world.served.sentence})"
    return None


def _is_known(memory: Memory) -> bool:
    """Whether the server's config is what we think it is."""
    return memory.confirmed and memory.reload_started_at is None


def _set_goals(
    targets: Iterable[Target], untouched: Iterable[str], local: Local, memory: Memory
) -> dict[str, Goal]:
    """Return what each model should come to; the `untouched` ones stay exactly as they are.

    One that was stopped has no entry any more, and nothing that is ready to be loaded for it.
    """
    goals = {t.deployment.model: t.goal for t in targets if not t.deployment.stop}
    for model in untouched:
        goals[model] = Goal(None)
        entry = memory.of(model).asked or memory.of(model).good
        if entry is not None:
            ready = {v for v, found in local.versions.get(model, {}).items() if found.intact}
            goals[model] = Goal(None, dict(entry.labels), ready=frozenset(ready))
    return goals


def _steer(
    world: World,
    goals: Mapping[str, Goal],
    leaving: Leaving,
    memory: Memory,
    seen: Mapping[str, Mapping[int, VersionStatus]],
    limits: Limits,
    now: float,
    quiet: Collection[str],
) -> Iterable[Step]:
    """Yield what the server and the file that it starts from are to be told.

    The server comes first: what the file says has worked, and does so until it is written anew.
    """
    must_confirm = bool(leaving.going) and not goals
    request = next_request(
        goals, memory, seen, now, limits.poll_seconds, must_confirm=must_confirm, quiet=quiet
    )
    if request and _may_reload(request, memory, now):
        config = keep_safe(request.config, world.local.versions, limits)
        request = replace(request, config=config)
        yield Configure(request, explain(request, memory))
    if memory.confirmed and not limits.is_file_driven:
        yield from _write_restart_config(memory, world, quiet)


def _find_elsewhere(memory: Memory, local: Local, quiet: Collection[str]) -> tuple[str, ...]:
    """Return models that the server took over from before us, from a folder that is not ours.

    Those that are `quiet` are in ours.

    A config that names them with our folder would freeze the server: it looks for no version of
    any model while one folder is missing.
    """
    return tuple(
        sorted(
            model
            for model, known in memory.models.items()
            if known.adopted
            and model not in quiet
            and known.adopted & known.available
            and not local.versions.get(model_of(model))
        )
    )


def _write_restart_config(
    memory: Memory, world: World, quiet: Collection[str]
) -> Iterable[WriteConfig]:
    config = find_restart_config(memory, world.local.versions, quiet)
    if config != world.restart_config:
        yield WriteConfig(config)


def _fetches(
    targets: Iterable[Target],
    room: Mapping[tuple[str, int], Trouble],
    limits_bytes: Mapping[tuple[str, int], int],
    memory: Memory,
    now: float,
) -> Iterable[Fetch]:
    for target in targets:
        model = target.deployment.model
        if target.deployment.stop:
            continue
        for version, snapshot in sorted(target.snapshots.items()):
            failure = memory.of(model).fetch_failures.get(version)
            is_same = failure and failure.digest == snapshot.digest
            waits = failure and (now < failure.retry_at or failure.reason in FINAL_REASONS)
            if (model, version) not in room and not (is_same and waits):
                locked = target.deployment.locked(version)
                reason = f"{target.deployment.path} wants version {snapshot.title}"
                sha256 = locked.sha256 if locked else {}
                yield Fetch(model, snapshot, reason, sha256, limits_bytes.get((model, version)))


def _may_reload(request: Request, memory: Memory, now: float) -> bool:
    """Whether the request may be sent: one at a time, and one that failed waits its back-off."""
    if memory.reload_started_at is not None:
        return False
    failure = memory.reload_failure
    if failure is None or now >= failure.retry_at:
        return True
    return failure.reason != RELOAD_UNANSWERED and failure.digest != request.fingerprint
