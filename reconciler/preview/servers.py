"""What a change does to the servers themselves: `serving` of each group.

Whether a node follows it is a setting of the node, of which git knows nothing. So this says what
git asks, and of whom; not what one node does.
"""

from collections.abc import Iterator

from reconciler.model import Group, ServerSpec
from reconciler.preview.pairs import Side, name_nodes
from reconciler.preview.report import ServerChange

_NOTHING = ServerSpec()


def find_server_changes(base: Side, head: Side) -> Iterator[ServerChange]:
    """Yield the groups of the head whose `serving` is another than at the base, by name."""
    for name, group in sorted(head.fleet.groups.items()):
        before, after = _find_serving(base.fleet.groups.get(name)), _find_serving(group)
        if before != after:
            yield ServerChange(
                group=name,
                path=group.path,
                nodes=name_nodes(group),
                image_before=before.image,
                image_after=after.image,
                flags_before=before.flags,
                flags_after=after.flags,
            )


def _find_serving(group: Group | None) -> ServerSpec:
    """Return what is asked, the flags in an order of their own: theirs makes no difference."""
    spec = group.serving if group and group.serving else _NOTHING
    return ServerSpec(spec.image, None if spec.flags is None else tuple(sorted(spec.flags)))
