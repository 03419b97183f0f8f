"""Writes lock files, and commits them with a message that a person can review.

All lock files of a run are written or none, and without a commit there is no change either: a hook
that refuses or a key that is locked leaves files and branch as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.commits import WRITE_FAILED, Contents, commit_files, write_files
from reconciler.errors import ConfigError
from reconciler.files import sync_folder
from reconciler.locking.text import render_lock
from reconciler.model import Commit, Deployment, Lock
from reconciler.planning.wording import format_bytes

_SUBJECT_LENGTH = 72


@dataclass(frozen=True, slots=True)
class LockChange:
    """One lock file that is to be other than it is."""

    deployment: Deployment
    before: Lock | None
    """None where there was none that could be read."""
    after: Lock

    @property
    def is_move(self) -> bool:
        """Whether the model goes from one version to another."""
        return self.before is not None and self.before.version != self.after.version

    @property
    def files(self) -> int:
        """How many files the model's version has."""
        return self.after.versions[self.after.version].files

    @property
    def size_bytes(self) -> int:
        """Their sizes together."""
        return self.after.versions[self.after.version].size_bytes


def describe_change(change: LockChange) -> str:
    """Return a line such as `ranker 41 -> 42 in search (5 files, 1.2 MB)`."""
    model, name = change.deployment.model, change.after.title
    if change.before is not None and change.is_move:
        what = f"{model} {change.before.title} -> {name}"
    else:
        what = f"{model} locked at {name}"
    files = f"{change.files} file{'' if change.files == 1 else 's'}"
    return f"{what} in {change.deployment.group} ({files}, {format_bytes(change.size_bytes)})"


def write_message(changes: Sequence[LockChange]) -> str:
    """Return the message of a commit of these changes: a subject and a line for each."""
    return "\n".join([_write_subject(changes), "", *map(describe_change, changes), ""])


def write_locks(folder: Path, changes: Sequence[LockChange]) -> None:
    """Write the lock files, all or none; raises ConfigError when one cannot be written."""
    write_files(folder, _render(changes))


def remove_lock(folder: Path, path: str) -> None:
    """Remove a lock file that is for nothing; raises ConfigError when it cannot be removed."""
    try:
        (folder / path).unlink()
        sync_folder((folder / path).parent)
    except OSError as error:
        raise ConfigError(f"{path} cannot be removed ({error.strerror})", WRITE_FAILED) from None


def commit_locks(
    checkout: Checkout, changes: Sequence[LockChange], base_id: str, branch: str | None
) -> Commit:
    """Write the lock files and commit them upon `base_id`, on a new branch if one is named.

    Raises GitError: UncommittedChanges when a lock file or its deployment was changed and not
    committed, CommitFailed when git or one of its hooks refuses. Everything is then as it was.
    """
    paths = [change.after.path for change in changes]
    checkout.check_clean([*paths, *(change.deployment.path for change in changes)])
    return commit_files(checkout, _render(changes), write_message(changes), base_id, branch)


def _write_subject(changes: Sequence[LockChange]) -> str:
    if len(changes) == 1:
        (change,) = changes
        what = _name_change(change, change.deployment.model)
        verb = "Move" if change.is_move else "Lock"
        return _shorten(f"{verb} {what} in {change.deployment.group}", f"{verb} a model")
    moved = [change for change in changes if change.is_move]
    counts = []
    if moved:
        counts.append(f"Move {_count(len(moved))} on")
    if len(moved) < len(changes):
        counts.append(f"{'lock' if moved else 'Lock'} {_count(len(changes) - len(moved))}")
    subject = " and ".join(counts)
    models = [change.deployment.model for change in changes]
    names = [
        model if models.count(model) == 1 else f"{change.deployment.group}/{model}"
        for change, model in zip(changes, models, strict=True)
    ]
    what = ", ".join(map(_name_change, changes, names))
    return _shorten(f"{subject}: {what}", subject)


def _name_change(change: LockChange, name: str) -> str:
    if change.before is not None and change.is_move:
        return f"{name} {change.before.title} -> {change.after.title}"
    return f"{name} {change.after.title}"


def _shorten(subject: str, instead: str) -> str:
    return subject if len(subject) <= _SUBJECT_LENGTH else instead


def _count(number: int) -> str:
    return f"{number} model{'' if number == 1 else 's'}"


def _render(changes: Sequence[LockChange]) -> Contents:
    return {change.after.path: render_lock(change.after).encode() for change in changes}
