"""Which nodes there are, and what they may use."""

from dataclasses import dataclass, field
from enum import StrEnum

HTTPS = "https://"
"""What the address of a node with a certificate begins with."""


def find_host(address: str) -> str:
    """Return the host of `host:port` or `https://host:port`, an IPv6 address in brackets."""
    return address.removeprefix(HTTPS).rpartition(":")[0]


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
    """`host:port` of its status endpoint, or `https://host:port`, where known."""
    weight: float = 1.0
    """Its share of deployments that are not on all nodes; 0 drains it."""
    grpc: str | None = None
    """`host:port` of its TensorFlow Serving for gRPC, where clients find it elsewhere than at
    the address's host and the usual port."""
    rest: str | None = None
    """The same for REST."""

    @property
    def host(self) -> str | None:
        """The host in its address, an IPv6 address in brackets."""
        return find_host(self.address) if self.address else None


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
    tls: bool = False
    """Whether those have certificates."""


AGENT_FLAGS = frozenset(
    {
        "allow_version_labels_for_unavailable_models",
        "file_system_poll_wait_seconds",
        "grpc_socket_path",
        "load_retry_interval_micros",
        "max_num_load_retries",
        "model_base_path",
        "model_config_file",
        "model_config_file_poll_wait_seconds",
        "model_name",
        "num_load_threads",
        "num_unload_threads",
        "platform_config_file",
        "port",
        "rest_api_port",
        "ssl_config_file",
    }
)
"""Flags that the agent relies on: where it finds the server, and how that takes a config. They
belong to whoever sets the node up, and are none of git's."""


def flag_name(flag: str) -> str:
    """Return the name in a flag: `--port=8500` -> `port`."""
    return flag.removeprefix("--").partition("=")[0]


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """Which TensorFlow Serving the nodes of a group run."""

    image: str | None = None
    """With a tag or a digest; None leaves the image as it is."""
    flags: tuple[str, ...] | None = None
    """Beside those in AGENT_FLAGS; None leaves all of them as they are."""


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
    serving: ServerSpec | None = None
    """None where git does not say which TensorFlow Serving its nodes run."""
