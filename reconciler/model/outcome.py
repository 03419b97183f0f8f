"""What is said of a deployment and of its node."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model.desired import Deployment


class Phase(StrEnum):
    """Where a deployment stands on this node."""

    DEPLOYING = "Deploying"
    DEPLOYED = "Deployed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the plan says of one deployment: phase, the reason word and a sentence for a person."""

    deployment: Deployment
    phase: Phase
    reason: str
    sentence: str
    wanted: int | None = None
    """The version that `latest` or the pin came to; None while that is not known."""
    serving: tuple[int, ...] = ()
    """The versions that answer requests now, ascending."""
    installed: tuple[int, ...] = ()
    """The versions on disk that this reconciler put there, ascending."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """The labels that TensorFlow Serving has accepted."""
    progress: Progress | None = None
    last_error: str | None = None
    retry_in_seconds: float | None = None
    deployed_since: float | None = None
    """Since when it has been Deployed as it is asked for now, without a break, by the steady clock
    that the plan was given; None where it is not."""
    names: Mapping[int, str] = field(default_factory=dict)
    """What git calls its versions that are not simply called by their numbers."""


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator's word to one node: touch nothing until then."""

    reason: str
    until_seconds: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One yes-or-no fact about the node; `holds` False with a sentence is something to act on."""

    name: str
    holds: bool
    reason: str
    sentence: str
