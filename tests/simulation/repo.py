"""The config repo of a simulated fleet: one `Fleet` a commit, read by the real `choose_desired`."""

from collections.abc import Iterable
from dataclasses import replace

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.desired import choose_desired
from reconciler.config_repo.members import with_members
from reconciler.model import Commit, Deployment, Desired, Group, Member, Rollout
from reconciler.planning.placement import find_holders
from reconciler.policy import Policy
from tests.simulation.events import (
    Add,
    Edit,
    Remove,
    SetEnabled,
    SetLabel,
    SetQuota,
    SetReplicas,
    SetStop,
    SetSuspend,
    SetVersion,
    SetWeight,
    Unlist,
)

PORT = 8080


class Repo:
    """All commits, from 0 on; what they ask of a node is computed once."""

    def __init__(self, policy: Policy, groups: Iterable[Group], *, with_addresses: bool) -> None:
        self._with_addresses = with_addresses
        first = Fleet(policy=policy, groups={group.name: group for group in groups})
        self._fleets = [first]
        self._desired: dict[tuple[int, str, tuple[Member, ...]], Desired] = {}
        self._holders: dict[tuple[int, str, tuple[Member, ...]], tuple[str, ...]] = {}

    @property
    def head(self) -> int:
        """The number of the newest commit."""
        return len(self._fleets) - 1

    def commit(self, edits: Iterable[Edit]) -> bool:
        """Take edits as one more commit; False where nothing changes or a check would refuse it."""
        fleet = self._fleets[-1]
        for edit in edits:
            fleet = self._apply(fleet, edit) or fleet
        if fleet is self._fleets[-1] or not _is_valid(fleet):
            return False
        self._fleets.append(fleet)
        return True

    def fleet(self, commit: int) -> Fleet:
        """Return what is in force at a commit."""
        return self._fleets[commit]

    def read(self, commit: int, node: str, members: tuple[Member, ...] = ()) -> Desired:
        """Return what a commit asks of a node; `members` are those a registry told it of."""
        key = (commit, node, members)
        if key not in self._desired:
            named = Commit(f"{commit:040x}", "Ada", f"Commit {commit}", 1000.0 + commit)
            fleet = self._see(commit, members)
            self._desired[key] = choose_desired(fleet, named, node)
        return self._desired[key]

    def find(self, commit: int, model: str) -> Deployment | None:
        """Return a model's deployment at a commit."""
        return self._fleets[commit].deployments.get(_path(model))

    def holders(self, commit: int, model: str, members: tuple[Member, ...] = ()) -> tuple[str, ...]:
        """Return the nodes that are to serve a model: none where it is stopped or not there."""
        key = (commit, model, members)
        if key not in self._holders:
            fleet = self._see(commit, members)
            deployment = fleet.deployments.get(_path(model))
            group = fleet.groups[deployment.group] if deployment else None
            is_served = deployment and group and group.enabled and not deployment.stop
            self._holders[key] = (
                find_holders(deployment, group) if deployment and group and is_served else ()
            )
        return self._holders[key]

    def _see(self, commit: int, members: tuple[Member, ...]) -> Fleet:
        fleet = self._fleets[commit]
        return with_members(fleet, dict.fromkeys(fleet.groups, members)) if members else fleet

    def _apply(self, fleet: Fleet, edit: Edit) -> Fleet | None:
        match edit:
            case SetWeight(node, name, weight):
                return self._weigh(fleet, node, name, weight)
            case Unlist(node):
                group = next((g for g in fleet.groups.values() if node in _names(g)), None)
                return _put_group(fleet, _without(group, node)) if group else None
            case SetQuota(name, quota) if name in fleet.groups:
                return _put_group(fleet, replace(fleet.groups[name], quota=quota))
            case SetEnabled(name, enabled) if name in fleet.groups:
                return _put_group(fleet, replace(fleet.groups[name], enabled=enabled))
            case Add() if edit.group in fleet.groups:
                rollout = Rollout(waves=edit.waves, pause_seconds=edit.pause_seconds)
                deployment = Deployment(
                    model=edit.model,
                    group=edit.group,
                    path=_path(edit.model),
                    source=source(edit.model),
                    version=edit.version,
                    replicas=edit.replicas,
                    rollout=rollout,
                )
                return _put(fleet, deployment)
            case Remove(model):
                kept = {p: d for p, d in fleet.deployments.items() if p != _path(model)}
                return replace(fleet, deployments=kept)
        return _change(fleet, edit)

    def _weigh(self, fleet: Fleet, node: str, name: str, weight: float) -> Fleet | None:
        if name not in fleet.groups:
            return None
        for group in fleet.groups.values():
            if node in _names(group):
                fleet = _put_group(fleet, _without(group, node))
        address = f"{node}:{PORT}" if self._with_addresses else None
        group = fleet.groups[name]
        members = (*group.nodes, Member(node, address, weight))
        return _put_group(fleet, replace(group, nodes=members))


def source(model: str) -> str:
    """Return the source of a model."""
    return f"gs://models/{model}"


def _change(fleet: Fleet, edit: Edit) -> Fleet | None:
    deployment = fleet.deployments.get(_path(getattr(edit, "model", "")))
    if deployment is None:
        return None
    match edit:
        case SetVersion(_, version):
            return _put(fleet, replace(deployment, version=version))
        case SetReplicas(_, replicas):
            return _put(fleet, replace(deployment, replicas=replicas))
        case SetLabel(_, version):
            labels = {} if version is None else {"canary": version}
            return _put(fleet, replace(deployment, labels=labels))
        case SetStop(_, stop):
            return _put(fleet, replace(deployment, stop=stop))
        case SetSuspend(_, suspend):
            return _put(fleet, replace(deployment, suspend=suspend))
    return None


def _is_valid(fleet: Fleet) -> bool:
    """Whether `validate` would let it through: no more replicas than nodes to hold them."""
    for deployment in fleet.deployments.values():
        group = fleet.groups[deployment.group]
        nodes = sum(member.weight > 0 for member in group.nodes)
        if group.membership is None and (deployment.replicas or 1) > nodes:
            return False
    return True


def _put(fleet: Fleet, deployment: Deployment) -> Fleet:
    return replace(fleet, deployments={**fleet.deployments, deployment.path: deployment})


def _put_group(fleet: Fleet, group: Group) -> Fleet:
    return replace(fleet, groups={**fleet.groups, group.name: group})


def _without(group: Group, node: str) -> Group:
    return replace(group, nodes=tuple(item for item in group.nodes if item.name != node))


def _names(group: Group) -> list[str]:
    return [member.name for member in group.nodes]


def _path(model: str) -> str:
    return f"deployments/{model}.yaml"
