"""What the agent remembers of each model between ticks, and how a look at the server changes it.

Status alone does not say enough: an END may be the verdict on the newest request or the trace of
one long past, and there is no way to ask TensorFlow Serving for its config. So the agent keeps
what it asked, when, and what it has seen since. All times are seconds of one steady clock that
the caller passes in; none of them survives a restart.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.model import Ask, LocalVersion, Served, State, VersionStatus, share
from reconciler.planning.trial_names import model_of

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 300.0
LAST_PASSING_RETRY_SECONDS = 30.0
"""For what ends by itself, such as an outage or a full disk: a minute after its end all is well."""
LOAD_FAILED = "LoadFailed"
GOLDEN_FAILED = "GoldenFailed"
"""It loaded, and did not answer its golden requests."""
SERVER_STOPPED = "ServerStopped"
"""The server went away while it loaded the version, which may or may not be the version's fault."""
MAX_PROVEN = 16
"""Versions remembered as having served: enough for any sensible `keep`, and a bound."""

STALE_SECONDS = 0.3
"""On top of the server's poll: how long an old state may still be shown (observed up to 1.02 s at
a poll of 1 s: poll, then the manager's tick of 100 ms)."""
VERDICT_SECONDS = 1.0
"""On top of the poll: after this an END that never moved is the verdict on the newest request."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that did not work, how often in a row, and when it may be tried again."""

    message: str
    attempts: int
    noted_at: float
    retry_at: float
    reason: str = ""
    digest: str = ""
    """Which bytes failed, where that matters: other bytes may be tried at once."""


def back_off(
    message: str,
    before: Failure | None,
    now: float,
    *,
    reason: str = "",
    digest: str = "",
    last_seconds: float = LAST_RETRY_SECONDS,
) -> Failure:
    """Return the failure after `before`: 1 s doubling to 5 min, from the start for other bytes.

    Jitter is the caller's matter where many nodes meet on one resource: here a pure function must
    answer the same for the same input.
    """
    if before is not None and digest in ("", before.digest):
        attempts, digest = before.attempts + 1, before.digest
    else:
        attempts = 1
    delay = min(last_seconds, FIRST_RETRY_SECONDS * 2 ** min(attempts - 1, 20))
    return Failure(message, attempts, now, now + delay, reason, digest)


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """What is remembered of one model."""

    desired: str = ""
    """Fingerprint of its deployment; another one forgets every failure."""
    admitted: str = ""
    """Fingerprint of the deployment that was last carried out, or begun: not of one held back."""
    asked: Ask | None = None
    """The entry that the server accepted last; None where its config does not name the model."""
    since: Mapping[int, float] = field(default_factory=dict)
    """Asked version -> since when it has been asked without a break."""
    dropped: Mapping[int, float] = field(default_factory=dict)
    """Version -> when it was last taken out of the config."""
    progressed: frozenset[int] = frozenset()
    """Asked versions that have moved (START to UNLOADING) since they were asked."""
    available: frozenset[int] = frozenset()
    """Versions that answered requests at the last look."""
    proven: tuple[int, ...] = ()
    """Versions that have served here, the latest last."""
    passed: Mapping[int, str] = field(default_factory=dict)
    """Version -> digest of the bytes with which it answered its golden requests."""
    good: Ask | None = None
    """The last entry that was seen to work as a whole: what a restart may rely on."""
    load_failures: Mapping[int, Failure] = field(default_factory=dict)
    fetch_failures: Mapping[int, Failure] = field(default_factory=dict)
    refusal: Failure | None = None
    """The server's refusal of a config because of this model."""
    resolved: Mapping[str, int] = field(default_factory=dict)
    """Source -> what `latest` last came to, for the time when the bucket cannot be asked."""
    adopted: frozenset[int] = frozenset()
    """Versions that the server held when the connection was made, and has not loaded since."""
    moved_at: float | None = None
    """Since when it is other nodes' to serve, and they could, while it is still here."""
    moved_to: frozenset[str] = frozenset()
    """Those nodes."""
    relieved_at: float | None = None
    """When these were seen to serve it."""
    deployed_as: str = ""
    """As what it is Deployed, and since when, without a break; empty where it is not."""
    deployed_since: float = 0.0
    nudges: int = 0
    """How often in a row the server was reminded of a version that it does not mention."""
    nudged_at: float = 0.0

    def has_failed(self, version: int) -> bool:
        """Whether the newest try of the version failed; one that was just asked again has not."""
        failure = self.load_failures.get(version)
        return failure is not None and failure.noted_at >= self.since.get(version, -math.inf)


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of everything."""

    models: Mapping[str, ModelMemory] = field(default_factory=dict)
    connection: int | None = None
    """The connection to which `asked` belongs; None when the server's config is not known."""
    confirmed: bool = False
    """Whether a reload was accepted on that connection."""
    reload_started_at: float | None = None
    """When the one outstanding reload was sent."""
    reload_failure: Failure | None = None
    seen_at: float = -math.inf
    """When the server last answered a look."""

    def of(self, model: str) -> ModelMemory:
        """Return what is known of `model`, which may be nothing."""
        return self.models.get(model, _NOTHING)

    @property
    def asked_config(self) -> dict[str, Ask]:
        """The whole config as the server accepted it."""
        return {model: known.asked for model, known in self.models.items() if known.asked}

    def with_model(self, model: str, remembered: ModelMemory) -> "Memory":
        """Return this memory with one model's part replaced."""
        return self.with_models({model: remembered})

    def with_models(self, remembered: Mapping[str, ModelMemory]) -> "Memory":
        """Return this memory with the parts of several models replaced."""
        return replace(self, models={**self.models, **remembered}) if remembered else self


