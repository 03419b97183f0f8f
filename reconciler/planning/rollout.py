"""What to ask of TensorFlow Serving next: one whole config, or nothing.

The rules follow from how the server works (source of release 2.20, and seen running):

- A reload names *all* models; one that it leaves out is unloaded.
- Adding a model *name* blocks the reload, and every later one, until some version of it has
  loaded or failed. Changing the versions of a known name answers at once and proves nothing.
- {old} -> {new} must never be asked in one step: if new fails, old goes on serving but no longer
  counts as wanted, and every later set that mentions it is postponed for ever. So: add, wait for
  AVAILABLE, move the labels, drop the old one, wait for END.
- Labels are checked before anything is loaded, and one that points to a version that is not
  AVAILABLE refuses the whole config.
- A version that failed stays failed until it has been out of the config for one poll.
- A name that is dropped and added again before its END can lock the server.

Everything here is a function of what is seen and remembered, so a restart of this process or of
the server in the middle of a rollout only means that the next step is computed from the truth.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.model import Ask, ServerConfig, Strategy, VersionStatus
from reconciler.planning.memory import (
    SERVER_STOPPED,
    STALE_SECONDS,
    Failure,
    Memory,
    ModelMemory,
    is_active,
    is_available,
)

SILENCE_SECONDS = 2.0
"""On top of the poll: how long a version may stay unmentioned before something must be wrong."""
_EXPLAINED = 20
"""Changes named in one sentence: a new node may be told of thousands."""
LATE_NUDGE_SECONDS = 60.0
"""Time between reminders once the quick ones have not helped."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What one model should come to, as far as its files allow."""

    main: int | None
    """The version to serve; None while it is not known."""
    labels: Mapping[str, int] = field(default_factory=dict)
    strategy: Strategy = Strategy.OVERLAP
    ready: frozenset[int] = frozenset()
    """Versions that are on disk and intact, wanted or not."""

    @property
    def versions(self) -> frozenset[int]:
        """All versions that are wanted."""
        main = frozenset() if self.main is None else frozenset({self.main})
        return main | frozenset(self.labels.values())


@dataclass(frozen=True, slots=True)
class Request:
    """One reload: the whole config, and the models that it reminds the server of."""

    config: ServerConfig
    reminders: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> str:
        """A text that is the same for the same config."""
        return "; ".join(
            f"{model} {sorted(ask.versions)} {sorted(ask.labels.items())}"
            for model, ask in sorted(self.config.items())
        )


@dataclass(frozen=True, slots=True)
class _View:
    """One model at one moment: everything its next entry depends on."""

    goal: Goal
    memory: ModelMemory
    seen: Mapping[int, VersionStatus]
    now: float
    poll_seconds: float

    def is_active(self, version: int) -> bool:
        return is_active(self.seen.get(version))

    def is_available(self, version: int | None) -> bool:
        return version is not None and is_available(self.seen.get(version))

    @property
    def settle_seconds(self) -> float:
        """How long the server may take to notice that something left its config."""
        return self.poll_seconds + STALE_SECONDS

    def may_ask(self, version: int) -> bool:
        """Whether asking for the version can lead to its being loaded, and does no harm."""
        if version not in self.goal.ready:
            return False
        failure = self.memory.load_failures.get(version)
        if self.memory.asked and version in self.memory.asked.versions:
            return not self.memory.has_failed(version)
        if failure is not None:
            if self.now < failure.retry_at:
                return False
            if awaits_commit(self.goal, failure, self.seen):
                return False
        if self.is_active(version):
            return False  # held but not wanted by the server: the whole set would be postponed
        return self.now >= self.memory.dropped.get(version, -math.inf) + self.settle_seconds

    def overdue(self) -> frozenset[int]:
        """Return the asked versions that the server has kept silent about for too long."""
        patience = LATE_NUDGE_SECONDS if self.memory.nudges else SILENCE_SECONDS
        return frozenset(
            version
            for version in silent_versions(self.memory, self.seen)
            if self.now - max(self.memory.since.get(version, self.now), self.memory.nudged_at)
            > self.poll_seconds + patience
        )


