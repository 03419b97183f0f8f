"""How a deployment comes to a new version."""

from dataclasses import dataclass
from enum import StrEnum


class Strategy(StrEnum):
    """How a model goes from one version to the next."""

    OVERLAP = "overlap"
    """Load the new version beside the old one, then drop the old one: no gap, twice the memory."""
    RECREATE = "recreate"
    """Unload the old version first: a gap, for a model of which two do not fit in memory."""


@dataclass(frozen=True, slots=True)
class Wave:
    """Up to how many of a deployment's nodes have the new version once the wave is done."""

    size: int
    is_percent: bool = False

    def count(self, nodes: int) -> int:
        """Return how many of `nodes` that is: at least one, part of a node counts as one."""
        wanted = -(-self.size * nodes // 100) if self.is_percent else self.size
        return max(1, min(nodes, wanted))


@dataclass(frozen=True, slots=True)
class Golden:
    """Requests that a new version must answer before anybody else's reach it."""

    path: str
    """Of the file in the version's folder: TFRecords of PredictionLog, as for a warm-up."""
    within_seconds: float
    """How long each answer may take."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a deployment comes to a new version, on one node and from node to node."""

    strategy: Strategy = Strategy.OVERLAP
    waves: tuple[Wave, ...] = ()
    """Growing; the last one is all nodes. Empty: all nodes at once."""
    pause_seconds: float = 0.0
    """How long a wave must have served the version before the next one begins."""
    golden: Golden | None = None
