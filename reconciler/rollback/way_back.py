"""Where a rollback goes and which change it takes back. Pure: out of a deployment's history alone.

What counts is what the nodes were asked for, not the line that was written: a lock that moves
`latest` on is a new version, and a description that is edited is none. Changes that reached the
branch together, by one merge, took effect together, so they are one step; what stood between them
never ran anywhere, and is nothing to go back to.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from reconciler.history.read import Entry, State
from reconciler.model import Commit, Deployment, Lock, LockedVersion, VersionScheme


@dataclass(frozen=True, slots=True)
class Step:
    """What one landing on the branch changed of one deployment."""

    entries: tuple[Entry, ...]
    """Newest first; there is at least one."""

    @property
    def before(self) -> State | None:
        """What was asked until then; None where the deployment was created."""
        return self.entries[-1].before

    @property
    def after(self) -> State | None:
        """What has been asked since; None where the deployment was removed."""
        return self.entries[0].after

    @property
    def commit(self) -> Commit:
        """The commit that people know the change by."""
        return self.entries[0].commit if len(self.entries) == 1 else self.entries[0].landed

    @property
    def is_revertible(self) -> bool:
        """Whether to take the step back is what `git revert` of one commit does."""
        first, *others = self.entries
        return not others and first.only_this and not first.parts


@dataclass(frozen=True, slots=True)
class Target:
    """The version to go to, and where in history it was asked for."""

    version: int
    state: State | None = None
    """None where history never asked for it, or that does not matter."""

    def show(self, scheme: VersionScheme) -> str:
        """Return what the version is called; as it was then, where versions are named anew."""
        then = self.state.title if self.state is not None else None
        return then or scheme.show(self.version)


def follow(entries: Iterable[Entry], path: str) -> list[Step]:
    """Return the steps of the deployment that is at `path` today, newest first."""
    own = []
    for entry in entries:
        if entry.path != path:
            continue
        own.append(entry)
        if entry.before is not None:
            path = entry.before.path  # before it was moved or renamed
    return [Step(tuple(group)) for _, group in groupby(own, key=lambda entry: entry.landed.id)]


def find_former(steps: Sequence[Step]) -> State | None:
    """Return what was asked before the newest change of version; None where there is no such."""
    current = steps[0].after if steps else None
    for step in steps:
        before = step.before
        if before is None or not before.is_readable:
            continue
        if current is None or not current.is_readable or not asks_the_same(before, current):
            return before
    return None


def find_serving(
    steps: Sequence[Step], version: int, source: str, scheme: VersionScheme
) -> State | None:
    """Return the newest state that asked for a version of a source, None where none did.

    The same number of another source is another model, and by another name another version.
    """
    name = scheme.show(version)
    for step in steps:
        for state in (step.after, step.before):
            if state is None or not state.is_readable or state.serves != version:
                continue
            if state.source == source and state.title == name:
                return state
    return None


def find_step(steps: Sequence[Step], target: State) -> Step | None:
    """Return the one step to take back so that `target` is asked again.

    None where there is no single one: other versions were asked for in between, or the file was
    moved with it and would be moved back.
    """
    current = steps[0].after if steps else None
    for step in steps:
        if step.before != target or step.after is None or step.after.path != target.path:
            continue
        is_newest_change = step.after.is_readable and (
            current is not None and current.is_readable and asks_the_same(step.after, current)
        )
        if step is steps[0] or is_newest_change:
            return step
    return None


def asks_the_same(one: State, other: State) -> bool:
    """Tell whether the nodes were to serve the same bytes, as far as git can say."""
    if (one.source, one.serves, one.title) != (other.source, other.serves, other.title):
        return False
    digests = {one.locked_digest, other.locked_digest} - {None}
    return one.serves is None or len(digests) < 2


def list_locks(steps: Sequence[Step], first: State | None) -> list[str]:
    """Return the blob ids of all lock files that the deployment had: `first`, then newest first."""
    states = [first, *(state for step in steps for state in (step.after, step.before))]
    found = [state.lock_blob_id for state in states if state is not None]
    return list(dict.fromkeys(blob_id for blob_id in found if blob_id is not None))


def compose_lock(deployment: Deployment, version: int, path: str, locks: Iterable[Lock]) -> Lock:
    """Return a lock out of what earlier ones say of the versions that are wanted now.

    The first that names a version counts. What none of them names is missing from the result.
    """
    known: dict[int, LockedVersion] = {}
    for lock in locks:
        if lock.source == deployment.source:
            named = {
                number: locked
                for number, locked in lock.versions.items()
                if locked.title == deployment.scheme.show(number)  # else another scheme's
            }
            known = {**named, **known}
    wanted = {version, *deployment.labels.values()}
    versions = {number: known[number] for number in sorted(wanted) if number in known}
    return Lock(path, deployment.model, deployment.source, version, versions)


def revert_message(commit: Commit, reason: str | None) -> str:
    """Return the message that `git revert` writes, and the reason below it."""
    subject = f'Revert "{commit.subject}"'
    reverted = commit.subject.removeprefix('Revert "')
    if reverted != commit.subject and not reverted.startswith('Revert "'):
        subject = f'Reapply "{reverted}'  # as git words it since 2.43
    return write_message(subject, f"This reverts commit {commit.id}.", reason)


def write_message(subject: str, *paragraphs: str | None) -> str:
    """Return a commit message; paragraphs that are None or empty are left out."""
    return "\n\n".join([subject, *filter(None, paragraphs)]) + "\n"