def next_request(
    goals: Mapping[str, Goal],
    memory: Memory,
    served: Mapping[str, Mapping[int, VersionStatus]],
    now: float,
    poll_seconds: float,
    *,
    must_confirm: bool = False,
    quiet: Collection[str] = frozenset(),
) -> Request | None:
    """Return the reload to send now, or None when there is nothing to ask.

    An empty config is not sent to a server that holds nothing we know of, for it may hold what we
    do not know of; with `must_confirm` it is, because something is to be deleted after it.

    `goals` holds every model that should be in the config; a model that is in the config and not
    in `goals` is dropped. Models that are new to the server come after all other changes, because
    they block; those that have failed before come one at a time, last, so that a bad model costs
    the good ones nothing. `quiet` models keep their entry and need no reminder.
    """
    views = {
        model: _View(goal, memory.of(model), served.get(model, {}), now, poll_seconds)
        for model, goal in goals.items()
        if model not in quiet
    }
    current = memory.asked_config
    target = {model: current[model] for model in quiet if model in current}
    target |= {model: ask for model, view in views.items() if (ask := next_ask(view)) is not None}
    config = {model: ask for model, ask in target.items() if model in current}
    additions = sorted(target.keys() - current.keys())
    if config == current:
        trusted = [model for model in additions if not memory.of(model).load_failures]
        config |= {model: target[model] for model in trusted or additions[:1]}
    reminders = frozenset(model for model, view in views.items() if view.overdue())
    loud = {model: seen for model, seen in served.items() if model not in quiet}
    reminders |= _find_intruded(memory, loud, now, poll_seconds)
    is_told = memory.confirmed or not (config or must_confirm)
    if config == current and is_told and not reminders:
        return None
    return Request(config, reminders)


def awaits_commit(goal: Goal, failure: Failure, seen: Mapping[int, VersionStatus]) -> bool:
    """Whether a failed version is tried again only when git changes.

    With `recreate` every try takes down what serves, so it is not done again and again for a
    version that the server has rejected.
    """
    serving = {version for version, status in seen.items() if is_available(status)}
    is_rejected = failure.reason != SERVER_STOPPED
    return goal.strategy is Strategy.RECREATE and is_rejected and bool(serving - goal.versions)


def _find_intruded(
    memory: Memory,
    served: Mapping[str, Mapping[int, VersionStatus]],
    now: float,
    poll_seconds: float,
) -> frozenset[str]:
    """Return models of which the server serves, for long, a version that nobody here asked for.

    Another client has changed its config; ours is sent again.
    """
    intruded = set()
    for model, seen in served.items():
        known = memory.of(model)
        asked = known.asked.versions if known.asked else frozenset()
        quiet_since = max((*known.dropped.values(), known.nudged_at), default=0.0)
        patience = LATE_NUDGE_SECONDS if known.nudged_at else SILENCE_SECONDS
        is_due = now - quiet_since > poll_seconds + patience
        if is_due and any(is_available(s) and v not in asked for v, s in seen.items()):
            intruded.add(model)
    return frozenset(intruded)


def next_ask(view: _View) -> Ask | None:
    """Return the entry that the model should have next; None to leave it out of the config."""
    memory = view.memory
    if memory.refusal is not None and view.now < memory.refusal.retry_at:
        return memory.asked
    if memory.asked is None:
        return _first_ask(view)
    return _following_ask(view, memory.asked)


def _first_ask(view: _View) -> Ask | None:
    if any(is_active(status) for status in view.seen.values()):
        return None  # its unloading has not ended: to add it now could lock the server
    if view.now < max(view.memory.dropped.values(), default=-math.inf) + view.settle_seconds:
        return None
    wanted = frozenset(version for version in view.goal.versions if view.may_ask(version))
    main = view.goal.main
    if main in wanted and (main in view.memory.proven or view.goal.strategy is Strategy.RECREATE):
        return Ask(wanted)
    versions = wanted | _last_proven(view)
    return Ask(versions) if versions else None


def _last_proven(view: _View) -> frozenset[int]:
    """Return the version that served here last, so that an unproven one does not stand alone."""
    for version in reversed(view.memory.proven):
        if version != view.goal.main and view.may_ask(version):
            return frozenset({version})
    return frozenset()


