"""What one plan hands on to the next about models at rest; quiet.py says why and when."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.model import Available, Deployment, LocalVersion, Outcome, VersionStatus
from reconciler.planning.goals import Target
from reconciler.planning.memory import ModelMemory
from reconciler.policy import Policy


@dataclass(frozen=True, slots=True)
class Quiet:
    """One model at rest: what was said of it, and on which grounds."""

    deployment: Deployment
    found: Mapping[int, LocalVersion]
    seen: Mapping[int, VersionStatus]
    known: ModelMemory
    target: Target
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Calm:
    """All models at rest, and the grounds that they have in common."""

    models: Mapping[str, Quiet] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    hold: str = ""
    """What holds the node back, without the time that is left of it."""
    available: Available = field(default_factory=Available)
