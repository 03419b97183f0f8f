"""Tells people and machines what a tick found and did: the log, /status, the history.

The rest of the agent decides; this module only puts it into words, and says a thing once: a line
at INFO or above means that something changed. A line about a change carries the commit that asked
for it, which may be an older one than that in force.
"""

import logging
import time
from collections.abc import Mapping, Sequence

from reconciler import __version__
from reconciler.follow.watch import STALE
from reconciler.logs import Note, about
from reconciler.model import Commit, Condition, Local, Phase
from reconciler.planning.events import (
    Event,
    Fetched,
    FetchFailed,
    Reloaded,
    ReloadFailed,
    TrialFailed,
    Tried,
)
from reconciler.planning.peers import ServerStanding
from reconciler.planning.steps import Plan, World
from reconciler.status.board import StatusBoard
from reconciler.status.changes import Change, Result
from reconciler.status.peers import Badge
from reconciler.status.report import Disk, NodeReport

_log = logging.getLogger(__name__)


class Herald:
    """Publishes one report a tick, and says what ended beside it."""

    def __init__(self, board: StatusBoard, badge: Badge) -> None:
        self._board = board
        self._node = badge.node
        self._instance = badge.instance
        self._started_at_seconds = time.time()
        self._conditions: Mapping[str, Condition] = {}

    async def wait(
        self, condition: Condition, applied: Commit | None, server: ServerStanding | None
    ) -> None:
        """Say that nothing is done, because of what `condition` says."""
        self._log_conditions((condition,))
        await self._board.publish(
            NodeReport(
                node=self._node,
                group=None,
                instance=self._instance,
                program_version=__version__,
                started_at_seconds=self._started_at_seconds,
                generated_at_seconds=time.time(),
                ready=False,
                summary=f"nothing is changed: {condition.sentence}",
                applied=applied,
                conditions=(condition,),
                server=server,
            )
        )

    def tell_event(self, event: Event) -> None:
        """Say and count how something ended that ran beside the tick."""
        model, version = getattr(event, "model", None), getattr(event, "version", None)
        with about(model=model, version=version):
            self._tell_event(event)

    def _tell_event(self, event: Event) -> None:
        metrics = self._board.metrics
        match event:
            case Fetched(model, version):
                _log.info("installed %s %s", model, version)
            case FetchFailed(model, version, _, reason, sentence):
                metrics.count_download_error(reason)
                _log.warning("%s %s: %s", model, version, sentence)
            case Tried(model, version, _, count):
                asked = "1 golden request" if count == 1 else f"{count} golden requests"
                _log.info("%s %s answered its %s", model, version, asked)
            case TrialFailed(model, version, _, sentence):
                _log.warning("%s %s failed its golden requests: %s", model, version, sentence)
            case Reloaded():
                metrics.count_reload("OK")
            case ReloadFailed(_, code, message):
                metrics.count_reload(code)
                _log.warning("TensorFlow Serving answered a reload: %s: %s", code, message)

    async def tell(
        self, world: World, plan: Plan, done: Sequence[Note], applied: Commit | None, now: float
    ) -> None:
        """Say what one tick found and what it did; `now` is when its plan was made."""
        for note in done:
            with about(**note.facts):
                _log.info("%s", note.sentence)
        self._log_conditions(plan.conditions)
        desired = world.desired
        changes = await self._board.publish(
            NodeReport(
                node=self._node,
                group=desired.group.name if desired.group else None,
                instance=self._instance,
                program_version=__version__,
                started_at_seconds=self._started_at_seconds,
                generated_at_seconds=time.time(),
                clock_seconds=now,
                ready=True,
                summary="; ".join(note.sentence for note in done) or _summarize(plan),
                observed=desired.commit,
                applied=applied,
                outcomes=plan.outcomes,
                removals=plan.removals,
                conditions=plan.conditions,
                problems=desired.problems,
                disk=_measure(world.local),
                holders=desired.holders,
                members=tuple(member.name for member in desired.group.nodes)
                if desired.group
                else (),
                server=world.server,
            )
        )
        for change in changes:
            level = logging.WARNING if change.result is Result.FAILED else logging.INFO
            with about(commit=change.commit.id, model=change.model, version=change.to_version):
                _log.log(level, "%s", _tell(change))

    def _log_conditions(self, conditions: tuple[Condition, ...]) -> None:
        """Log a condition when it begins or ceases to hold, and not in between."""
        for condition in conditions:
            before = self._conditions.get(condition.name)
            if before is None and (condition.holds or condition.reason == STALE):
                continue  # the first moments of every start
            if before is None or (before.holds, before.reason) != (
                condition.holds,
                condition.reason,
            ):
                level = logging.INFO if condition.holds else logging.WARNING
                _log.log(level, "%s: %s", condition.name, condition.sentence)
        self._conditions = {condition.name: condition for condition in conditions}


def _summarize(plan: Plan) -> str:
    phases = [outcome.phase for outcome in (*plan.outcomes, *plan.removals)]
    if not phases:
        return "nothing is deployed on this node"
    words = ", ".join(f"{phases.count(phase)} {phase}" for phase in Phase if phase in phases)
    return f"nothing to do: {words}" if plan.converged else words


def _measure(local: Local) -> Disk:
    models_bytes = sum(
        found.size_bytes for versions in local.versions.values() for found in versions.values()
    )
    return Disk(local.free_bytes, local.total_bytes, models_bytes)


def _tell(change: Change) -> str:
    commit = f"for commit {change.commit.id[:8]}"
    match change.result:
        case Result.DEPLOYED:
            former = change.from_name or change.from_version
            before = "" if former is None else f" (was {former})"
            return f"deployed {change.model} {change.to_name or change.to_version}{before} {commit}"
        case Result.STOPPED:
            return f"stopped {change.model} {commit}"
        case Result.REMOVED:
            return f"removed {change.model} {commit}"
        case Result.FAILED:
            name = change.to_name or change.to_version
            version = "" if name is None else f" {name}"
            return f"{change.model}{version} failed {commit}: {change.why}"