def _following_ask(view: _View, asked: Ask) -> Ask | None:
    goal = view.goal
    alive = frozenset(
        v
        for v in asked.versions
        if not view.memory.has_failed(v) and (v in goal.ready or view.is_active(v))
    )
    new = frozenset(v for v in goal.versions if view.may_ask(v)) - asked.versions
    if not alive and not (goal.strategy is Strategy.RECREATE and goal.main in new):
        new |= _last_proven(view) - asked.versions
    leaving = frozenset(v for v in view.seen if view.is_active(v)) - goal.versions
    can_follow = goal.main in new or view.is_available(goal.main)
    if goal.strategy is Strategy.RECREATE and new and leaving and can_follow:
        # Not for a label alone, because what leaves would have to come back. An empty `specific`
        # unloads, and unlike a name added again it never blocks.
        staying = alive & goal.versions
        return Ask(staying, _labels(view, asked, staying))

    if any(view.is_available(v) for v in alive):
        alive -= {v for v in alive - goal.versions if not view.is_available(v)}
    labels = _labels(view, asked, alive)
    if new or labels != asked.labels:
        return Ask(alive | new, labels)
    if goal.main in view.overdue() & goal.ready and _may_be_wedged(view, asked):
        # The server postpones a set that mentions a version it holds but does not want. A set
        # without it is taken, and the old version serves on until the new one is AVAILABLE.
        return Ask(view.overdue() & {goal.main})
    if goal.main in alive and view.is_available(goal.main):
        alive &= goal.versions | frozenset(labels.values())
    if alive or not asked.versions:
        return Ask(alive, labels)
    if any(view.is_available(v) for v in view.seen):
        return asked  # what serves is not what was asked; to ask for nothing would end it
    return Ask(frozenset())  # the name stays: to add one again blocks, to add a version does not


def _may_be_wedged(view: _View, asked: Ask) -> bool:
    """Whether the server may hold on to a version that it no longer counts as wanted.

    This agent never asks for {old} -> {new}, so only versions that were there before it can be
    such. A plain reminder was tried, and no label stands on what would be left out.
    """
    is_inherited = any(view.is_available(v) for v in view.memory.adopted & asked.versions)
    return view.memory.nudges == 1 and is_inherited and not asked.labels


def _labels(view: _View, asked: Ask, versions: frozenset[int]) -> dict[str, int]:
    """Return the labels that the server will accept now, moved as far as that goes.

    A label whose new target is not AVAILABLE stays where it is as long as that still answers.
    """
    labels = {}
    for label, target in sorted(view.goal.labels.items()):
        before = asked.labels.get(label)
        if target in versions and view.is_available(target):
            labels[label] = target
        elif before is not None and view.is_available(before):
            leaves_now = before in asked.versions and before not in versions
            if not leaves_now:
                labels[label] = before
    return labels


def silent_versions(memory: ModelMemory, seen: Mapping[int, VersionStatus]) -> frozenset[int]:
    """Return the asked versions that the server neither holds nor has failed to load."""
    asked = memory.asked.versions if memory.asked else frozenset()
    return frozenset(v for v in asked if not is_active(seen.get(v)) and not memory.has_failed(v))


def explain(request: Request, memory: Memory) -> str:
    """Return what the request changes, model by model."""
    changes = []
    for model in sorted(request.config.keys() | memory.models.keys()):
        before, after = memory.of(model).asked, request.config.get(model)
        if before == after:
            continue
        if after is None:
            changes.append(f"drops {model}")
        elif before is None:
            changes.append(f"adds {model} {_join(after.versions)}")
        elif before.versions != after.versions:
            old, new = _join(before.versions), _join(after.versions)
            changes.append(f"{model} {old or 'none'} -> {new or 'none'}")
        else:
            changes.append(f"moves labels of {model}")
    if not changes:
        reminded = ", ".join(sorted(request.reminders))
        return f"reminds the server of {reminded}" if reminded else "says again what is served"
    if len(changes) > _EXPLAINED:
        changes[_EXPLAINED:] = [f"and {len(changes) - _EXPLAINED} changes more"]
    return "; ".join(changes)


def _join(versions: Iterable[int]) -> str:
    return "+".join(str(version) for version in sorted(versions))
