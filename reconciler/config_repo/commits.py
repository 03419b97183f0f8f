"""Writes files of a clone and commits them, or leaves everything as it was.

A hook that refuses, a key that is locked, a missing identity: whatever stops the commit, the files
and the branch are put back, so that nobody has to clean up before trying again.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from reconciler.config_repo.checkout import COMMIT_FAILED, Checkout, show_id
from reconciler.errors import ConfigError, GitError
from reconciler.files import write_atomically
from reconciler.model import Commit

WRITE_FAILED = "WriteFailed"

Contents = Mapping[str, bytes | None]
"""Path of the config -> its bytes; None where there is no such file."""


def commit_files(
    checkout: Checkout, contents: Contents, message: str, base_id: str, branch: str | None = None
) -> Commit:
    """Commit these contents, on a new branch if one is named, and return the commit.

    `base_id` is the commit that they were made from: what came upon it since, while a person was
    asked or a bucket was listed, would be lost from files that it changed, too.

    Raises GitError where git refuses and ConfigError where a file cannot be written; files, index
    and branch are then as they were.
    """
    try:
        with _alone(checkout):
            _check_base(checkout, base_id)
            with _on_branch(checkout, branch), _changed(checkout.folder, contents):
                return checkout.commit(sorted(contents), message)
    except GitError as error:
        raise GitError(f"{error}; nothing was changed", error.reason) from None


def write_files(folder: Path, contents: Contents) -> None:
    """Write files below `folder`, all or none; raises ConfigError when one cannot be written."""
    with _changed(folder, contents):
        pass


def find_branch(checkout: Checkout) -> str | None:
    """Return the name of the branch that is checked out, None where there is none."""
    try:
        return checkout.git("symbolic-ref", "--quiet", "--short", "HEAD").strip()
    except GitError:
        return None


def name_push(checkout: Checkout, branch: str) -> str:
    """Return the command that pushes the current branch, which may be new to its remote."""
    has_upstream = checkout.succeeds("rev-parse", "--verify", "--quiet", "@{upstream}")
    is_new = not has_upstream and checkout.succeeds("config", "--get", "remote.origin.url")
    return f"git push -u origin {branch}" if is_new else "git push"


def count_behind(checkout: Checkout) -> int:
    """Return how many commits of its upstream, as last fetched, the current branch lacks."""
    try:
        return int(checkout.git("rev-list", "--count", "HEAD..@{upstream}"))
    except GitError:
        return 0  # it has none


@contextmanager
def _alone(checkout: Checkout) -> Iterator[None]:
    """Keep a second command of ours from committing in the same work tree meanwhile."""
    descriptor = os.open(checkout.git_folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GitError(
                f"another reconciler command is committing in {checkout.top}; run this one again"
                " after it",
                COMMIT_FAILED,
            ) from None
        yield
    finally:
        os.close(descriptor)


def _check_base(checkout: Checkout, base_id: str) -> None:
    head = checkout.resolve("HEAD")
    if head.id != base_id:
        raise GitError(
            f"commit {show_id(head.id)} ({head.subject}) was checked out meanwhile; run the command"
            " again, to see what it does now",
            COMMIT_FAILED,
        )


@contextmanager
def _on_branch(checkout: Checkout, branch: str | None) -> Iterator[None]:
    """Go on on a new branch, if one is named; back, and without it, if the block fails."""
    if branch is None:
        yield
        return
    start = find_branch(checkout)
    checkout.switch_to_new_branch(branch)
    try:
        yield
    except BaseException:
        # Both are at the same commit, so no file changes. The first error is the one to be heard.
        with suppress(GitError):
            back = ["--detach"] if start is None else [start]  # a CI job often stands on none
            checkout.git("switch", "--quiet", *back)
            checkout.git("branch", "--quiet", "--delete", "--force", branch)
        raise


@contextmanager
def _changed(folder: Path, contents: Contents) -> Iterator[None]:
    """Write the contents; the files are what they were if that, or the block, fails."""
    former = {path: _read(folder / path) for path in contents}
    try:
        _write(folder, contents)
        yield
    except BaseException:
        others = {path: data for path, data in former.items() if _read(folder / path) != data}
        _write(folder, others)
        raise


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _write(folder: Path, contents: Contents) -> None:
    for path, data in contents.items():
        file = folder / path
        try:
            if data is not None:
                mode = file.stat().st_mode & 0o777 if file.exists() else None
                write_atomically(file, data, mode)
            else:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written ({error.strerror}); nothing was changed", WRITE_FAILED
            ) from None
