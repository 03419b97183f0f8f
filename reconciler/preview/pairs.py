"""Which nodes a change concerns: what each was asked at the base and is asked at the head.

Nodes that are asked the same on both sides are left out, and nodes of one group that hold the same
deployments before and after are computed once: a fleet of 300 nodes is often three of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.desired import choose_desired
from reconciler.errors import ConfigError
from reconciler.model import Commit, Deployment, Desired, Group, Member, Quota


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two states of the config repo that are compared."""

    commit: Commit
    fleet: Fleet


@dataclass(frozen=True, slots=True)
class Pair:
    """What is asked of some nodes, which are alike but for their names, on both sides."""

    nodes: tuple[str, ...]
    base: Desired
    head: Desired

    @property
    def group(self) -> str:
        """The group's name: where the nodes will be, or where they were."""
        group = self.head.group or self.base.group
        return group.name if group else ""

    @property
    def changed(self) -> dict[str, tuple[Deployment | None, Deployment | None]]:
        """Model -> its deployment before and after, where these differ."""
        before = {item.model: item for item in self.base.deployments}
        after = {item.model: item for item in self.head.deployments}
        return {
            model: (before.get(model), after.get(model))
            for model in sorted(before.keys() | after.keys())
            if before.get(model) != after.get(model)
        }

    @property
    def eventful(self) -> set[str]:
        """Paths of the base's deployments of which it matters what nodes still have on disk."""
        if self.base.policy.keep != self.head.policy.keep:
            return {deployment.path for deployment in self.base.deployments}
        return {before.path for before, _ in self.changed.values() if before is not None}


@dataclass(frozen=True, slots=True)
class Undecided:
    """A node of which the head leaves open what it should do; it changes nothing."""

    node: str
    sentence: str


def pair_nodes(base: Side, head: Side) -> tuple[list[Pair], list[Undecided]]:
    """Return the nodes that are asked something else at the head, and those left undecided.

    Of a group whose nodes a registry knows one is taken that holds all its deployments.
    """
    base, head = (replace(side, fleet=_stand_in(side.fleet)) for side in (base, head))
    pairs: dict[tuple[object, ...], Pair] = {}
    undecided = []
    for node in sorted({*_node_names(base.fleet), *_node_names(head.fleet)}):
        before = _choose_base(base, node)
        try:
            after = choose_desired(head.fleet, head.commit, node)
        except ConfigError as error:
            undecided.append(Undecided(node, str(error)))
            continue
        if _asks_same(before, after):
            continue
        key = (*_key(before), *_key(after))
        known = pairs.get(key)
        # A freeze only says when; what is to be seen is what happens once it is over.
        after = replace(after, policy=replace(after.policy, freezes=()))
        if known is None:
            pairs[key] = Pair((node,), before, after)
        else:
            pairs[key] = replace(known, nodes=(*known.nodes, node))
    return list(pairs.values()), undecided


def name_nodes(group: Group) -> tuple[str, ...]:
    """Return the names of a group's nodes; one stands for all where a registry knows them."""
    if group.membership is not None:
        return (f"any node of {group.name}",)
    return tuple(sorted(member.name for member in group.nodes))


def _stand_in(fleet: Fleet) -> Fleet:
    groups = {}
    for group in fleet.groups.values():
        if group.membership is not None:
            shares = any(
                item.replicas is not None
                for item in fleet.deployments.values()
                if item.group == group.name
            )
            group = replace(
                group,
                nodes=tuple(map(Member, name_nodes(group))),
                quota=Quota() if shares else group.quota,  # no real node holds all of them
            )
        groups[group.name] = group
    return replace(fleet, groups=groups)


def _node_names(fleet: Fleet) -> Iterator[str]:
    for group in fleet.groups.values():
        for member in group.nodes:
            yield member.name


def _choose_base(base: Side, node: str) -> Desired:
    try:
        return choose_desired(base.fleet, base.commit, node)
    except ConfigError:
        return Desired(base.commit, node, None, ())


def _asks_same(before: Desired, after: Desired) -> bool:
    return (before.deployments, before.policy, before.broken.keys(), _terms(before)) == (
        after.deployments,
        after.policy,
        after.broken.keys(),
        _terms(after),
    )


def _terms(desired: Desired) -> object:
    """Return what a group says beside who is in it."""
    return replace(desired.group, nodes=()) if desired.group else None


def _key(desired: Desired) -> tuple[object, ...]:
    """Return what tells two nodes of one fleet apart but for their names."""
    return (
        desired.group.name if desired.group else None,
        tuple(deployment.path for deployment in desired.deployments),
        tuple(sorted(desired.broken)),
    )
