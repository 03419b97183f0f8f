"""Writes files of a clone and commits them, or leaves everything as it was.

A hook that refuses, a key that is locked, a missing identity: whatever stops the commit, the files
and the branch are put back, so that nobody has to clean up before trying again.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from reconciler.config_repo.checkout import COMMIT_FAILED, Checkout
from reconciler.errors import GitError
from reconciler.files import write_atomically
from reconciler.model import Commit

Contents = Mapping[str, bytes | None]
"""Path of the config -> its bytes; None where there is no such file."""


def commit_files(
    checkout: Checkout, contents: Contents, message: str, branch: str | None = None
) -> Commit:
    """Commit these contents, on a new branch if one is named, and return the commit.

    Raises GitError where git refuses; files, index and branch are then as they were.
    """
    start = find_branch(checkout)
    former = {path: _read(checkout.folder / path) for path in contents}
    if branch is not None:
        checkout.switch_to_new_branch(branch)
    try:
        _write(checkout.folder, contents)
        return checkout.commit(sorted(contents), message)
    except BaseException as error:
        _write(checkout.folder, former)
        if branch is not None:
            _leave_branch(checkout, branch, start)
        if isinstance(error, OSError):
            raise GitError(
                f"{error.filename} cannot be written ({error.strerror}); nothing was changed",
                COMMIT_FAILED,
            ) from None
        if isinstance(error, GitError):
            raise GitError(f"{error}; nothing was changed", error.reason) from None
        raise


def find_branch(checkout: Checkout) -> str | None:
    """Return the name of the branch that is checked out, None where there is none."""
    try:
        return checkout.git("symbolic-ref", "--quiet", "--short", "HEAD").strip()
    except GitError:
        return None


def count_behind(checkout: Checkout) -> int:
    """Return how many commits of its upstream, as last fetched, the current branch lacks."""
    try:
        return int(checkout.git("rev-list", "--count", "HEAD..@{upstream}"))
    except GitError:
        return 0  # it has none


def _leave_branch(checkout: Checkout, branch: str, start: str | None) -> None:
    # Both are at the same commit, so no file changes. The first error is the one to be heard.
    with suppress(GitError):
        back = ["--detach"] if start is None else [start]
        checkout.git("switch", "--quiet", *back)
        checkout.git("branch", "--quiet", "--delete", "--force", branch)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _write(folder: Path, contents: Contents) -> None:
    for path, data in contents.items():
        file = folder / path
        if data is not None:
            mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
            write_atomically(file, data, mode)
        else:
            file.unlink(missing_ok=True)
