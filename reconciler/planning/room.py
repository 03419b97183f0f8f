"""Whether what is to be fetched fits: the disk as it is, and the group's quota as a promise.

Sizes are known from the listing, so a version that does not fit is refused before its first byte,
with the numbers. Deployments are looked at in the order of their names, so that every node and
every tick refuses the same ones.
"""

from collections.abc import Iterable, Mapping

from reconciler.model import Group, Local, Progress
from reconciler.planning.goals import Target, Trouble
from reconciler.planning.wording import format_bytes

DISK_FULL = "DiskFull"
GROUP_QUOTA_EXCEEDED = "GroupQuotaExceeded"

Refused = dict[tuple[str, int], Trouble]


def find_room(
    targets: Iterable[Target],
    local: Local,
    fetching: Mapping[tuple[str, int], Progress],
    group: Group | None,
) -> Refused:
    """Return the versions that must not be fetched now: (model, version) -> why."""
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
                f"version {version} needs {format_bytes(needed_bytes)} more on the models folder's"
                f" disk and {format_bytes(max(free_bytes, 0))} are free; it is fetched when there"
                " is room",
            )
    return refused


def _check_quota(targets: list[Target], local: Local, group: Group) -> Refused:
    refused: Refused = {}
    used_bytes = used_models = 0
    quota = group.quota
    for target in targets:
        model = target.deployment.model
        size_bytes = _size(target, local)
        reason = None
        if quota.models is not None and used_models + 1 > quota.models:
            reason = (
                f"group {group.name} may have {quota.models} models on a node and {model} would"
                f" be number {used_models + 1}"
            )
        elif quota.disk_bytes is not None and used_bytes + size_bytes > quota.disk_bytes:
            reason = (
                f"{model} needs {format_bytes(size_bytes)}; the models before it use"
                f" {format_bytes(used_bytes)} of the {format_bytes(quota.disk_bytes)} that group"
                f" {group.name} may use on a node"
            )
        elif quota.memory_bytes is not None and used_bytes + size_bytes > quota.memory_bytes:
            reason = (
                f"{model} takes at least {format_bytes(size_bytes)} of memory; the models before it"
                f" take {format_bytes(used_bytes)} of the {format_bytes(quota.memory_bytes)}"
                f" that group {group.name} may use on a node"
            )
        if reason is None:
            used_bytes += size_bytes
            used_models += 1
            continue
        sentence = f"{reason}; remove a model or raise the quota in {group.path}"
        for version in target.snapshots:
            refused[model, version] = Trouble(GROUP_QUOTA_EXCEEDED, sentence)
    return refused


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
