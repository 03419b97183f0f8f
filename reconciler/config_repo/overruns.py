"""Deployments that would not fit their group's quota, found without asking any node or bucket.

How many models a node has follows from git alone, how large they are from the locks. Like a node,
this looks at the deployments of a node in the order of their names: the ones before stay. That a
node may do better, because it has some of them already, is not counted on.
"""

from collections.abc import Iterable, Iterator

from reconciler.config_repo.assemble import Fleet
from reconciler.model import Deployment, Group, Problem
from reconciler.planning.wording import format_bytes, join_words

_NAMED = 3


def find_overruns(fleet: Fleet) -> list[Problem]:
    """Return a problem for each deployment that some node of its group has no quota left for."""
    return [
        Problem(deployment.path, 1, 1, _explain(deployment, group, nodes, why))
        for group in fleet.groups.values()
        for deployment, nodes, why in _find_refused(fleet, group)
    ]


def _explain(deployment: Deployment, group: Group, nodes: list[str], why: str) -> str:
    shown = [*nodes[:_NAMED], *([f"{len(nodes) - _NAMED} more"] if len(nodes) > _NAMED else [])]
    where = f" on {join_words(shown)}" if nodes != [""] else ""
    return (
        f"{deployment.model} does not fit the quota of group {group.name}{where}: {why}; remove a"
        f" model, add nodes, or raise the quota in {group.path}"
    )


def _find_refused(fleet: Fleet, group: Group) -> Iterable[tuple[Deployment, list[str], str]]:
    """Return what some node has no quota left for: the deployment, those nodes, and why."""
    refused: dict[str, tuple[Deployment, list[str], str]] = {}
    for node, deployments in _place(fleet, group).items():
        for deployment, why in _fill(deployments, group):
            _, nodes, _ = refused.setdefault(deployment.path, (deployment, [], why))
            nodes.append(node)
    return refused.values()


def _place(fleet: Fleet, group: Group) -> dict[str, list[Deployment]]:
    """Return what each node holds; for nodes that a registry knows, what all of them do."""
    placed: dict[str, list[Deployment]] = {}
    if not group.enabled:
        return placed
    own = [item for item in fleet.deployments.values() if item.group == group.name]
    for deployment in sorted(own, key=lambda deployment: deployment.model):
        if deployment.stop:
            continue
        if group.membership is not None:
            holders: tuple[str, ...] = ("",) if deployment.replicas is None else ()
        else:
            holders = fleet.place(group).holders[deployment.path]
        for node in holders:
            placed.setdefault(node, []).append(deployment)
    return placed


def _fill(deployments: list[Deployment], group: Group) -> Iterator[tuple[Deployment, str]]:
    quota, used_bytes, used_models = group.quota, 0, 0
    for deployment in deployments:
        size_bytes = _size(deployment)
        total_bytes = used_bytes + size_bytes
        if quota.models is not None and used_models + 1 > quota.models:
            yield deployment, f"it would be model {used_models + 1} of {quota.models}"
        elif quota.disk_bytes is not None and total_bytes > quota.disk_bytes:
            yield deployment, _show("disk", size_bytes, used_bytes, quota.disk_bytes)
        elif quota.memory_bytes is not None and total_bytes > quota.memory_bytes:
            yield deployment, _show("memory", size_bytes, used_bytes, quota.memory_bytes)
        else:
            used_bytes, used_models = total_bytes, used_models + 1


def _show(kind: str, size_bytes: int, used_bytes: int, limit_bytes: int) -> str:
    return (
        f"it needs {format_bytes(size_bytes)} of {kind}, and those before it use"
        f" {format_bytes(used_bytes)} of {format_bytes(limit_bytes)}"
    )


def _size(deployment: Deployment) -> int:
    """Return the bytes that the lock names; 0 without one, because no bucket is asked."""
    lock = deployment.lock
    return sum(locked.size_bytes for locked in lock.versions.values()) if lock else 0
