"""What can happen to a fleet, as values: a schedule is a list of these, each with its time.

Every event can be taken out of a schedule without making the rest of it senseless: one that does
not fit what is there does nothing. That is what lets a failing schedule be made small.
"""

from dataclasses import dataclass
from typing import TypeAlias

from reconciler.model import Quota, Wave

# --- edits of the config repo ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetVersion:
    """Pin another version; None is `latest`."""

    model: str
    version: int | None


@dataclass(frozen=True, slots=True)
class SetReplicas:
    """Ask for another number of nodes; None is `all`."""

    model: str
    replicas: int | None


@dataclass(frozen=True, slots=True)
class SetLabel:
    """Point the label `canary` to a version; None takes it away."""

    model: str
    version: int | None


@dataclass(frozen=True, slots=True)
class SetStop:
    """Write `stop`."""

    model: str
    stop: bool


@dataclass(frozen=True, slots=True)
class SetSuspend:
    """Write `suspend`."""

    model: str
    suspend: bool


@dataclass(frozen=True, slots=True)
class Add:
    """Write a deployment file."""

    model: str
    group: str
    version: int | None = 1
    replicas: int | None = None
    waves: tuple[Wave, ...] = ()
    pause_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a deployment file."""

    model: str


@dataclass(frozen=True, slots=True)
class SetWeight:
    """Write a node's weight, and list the node where it is not yet."""

    node: str
    group: str
    weight: float


@dataclass(frozen=True, slots=True)
class Unlist:
    """Take a node out of its group."""

    node: str


@dataclass(frozen=True, slots=True)
class SetQuota:
    """Write a group's quota."""

    group: str
    quota: Quota


@dataclass(frozen=True, slots=True)
class SetEnabled:
    """Write a group's `enabled`."""

    group: str
    enabled: bool


Edit: TypeAlias = (
    SetVersion
    | SetReplicas
    | SetLabel
    | SetStop
    | SetSuspend
    | Add
    | Remove
    | SetWeight
    | Unlist
    | SetQuota
    | SetEnabled
)

# --- what happens ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Commit:
    """Somebody pushes edits; each node sees them when it next fetches."""

    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Publish:
    """A version appears in the bucket."""

    model: str
    version: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A machine loses its power."""

    node: str


@dataclass(frozen=True, slots=True)
class Start:
    """A machine that is off comes up again, with its disk or as a new one."""

    node: str
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class RestartAgent:
    """The agent alone begins again; what it remembers is what its memory file says."""

    node: str


@dataclass(frozen=True, slots=True)
class CrashServer:
    """TensorFlow Serving alone begins again, from its config file."""

    node: str


@dataclass(frozen=True, slots=True)
class Stall:
    """TensorFlow Serving loads nothing for a while."""

    node: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Part:
    """The network falls apart: these nodes reach each other and nobody else."""

    nodes: frozenset[str]
    loses_git: bool


@dataclass(frozen=True, slots=True)
class LoseBucket:
    """The bucket answers nobody."""


@dataclass(frozen=True, slots=True)
class Heal:
    """The network is whole again, and the bucket answers."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What failed to load on some nodes loads from now on."""


Event: TypeAlias = (
    Commit
    | Publish
    | Kill
    | Start
    | RestartAgent
    | CrashServer
    | Stall
    | Part
    | LoseBucket
    | Heal
    | Repair
)
