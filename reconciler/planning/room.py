"""Whether what is to be fetched fits: the disk as it is, and the group's quota as a promise.

Sizes are known from the listing, so a version that does not fit is refused before its first byte,
with the numbers. Deployments are looked at in the order of their names, so that every node and
every tick refuses the same ones.

Of a packed version the listing knows the archive's size alone. It is let in by that, and brings
with it how large it may become when it is unpacked.
"""

from collections.abc import Iterable, Mapping

from reconciler.model import Group, Local, Progress, Quota
from reconciler.planning.goals import Target, Trouble
from reconciler.planning.wording import format_bytes

DISK_FULL = "DiskFull"
GROUP_QUOTA_EXCEEDED = "GroupQuotaExceeded"

_NO_QUOTA = Quota()

Refused = dict[tuple[str, int], Trouble]


def find_room(
    targets: Iterable[Target],
    local: Local,
    fetching: Mapping[tuple[str, int], Progress],
    group: Group | None,
) -> Refused:
    """Return the versions that must not be fetched now: (model, version) -> why."""
    targets = list(targets)
    if not any(target.snapshots for target in targets):
        return {}
    targets = [target for target in targets if not _is_gone(target, local)]
    refused = _check_quota(targets, local, group) if group else {}
    staged = {(s.model, s.version, s.digest): s.bytes for s in local.staged}
    free_bytes = local.free_bytes - sum(p.total_bytes - p.done_bytes for p in fetching.values())
    for target in targets:
        model = target.deployment.model
        for version, snapshot in sorted(target.snapshots.items()):
            if (model, version) in refused or (model, version) in fetching:
                continue
            needed_bytes = snapshot.size_bytes - staged.get((model, version, snapshot.digest), 0)
            if needed_bytes <= free_bytes:
                free_bytes -= needed_bytes
                continue
            refused[model, version] = Trouble(
                DISK_FULL,
                f"version {snapshot.title} needs {format_bytes(needed_bytes)} more on the models"
                f" folder's disk and {format_bytes(max(free_bytes, 0))} are free; it is fetched"
                " when there is room",
            )
    return refused


def limit_unpacked(
    targets: Iterable[Target], local: Local, group: Group | None, refused: Refused
) -> dict[tuple[str, int], int]:
    """Return how many bytes each packed version may have unpacked: what the quota leaves it.

    Several that are fetched at once share what is left; one for which its part is too small is
    tried again, and then knows what the others came to.
    """
    quotas = (group.quota.disk_bytes, group.quota.memory_bytes) if group else ()
    limits = [limit for limit in quotas if limit is not None]
    if not limits:
        return {}
    rooms: dict[str, int] = {}
    packed = []
    for target in targets:
        if _is_gone(target, local):
            continue
        model = target.deployment.model
        coming = {v: s for v, s in target.snapshots.items() if (model, v) not in refused}
        size_bytes = _size(target, local) if coming else 0
        rooms[model] = max(_kept(target, local), size_bytes)
        packed += [
            (model, version, size_bytes - snapshot.size_bytes)
            for version, snapshot in coming.items()
            if snapshot.archive
        ]
    left_bytes = max(0, min(limits) - sum(rooms.values()))
    return {
        (model, version): rooms[model] - others_bytes + left_bytes // len(packed)
        for model, version, others_bytes in packed
    }


def _check_quota(targets: list[Target], local: Local, group: Group) -> Refused:
    """Refuse what would take the node beyond the group's quota.

    What is here already keeps its place, and what is to come is looked at in the order of names:
    so a newcomer never pushes out what serves, whatever its name.
    """
    refused: Refused = {}
    if group.quota == _NO_QUOTA:
        return refused
    quota, kept = group.quota, {target.deployment.model: _kept(target, local) for target in targets}
    used_bytes = sum(kept.values())
    used_models = sum(bool(local.versions.get(model)) for model in kept)
    for target in targets:
        model = target.deployment.model
        is_new = not local.versions.get(model)
        more_bytes = max(0, _size(target, local) - kept[model])
        if not is_new and not more_bytes:
            continue
        reason = None
        if is_new and quota.models is not None and used_models + 1 > quota.models:
            reason = (
                f"group {group.name} may have {quota.models} models on a node and {model} would"
                f" be number {used_models + 1}"
            )
        elif quota.disk_bytes is not None and used_bytes + more_bytes > quota.disk_bytes:
            reason = (
                f"{model} needs {format_bytes(more_bytes)} more; the others use"
                f" {format_bytes(used_bytes)} of the {format_bytes(quota.disk_bytes)} that group"
                f" {group.name} may use on a node"
            )
        elif quota.memory_bytes is not None and used_bytes + more_bytes > quota.memory_bytes:
            reason = (
                f"{model} takes at least {format_bytes(more_bytes)} more of memory; the others"
                f" take {format_bytes(used_bytes)} of the {format_bytes(quota.memory_bytes)}"
                f" that group {group.name} may use on a node"
            )
        if reason is None:
            used_bytes += more_bytes
            used_models += is_new
            continue
        sentence = f"{reason}; remove a model or raise the quota in {group.path}"
        for version in target.snapshots:
            refused[model, version] = Trouble(GROUP_QUOTA_EXCEEDED, sentence)
    return refused


def _kept(target: Target, local: Local) -> int:
    """Return what the model takes up for sure: what is wanted and here, or what it has for now."""
    found = local.versions.get(target.deployment.model, {})
    wanted = target.goal.versions if not target.hold else frozenset()
    here = [found[version].size_bytes for version in wanted if version in found]
    if len(here) < len(wanted) or target.hold:
        # Until the rest is here, and if it is refused, one of those that are here goes on serving.
        largest = max((version.size_bytes for version in found.values()), default=0)
        return max(sum(here), largest)
    return sum(here)


def _is_gone(target: Target, local: Local) -> bool:
    """Whether the model takes no room: stopped, and not kept as it is all the same."""
    is_kept = target.hold is not None and target.deployment.model in local.versions
    return target.deployment.stop and not is_kept


def _size(target: Target, local: Local) -> int:
    found = local.versions.get(target.deployment.model, {})
    if target.hold and found:
        # It stays as it is, whatever git asks of it: one version at least, which may be any.
        return max(version.size_bytes for version in found.values())
    sizes = []
    for version in target.goal.versions:
        if version in target.snapshots:
            sizes.append(target.snapshots[version].size_bytes)
        elif version in found:
            sizes.append(found[version].size_bytes)
        elif locked := target.deployment.locked(version):
            sizes.append(locked.size_bytes)
    return sum(sizes)
