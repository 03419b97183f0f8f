"""The node's report: what the agent hands over once per tick, and its form as JSON.

`NodeReport` holds the words of the model as they are; `render` turns them into exactly what
schema/status.schema.json describes, and nothing else in the system builds that JSON. Times are
RFC 3339 in UTC, durations are numbers with `_seconds` in their name, sizes with `_bytes`.
Deployments come sorted by model, so that two reports can be compared; which of them is the worst
is a question for whoever shows them (`worst_first`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from reconciler.model import Commit, Condition, Deployment, Outcome, Phase, Problem
from reconciler.planning.peers import ServerStanding, ask_of

Json: TypeAlias = dict[str, Any]

WORST_FIRST: Sequence[Phase] = (
    Phase.FAILED,
    Phase.DEPLOYING,
    Phase.STOPPING,
    Phase.DEPLOYED,
    Phase.STOPPED,
)
"""What a person should look at first; page/page.js keeps the same order."""

_YEAR_10000_SECONDS = 253_402_300_800.0


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of the models folder."""

    free_bytes: int
    total_bytes: int
    models_bytes: int
    """What the installed versions take of it."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """Everything the node knows of itself at the end of one tick."""

    node: str
    group: str | None
    """None where no group of the config repo names this node."""
    program_version: str
    started_at_seconds: float
    """When the agent started, Unix time."""
    generated_at_seconds: float
    """When this report was made, Unix time."""
    ready: bool
    """Whether a commit has been applied, or the last good state restored, since the start."""
    summary: str
    """What the last tick did, in one sentence."""
    observed: Commit | None = None
    """The newest commit that was read."""
    applied: Commit | None = None
    """The newest commit for which every deployment of this node had converged."""
    outcomes: tuple[Outcome, ...] = ()
    removals: tuple[Outcome, ...] = ()
    """Models that left the config repo or this node and are still here."""
    conditions: tuple[Condition, ...] = ()
    problems: tuple[Problem, ...] = ()
    disk: Disk | None = None
    holders: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Model -> the nodes of the group that are to serve it, as this node sees the group."""
    members: tuple[str, ...] = ()
    """The group's nodes, as this node sees it."""
    instance: str = ""
    """Drawn by chance when the agent starts: tells two agents of one name apart."""
    clock_seconds: float = 0.0
    """When the plan was made that this tells of, by the steady clock that it was given."""
    age_seconds: float = 0.0
    """How long ago that was: since then nothing has changed but the time."""
    server: ServerStanding | None = None
    """How far it is with the server that git asks for; None where it leaves that to others."""


def render(report: NodeReport) -> Json:
    """Return the report as schema/status.schema.json describes it, ready for json.dumps."""
    now = _now(report)
    return {
        "node": report.node,
        "group": report.group,
        "instance": report.instance,
        "members": sorted(report.members),
        "program_version": report.program_version,
        "started_at": timestamp(report.started_at_seconds),
        "generated_at": timestamp(now),
        "uptime_seconds": _seconds(max(0.0, now - report.started_at_seconds)),
        "ready": report.ready,
        "summary": report.summary,
        "observed": render_commit(report.observed) if report.observed else None,
        "applied": render_commit(report.applied) if report.applied else None,
        "deployments": list(render_outcomes(report.outcomes, report)),
        "removals": list(render_outcomes(report.removals, report)),
        "conditions": [
            {
                "name": condition.name,
                "holds": condition.holds,
                "reason": condition.reason,
                "sentence": condition.sentence,
            }
            for condition in report.conditions
        ],
        "problems": [
            {
                "path": problem.path,
                "line": problem.line,
                "column": problem.column,
                "message": problem.message,
            }
            for problem in sorted(report.problems)
        ],
        "disk": None
        if report.disk is None
        else {
            "free_bytes": report.disk.free_bytes,
            "total_bytes": report.disk.total_bytes,
            "models_bytes": report.disk.models_bytes,
        },
        "server": None
        if report.server is None
        else {
            "ask": report.server.ask,
            "state": report.server.state.value,
            "sentence": report.server.sentence,
        },
    }


