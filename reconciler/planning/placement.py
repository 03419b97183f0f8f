"""Which nodes of a group hold a deployment that asks for fewer replicas than there are nodes.

Every node must come to the same answer on its own, and a node that comes or goes should move as
few models as possible. Rendezvous hashing gives both: each node has a fixed weight for each key,
and the heaviest nodes hold it.
"""

import hashlib
from collections.abc import Iterable


def holders(key: str, nodes: Iterable[str], replicas: int | None) -> tuple[str, ...]:
    """Return the nodes that hold `key`, heaviest first; all of them where `replicas` is None.

    The order and repetition of `nodes` do not matter. With fewer nodes than replicas all hold it.
    """
    ranked = sorted(set(nodes), key=lambda node: (_weight(key, node), node), reverse=True)
    return tuple(ranked[:replicas])


def _weight(key: str, node: str) -> bytes:
    # hash() would differ from process to process; NUL keeps ("a", "bc") apart from ("ab", "c").
    return hashlib.sha256(f"{key}\0{node}".encode()).digest()
