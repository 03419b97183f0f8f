"""Which two states of the config repo are compared, and what is in force at each."""

from dataclasses import dataclass

from reconciler.config_repo.assemble import Fleet, assemble
from reconciler.config_repo.checkout import UNKNOWN_REVISION, Checkout, show_id
from reconciler.config_repo.fleets import FleetReader, read_folder
from reconciler.config_repo.git_errors import FOLDER_MISSING
from reconciler.errors import GitError
from reconciler.model import Commit
from reconciler.preview.pairs import Side

UPSTREAMS = ("origin/HEAD", "origin/main", "origin/master")
"""Where changes go: the first of these that is there."""
WORKTREE = "worktree"


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
    base_fleet = _read(reader, base_commit)
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


def _read(reader: FleetReader, commit: Commit) -> Fleet:
    try:
        return reader.read(commit.id)
    except GitError as error:
        if error.reason != FOLDER_MISSING:
            raise
        return assemble(())  # the change brings the config's folder
