"""Which two states of the config repo are compared, and what is in force at each."""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.config_repo.assemble import Fleet, assemble
from reconciler.config_repo.checkout import UNKNOWN_REVISION, Checkout, show_id
from reconciler.config_repo.fleets import FleetReader, read_folder
from reconciler.config_repo.git_errors import FOLDER_MISSING
from reconciler.config_repo.layout import lock_path
from reconciler.errors import GitError
from reconciler.model import Commit
from reconciler.preview.pairs import Side

UPSTREAMS = ("origin/HEAD", "origin/main", "origin/master")
"""Where changes go: the first of these that is there."""
WORKTREE = "worktree"

_MAX_COMMITS = 5
"""Commits that are looked at for the last good text of a file that is broken at the base."""
_MAX_PATHS = 1000
"""A command line has a length that the system takes."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Both states, the base first."""

    base: Side
    head: Side


def read_sides(
    checkout: Checkout, base: str | None, head: str | None, *, is_worktree: bool
) -> Sides:
    """Return what is in force at both revisions; files broken at the head keep the base's text.

    Without a base it is where the head left the branch that changes go to. Raises GitError where a
    revision is not there, ConfigError where one holds far too much.
    """
    head_commit = checkout.resolve(head or "HEAD")
    base_commit = checkout.resolve(base) if base else find_base(checkout, head_commit, is_worktree)
    reader = FleetReader(checkout)
    base_fleet = _read_in_force(checkout, reader, base_commit)
    if is_worktree:
        commit = Commit(WORKTREE, "", "the files as they lie", head_commit.time_seconds)
        return Sides(Side(base_commit, base_fleet), Side(commit, read_folder(checkout.folder)))
    head_fleet = reader.read(head_commit.id, base_fleet.good)
    return Sides(Side(base_commit, base_fleet), Side(head_commit, head_fleet))


def find_base(checkout: Checkout, head: Commit, is_worktree: bool) -> Commit:
    """Return the commit that `head` is compared with when nobody names one."""
    for upstream in UPSTREAMS:
        if checkout.succeeds("rev-parse", "--verify", "--quiet", f"{upstream}^{{commit}}"):
            base = checkout.find_merge_base(upstream, head.id)
            if base is None:
                raise GitError(
                    f"{show_id(head.id)} and {upstream} have no commit in common here; fetch more"
                    " of the history (a shallow clone holds its newest commits only), or name BASE",
                    UNKNOWN_REVISION,
                )
            return base
    if is_worktree:
        return head
    try:
        return checkout.resolve(f"{head.id}~1")
    except GitError:
        raise GitError(
            f"there is neither {', '.join(UPSTREAMS)} nor a commit before {show_id(head.id)} in"
            f" {checkout.top}; name BASE, the revision to compare with",
            UNKNOWN_REVISION,
        ) from None


def _read_in_force(checkout: Checkout, reader: FleetReader, commit: Commit) -> Fleet:
    """Return what nodes follow at a commit: of a broken file what it said last while it was good.

    They have seen the commits before; here those that changed such a file are read again.
    """
    fleet = _read(reader, commit.id)
    paths = [path for broken in fleet.broken for path in (broken, lock_path(broken))]
    if not paths or len(paths) > _MAX_PATHS:
        return fleet
    specs = [f":(literal){checkout.path_in_repo(path)}" for path in paths]
    limit = f"--max-count={_MAX_COMMITS}"
    changes = checkout.git("rev-list", "--first-parent", limit, commit.id, "--", *specs).split()
    good: dict[str, str] = {}
    for commit_id in reversed(changes):
        good = _read(reader, commit_id, good).good
    return _read(reader, commit.id, good)


def _read(reader: FleetReader, commit_id: str, good: Mapping[str, str] | None = None) -> Fleet:
    try:
        return reader.read(commit_id, good)
    except GitError as error:
        if error.reason != FOLDER_MISSING:
            raise
        return assemble(())  # the change brings the config's folder
