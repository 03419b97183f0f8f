"""The view of a fleet as frozen values, and its form as JSON.

The fields are those of schema/fleet-view.schema.json by name and kind, so that a dataclass and its
JSON object are the same thing, and no second list of fields has to be kept in step.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from reconciler.status.report import Json


class FleetPhase(StrEnum):
    """Where a deployment stands; worst first."""

    FAILED = "Failed"
    UNKNOWN = "Unknown"
    """On a node that is dead, or does not list it."""
    DEPLOYING = "Deploying"
    STOPPING = "Stopping"
    DEPLOYED = "Deployed"
    STOPPED = "Stopped"


class NodeState(StrEnum):
    """How a node is."""

    WELL = "well"
    TROUBLE = "trouble"
    DEAD = "dead"
    UNASKED = "unasked"


class FleetState(StrEnum):
    """How the fleet is."""

    WELL = "well"
    TROUBLE = "trouble"
    BLIND = "blind"
    """No node answers."""


class Severity(StrEnum):
    """How bad something is; worst first."""

    CRITICAL = "critical"
    SERIOUS = "serious"
    WARNING = "warning"


class Role(StrEnum):
    """What a node has to do with a deployment."""

    HOLDER = "holder"
    LEAVING = "leaving"


PHASES: Final = tuple(FleetPhase)
PHASE_RANK: Final = {phase: rank for rank, phase in enumerate(PHASES)}
SEVERITY_RANK: Final = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class CommitView:
    """A commit."""

    id: str
    author: str
    subject: str
    time: str


@dataclass(frozen=True, slots=True)
class Lag:
    """How far one commit is behind another."""

    commits: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class DiskView:
    """A node's file system with models."""

    free_bytes: int
    total_bytes: int
    models_bytes: int


@dataclass(frozen=True, slots=True)
class ConditionView:
    """A condition that does not hold."""

    name: str
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class ProgressView:
    """How far a download is."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong."""

    severity: Severity
    group: str | None
    node: str | None
    model: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group."""

    name: str
    phase: FleetPhase
    enabled: bool | None
    deployments: Mapping[FleetPhase, int]
    nodes: Mapping[NodeState, int]


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node."""

    name: str
    group: str | None
    address: str | None
    state: NodeState
    sentence: str
    answered_at: str | None
    silent_seconds: float | None
    program_version: str | None
    uptime_seconds: float | None
    restarts: int
    clock_ahead_seconds: float | None
    observed: CommitView | None
    applied: CommitView | None
    lag: Lag | None
    disk: DiskView | None
    conditions: tuple[ConditionView, ...]
    problems: int
    deployments: Mapping[FleetPhase, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """One deployment on one node."""

    node: str
    role: Role
    phase: FleetPhase
    reason: str
    sentence: str
    wanted_version: int | None = None
    serving_versions: tuple[int, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    progress: ProgressView | None = None


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """One deployment on all nodes that have to do with it."""

    group: str
    model: str
    path: str
    source: str
    description: str
    stop: bool
    phase: FleetPhase
    sentence: str
    wanted_versions: tuple[int, ...]
    wanted_replicas: int
    available_replicas: int
    serving_replicas: int
    nodes: tuple[Standing, ...]
    version_names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChangeView:
    """One change of a deployment, on one node or more."""

    time: str
    commit_id: str
    group: str | None
    model: str
    to_version: int | None
    result: str
    reason: str
    nodes: tuple[str, ...]
    to_name: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """The fleet in numbers."""

    nodes: Mapping[NodeState, int]
    deployments: Mapping[FleetPhase, int]
    groups: int


@dataclass(frozen=True, slots=True)
class FleetView:
    """The fleet at one moment."""

    generated_at: str
    seen_from: str
    expected_from: str
    state: FleetState
    newest: CommitView | None
    counts: Counts
    wrong: tuple[Trouble, ...]
    wrong_count: int
    groups: tuple[GroupView, ...]
    nodes: tuple[NodeView, ...]
    deployments: tuple[DeploymentView, ...]
    changes: tuple[ChangeView, ...]

    @property
    def is_settled(self) -> bool:
        """Whether nothing is wrong and nothing is under way."""
        phases = self.counts.deployments
        moving = phases[FleetPhase.DEPLOYING] + phases[FleetPhase.STOPPING]
        return self.state is FleetState.WELL and not moving


_TIME_FIELDS = ("generated_at", "answered_at", "silent_seconds", "uptime_seconds")
_DISK_STEPS = 100


def render(view: FleetView) -> bytes:
    """Return the view as JSON, as schema/fleet-view.schema.json describes it."""
    return json.dumps(view, default=_fields, separators=(",", ":"), ensure_ascii=False).encode()


def render_lasting(view: FleetView) -> bytes:
    """Return what two views have in common that differ in nothing but the passing of time.

    A clock that drifts and a disk with a log on it change all the time as well: they count by the
    second and by the hundredth.
    """
    return json.dumps(view, default=_lasting_fields).encode()


def _fields(value: Any) -> Json:
    return {name: getattr(value, name) for name in value.__slots__}


def _lasting_fields(value: Any) -> Json:
    if isinstance(value, DiskView):
        step = max(1, value.total_bytes // _DISK_STEPS)
        return {"free": value.free_bytes // step, "models": value.models_bytes // step}
    fields = _fields(value)
    if isinstance(value, NodeView):
        ahead = value.clock_ahead_seconds
        fields["clock_ahead_seconds"] = None if ahead is None else round(ahead / 10)
    for name in _TIME_FIELDS:
        fields.pop(name, None)
    return fields
