"""Finds what changed: compares a report with what the history recorded last.

Like the rest of the system this is level-triggered. A change is not an event that must be caught
but a difference between the newest report and the newest record of each model, so a change whose
record was lost (a kill, a full disk) is found again by the next report.

Commit-to-serving seconds belong to the commit that changed the deployment, and to its first
arrival only: when `latest` moves on without a commit, or a model comes back after trouble, no
commit caused it and the seconds are None.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reconciler.model import Commit, Deployment, Outcome, Phase
from reconciler.status.report import NodeReport


class Result(StrEnum):
    """How a change of a deployment came out."""

    DEPLOYED = "deployed"
    FAILED = "failed"
    STOPPED = "stopped"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history: a deployment that is not as it was."""

    time_seconds: float
    """When the node found it so, Unix time."""
    commit: Commit
    """The commit that last changed the deployment."""
    model: str
    from_version: int | None
    """What served before; None where nothing did."""
    to_version: int | None
    """What was wanted; None where the model was to go, or where that never became known."""
    result: Result
    reason: str
    why: str
    """The sentence of the deployment at that moment."""
    commit_to_serving_seconds: float | None = None
    from_name: str | None = None
    """What the earlier version is called, where not simply by its number."""
    to_name: str | None = None
    """The same of the wanted one."""

    @property
    def serving_version(self) -> int | None:
        """The version that served once this change was over."""
        if self.result is Result.DEPLOYED:
            return self.to_version
        return self.from_version if self.result is Result.FAILED else None

    @property
    def serving_name(self) -> str | None:
        """What that version is called, where not simply by its number."""
        if self.result is Result.DEPLOYED:
            return self.to_name
        return self.from_name if self.result is Result.FAILED else None


@dataclass(slots=True)
class _Asked:
    deployment: Deployment
    commit: Commit
    arrived: bool = False


class ChangeFinder:
    """Remembers which commit asked for each deployment, and tells changes by it."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}
        self._told: dict[str, tuple[Outcome, Change | None]] = {}
        """Outcomes that showed no change beside what was recorded then: they show none again."""

    def find(self, report: NodeReport, recorded: Mapping[str, Change]) -> tuple[Change, ...]:
        """Return the changes that `report` shows beside `recorded`.

        `recorded` is the last change of each model that was not removed since. Before a commit
        has been read, a missing model means nothing: nothing is found then.
        """
        if report.observed is None:
            return ()
        changes = []
        for outcome in report.outcomes:
            model = outcome.deployment.model
            last = recorded.get(model)
            told = self._told.get(model)
            if told is not None and told[0] is outcome and told[1] is last:
                continue
            asked = self._note(outcome.deployment, report.observed)
            change = _compare(outcome, asked, last, report.generated_at_seconds)
            if change is not None:
                changes.append(change)
            else:
                self._told[model] = outcome, last
        present = {outcome.deployment.model for outcome in (*report.outcomes, *report.removals)}
        for model, last in recorded.items():
            if model not in present:
                changes.append(_removed(last, report.observed, report.generated_at_seconds))
        for model in self._asked.keys() - present:
            del self._asked[model]
            self._told.pop(model, None)
        return tuple(changes)

    def _note(self, deployment: Deployment, observed: Commit) -> _Asked:
        asked = self._asked.get(deployment.model)
        if asked is None or asked.deployment != deployment:
            asked = self._asked[deployment.model] = _Asked(deployment, observed)
        return asked


def _compare(outcome: Outcome, asked: _Asked, last: Change | None, now: float) -> Change | None:
    if outcome.phase is Phase.DEPLOYED:
        return _arrived(outcome, asked, last, now)
    if outcome.phase is Phase.FAILED:
        failure = (Result.FAILED, outcome.wanted, outcome.reason)
        if last and (last.result, last.to_version, last.reason) == failure:
            return None  # the failure that is recorded already, only tried once more
        return _change(outcome, asked, last, outcome.wanted, Result.FAILED, now)
    if outcome.phase is Phase.STOPPED and last and last.result in (Result.DEPLOYED, Result.FAILED):
        return _change(outcome, asked, last, None, Result.STOPPED, now)
    return None


def _arrived(outcome: Outcome, asked: _Asked, last: Change | None, now: float) -> Change | None:
    version = max(outcome.serving, default=None) if outcome.wanted is None else outcome.wanted
    name = None if version is None else outcome.names.get(version)
    arrived = (Result.DEPLOYED, version, name)
    if last and (last.result, last.to_version, last.to_name) == arrived:
        asked.arrived = True
        return None
    counted = asked.arrived or (
        last is not None and last.result is Result.DEPLOYED and last.commit.id == asked.commit.id
    )
    # A committer's clock may be ahead of this node's; a negative duration helps nobody.
    seconds = None if counted else max(0.0, now - asked.commit.time_seconds)
    return _change(outcome, asked, last, version, Result.DEPLOYED, now, seconds)


def _change(
    outcome: Outcome,
    asked: _Asked,
    last: Change | None,
    after: int | None,
    result: Result,
    now: float,
    seconds: float | None = None,
) -> Change:
    return Change(
        time_seconds=now,
        commit=asked.commit,
        model=outcome.deployment.model,
        from_version=last.serving_version if last else None,
        to_version=after,
        result=result,
        reason=outcome.reason,
        why=outcome.sentence,
        commit_to_serving_seconds=seconds,
        from_name=last.serving_name if last else None,
        to_name=None if after is None else outcome.names.get(after),
    )


def _removed(last: Change, observed: Commit, now: float) -> Change:
    return Change(
        time_seconds=now,
        commit=observed,
        model=last.model,
        from_version=last.serving_version,
        to_version=None,
        result=Result.REMOVED,
        reason="Removed",
        why=f"The config repo no longer places {last.model} on this node.",
        from_name=last.serving_name,
    )
