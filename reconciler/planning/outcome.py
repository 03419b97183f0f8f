"""What to tell a person about one deployment: its phase, the reason in a word, and a sentence.

Read top down: the first thing that stands between the deployment and what it asks for is the
reason. Nothing here decides anything; the same facts that made the steps make the words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.model import (
    Deployment,
    Outcome,
    Phase,
    Problem,
    Progress,
    VersionScheme,
    VersionStatus,
)
from reconciler.planning.events import FINAL_REASONS
from reconciler.planning.goals import OTHER_BYTES, Target, Trouble
from reconciler.planning.golden import TRYING
from reconciler.planning.handover import Handover
from reconciler.planning.locks import LOCK_MISMATCH
from reconciler.planning.memory import (
    GOLDEN_FAILED,
    Failure,
    ModelMemory,
    is_active,
    is_available,
)
from reconciler.planning.rollout import awaits_commit

SERVING = "Serving"
STOPPED = "Stopped"
UNLOADING = "Unloading"
LISTING = "Listing"
DOWNLOADING = "Downloading"
LOADING = "Loading"
WAITING = "Waiting"
MOVING_LABELS = "MovingLabels"
NO_ANSWER = "NoAnswer"
RELOAD_REFUSED = "ReloadRefused"
INVALID_CONFIG = "InvalidConfig"
SERVER_UNREACHABLE = "ServerUnreachable"

TROUBLES_THAT_PASS = frozenset({"Settling"})
"""Reasons that go away by waiting: they leave a deployment Deploying, not Failed."""

_UNREACHABLE = "waits for TensorFlow Serving, which cannot be reached"


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything that can be said of one model now."""

    memory: ModelMemory
    seen: Mapping[int, VersionStatus]
    now: float
    unreachable: str | None = None
    """Why TensorFlow Serving does not answer, if it does not."""
    broken: Problem | None = None
    """Why the newest text of the deployment is not followed."""
    refused: Mapping[int, Trouble] | None = None
    """Versions that the plan does not fetch: no room, over the quota."""
    progress: Mapping[int, Progress] | None = None
    installed: tuple[int, ...] = ()
    trials: Mapping[int, str] = field(default_factory=dict)
    """Versions that have to answer their golden requests first: how far each is."""
    titles: Mapping[int, str] = field(default_factory=dict)
    """What the versions on disk were called when they were installed."""
    scheme: VersionScheme = field(default_factory=VersionScheme)
    """What versions are called now."""

    @property
    def serving(self) -> tuple[int, ...]:
        """The versions that answer, as far as is known."""
        if self.unreachable:
            return ()
        return tuple(sorted(v for v, status in self.seen.items() if is_available(status)))

    def show(self, version: int) -> str:
        """Return what a sentence calls a version: what is here is called what it came as."""
        return self.titles.get(version) or self.scheme.show(version)

    def join(self, versions: Iterable[int]) -> str:
        """Return what a sentence calls several versions."""
        return " and ".join(map(self.show, versions))


def describe(target: Target, sight: Sight) -> Outcome:
    """Return the outcome of one deployment."""
    deployment = target.deployment
    verdict = (
        _broken(sight)
        or _held(target, sight)
        or (_stopping(deployment, sight) if deployment.stop else None)
        or _unreachable(target, sight)
        or _deployed(target, sight)
        or _in_the_way(target, sight)
        or _under_way(target, sight)
    )
    return _outcome(deployment, target.goal.main, verdict, sight)


def describe_leaving(model: str, group: str, held_because: str | None, sight: Sight) -> Outcome:
    """Return the outcome of a model that left the config repo."""
    deployment = Deployment(model, group, path="", source="")
    if held_because:
        stays = "goes on serving" if sight.serving else "stays on this node"
        sentence = f"left the config repo, but {stays}: {held_because}"
        verdict = _Verdict(Phase.STOPPING, "RemovalsHeld", sentence)
    else:
        verdict = _Verdict(Phase.STOPPING, UNLOADING, "left the config repo and is being removed")
    return _outcome(deployment, None, verdict, sight)


def describe_handover(item: Handover, sight: Sight) -> Outcome:
    """Return the outcome of a deployment that other nodes are to serve."""
    verdict = (
        _Verdict(Phase.STOPPING, UNLOADING, f"{item.sentence} and is being removed here")
        if item.is_done
        else _Verdict(
            Phase.STOPPING, item.reason, item.sentence, retry_in_seconds=item.ends_in_seconds
        )
    )
    return _outcome(item.deployment, None, verdict, sight)


@dataclass(frozen=True, slots=True)
class _Verdict:
    phase: Phase
    reason: str
    sentence: str
    error: str | None = None
    retry_in_seconds: float | None = None
    progress: Progress | None = None