_NOTHING = ModelMemory()


def find_managed(memory: Memory, local: Mapping[str, Mapping[int, LocalVersion]]) -> frozenset[str]:
    """Return the models that this reconciler has brought here, or told the server of."""
    managed = {model_of(name) for name, known in memory.models.items() if known.asked or known.good}
    managed |= {
        model
        for model, versions in local.items()
        if any(found.digest is not None for found in versions.values())
    }
    return frozenset(managed)


def is_active(status: VersionStatus | None) -> bool:
    """Whether the server still holds something of this version."""
    return status is not None and State.UNKNOWN < status.state < State.END


def is_available(status: VersionStatus | None) -> bool:
    """Whether the version answers requests."""
    return status is not None and status.state == State.AVAILABLE


def observe(
    memory: Memory,
    served: Served,
    now: float,
    poll_seconds: float,
    quiet: Collection[str] = frozenset(),
) -> Memory:
    """Return the memory after one look at the server, which shows nothing new of `quiet` models."""
    if served.connection != memory.connection:
        memory = _adopt(memory, served, now)
    observed = {
        model: _observe_model(memory.of(model), served.models[model], now, poll_seconds)
        for model in _leave_out(served.models, quiet)
    }
    return replace(memory.with_models(observed), seen_at=now)


def _adopt(memory: Memory, served: Served, now: float) -> Memory:
    """Begin again on a new connection: the server may have restarted with another config.

    What it holds now is taken for what it was asked, and a reload that says so is sent before
    anything else is concluded. A version that was being loaded when the connection broke may be
    what broke it, so it waits its back-off before it is asked again.
    """
    models = {}
    for model in memory.models.keys() | served.models.keys():
        before = memory.of(model)
        seen = served.models.get(model, {})
        held = frozenset(version for version, status in seen.items() if is_active(status))
        failures = dict(before.load_failures)
        if memory.connection is not None and before.asked is not None:
            for version in before.asked.versions - before.available - frozenset(before.proven):
                if not is_active(seen.get(version)):
                    failures[version] = back_off(
                        "TensorFlow Serving stopped while it loaded this version",
                        failures.get(version),
                        now,
                        reason=SERVER_STOPPED,
                    )
        source = before.asked or before.good
        labels = {
            label: version
            for label, version in (source.labels if source else {}).items()
            if is_available(seen.get(version))
        }
        models[model] = replace(
            before,
            asked=Ask(held, labels) if held else None,
            since=dict.fromkeys(held, now),
            dropped={},
            progressed=held,
            adopted=held,
            load_failures=failures,
            deployed_as="",
            nudges=0,
        )
    return replace(
        memory,
        models=models,
        connection=served.connection,
        confirmed=False,
        reload_failure=None,  # one that is under way fails by itself with its connection
    )


