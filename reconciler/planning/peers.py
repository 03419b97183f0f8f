"""What other nodes say of a deployment or of their server, as far as it matters to this one.

Nothing central tells a node when it may give a model up, take a new version or replace its
server. It asks those concerned, and only while it has to know. What they say is compared by what
was asked of them, not by commit: a commit that changes another model changes nothing here. Times
are durations, because the clocks of two nodes may be an hour apart.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from reconciler.model import Deployment, Phase, ServerSpec, Unavailable
from reconciler.planning.goals import fingerprint


@dataclass(frozen=True, slots=True)
class PeerModel:
    """One deployment on another node."""

    ask: str
    """`ask_of` the deployment as it is in force there."""
    phase: Phase
    reason: str
    wanted: int | None
    """The version that it came to there."""
    serving: tuple[int, ...]
    deployed_seconds: float
    """How long it has been Deployed as asked; 0 where it is not."""
    sentence: str


class ServerState(StrEnum):
    """How far a node is with the server that git asks for."""

    STEADY = "steady"
    """It runs just that one, which serves all that it is to serve."""
    PENDING = "pending"
    REPLACING = "replacing"
    """It may serve nothing at the moment."""
    FAILED = "failed"
    """That one did not come up; the one before serves again."""


@dataclass(frozen=True, slots=True)
class ServerStanding:
    """What a node that follows its group's `serving` says of its server."""

    ask: str
    """`ask_of_server` what git says there; empty where an older agent says nothing of it."""
    state: ServerState
    sentence: str


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, as it describes itself."""

    node: str
    models: Mapping[str, PeerModel] = field(default_factory=dict)
    server: ServerStanding | None = None
    """None where its agent leaves the server to others."""


Peers: TypeAlias = Mapping[str, Peer | Unavailable]
"""Node -> what it says, or why it cannot be asked. Who is not in it was not asked yet."""

NO_ASK = "does not say what is asked of it, as agents of older releases do not"

NO_ADDRESS = "NoAddress"
"""The reason of an Unavailable: git and registry do not say where the node can be asked."""


def ask_of(deployment: Deployment) -> str:
    """Return a short text that is the same on all nodes of which the same is asked."""
    return hashlib.sha256(fingerprint(deployment).encode()).hexdigest()[:16]


def ask_of_server(spec: ServerSpec | None) -> str:
    """Return a short text that is the same on all nodes of which the same server is asked."""
    text = "" if spec is None else repr((spec.image, spec.flags))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
