"""Fills in the nodes of those groups that git does not list the nodes of."""

from collections.abc import Mapping
from dataclasses import replace

from reconciler.config_repo.assemble import Fleet
from reconciler.errors import ConfigError
from reconciler.model import Group, Member, Unavailable


def with_members(fleet: Fleet, members: Mapping[str, tuple[Member, ...]]) -> Fleet:
    """Return the fleet with the nodes of every group that are known.

    `members` maps the names of groups to what their registries say; a group of which nothing is
    known yet stays without nodes, and those that git lists the nodes of stay as they are.
    """
    groups = {
        name: replace(group, nodes=members[name]) if group.membership and name in members else group
        for name, group in fleet.groups.items()
    }
    return replace(fleet, groups=groups)


def check_members(
    fleet: Fleet, node: str, troubles: Mapping[str, Unavailable] | None = None
) -> None:
    """Raise ConfigError where registries leave open which group a node is in.

    `fleet` has its members filled in. `troubles` says why a group's members are not known.
    """
    holding = [group for group in fleet.groups.values() if _holds(group, node)]
    if len(holding) > 1:
        places = " and ".join(_describe(group) for group in holding)
        raise ConfigError(
            f"node {node} is in more than one group: {places}; a node is in one group only, so"
            " nothing is changed on this node until the others leave it out"
        )
    unknown = [group for group in fleet.groups.values() if group.membership and not group.nodes]
    if not holding and unknown:
        group = unknown[0]
        trouble = (troubles or {}).get(group.name)
        why = f" ({trouble.sentence})" if trouble else ""
        raise ConfigError(
            f"whether node {node} is in group {group.name} cannot be told, because who is in it"
            f" is not known yet{why}; nothing is changed on this node until it is"
        )


def _holds(group: Group, node: str) -> bool:
    return any(member.name == node for member in group.nodes)


def _describe(group: Group) -> str:
    if group.membership is None:
        return f"{group.name} ({group.path})"
    registry = group.membership.registry
    return f"{group.name} ({group.path}, by {registry}: {group.membership.query})"
