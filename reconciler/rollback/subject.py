"""The one deployment that a person names: its texts now, its history, and who serves it."""

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.fleets import FleetReader
from reconciler.config_repo.layout import lock_path
from reconciler.config_repo.names import UnknownModelError, find_one
from reconciler.history.read import State, read_history
from reconciler.model import NUMBER, Member, VersionScheme
from reconciler.rollback.restore import Pair, read_pair
from reconciler.rollback.way_back import Step, follow


@dataclass(frozen=True, slots=True)
class Subject:
    """A deployment at the commit that is checked out."""

    checkout: Checkout
    commit_id: str
    group: str
    model: str
    pair: Pair
    steps: tuple[Step, ...]
    """Its history, newest first."""
    members: tuple[Member, ...]
    """The nodes of its group; empty where the group's file is broken."""
    requires_lock: bool
    """Whether fleet.yaml asks for a lock."""

    @property
    def name(self) -> str:
        """How a sentence calls it."""
        return f"{self.model} in {self.group}"

    @property
    def key(self) -> str:
        """How a command calls it."""
        return f"{self.group}/{self.model}"

    @property
    def paths(self) -> tuple[str, str]:
        """Where its file and its lock are."""
        return self.pair.path, lock_path(self.pair.path)

    @property
    def state(self) -> State | None:
        """What its history says of it now; None where this clone holds no history of it."""
        return self.steps[0].after if self.steps else None

    @property
    def serves(self) -> int | None:
        """The version that git asks for now, None where git does not say."""
        return self.state.serves if self.state is not None and self.state.is_readable else None

    @property
    def asked(self) -> str:
        """What it asks for now, for a sentence."""
        if self.state is None or not self.state.is_readable:
            return "(broken)"
        return "latest" if self.serves is None else str(self.state.title)

    @property
    def follows_latest(self) -> bool:
        """Whether its file says `latest`, with a lock or without."""
        return self.state is not None and self.state.is_readable and self.state.version is None

    @property
    def source(self) -> str:
        """Where its versions come from, as its file said when it could last be read."""
        return next((state.source for state in self._list_readable()), "")

    @property
    def scheme(self) -> VersionScheme:
        """How its versions are named, as its file said when it could last be read."""
        return next((state.scheme for state in self._list_readable()), NUMBER)

    def _list_readable(self) -> Iterator[State]:
        """Yield what its file said whenever it could be read, the newest first."""
        for step in self.steps:
            yield from (s for s in (step.after, step.before) if s and s.is_readable)

    @property
    def needs_lock(self) -> bool:
        """Whether a version may not be asked for without a lock."""
        return self.requires_lock or self.pair.lock is not None

    def find_state_at(self, revision: str) -> State | None:
        """Return what it asked for at a revision, under its name of then.

        None where it was not there or could not be read. Raises GitError for no revision.
        """
        commit_id = self.checkout.resolve(revision).id
        tree = self.checkout.read_tree(commit_id)
        states = [state for step in self.steps for state in (step.after, step.before) if state]
        for state in states:
            found = tree.get(state.path)
            lock = tree.get(lock_path(state.path))
            if (found and found.id, lock and lock.id) == (state.blob_id, state.lock_blob_id):
                return state if state.is_readable else None
        for key in dict.fromkeys(f"{state.group}/{state.model}" for state in states):
            try:
                entries = read_history(self.checkout, commit_id, key, limit=1)
            except UnknownModelError:
                continue
            after = entries[0].after if entries else None
            if after is not None and after.path in tree:
                return after if after.is_readable else None
        return None


def find_subject(checkout: Checkout, name: str) -> Subject:
    """Return the deployment that `name`, a model or `group/model`, means at HEAD.

    Raises UnknownModelError where none or several have the name, GitError where git cannot be read.
    """
    head = checkout.resolve("HEAD")
    fleet = FleetReader(checkout).read(head.id)
    named = find_one(fleet, name)
    entries = read_history(checkout, head.id, f"{named.group}/{named.model}")
    group = fleet.groups.get(named.group)
    return Subject(
        checkout,
        head.id,
        named.group,
        named.model,
        read_pair(checkout, head.id, named.path),
        tuple(follow(entries, named.path)),
        group.nodes if group else (),
        fleet.policy.requires_lock,
    )