def render_commit(commit: Commit) -> Json:
    """Return a commit as the JSON of /status and /history has it."""
    return {
        "id": commit.id,
        "author": commit.author,
        "subject": commit.subject,
        "time": timestamp(commit.time_seconds),
    }


def timestamp(seconds: float) -> str:
    """Return Unix time as RFC 3339 in UTC, to the millisecond.

    A commit may claim any time at all; what lies outside the years 1970 to 9999 is moved to their
    edge, so that one odd commit cannot take /status down.
    """
    bounded = min(max(seconds, 0.0), _YEAR_10000_SECONDS - 1)
    moment = datetime.fromtimestamp(round(bounded, 3), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def worst_first(deployments: Iterable[Json]) -> list[Json]:
    """Return rendered deployments in the order of attention they need, then by model."""
    rank = {phase.value: position for position, phase in enumerate(WORST_FIRST)}
    return sorted(
        deployments, key=lambda item: (rank.get(item["phase"], 0), item["model"], item["group"])
    )


def name_version(item: Mapping[str, Any], version: int) -> str:
    """Return what a version of a rendered deployment is called."""
    return str(item.get("version_names", {}).get(str(version), version))


def render_outcomes(outcomes: Iterable[Outcome], report: NodeReport) -> Iterator[Json]:
    """Yield the outcomes as the report has them, by model."""
    for outcome in sorted(outcomes, key=lambda outcome: outcome.deployment.model):
        yield _render_outcome(outcome, report)


def _render_outcome(outcome: Outcome, report: NodeReport) -> Json:
    deployment, retry, since = outcome.deployment, outcome.retry_in_seconds, outcome.deployed_since
    passed_seconds = report.clock_seconds + report.age_seconds
    if retry is not None:
        retry = max(0.0, retry - report.age_seconds)
    return {
        "model": deployment.model,
        "group": deployment.group,
        "path": deployment.path,
        "source": deployment.source,
        "description": deployment.description,
        "metadata": dict(sorted(deployment.metadata.items())),
        "pinned_version": deployment.version,
        "locked_version": deployment.lock.version if deployment.lock else None,
        "locked_digest": _locked_digest(deployment),
        "ask": ask_of(deployment) if deployment.source else "",
        "holders": list(report.holders.get(deployment.model, ())),
        "stop": deployment.stop,
        "strategy": deployment.rollout.strategy.value,
        "phase": outcome.phase.value,
        "reason": outcome.reason,
        "sentence": outcome.sentence,
        "wanted_version": outcome.wanted,
        "serving_versions": sorted(outcome.serving),
        "installed_versions": sorted(outcome.installed),
        "version_names": {str(version): name for version, name in sorted(outcome.names.items())},
        "wanted_labels": dict(sorted(deployment.labels.items())),
        "labels": dict(sorted(outcome.labels.items())),
        "progress": None
        if outcome.progress is None
        else {
            "done_bytes": outcome.progress.done_bytes,
            "total_bytes": outcome.progress.total_bytes,
        },
        "deployed_seconds": None if since is None else _seconds(passed_seconds - since),
        "last_error": outcome.last_error,
        # To the second: by the time between plan and report it would be another one each tick.
        "retry_at": None if retry is None else timestamp(round(_now(report) + retry)),
        "retry_in_seconds": None if retry is None else _seconds(retry),
    }


def _locked_digest(deployment: Deployment) -> str | None:
    lock = deployment.lock
    return f"sha256:{lock.versions[lock.version].digest}" if lock else None


def _now(report: NodeReport) -> float:
    return report.generated_at_seconds + report.age_seconds


def _seconds(value: float) -> float:
    return round(value, 3)
