"""A fleet before anything happens to it, what happens to it, and what came of it."""

from dataclasses import dataclass

from reconciler.policy import Policy
from tests.simulation.events import Edit, Event
from tests.simulation.node import Traits


@dataclass(frozen=True, slots=True)
class Model:
    """What the bucket holds of a model at the start."""

    name: str
    size_bytes: int
    versions: int
    bad: tuple[tuple[int, str], ...] = ()
    """(version, node) that fail to load; the node `*` is all of them."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A fleet before anything happens to it."""

    seed: int
    machines: tuple[tuple[str, Traits], ...]
    models: tuple[Model, ...]
    first: tuple[Edit, ...]
    """The first commit."""
    policy: Policy
    groups: tuple[str, ...] = ("g",)
    by_registry: bool = False
    """Whether a registry says who is in the group `g`, instead of git."""
    by_dns: bool = False
    """Whether that registry lists to each node only those that answer it."""
    with_addresses: bool = True


@dataclass(frozen=True, slots=True)
class Schedule:
    """A fleet, and what happens to it when."""

    setup: Setup
    events: tuple[tuple[float, Event], ...]


@dataclass(slots=True)
class Result:
    """What came of a schedule."""

    events: int = 0
    plans: int = 0
    settle_seconds: float = 0.0
    """From the last event until nothing changed any more."""
