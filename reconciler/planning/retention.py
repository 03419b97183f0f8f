"""What may go: whole models that left git, and versions that nothing needs any more.

Nothing is removed on doubt. A removal that turns out wrong cannot be taken back by a revert, so
each rule here errs on the side of a fuller disk.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.model import Ask, Desired, LocalVersion, Served, ServerConfig, VersionStatus
from reconciler.planning.goals import Target
from reconciler.planning.golden import has_trial
from reconciler.planning.handover import Handover
from reconciler.planning.memory import Memory, ModelMemory, find_managed, is_active
from reconciler.planning.rollout import Goal
from reconciler.planning.steps import RemoveStaging, RemoveVersion, Step, World
from reconciler.policy import Policy

REMOVALS_HELD = "RemovalsHeld"


@dataclass(frozen=True, slots=True)
class Leaving:
    """Models that are here and not to be, and why they must stay, if they must."""

    models: tuple[str, ...]
    """Those that git does not name any more."""
    held_because: str | None = None
    handovers: Mapping[str, Handover] = field(default_factory=dict)
    """Those that git places on other nodes of the group."""

    @property
    def held(self) -> tuple[str, ...]:
        """The models that stay for now."""
        gone = self.models if self.held_because else ()
        return (*gone, *(model for model, item in self.handovers.items() if not item.is_done))

    @property
    def going(self) -> tuple[str, ...]:
        """The models that may be unloaded and then deleted."""
        gone = () if self.held_because else self.models
        return (*gone, *(model for model, item in self.handovers.items() if item.is_done))


def find_leaving(
    desired: Desired,
    memory: Memory,
    local: Mapping[str, Mapping[int, LocalVersion]],
    doubt: str | None,
    handovers: Mapping[str, Handover],
) -> Leaving:
    """Return the models that are here and not to be; `doubt` is a sentence that holds them all."""
    if doubt:
        handovers = {
            model: replace(item, is_done=False, reason=REMOVALS_HELD, sentence=doubt)
            for model, item in handovers.items()
        }
    wanted = {deployment.model for deployment in desired.deployments} | set(desired.broken)
    if wanted.issuperset(memory.models) and wanted.issuperset(local):
        return Leaving((), handovers=handovers)
    managed = find_managed(memory, local)
    leaving = tuple(sorted(managed - wanted - handovers.keys()))
    if not leaving:
        return Leaving((), handovers=handovers)
    objection = doubt or _find_objection(desired, len(leaving), len(managed))
    return Leaving(leaving, objection, handovers)


def _find_objection(desired: Desired, leaving: int, managed: int) -> str | None:
    if desired.group is None:
        return (
            f"no group names node {desired.node!r}; add it to groups/*.yaml, or give the agent the"
            " name that stands there (RECONCILER_NODE)"
        )
    if desired.problems:
        return f"the config repo has a mistake ({desired.problems[0]}); mend it first"
    if not desired.deployments and not desired.elsewhere:
        if desired.policy.allow_empty:
            return None
        return (
            f"commit {desired.commit.id[:8]} leaves this node with no model at all; if that is"
            " meant, set allow_empty: true in fleet.yaml"
        )
    cap = _removal_cap(desired.policy, managed)
    if leaving > cap:
        return (
            f"commit {desired.commit.id[:8]} removes {leaving} of {managed} models at once, more"
            f" than max_removals allows ({cap}); if that is meant, raise it in fleet.yaml"
        )
    return None


def _removal_cap(policy: Policy, managed: int) -> int:
    if 0 < policy.max_removals < 1:
        return max(1, int(managed * policy.max_removals))
    return int(policy.max_removals)


def removable_versions(
    local: Mapping[int, LocalVersion],
    memory: ModelMemory,
    seen: Mapping[int, VersionStatus],
    goal: Goal | None,
    keep: int,
) -> tuple[int, ...]:
    """Return the versions of one model that may be deleted, lowest first.

    Kept are: what is wanted or labelled, what the server holds or is asked for, the last entry
    that worked, and the last `keep` others that served. `goal` is None for a model that left git,
    of which only what the server still holds is kept. Folders that this reconciler did not
    install are never deleted.
    """
    asked = memory.asked.versions if memory.asked else frozenset()
    needed = asked | {version for version, status in seen.items() if is_active(status)}
    if goal is not None:
        good = memory.good.versions if memory.good else frozenset()
        needed |= goal.versions | good
        previous = [version for version in reversed(memory.proven) if version not in goal.versions]
        needed |= frozenset(previous[:keep])
        if goal.main is None or goal.main not in memory.available:
            # Until the successor answers, what served last is what a failure falls back on.
            needed |= frozenset(previous[: max(keep, 1)])
    ours = (version for version, found in local.items() if found.digest is not None)
    return tuple(sorted(version for version in ours if version not in needed))


def find_removals(
    targets: Iterable[Target],
    goals: Mapping[str, Goal],
    leaving: Leaving,
    memory: Memory,
    seen: Mapping[str, Mapping[int, VersionStatus]],
    world: World,
    told: ServerConfig,
    quiet: Collection[str] = frozenset(),
) -> Iterable[Step]:
    """Yield what may be deleted from disk; of `quiet` models it is nothing.

    Never what the server's config file still names: a server that restarts between the deletion
    and the next writing of that file would wait for the missing model for ever. Nor what the server
    is `told` to load by this very plan.
    """
    local, keep = world.local, world.desired.policy.keep
    by_model = {target.deployment.model: target for target in targets}
    for model in sorted(local.versions.keys() - quiet):
        versions = local.versions[model]
        known = memory.of(model)
        if has_trial(model, memory, seen):
            continue  # the server may be reading any of these files
        if isinstance(world.served, Served) and not world.served.is_fresh(model):
            continue  # it is asked for at the next look
        target = by_model.get(model)
        if target is None:
            if model not in leaving.going or known.asked is not None:
                continue
            if any(is_active(status) for status in seen.get(model, {}).values()):
                continue
            moved = leaving.handovers.get(model)
            reason = moved.sentence if moved else "the model left the config repo"
        elif not target.is_certain:
            continue
        else:
            reason = "nothing needs it any more"
        # A stopped model has no goal, and keeps the version that it would start with.
        goal = goals.get(model, target.goal) if target is not None else None
        nothing = Ask(frozenset())
        named = (world.restart_config or {}).get(model, nothing).versions
        named |= told.get(model, nothing).versions
        going = set(removable_versions(versions, known, seen.get(model, {}), goal, keep))
        replaced = _replaceable(target, known, seen.get(model, {})) if target is not None else set()
        going |= replaced
        for version in sorted(going - named):
            is_last = target is None and going == versions.keys() and version == max(going)
            why = "other bytes of it are wanted" if version in replaced else reason
            yield RemoveVersion(model, version, why, is_last)
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


def _replaceable(target: Target, known: ModelMemory, seen: Mapping[int, VersionStatus]) -> set[int]:
    asked = known.asked.versions if known.asked else frozenset()
    return {v for v in target.obsolete if v not in asked and not is_active(seen.get(v))}
