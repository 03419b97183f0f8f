"""What long-running work has to report, and what is remembered of it.

Downloads and reloads run beside the loop. When one ends it leaves an event, and the next tick
folds it into the memory before it plans.
"""

import re
from dataclasses import dataclass, replace

from reconciler.planning.locks import LOCK_MISMATCH
from reconciler.planning.memory import (
    GOLDEN_FAILED,
    LAST_PASSING_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    SERVER_STOPPED,
    Memory,
    accept,
    back_off,
)
from reconciler.planning.resolve import INCOMPLETE
from reconciler.planning.rollout import Request
from reconciler.planning.trial_names import trial_name
from reconciler.planning.versions import BAD_ARCHIVE

FINAL_REASONS = frozenset({LOCK_MISMATCH, BAD_ARCHIVE, INCOMPLETE})
"""Bytes of which one of these was said stay so; another lock or other bytes are tried at once."""
RELOAD_REFUSED = "ReloadRefused"
RELOAD_UNANSWERED = "ReloadUnanswered"
UNANSWERED_RETRY_SECONDS = 600.0
"""After a reload that was given up: each further one parks another thread of the server."""

_NOT_SENT = ("failed to connect", "DNS resolution failed")
_STOPPED = "TensorFlow Serving stopped while it loaded this version"
_PASSING = frozenset({"ReadFailed", "DiskFull", "DiskFailed", "WriteFailed", "Forbidden"})
"""Why a download failed that has nothing to do with its bytes; those here so far are kept."""
_REFUSALS = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """A version was downloaded, verified and installed."""

    model: str
    version: int


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """A version could not be brought here."""

    model: str
    version: int
    digest: str
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class ReloadStarted:
    """A reload was sent."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The server took a config."""

    request: Request


@dataclass(frozen=True, slots=True)
class ReloadFailed:
    """The server answered a reload with an error, or not at all; `code` is gRPC's word."""

    request: Request
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A version answered all of its golden requests."""

    model: str
    version: int
    digest: str
    requests: int


@dataclass(frozen=True, slots=True)
class TrialFailed:
    """A version did not answer its golden requests, or not in time."""

    model: str
    version: int
    digest: str
    sentence: str


Event = Fetched | FetchFailed | ReloadStarted | Reloaded | ReloadFailed | Tried | TrialFailed


def fold(memory: Memory, event: Event, now: float) -> Memory:
    """Return the memory after `event`."""
    match event:
        case Fetched(model, version):
            known = memory.of(model)
            failures = {v: f for v, f in known.fetch_failures.items() if v != version}
            return memory.with_model(model, replace(known, fetch_failures=failures))
        case FetchFailed(model, version, digest, reason, sentence):
            known = memory.of(model)
            before = known.fetch_failures.get(version)
            passes = reason in _PASSING
            last_seconds = LAST_PASSING_RETRY_SECONDS if passes else LAST_RETRY_SECONDS
            failure = back_off(
                sentence, before, now, reason=reason, digest=digest, last_seconds=last_seconds
            )
            failures = {**known.fetch_failures, version: failure}
            return memory.with_model(model, replace(known, fetch_failures=failures))
        case Tried(model, version, digest):
            known = memory.of(model)
            failures = {v: f for v, f in known.load_failures.items() if v != version}
            passed = {**known.passed, version: digest}
            return memory.with_model(model, replace(known, passed=passed, load_failures=failures))
        case TrialFailed(model, version, digest, sentence):
            known = memory.of(model)
            before = known.load_failures.get(version)
            failure = back_off(sentence, before, now, reason=GOLDEN_FAILED, digest=digest)
            failures = {**known.load_failures, version: failure}
            memory = memory.with_model(model, replace(known, load_failures=failures))
            # The trial is over, also where the server does not take it down yet.
            trial = memory.of(trial_name(model))
            return memory.with_model(trial_name(model), replace(trial, desired=""))
        case ReloadStarted():
            return replace(memory, reload_started_at=now)
        case Reloaded(request):
            return accept(memory, request.config, request.reminders, now)
        case ReloadFailed():
            return _fold_failed_reload(memory, event, now)


def _fold_failed_reload(memory: Memory, event: ReloadFailed, now: float) -> Memory:
    request = event.request
    if event.code == "UNKNOWN" and "did not become available" in event.message:
        # Applied as a whole: the new models that failed are in the config and say so in their
        # status, from which the next tick concludes.
        return accept(memory, request.config, request.reminders, now)
    if event.code == "UNAVAILABLE":
        return _fold_lost_connection(memory, event, now)
    named = [model for model in request.config if _names(event.message, model)]
    if event.code in _REFUSALS and named and "Illegal setting" not in event.message:
        # One model's trouble must not hold up the others: it keeps its old entry for a while.
        for model in named:
            known = memory.of(model)
            refusal = back_off(event.message, known.refusal, now, reason=RELOAD_REFUSED)
            memory = memory.with_model(model, replace(known, refusal=refusal))
        return replace(memory, reload_started_at=None)
    failure = back_off(
        f"{event.code}: {event.message}",
        memory.reload_failure,
        now,
        reason=RELOAD_REFUSED,
        digest=request.fingerprint,
    )
    if event.code == "DEADLINE_EXCEEDED":
        # The server goes on with it and will apply it some time from now.
        retry_at = max(failure.retry_at, now + UNANSWERED_RETRY_SECONDS)
        failure = replace(failure, reason=RELOAD_UNANSWERED, retry_at=retry_at)
        memory = accept(memory, request.config, request.reminders, now)
        memory = replace(memory, confirmed=False)
    return replace(memory, reload_started_at=None, reload_failure=failure)


def _fold_lost_connection(memory: Memory, event: ReloadFailed, now: float) -> Memory:
    """Suspect the versions that were being added when the server went away.

    Without that, a model that crashes the server while it loads would be added again after every
    restart, and take all other models down each time.
    """
    memory = replace(memory, reload_started_at=None, confirmed=False)
    if event.message.startswith(_NOT_SENT):
        return memory
    for model, ask in event.request.config.items():
        known = memory.of(model)
        asked = known.asked.versions if known.asked else frozenset()
        failures = dict(known.load_failures)
        for version in ask.versions - asked - frozenset(known.proven):
            sentence = "TensorFlow Serving stopped while it loaded this version"
            failures[version] = back_off(
                sentence, failures.get(version), now, reason=SERVER_STOPPED
            )
        memory = memory.with_model(model, replace(known, load_failures=failures))
    return memory


def _names(message: str, model: str) -> bool:
    pattern = rf"\bmodel(?: name is)? {re.escape(model)}(?![\w@-]|\.\w)"
    return re.search(pattern, message, re.IGNORECASE) is not None
