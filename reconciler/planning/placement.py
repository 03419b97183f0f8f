"""Which nodes of a group hold a deployment that asks for fewer replicas than there are nodes.

Every node must come to the same answer on its own, and a node that comes or goes should move as
few models as possible. Rendezvous hashing gives both: each node has a fixed score for each key,
and those with the highest hold it. Weights follow Wang and Ravishankar's logarithm method: a node
of weight 2 comes first for twice as many keys as one of weight 1, and a changed weight moves only
what that node gains or loses.
"""

import hashlib
import math
from collections.abc import Mapping

from reconciler.model import Deployment, Group

_DIGEST_BITS = 256


def find_holders(deployment: Deployment, group: Group) -> tuple[str, ...]:
    """Return the names of the nodes that hold the deployment, in the order of a rollout."""
    weights = {member.name: member.weight for member in group.nodes}
    return holders(f"{deployment.group}/{deployment.model}", weights, deployment.replicas)


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
