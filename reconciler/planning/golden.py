"""Trying a version with its golden requests before anybody else's reach it.

Requests that name no version go to the highest one that is AVAILABLE, so a version must not be
loaded under its model's name before it was tried. It is loaded under a name of its own first, a
*trial*: `ranker@golden`, of the same folder, that one version alone. When it answers its golden
requests the trial is dropped, and only after its end is the version loaded as `ranker`: three
copies would be more memory than any rollout takes. When it does not, it is never asked for under
the model's name, and what served goes on serving.

One trial at a time on a node, because a name that is new to the server blocks every other change
until it has loaded. To the rollout a trial is a model like any other. Its memory has the `desired`
of the deployment it is for, which is taken away when it is over.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.model import Local, VersionStatus
from reconciler.planning.goals import Target
from reconciler.planning.memory import Failure, Memory, ModelMemory, is_active
from reconciler.planning.rollout import Goal
from reconciler.planning.steps import Try
from reconciler.planning.trial_names import is_trial, model_of, trial_name

TRYING = "Trying"


@dataclass(frozen=True, slots=True)
class Trials:
    """What must not be loaded under its model's name yet, and what is being tried."""

    withheld: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """Model -> version -> how far it is, as a sentence."""
    current: Try | None = None
    """The trial that the server is to have now."""
    is_loaded: bool = False
    """Whether it can be asked."""

    @property
    def steps(self) -> tuple[Try, ...]:
        """What is to be carried out for it."""
        return (self.current,) if self.current is not None and self.is_loaded else ()

    def withhold(self, goals: Mapping[str, Goal]) -> dict[str, Goal]:
        """Return the goals without the versions that are withheld, and with the trial's."""
        if not self.withheld and self.current is None:
            return dict(goals)
        withheld = {
            model: replace(goals[model], ready=goals[model].ready - versions.keys())
            for model, versions in self.withheld.items()
            if model in goals
        }
        goals = {**goals, **withheld}
        if self.current is not None:
            version = self.current.version
            goals[trial_name(self.current.model)] = Goal(version, ready=frozenset({version}))
        return goals


def note_trial_failures(memory: Memory) -> Memory:
    """Return the memory with the failure of a trial to load as one of the version itself."""
    for name in [name for name in memory.models if is_trial(name)]:
        trial, known = memory.of(name), memory.of(model_of(name))
        if trial.desired != known.desired:
            continue
        fresh = {
            version: failure
            for version, failure in trial.load_failures.items()
            if _is_newer(failure, known.load_failures.get(version))
        }
        if fresh:
            known = replace(known, load_failures={**known.load_failures, **fresh})
            memory = memory.with_model(model_of(name), known)
            memory = memory.with_model(name, replace(trial, desired=""))
    return memory


def _is_newer(failure: Failure, before: Failure | None) -> bool:
    return before is None or before.noted_at < failure.noted_at


def find_trials(
    targets: Sequence[Target],
    local: Local,
    memory: Memory,
    seen: Mapping[str, Mapping[int, VersionStatus]],
    now: float,
) -> Trials:
    """Return which versions have to be tried first, and which of them comes now."""
    withheld: dict[str, dict[int, str]] = {}
    waiting: list[Try] = []
    for target in targets:
        deployment = target.deployment
        golden, model = deployment.rollout.golden, deployment.model
        if golden is None or deployment.stop or target.hold is not None:
            continue
        known = memory.of(model)
        tried_as = trial_name(model)
        show = deployment.scheme.show
        for version in sorted((target.goal.versions & target.goal.ready) - _past_trial(known)):
            digest = local.versions[model][version].digest or ""
            if is_active(seen.get(model, {}).get(version)):
                continue  # too late: it is there already
            if known.passed.get(version) != digest:
                waiting.append(Try(model, version, digest, golden))
                withheld.setdefault(model, {})[version] = (
                    f"version {show(version)} is on disk and waits for its turn to be tried with"
                    " its golden requests"
                )
            elif version in _held_as(tried_as, memory, seen):
                withheld.setdefault(model, {})[version] = (
                    f"version {show(version)} answered its golden requests and is unloaded as"
                    f" {tried_as}, to be loaded as {model}"
                )
    current = _find_current(waiting, memory, seen, now)
    if current is None:
        return Trials(withheld)
    is_loaded = _is_running(current, memory) and (
        current.version in memory.of(trial_name(current.model)).available
    )
    schemes = {target.deployment.model: target.deployment.scheme for target in targets}
    title = schemes[current.model].show(current.version)
    withheld[current.model][current.version] = _describe(current, title, is_loaded=is_loaded)
    return Trials(withheld, current, is_loaded)