def _outcome(
    deployment: Deployment, wanted: int | None, verdict: _Verdict, sight: Sight
) -> Outcome:
    asked = sight.memory.asked
    labels = asked.labels if asked and not sight.unreachable else {}
    named = {deployment.version, deployment.named_version, wanted, *deployment.labels.values()}
    mentioned = {*named, *labels.values(), *sight.serving, *sight.installed}
    return Outcome(
        deployment=deployment,
        phase=verdict.phase,
        reason=verdict.reason,
        sentence=verdict.sentence,
        wanted=wanted,
        serving=sight.serving,
        installed=sight.installed,
        labels=labels,
        progress=verdict.progress,
        last_error=verdict.error,
        retry_in_seconds=verdict.retry_in_seconds,
        names=_name_versions((v for v in mentioned if v is not None), sight),
    )


def _name_versions(versions: Iterable[int], sight: Sight) -> dict[int, str]:
    """Return the names of those that have one; a number that stands for two versions has none."""
    names = {}
    for version in sorted(versions):
        title, alias = sight.titles.get(version), sight.scheme.alias(version)
        name = title or alias
        if name is not None and name != str(version) and alias in (None, name):
            names[version] = name
    return names


def _broken(sight: Sight) -> _Verdict | None:
    if sight.broken is None:
        return None
    sentence = f"{sight.broken}{_meanwhile(sight)}"
    return _Verdict(Phase.FAILED, INVALID_CONFIG, sentence, str(sight.broken))


def _held(target: Target, sight: Sight) -> _Verdict | None:
    hold = target.hold
    if hold is None:
        return None
    if target.deployment.stop:
        if not any(is_active(status) for status in sight.seen.values()) and not sight.unreachable:
            return None
        sentence = f"{hold.sentence}; stop: true waits{_meanwhile(sight)}"
        return _Verdict(
            Phase.STOPPING, hold.reason, sentence, retry_in_seconds=hold.ends_in_seconds
        )
    if deployed := _deployed(target, sight):
        return replace(deployed, sentence=f"{deployed.sentence}; {hold.sentence}")
    what = _UNREACHABLE if sight.unreachable else _name_waiting(target, sight)
    sentence = f"{hold.sentence}; {what}{_meanwhile(sight)}"
    return _Verdict(Phase.DEPLOYING, hold.reason, sentence, retry_in_seconds=hold.ends_in_seconds)


def _name_waiting(target: Target, sight: Sight) -> str:
    """Return what is held back, which need not be a version that does not serve yet."""
    if target.goal.main is None:
        return "the newest version waits"
    if missing := sorted(target.goal.versions - set(sight.serving)):
        return f"version {sight.join(missing)} {'waits' if len(missing) == 1 else 'wait'}"
    if any(trouble.reason == LOCK_MISMATCH for trouble in target.troubles.values()):
        return f"the locked bytes of version {sight.show(target.goal.main)} wait"
    return "the rest of the change waits"


def _stopping(deployment: Deployment, sight: Sight) -> _Verdict:
    if sight.unreachable:
        return _Verdict(Phase.STOPPING, SERVER_UNREACHABLE, _UNREACHABLE)
    if any(is_active(status) for status in sight.seen.values()):
        return _Verdict(Phase.STOPPING, UNLOADING, "stop: true; it is being unloaded")
    return _Verdict(Phase.STOPPED, STOPPED, f"stop: true in {deployment.path}")


def _unreachable(target: Target, sight: Sight) -> _Verdict | None:
    if sight.unreachable is None:
        return None
    fetch = _in_the_way(target, sight) or _fetching(target, sight)
    return fetch or _Verdict(Phase.DEPLOYING, SERVER_UNREACHABLE, _UNREACHABLE)


def _deployed(target: Target, sight: Sight) -> _Verdict | None:
    main = target.goal.main
    asked = sight.memory.asked
    if main is None or main not in sight.serving or asked is None:
        return None
    if dict(asked.labels) != dict(target.goal.labels) or _higher_unwanted(target, sight):
        return None
    if any(trouble.reason in OTHER_BYTES for trouble in target.troubles.values()):
        return None  # it answers, but with bytes that git does not name
    sentence = f"serves version {sight.show(main)}"
    if asked.labels:
        labels = sorted(asked.labels.items())
        sentence += ", labels " + ", ".join(f"{k}={sight.show(v)}" for k, v in labels)
    if max(sight.serving) > main and max(sight.serving) in target.goal.versions:
        sentence += (
            f"; requests without version or label go to {sight.show(max(sight.serving))}, the"
            " highest one loaded: callers that want the stable one must name its label"
        )
    trouble = next(iter(target.remarks), None) or target.troubles.get(None)
    if trouble is not None:
        return _Verdict(Phase.DEPLOYED, trouble.reason, f"{sentence}; {trouble.sentence}")
    return _Verdict(Phase.DEPLOYED, SERVING, sentence)


def _higher_unwanted(target: Target, sight: Sight) -> list[int]:
    """Return versions on their way out that still answer requests without version or label."""
    main = target.goal.main
    return [
        v for v in sight.serving if main is not None and v > main and v not in target.goal.versions
    ]


