"""What goes into a plan and what comes out of it, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.model import (
    Available,
    Condition,
    Desired,
    Golden,
    Local,
    Outcome,
    Pause,
    Phase,
    Progress,
    Query,
    Served,
    ServerConfig,
    Snapshot,
    Unavailable,
)
from reconciler.planning.memory import Memory
from reconciler.planning.peers import Peers, ServerStanding
from reconciler.planning.rollout import Request


@dataclass(frozen=True, slots=True)
class Fetch:
    """Download, verify and install a version."""

    model: str
    snapshot: Snapshot
    reason: str
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Path -> hex sha256 that each file must have, where the lock says so; else empty."""
    most_bytes: int | None = None
    """What a packed version may have unpacked; None where no quota says so."""


@dataclass(frozen=True, slots=True)
class Configure:
    """Send TensorFlow Serving this config."""

    request: Request
    reason: str


@dataclass(frozen=True, slots=True)
class WriteConfig:
    """Write the config that a restart of TensorFlow Serving is to come up with."""

    config: ServerConfig


@dataclass(frozen=True, slots=True)
class RemoveVersion:
    """Delete an installed version; with the last one of a model its folder goes too."""

    model: str
    version: int
    reason: str
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class RemoveStaging:
    """Delete what a download that nobody wants any more has left."""

    model: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Try:
    """Ask a version, which the server has under the name of its trial, its golden requests."""

    model: str
    version: int
    digest: str
    """Of the bytes that are tried."""
    golden: Golden


Step = Fetch | Configure | WriteConfig | RemoveVersion | RemoveStaging | Try


@dataclass(frozen=True, slots=True)
class World:
    """The four snapshots, and what is going on beside the loop."""

    desired: Desired
    available: Available
    local: Local
    served: Served | Unavailable
    restart_config: ServerConfig | None = None
    """What the server's config file says; None where there is none that can be read."""
    git_trouble: Unavailable | None = None
    """Why the newest commit is not known; what was read before stands in `desired`."""
    source_verified: Condition | None = None
    """Whether the newest commit may be followed; None where nobody asks for signatures."""
    fetching: Mapping[tuple[str, int], Progress] | None = None
    """Downloads that run: (model, version) -> how far."""
    wall_seconds: float = 0.0
    """Unix time, for freezes and pauses, which people set by the calendar."""
    pause: Pause | None = None
    peers: Peers | None = None
    """What other nodes say; None where this one is played alone."""
    namesake: Unavailable | None = None
    """Where another agent of this node's name answers, if one does."""
    members_trouble: Unavailable | None = None
    """Why it is not known for sure which nodes the group has; those known last stay."""
    notifications: Condition | None = None
    """Whether the buckets' notifications are read; None where none are asked for."""
    supervised: Condition | None = None
    """How the server's container is; None where it is not this agent's to look after."""
    server: ServerStanding | None = None
    """How far the server is with what git asks; None where it leaves that to others."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that a plan depends on."""

    settle_seconds: float = 10.0
    poll_seconds: float = 1.0
    is_file_driven: bool = False
    """Whether the server polls its config file instead of taking reloads."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, what to remember, and what to say."""

    steps: tuple[Step, ...]
    memory: Memory
    outcomes: tuple[Outcome, ...]
    removals: tuple[Outcome, ...]
    """Models that left git and are still here, on their way out or held back."""
    conditions: tuple[Condition, ...]
    relist: Mapping[Query, float]
    """What to list again, and in how many seconds: an upload that is about to settle."""
    in_motion: bool
    """Whether more is to be seen soon: something loads, unloads or is on its way here."""
    ask_peers: tuple[str, ...] = ()
    """The nodes whose word is needed to go on."""

    @property
    def settled(self) -> bool:
        """Whether every deployment is as its commit says."""
        arrived = all(o.phase in (Phase.DEPLOYED, Phase.STOPPED) for o in self.outcomes)
        return arrived and not self.removals

    @property
    def converged(self) -> bool:
        """Whether nothing is left to do either."""
        return self.settled and not self.steps