def remember_trials(trials: Trials, targets: Iterable[Target], memory: Memory) -> Memory:
    """Return the memory with a trial that begins now, and without what was tried long ago."""
    for target in targets:
        known = memory.of(target.deployment.model)
        passed = {v: digest for v, digest in known.passed.items() if v in target.goal.versions}
        if passed != known.passed:
            memory = memory.with_model(target.deployment.model, replace(known, passed=passed))
    if trials.current is None or _is_running(trials.current, memory):
        return memory
    model, version = trials.current.model, trials.current.version
    known, trial = memory.of(model), memory.of(trial_name(model))
    # What failed before is added alone and last, so that it costs other new models nothing.
    failures = {v: failure for v, failure in known.load_failures.items() if v == version}
    trial = replace(trial, desired=known.desired, load_failures=failures, proven=())
    return memory.with_model(trial_name(model), trial)


def has_trial(model: str, memory: Memory, seen: Mapping[str, Mapping[int, VersionStatus]]) -> bool:
    """Whether the server has, or is asked for, a trial of the model, and so needs its folder."""
    name = trial_name(model)
    return memory.of(name).asked is not None or bool(_held_as(name, memory, seen))


def _find_current(
    waiting: Iterable[Try],
    memory: Memory,
    seen: Mapping[str, Mapping[int, VersionStatus]],
    now: float,
) -> Try | None:
    due = []
    for item in waiting:
        failure = memory.of(item.model).load_failures.get(item.version)
        if failure is None or now >= failure.retry_at:
            due.append(item)
    for item in due:
        if _is_running(item, memory):
            return item
    names = {name for name in memory.models.keys() | seen.keys() if is_trial(name)}
    occupied = {name for name in names if has_trial(model_of(name), memory, seen)}
    for item in due:
        name = trial_name(item.model)
        # A trial that is being added is seen before the server's answer says that it was taken.
        if occupied <= {name} and memory.of(name).asked is None:
            return item
    return None


def _is_running(item: Try, memory: Memory) -> bool:
    trial, known = memory.of(trial_name(item.model)), memory.of(item.model)
    return (
        trial.asked is not None
        and trial.asked.versions == {item.version}
        and trial.desired == known.desired
    )


def _past_trial(known: ModelMemory) -> frozenset[int]:
    """Return the versions that nobody tries any more: they have served, or are to by now.

    The way back is never tried, for it must not take longer than the way there.
    """
    asked = known.asked.versions if known.asked else frozenset()
    good = known.good.versions if known.good else frozenset()
    return asked | good | frozenset(known.proven)


def _held_as(
    name: str, memory: Memory, seen: Mapping[str, Mapping[int, VersionStatus]]
) -> frozenset[int]:
    asked = memory.of(name).asked
    held = frozenset(v for v, status in seen.get(name, {}).items() if is_active(status))
    return held | (asked.versions if asked else frozenset())


def _describe(item: Try, title: str, *, is_loaded: bool) -> str:
    name = trial_name(item.model)
    if is_loaded:
        return f"tries version {title} as {name}: its golden requests are asked one by one"
    return (
        f"loads version {title} as {name}, to ask it its golden requests before any other"
        " request can reach it"
    )
