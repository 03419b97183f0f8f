"""Writes a branch into a bucket as the bundle that nodes follow, and never an older one by mistake.

Two CI jobs of two merges may end in the wrong order, and a clone may be old. So what is in the
bucket is read first, and replaced on the condition that it is still that. A step forward needs no
more proof than git's own: the commit there is an ancestor of the one to come. All else looks the
same whether the branch was forced or the clone is old, so the git server is asked which commit the
branch has, and its word counts.
"""

import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.config_repo.bundle import (
    MAX_BUNDLE_BYTES,
    MAX_HEADER_BYTES,
    BrokenBundleError,
    halt_after,
    parse_header,
)
from reconciler.config_repo.checkout import Checkout, show_id
from reconciler.config_repo.private_git import check_branch
from reconciler.errors import GitError, ReconcilerError, SourceError
from reconciler.sources.source import HaltedError, SourceChangedError

if TYPE_CHECKING:
    from reconciler.sources.gcs_object import GcsObject, ObjectState

BUNDLE_NOT_WRITTEN = "BundleNotWritten"
_TRIES = 5
_READ_SECONDS = 60.0


class Step(Enum):
    """What became of the object."""

    FIRST = "first"
    FORWARD = "forward"
    FORCED = "forced"
    """The branch was forced: what the nodes follow next does not contain what they followed."""
    NONE = "none"
    """The object is as new as the branch."""


@dataclass(frozen=True, slots=True)
class Published:
    """The commit that the object has now."""

    commit_id: str
    step: Step
    size_bytes: int = 0


def publish_bundle(checkout: Checkout, url: str, branch: str) -> Published:
    """Bring the object at `url` to the branch's newest commit in the clone.

    That is the commit of origin's branch, as it was last fetched, and that of the local branch
    where there is none: what was not pushed is not for nodes. Raises GitError, SettingsError and
    SourceError; the object is then as it was.
    """
    from reconciler.sources.gcs_access import WRITE_SCOPE, Access
    from reconciler.sources.gcs_object import NEW, GcsObject

    check_branch(branch)
    tip = _find_tip(checkout, branch)
    if checkout.is_shallow:
        raise _refuse(
            f"{checkout.top} is a shallow clone, and a node needs the whole history; clone it"
            " whole (`fetch-depth: 0` in GitHub's checkout, `GIT_DEPTH: 0` in GitLab's CI)"
        )
    access = Access(scope=WRITE_SCOPE)
    try:
        bundle = GcsObject(url, access)
        for _ in range(_TRIES):
            state, there = _read_tip(bundle, url, branch)
            step = _judge(checkout, url, branch, there, tip)
            if step is Step.NONE:
                return Published(there or tip, step)
            with tempfile.TemporaryDirectory() as folder:
                path = _write(checkout, branch, tip, Path(folder))
                size_bytes = path.stat().st_size
                if bundle.replace(path, state.generation if state else NEW):
                    return Published(tip, step, size_bytes)
    finally:
        access.close()
    raise _refuse(f"{url} was replaced by others each of {_TRIES} times; run this again")


def _find_tip(checkout: Checkout, branch: str) -> str:
    for ref in (f"refs/remotes/origin/{branch}", f"refs/heads/{branch}"):
        if checkout.succeeds("rev-parse", "--verify", "--quiet", "--end-of-options", ref):
            return checkout.resolve(ref).id
    raise _refuse(
        f"{checkout.top} has no branch {branch}, of its own or of origin; fetch it, or name another"
        " by --branch"
    )


def _read_tip(
    bundle: "GcsObject", url: str, branch: str
) -> tuple["ObjectState | None", str | None]:
    """Return what is in the bucket now, and the commit that the branch has there."""
    try:
        with halt_after(_READ_SECONDS) as halt:
            state = bundle.look(halt)
            if state is None:
                return None, None
            end = min(state.size_bytes, MAX_HEADER_BYTES)
            data = b"".join(bundle.read(state, end, halt)) if end else b""
            halt.check()
        header = parse_header(data)
    except HaltedError:
        raise _refuse(f"{url} could not be read within {_READ_SECONDS:g} s") from None
    except SourceChangedError:
        raise _refuse(f"{url} was replaced while it was read; run this again") from None
    except BrokenBundleError as error:
        raise _refuse(
            f"what is at {url} {error}, and is not overwritten; name another object, or remove"
            " that one"
        ) from None
    if branch not in header.tips:
        raise _refuse(
            f"{url} holds another branch ({header.branches}) than {branch}, and is not"
            " overwritten; give each branch an object of its own"
        )
    return state, header.tips[branch]


def _judge(checkout: Checkout, url: str, branch: str, there: str | None, tip: str) -> Step:
    """Return which step it is from the commit that is there to `tip`; raises GitError."""
    if there is None:
        return Step.FIRST
    if there == tip:
        return Step.NONE
    if checkout.succeeds("merge-base", "--is-ancestor", "--end-of-options", there, tip):
        return Step.FORWARD
    newest = _ask_origin(checkout, url, branch, there)
    if newest == there:
        return Step.NONE
    if newest == tip:
        return Step.FORCED
    raise _refuse(
        f"{url} has commit {show_id(there)}, this clone {show_id(tip)}, and {branch} of origin is"
        f" at {show_id(newest) or 'none'}: the clone is old; fetch, and run this again"
    )


def _ask_origin(checkout: Checkout, url: str, branch: str, there: str) -> str:
    """Return the commit that the git server has for the branch; empty where it has none."""
    try:
        answer = checkout.git("ls-remote", "--end-of-options", "origin", f"refs/heads/{branch}")
    except GitError as error:
        raise _refuse(
            f"{url} has commit {show_id(there)}, which this clone's {branch} does not contain, and"
            f" origin could not be asked whether the branch was forced ({error}); if it was, remove"
            " the object and run this again"
        ) from None
    return answer.partition("\t")[0].strip()


def _write(checkout: Checkout, branch: str, tip: str, folder: Path) -> Path:
    """Write a bundle of one commit and all before it, in which the branch is at that commit."""
    # In a repository beside the clone: a bundle names branches as they are called where it is made,
    # and the clone's own stay as they are.
    scratch, path = folder / "scratch.git", folder / "fleet.bundle"
    try:
        checkout.git("init", "--quiet", "--bare", "--template=", str(scratch))
        alternates = scratch / "objects" / "info"
        alternates.mkdir(exist_ok=True)
        objects = checkout.git("rev-parse", "--path-format=absolute", "--git-path", "objects")
        (alternates / "alternates").write_text(objects)
        inside = (f"--git-dir={scratch}",)
        checkout.git(*inside, "update-ref", f"refs/heads/{branch}", tip)
        checkout.git(*inside, "bundle", "create", "--quiet", str(path), f"refs/heads/{branch}")
        size_bytes = path.stat().st_size
    except OSError as error:
        raise _refuse(f"the bundle cannot be written to {folder} ({error.strerror})") from None
    except ReconcilerError as error:
        raise _refuse(f"the bundle cannot be made: {error}") from None
    if size_bytes > MAX_BUNDLE_BYTES:
        raise SourceError(
            f"the bundle of {branch} has {size_bytes / 1e6:.0f} MB, and nodes read at most"
            f" {MAX_BUNDLE_BYTES / 1e6:.0f} MB; begin a new repository for the config",
            BUNDLE_NOT_WRITTEN,
        )
    return path


def _refuse(sentence: str) -> GitError:
    return GitError(f"{sentence}; nothing was written", BUNDLE_NOT_WRITTEN)