def without_ghosts(
    memory: Memory,
    models: Mapping[str, Mapping[int, VersionStatus]],
    now: float,
    poll_seconds: float,
    quiet: Collection[str] = frozenset(),
) -> Mapping[str, Mapping[int, VersionStatus]]:
    """Return the states without those that will never change again; `quiet` models have none.

    A version that is taken out of the config before the server began to load it is forgotten
    without an event, and its status says START for ever (2.20 source, basic_manager.cc). To wait
    for its end would be to wait for ever.
    """
    settle_seconds = poll_seconds + STALE_SECONDS
    alive = dict(models)
    for model in _leave_out(models, quiet):
        seen, known = models[model], memory.of(model)
        asked = known.asked.versions if known.asked else frozenset()
        alive[model] = {
            version: status
            for version, status in seen.items()
            if status.state != State.START
            or version in asked
            or now < known.dropped.get(version, -math.inf) + settle_seconds
        }
    return alive


def _leave_out(models: Iterable[str], quiet: Collection[str]) -> list[str]:
    return [model for model in models if model not in quiet]


def _observe_model(
    memory: ModelMemory, seen: Mapping[int, VersionStatus], now: float, poll_seconds: float
) -> ModelMemory:
    asked = memory.asked.versions if memory.asked else frozenset()
    available = share(frozenset(v for v, status in seen.items() if is_available(status)))
    progressed = share(memory.progressed | {v for v in asked if is_active(seen.get(v))})
    failures = dict(memory.load_failures)
    for version in asked:
        status = seen.get(version)
        since = memory.since.get(version, now)
        if is_available(status):
            failures.pop(version, None)
        elif status is not None and status.state == State.END and status.code != "OK":
            is_verdict = version in progressed or now - since >= poll_seconds + VERDICT_SECONDS
            noted = failures.get(version)
            if is_verdict and not memory.has_failed(version):
                message = f"{status.code}: {status.message}"
                failures[version] = back_off(message, noted, now, reason=LOAD_FAILED)
    proven = memory.proven
    for version in sorted(available & asked):
        # A new name answers before its reload does: seen AVAILABLE first, and asked only then.
        if version not in memory.available or version not in proven:
            proven = (*(v for v in proven if v != version), version)[-MAX_PROVEN:]
    loading = {v for v, s in seen.items() if s.state in (State.START, State.LOADING)}
    memory = replace(
        memory,
        progressed=progressed,
        load_failures=failures,
        adopted=share(memory.adopted - loading),
    )
    is_answered = bool(asked) and all(v in available or memory.has_failed(v) for v in asked)
    return replace(
        memory,
        available=available,
        proven=proven,
        nudges=0 if is_answered else memory.nudges,
        good=_good(memory, available),
    )


def _good(memory: ModelMemory, available: frozenset[int]) -> Ask | None:
    """Return the entry that a restart may rely on: the part of what was asked that answers.

    While nothing of it answers (a `recreate` between its two halves, a server that starts), the
    entry before it stays.
    """
    if memory.asked is None:
        return memory.good
    versions = memory.asked.versions & available
    if not versions:
        return memory.good
    labels = {
        label: version for label, version in memory.asked.labels.items() if version in versions
    }
    return Ask(versions, labels)


def accept(
    memory: Memory, config: Mapping[str, Ask], reminders: frozenset[str], now: float
) -> Memory:
    """Return the memory after the server took `config`, wholly or as far as its models load."""
    models = {}
    for model in memory.models.keys() | config.keys():
        before = memory.of(model)
        asked = config.get(model)
        old = before.asked.versions if before.asked else frozenset()
        new = asked.versions if asked else frozenset()
        dropped = {v: at for v, at in before.dropped.items() if v not in new}
        since = {v: before.since[v] if v in old and v in before.since else now for v in new}
        progressed = before.progressed & new & old
        if (
            asked == before.asked
            and model not in reminders
            and (since, dropped, progressed) == (before.since, before.dropped, before.progressed)
        ):
            models[model] = before
            continue
        models[model] = replace(
            before,
            asked=asked,
            since=since,
            dropped=dropped | dict.fromkeys(old - new, now),
            progressed=progressed,
            refusal=None if asked != before.asked else before.refusal,
            nudges=before.nudges + (model in reminders),
            nudged_at=now if model in reminders else before.nudged_at,
        )
    return replace(
        memory, models=models, confirmed=True, reload_started_at=None, reload_failure=None
    )
