"""Which nodes there are, and what they may use."""

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Quota:
    """What a group may use of each of its nodes; None is no limit."""

    disk_bytes: int | None = None
    models: int | None = None
    memory_bytes: int | None = None
    """Held against the sizes of the served versions: a loaded model takes at least its files."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a group."""

    name: str
    address: str | None = None
    """`host:port` of its status endpoint, where known."""
    weight: float = 1.0
    """Its share of deployments that are not on all nodes; 0 drains it."""
    grpc: str | None = None
    """`host:port` of its TensorFlow Serving for gRPC, where clients find it elsewhere than at
    the address's host and the usual port."""
    rest: str | None = None
    """The same for REST."""


class Registry(StrEnum):
    """Who knows which nodes a group has, where git does not say."""

    SWARM = "swarm"
    DNS = "dns"
    NOMAD = "nomad"


@dataclass(frozen=True, slots=True)
class Membership:
    """Where a group's nodes are looked up."""

    registry: Registry
    query: str
    """swarm: a node label as `name=value`; dns: a host name; nomad: a filter expression."""
    port: int
    """Of every node's status endpoint."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that serve the same set of deployments."""

    name: str
    path: str
    nodes: tuple[Member, ...]
    """Empty where `membership` says where to look them up, until that was done."""
    quota: Quota = field(default_factory=Quota)
    enabled: bool = True
    suspend: bool = False
    """Whether its nodes are to stay as they are."""
    membership: Membership | None = None
    """None where git lists the nodes."""
