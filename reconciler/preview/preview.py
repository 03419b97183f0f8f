"""The preview of a change as a whole: a function of two fleets, their past and the listings."""

from collections.abc import Iterable, Sequence

from reconciler.model import Available
from reconciler.planning.steps import Limits
from reconciler.preview.actions import find_actions
from reconciler.preview.catalog import Catalog
from reconciler.preview.pairs import Pair, Side, Undecided
from reconciler.preview.remarks import (
    PAST_IS_CUT,
    find_crowds,
    find_fleet_remarks,
    find_node_remarks,
    gather,
)
from reconciler.preview.report import Action, ModelAction, NodeUsage, Preview, Remark
from reconciler.preview.servers import find_server_changes
from reconciler.preview.simulate import simulate
from reconciler.preview.standing import Past, stand
from reconciler.preview.usages import find_scope, find_sizes, find_usages


def make_preview(
    base: Side,
    head: Side,
    pairs: Sequence[Pair],
    undecided: Iterable[Undecided],
    past: Past,
    available: Available,
    wall_seconds: float,
    is_past_cut: bool = False,
) -> Preview:
    """Return what going from `base` to `head` does; `wall_seconds` is Unix time, for freezes.

    With `is_past_cut` git held only the newest part of the past.
    """
    limits = Limits(settle_seconds=0)  # an upload of this minute has settled when this is merged
    catalog = Catalog(available, limits)
    nodes: dict[Action, set[str]] = {}
    usages: list[NodeUsage] = []
    remarks: list[Remark] = []
    for pair in pairs:
        standing = stand(pair.base, past, catalog)
        asked = [after for _, after in pair.changed.values() if after is not None]
        sizes = find_sizes(pair, standing, catalog)
        scope = find_scope(pair, sizes, catalog)
        course = simulate(standing, pair.head, catalog.assume(asked), limits, scope)
        actions = find_actions(pair, standing, course, catalog)
        for action in actions:
            nodes.setdefault(action, set()).update(pair.nodes)
        used = find_usages(pair, course, sizes, catalog)
        if used:
            usages.append(NodeUsage(pair.group, pair.nodes, used))
        remarks += find_node_remarks(pair, course, actions, used, catalog)
    found = [ModelAction(action, tuple(sorted(names))) for action, names in nodes.items()]
    remarks += find_crowds(found, _count_holders(head))
    groups = sorted({pair.group for pair in pairs})
    remarks += find_fleet_remarks(base, head, groups, undecided, catalog, wall_seconds)
    if is_past_cut:
        remarks.append(PAST_IS_CUT)
    return Preview(
        base=base.commit,
        head=head.commit,
        actions=tuple(sorted(found, key=lambda f: (f.action.group, f.action.model, f.nodes))),
        servers=tuple(find_server_changes(base, head)),
        usages=tuple(sorted(usages, key=lambda used: (used.group, used.nodes))),
        remarks=gather(remarks),
        problems=tuple(head.fleet.problems),
    )


def _count_holders(side: Side) -> dict[tuple[str, str], int]:
    """Return on how many nodes each deployment without waves is, by (group, model)."""
    counts = {}
    for deployment in side.fleet.deployments.values():
        group = side.fleet.groups.get(deployment.group)
        if group is not None and not deployment.rollout.waves:
            holders = side.fleet.place(group).holders[deployment.path]
            counts[deployment.group, deployment.model] = len(holders)
    return counts
