"""The texts that a rollback or a pin puts in place of a deployment's file and its lock.

To take one change back, the texts are merged as `git revert` merges them: what others wrote since
stays. It is done on the texts alone, not by `git revert` in the work tree, because that refuses to
start beside staged changes of other files and leaves a half-done revert behind where it conflicts.
A lock is never merged by lines: half of one lock and half of another name bytes that never were.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from reconciler.config_repo.build import build_deployment, build_lock
from reconciler.config_repo.checkout import MISSING_OBJECT, Checkout
from reconciler.config_repo.documents import Broken, Document, parse_document
from reconciler.config_repo.layout import Kind, Place, locate, lock_path
from reconciler.config_repo.locks import find_misfits
from reconciler.errors import ConfigError, GitError
from reconciler.locking.text import render_lock
from reconciler.model import Deployment, Lock, Problem
from reconciler.rollback.edit import Version, set_version
from reconciler.rollback.way_back import Step, Target, compose_lock, list_locks

LockAnew = Callable[[Deployment, Lock | None], Lock]
"""Locks a deployment as its source is now, keeping what it can of a lock; may raise."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The texts of a deployment's file and of its lock."""

    path: str
    text: bytes
    lock: bytes | None
    """None where there is no lock file."""

    def read(self) -> Deployment:
        """Return what both say together; raises ConfigError where they are wrong or do not fit."""
        place = locate(self.path)
        document = parse_document(Kind.DEPLOYMENT, self.text)
        assert isinstance(place, Place)  # noqa: S101 - it was found there
        if isinstance(document, Broken):
            raise _describe(self.path, document)
        deployment = build_deployment(self.path, place, document)
        return deployment if self.lock is None else self._add_lock(deployment, self.lock)

    def _add_lock(self, deployment: Deployment, text: bytes) -> Deployment:
        path = lock_path(self.path)
        document = parse_document(Kind.LOCK, text)
        if isinstance(document, Broken):
            raise _describe(path, document)
        lock = build_lock(path, document)
        for misfit in find_misfits(deployment, lock, document):
            raise ConfigError(str(Problem(path, *astuple(misfit))))
        return replace(deployment, lock=lock)

    def changes_from(self, other: "Pair") -> dict[str, bytes | None]:
        """Return path -> new text, None for a file to delete, of what differs from `other`."""
        changes: dict[str, bytes | None] = {}
        if self.text != other.text:
            changes[self.path] = self.text
        if self.lock != other.lock:
            changes[lock_path(self.path)] = self.lock
        return changes


def read_pair(checkout: Checkout, commit_id: str, path: str) -> Pair:
    """Return the texts at a commit; raises GitError where they cannot be read."""
    tree = checkout.read_tree(commit_id)
    lock = tree.get(lock_path(path))
    return Pair(path, _read(checkout, tree[path].id), _read(checkout, lock.id) if lock else None)


def undo(checkout: Checkout, current: Pair, step: Step, target: Target) -> Pair | None:
    """Return the texts without what the step changed in them.

    None where later changes touch the same lines, or the outcome would ask for anything else than
    the target.
    """
    before, after = step.before, step.after
    assert before is not None and after is not None  # noqa: S101 - as chosen by find_step
    text = _merge(
        checkout,
        current.text,
        _read(checkout, after.blob_id),
        _read(checkout, before.blob_id),
    )
    if text is None:
        return None
    lock = current.lock
    if before.lock_blob_id != after.lock_blob_id:
        if lock != _read_if(checkout, after.lock_blob_id):
            return None
        lock = _read_if(checkout, before.lock_blob_id)
    merged = Pair(current.path, text, lock)
    try:
        deployment = merged.read()
    except ConfigError:
        return None
    asked = (deployment.named_version, deployment.source)
    return merged if asked == (target.version, before.source) else None


def set_back(
    checkout: Checkout,
    current: Pair,
    version: Version,
    target: Target | None,
    steps: Sequence[Step],
    lock_anew: LockAnew | None,
) -> Pair:
    """Return the texts with another `version`, and with a lock unless `lock_anew` is None.

    The lock is an earlier one where one fits, so that the bytes are those that ran; then one made
    of what earlier ones say; then a new one. Without a target it is always new.

    Raises ConfigError, its message with a place, and whatever `lock_anew` raises.
    """
    try:
        text = set_version(current.text, version)
    except ConfigError as error:
        raise ConfigError(f"{current.path}:{error}; nothing was changed") from None
    bare = Pair(current.path, text, None)
    if lock_anew is None:
        return bare
    deployment = bare.read()
    known: Lock | None = None
    if target is not None:
        state = target.state
        texts = [_read(checkout, blob_id) for blob_id in list_locks(steps, state)]
        for lock in texts:
            if _fits(pair := replace(bare, lock=lock), target):
                return pair
        known = compose_lock(
            deployment, target.version, lock_path(current.path), _parse_locks(texts)
        )
        pair = replace(bare, lock=render_lock(known).encode())
        if _fits(pair, target):
            return pair
        # Also under `latest`: what that comes to by now is not what is gone back to.
        deployment = replace(deployment, version=target.version)
    return replace(bare, lock=render_lock(lock_anew(deployment, known)).encode())


def _fits(pair: Pair, target: Target) -> bool:
    try:
        return pair.read().named_version == target.version
    except ConfigError:
        return False


def _parse_locks(texts: Sequence[bytes]) -> list[Lock]:
    documents = [parse_document(Kind.LOCK, text) for text in texts]
    return [build_lock("", document) for document in documents if isinstance(document, Document)]


def _merge(checkout: Checkout, current: bytes, base: bytes, other: bytes) -> bytes | None:
    """Return `current` with the change from `base` to `other` made to it, None on a conflict."""
    if current == base:
        return other
    with tempfile.TemporaryDirectory(prefix="reconciler-") as folder:
        files = [Path(folder) / name for name in ("current", "base", "other")]
        for file, content in zip(files, (current, base, other), strict=True):
            file.write_bytes(content)
        try:
            merged = checkout.git("merge-file", "--stdout", "--quiet", *map(str, files))
        except GitError:  # its exit code is the number of conflicts
            return None
    return merged.encode()


def _read(checkout: Checkout, blob_id: str) -> bytes:
    data = checkout.read_blob(blob_id)
    if data is None:
        raise GitError(
            f"an earlier text of the deployment (git object {blob_id[:10]}) is not in this clone;"
            " fetch the whole history (`git fetch --unshallow`), nothing was changed",
            MISSING_OBJECT,
        )
    return data


def _read_if(checkout: Checkout, blob_id: str | None) -> bytes | None:
    return None if blob_id is None else _read(checkout, blob_id)


def _describe(path: str, broken: Broken) -> ConfigError:
    return ConfigError(str(Problem(path, *astuple(broken.mistakes[0]))))