def _in_the_way(target: Target, sight: Sight) -> _Verdict | None:
    memory = sight.memory
    main = target.goal.main
    if main is None:
        trouble = target.troubles.get(None)
        return _from_trouble(trouble, sight) if trouble else None
    for version in sorted(target.goal.versions, key=lambda version: version != main):
        if version in target.goal.ready:
            if failure := memory.load_failures.get(version):
                if version in sight.serving:
                    continue
                # Also while it is tried again: a phase that flaps with each try tells nobody more.
                how = "its golden requests" if failure.reason == GOLDEN_FAILED else "to load"
                what = f"version {sight.show(version)} failed {how}: {failure.message}"
                if awaits_commit(target.goal, failure, sight.seen):
                    what += "; it is tried again when its deployment changes in git"
                    error = failure.message
                    sentence = what + _meanwhile(sight)
                    return _Verdict(Phase.FAILED, failure.reason, sentence, error)
                return _from_failure(what, failure, sight)
            continue
        if trouble := (sight.refused or {}).get(version) or target.troubles.get(version):
            return _from_trouble(trouble, sight)
        snapshot = target.snapshots.get(version)
        failure = memory.fetch_failures.get(version)
        is_same = failure and snapshot and failure.digest == snapshot.digest
        if failure and is_same and version not in (sight.progress or {}):
            verdict = _from_failure(failure.message, failure, sight)
            is_final = failure.reason in FINAL_REASONS
            return replace(verdict, retry_in_seconds=None) if is_final else verdict
    if memory.refusal is not None:
        what = f"TensorFlow Serving refused the config: {memory.refusal.message}"
        return _from_failure(what, memory.refusal, sight)
    return None


def _under_way(target: Target, sight: Sight) -> _Verdict:
    memory = sight.memory
    if fetching := _fetching(target, sight):
        return fetching
    main = "" if target.goal.main is None else sight.show(target.goal.main)
    asked = memory.asked.versions if memory.asked else frozenset()
    pending = sorted(v for v in target.goal.versions if v not in sight.serving)
    if memory.nudges > 1:
        return _Verdict(
            Phase.FAILED,
            NO_ANSWER,
            f"TensorFlow Serving accepted version {sight.join(pending)} and says nothing of it; it"
            " is reminded every minute. Check that it sees the same models folder"
            " (RECONCILER_SERVING_MODELS_DIR) and that no folder of a configured model is missing;"
            f" else restart it{_meanwhile(sight)}",
        )
    if sight.trials:
        _, sentence = min(sight.trials.items())
        return _Verdict(Phase.DEPLOYING, TRYING, sentence + _meanwhile(sight))
    if not asked and not pending:
        return _Verdict(Phase.DEPLOYING, LOADING, f"version {main} is loaded and being confirmed")
    if not pending and (higher := _higher_unwanted(target, sight)):
        sentence = (
            f"version {main} is loaded; version {sight.join(higher)} answers until it is unloaded"
        )
        return _Verdict(Phase.DEPLOYING, UNLOADING, sentence)
    if not pending:
        return _Verdict(Phase.DEPLOYING, MOVING_LABELS, f"moves labels{_meanwhile(sight)}")
    if set(pending) & asked or any(is_active(sight.seen.get(v)) for v in pending):
        return _Verdict(
            Phase.DEPLOYING, LOADING, f"loads version {sight.join(pending)}{_meanwhile(sight)}"
        )
    return _Verdict(
        Phase.DEPLOYING,
        WAITING,
        f"version {main} is on disk and waits for its turn to be loaded{_meanwhile(sight)}",
    )


def _fetching(target: Target, sight: Sight) -> _Verdict | None:
    main = target.goal.main
    if main is None:
        sentence = f"lists {target.deployment.source}{_meanwhile(sight)}"
        return _Verdict(Phase.DEPLOYING, LISTING, sentence)
    missing = sorted(target.goal.versions - target.goal.ready)
    if not missing:
        return None
    if not any(version in target.snapshots for version in missing):
        sentence = f"lists {target.deployment.source} for version {sight.join(missing)}"
        return _Verdict(Phase.DEPLOYING, LISTING, sentence + _meanwhile(sight))
    running = [p for version, p in (sight.progress or {}).items() if version in missing]
    progress = None
    if running:
        progress = Progress(sum(p.done_bytes for p in running), sum(p.total_bytes for p in running))
    sentence = f"downloads version {sight.join(missing)}{_meanwhile(sight)}"
    return _Verdict(Phase.DEPLOYING, DOWNLOADING, sentence, progress=progress)


def _from_trouble(trouble: Trouble, sight: Sight) -> _Verdict:
    phase = Phase.DEPLOYING if trouble.reason in TROUBLES_THAT_PASS else Phase.FAILED
    error = None if phase is Phase.DEPLOYING else trouble.sentence
    sentence = trouble.sentence + _meanwhile(sight)
    return _Verdict(phase, trouble.reason, sentence, error, trouble.retry_in_seconds)


def _from_failure(what: str, failure: Failure, sight: Sight) -> _Verdict:
    retry_in_seconds = max(0.0, failure.retry_at - sight.now)
    return _Verdict(
        Phase.FAILED, failure.reason, what + _meanwhile(sight), failure.message, retry_in_seconds
    )


def _meanwhile(sight: Sight) -> str:
    if sight.unreachable:
        return ""
    if not sight.serving:
        return "; nothing of this model is served meanwhile"
    return f"; version {sight.join(sight.serving)} goes on serving"
