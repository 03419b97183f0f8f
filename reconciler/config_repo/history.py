"""The audit trail of each deployment, out of git alone.

The trail follows the branch as the nodes see it: its first-parent line, on which a pull request
arrives at once, by its merge. Each step of that line is told by the commits that made it: where
the commits of a merged branch lead file by file from what the branch held before to what it holds
now, each of them is an entry with its own author, and `merged_by` names the merge. Where they do
not (a conflict was resolved, both sides changed the file), the merge itself is the entry and
`parts` names the commits it was made of. A change is so listed once, work that a merge threw away
is not listed, and the entries of one deployment form a chain: `before` is the `after` of the next
older one.

A deployment is followed by its file through renames and moves between groups. One that was
removed and comes back at the same path goes on where it ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.config_repo.checkout import Checkout
from reconciler.model import Commit, Strategy


@dataclass(frozen=True, slots=True)
class State:
    """What one deployment's files said after a commit."""

    group: str
    model: str
    path: str
    """Path of the deployment's file in the config."""
    blob_id: str
    lock_blob_id: str | None = None
    """None where there was no lock file."""
    is_readable: bool = True
    """False where the text of the file or its lock was broken; the fields below say nothing then,
    and the nodes kept to the last good text."""
    version: int | None = None
    """The pinned version; None is `latest`."""
    locked: int | None = None
    """What the lock said that `version` came to; None where there was no lock."""
    locked_digest: str | None = None
    """Of that version's bytes, hex sha256."""
    source: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    replicas: int | None = None
    """None is `all`."""
    stop: bool = False
    suspend: bool = False
    strategy: Strategy = Strategy.OVERLAP

    @property
    def serves(self) -> int | None:
        """The version that was asked for; None where only each node knew what `latest` was."""
        return self.locked if self.version is None else self.version


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of one deployment."""

    commit: Commit
    """The commit that made the change."""
    author_email: str
    committer: str
    committer_email: str
    body: str
    """The message below its subject, cut where it is long."""
    group: str
    model: str
    path: str
    """Where the deployment is after the change, or was, if it was removed."""
    before: State | None
    """None where the deployment was created."""
    after: State | None
    """None where the deployment was removed."""
    reverts: str | None = None
    """Full id of the commit that this one says it reverts."""
    only_this: bool = False
    """Whether `commit` touched nothing in the repository but this deployment's files."""
    merged_by: Commit | None = None
    """The merge by which the change reached the branch; None where it was made on the branch.
    Entries with the same `merged_by` took effect together."""
    parts: tuple[Commit, ...] = ()
    """Where `commit` is a merge: the commits of the merged branch that touched the deployment."""

    @property
    def landed(self) -> Commit:
        """The commit of the branch with which the change took effect."""
        return self.merged_by or self.commit


def read_history(
    checkout: Checkout,
    revision: str = "HEAD",
    model: str | None = None,
    limit: int | None = None,
) -> list[Entry]:
    """Return the changes up to `revision`, newest first, at most `limit` of them.

    `model` is a model's name or `group/model`, of today or of former times; None is all of them.
    Raises GitError where the history cannot be read, UnknownModelError where nothing has the name.
    """
    raise NotImplementedError
