"""The commit that goes back, or pins: its texts, its message, and how to say what it does."""

from dataclasses import dataclass, replace

from reconciler.config_repo.checkout import show_id
from reconciler.errors import ConfigError
from reconciler.rollback.edit import Version
from reconciler.rollback.restore import LockAnew, Pair, set_back, undo
from reconciler.rollback.subject import Subject
from reconciler.rollback.way_back import (
    Step,
    Target,
    find_serving,
    find_step,
    revert_message,
    write_message,
)

NO_WAY_BACK = "NoWayBack"
"""There is nothing to go back to, or git alone does not say how."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A commit as it would be made."""

    pair: Pair
    """The texts of the deployment's files."""
    how: str
    """What the commit does, after "by"."""
    message: str
    notes: tuple[str, ...] = ()
    """What a person should know before saying yes."""


def propose_way_back(
    subject: Subject, target: Target, reason: str | None, lock_anew: LockAnew
) -> Proposal:
    """Return the commit that makes the nodes be asked for the target again.

    Raises ConfigError where that takes a person's hand.
    """
    step = find_step(subject.steps, target.state) if target.state else None
    pair = undo(subject.checkout, subject.pair, step, target) if step else None
    if pair is not None and pair.lock is None and subject.requires_lock:
        step = pair = None  # locks came in with this change, and nodes refuse to go without by now
    if step is None or pair is None:
        proposal = _set_version_back(subject, target, reason, lock_anew)
        proposal = replace(proposal, notes=(*_explain_conflict(step), *proposal.notes))
    else:
        proposal = _take_back(subject, target, step, pair, reason)
    return replace(proposal, notes=(*proposal.notes, *_warn_of_latest(subject, proposal.pair)))


def propose_pin(
    subject: Subject, number: int | None, reason: str | None, lock_anew: LockAnew
) -> Proposal:
    """Return the commit that asks for a version by its number; None is `latest`.

    Raises ConfigError where that takes a person's hand.
    """
    target = None
    line: Version = "latest"
    title = f"Follow the latest version of {subject.model} in {subject.group}"
    if number is not None:
        state = find_serving(subject.steps, number, subject.source, subject.scheme)
        target = Target(number, state)
        line = _write(subject, number)
        title = _title("Pin", subject, subject.scheme.show(number))
    make = lock_anew if subject.needs_lock else None
    pair = set_back(subject.checkout, subject.pair, line, target, subject.steps, make)
    return Proposal(pair, "setting its version", write_message(title, reason))


def _take_back(
    subject: Subject, target: Target, step: Step, pair: Pair, reason: str | None
) -> Proposal:
    if step.is_revertible:
        message = revert_message(step.commit, reason)
        return Proposal(pair, f"reverting {_cite(step)}", message)
    body = f"Takes back what {step.commit.id} changed in it."
    message = write_message(_title("Roll back", subject, target.show(subject.scheme)), body, reason)
    return Proposal(pair, f"taking back what {_cite(step)} changed in it", message)


def _set_version_back(
    subject: Subject, target: Target, reason: str | None, lock_anew: LockAnew
) -> Proposal:
    state = target.state
    if state is not None and subject.source != state.source:
        raise ConfigError(
            f"version {state.title} of {subject.name} came from {state.source}, and its source"
            f" is {subject.source} now; set both by hand in {subject.pair.path}, nothing was"
            " changed",
            NO_WAY_BACK,
        )
    if state is not None and state.title != subject.scheme.show(target.version):
        raise ConfigError(
            f"version {state.title} of {subject.name} has no such name by version_scheme as it is"
            f" now ({subject.scheme}); set both by hand in {subject.pair.path}, nothing was"
            " changed",
            NO_WAY_BACK,
        )
    stays_latest = subject.follows_latest and state is not None and state.version is None
    needs_lock = subject.needs_lock or (state is not None and state.lock_blob_id is not None)
    line: Version = "latest" if stays_latest else _write(subject, target.version)
    make = lock_anew if needs_lock else None
    pair = set_back(subject.checkout, subject.pair, line, target, subject.steps, make)
    notes = []
    if state is not None and state.labels != pair.read().labels:
        notes.append("labels stay as they are, which is not as they were then")
    how = "setting its lock back" if stays_latest else "setting its version"
    message = write_message(_title("Roll back", subject, target.show(subject.scheme)), reason)
    return Proposal(pair, how, message, tuple(notes))


def _explain_conflict(step: Step | None) -> list[str]:
    if step is None:
        return []
    return [
        f"{_cite(step)} cannot be taken back by itself, because of what was changed since; the"
        " version is set back instead"
    ]


def _warn_of_latest(subject: Subject, pair: Pair) -> list[str]:
    deployment = pair.read()
    if deployment.version is not None:
        return []
    name = deployment.lock.title if deployment.lock else "VERSION"
    return [
        "`version: latest` stays, so the next `reconciler lock --update` proposes the newest"
        f" version again; `reconciler pin {subject.key} {name}` holds it"
    ]


def _title(verb: str, subject: Subject, name: str) -> str:
    return f"{verb} {subject.model} {subject.asked} -> {name} in {subject.group}"


def _write(subject: Subject, number: int) -> Version:
    """Return a version as the deployment's file has it."""
    return subject.scheme.alias(number) or number


def _cite(step: Step) -> str:
    commit = step.commit
    return f'{show_id(commit.id)} "{commit.subject}" of {commit.author}'
