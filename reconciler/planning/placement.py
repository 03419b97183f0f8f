"""Which nodes of a group hold a deployment that asks for fewer replicas than there are nodes.

Every node must come to the same answer on its own, and a node that comes or goes should move as
few models as possible. Rendezvous hashing gives both: each node has a fixed score for each key,
and those with the highest hold it. Weights follow Wang and Ravishankar's logarithm method: a node
of weight 2 comes first for twice as many keys as one of weight 1, and a changed weight moves only
what that node gains or loses.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.model import Deployment, Group

_DIGEST_BITS = 256


def find_holders(deployment: Deployment, group: Group) -> tuple[str, ...]:
    """Return the names of the nodes that hold the deployment, in the order of a rollout."""
    weights = {member.name: member.weight for member in group.nodes}
    return holders(f"{deployment.group}/{deployment.model}", weights, deployment.replicas)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the deployments of one group are."""

    holders: Mapping[str, tuple[str, ...]]
    """Path of a deployment -> the nodes that hold it, in the order of a rollout."""
    held: Mapping[str, frozenset[str]]
    """Node -> paths of the deployments that it holds."""


Holders: TypeAlias = dict[str, tuple[Deployment, Group, tuple[str, ...]]]
"""Path of a deployment -> itself, its group, and who was found to hold it in that."""


def place_all(
    deployments: Iterable[Deployment], group: Group, known: Holders | None = None
) -> Placement:
    """Return where the group's deployments are.

    `known` keeps what was found for the next time: of the same deployment in the same group it is
    the same again.
    """
    known = {} if known is None else known
    holders = {}
    for item in deployments:
        found = known.get(item.path)
        if found is None or found[0] is not item or found[1] is not group:
            found = known[item.path] = item, group, find_holders(item, group)
        holders[item.path] = found[2]
    held: dict[str, set[str]] = {}
    for path, nodes in holders.items():
        for node in nodes:
            held.setdefault(node, set()).add(path)
    return Placement(holders, {node: frozenset(paths) for node, paths in held.items()})


def holders(key: str, weights: Mapping[str, float], replicas: int | None) -> tuple[str, ...]:
    """Return the nodes that hold `key`, first choice first; all where `replicas` is None.

    `weights` has the weight of each node; one of weight 0 holds nothing. With fewer nodes than
    replicas all hold it.
    """
    scores = {node: _score(key, node, weight) for node, weight in weights.items() if weight > 0}
    ranked = sorted(scores, key=lambda node: (scores[node], node), reverse=True)
    return tuple(ranked[:replicas])


def _score(key: str, node: str, weight: float) -> float:
    # hash() would differ from process to process; NUL keeps ("a", "bc") apart from ("ab", "c").
    digest = hashlib.sha256(f"{key}\0{node}".encode()).digest()
    # Strictly between 0 and 1, so that its logarithm is a number below 0.
    fraction = (int.from_bytes(digest) + 0.5) / 2**_DIGEST_BITS
    return weight / -math.log(min(fraction, 1 - 2**-53))
