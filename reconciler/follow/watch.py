"""Follows the config repo: what its newest commit that may be followed asks of this node.

Each look is fetch, check, read: a commit that is not signed as it must be is not read, and what
was followed before stays in force. The mirror on disk is the cache that lets a node start while
the git server is away.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.desired import ConfigRepo, Members
from reconciler.config_repo.mirror import Mirror
from reconciler.errors import ReconcilerError
from reconciler.follow.signatures import UnverifiedError
from reconciler.follow.trust import Trust
from reconciler.model import Commit, Condition, Desired, Group, Unavailable
from reconciler.planning.conditions import SIGNATURES_OFF, SOURCE_VERIFIED
from reconciler.threads import run_beside

log = logging.getLogger(__name__)

STALE = "Stale"
"""What is in force comes from the mirror on disk; no fetch has succeeded or failed yet."""


class GitWatch:
    """The newest desired state, and why it may not be the newest."""

    def __init__(self, mirror: Mirror, repo: ConfigRepo, trust: Trust) -> None:
        self._mirror = mirror
        self._repo = repo
        self._trust = trust
        self._reading = asyncio.Lock()  # the repo is for one thread at a time
        self.desired: Desired | None = None
        self.trouble: Unavailable | None = Unavailable(STALE, "the config repo was not fetched yet")
        self.members_trouble: Unavailable | None = None
        """Why the members of the groups leave open what this node should do."""
        self.source_verified: Condition = SIGNATURES_OFF
        """Whether the newest commit may be followed, and what its signature has to do with it."""
        self.unverified: Commit | None = None
        """The newest commit, where it may not be followed."""
        self.fetched_at_seconds: float | None = None
        """When a fetch last succeeded, Unix time."""
        self.fetch_trouble: Unavailable | None = self.trouble
        """Why the newest commit may be another one than that of the last fetch."""
        self._unread: Commit | None = None
        """A commit that may be followed as soon as it can be read, as when who is in its groups
        was not known."""

    async def restore(self) -> None:
        """Read what the mirror on disk holds, without the network."""
        try:
            commit = await run_beside(self._trust.find_start, "git head")
            if commit is not None:
                self._note(commit, await self._consider(commit))
        except Exception as error:
            self._note_trouble(error)

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups of the commit in force, as git describes them."""
        return self._repo.groups

    @property
    def fleet(self) -> Fleet | None:
        """What is in force for all nodes, None before the first commit was read."""
        return self._repo.placed

    async def set_members(self, members: Members, troubles: Mapping[str, Unavailable]) -> bool:
        """Take up who is in the groups that registries know; return whether that changes anything.

        Where it leaves open what this node should do, what it did before stays in force.
        """
        before = (self.desired, self.members_trouble, self.trouble)
        async with self._reading:
            if not self._repo.set_members(members, troubles):
                return False
            self.members_trouble = None
            if self.desired is not None:
                await self._read_again(self.desired.commit)
            # Last, because whose members are to be known follows from what was read last.
            if self._unread is not None:
                await self._try_again(self._unread)
        if self.desired is None:
            await self.restore()
        return (self.desired, self.members_trouble, self.trouble) != before

    async def _read_again(self, commit: Commit) -> None:
        try:
            self.desired = await run_beside(lambda: self._repo.read(commit), "git read")
        except Exception as error:
            self.members_trouble = _explain(error, self.members_trouble)

    async def _try_again(self, commit: Commit) -> None:
        try:
            refusal = await self._follow(commit)
        except Exception as error:
            self._note_trouble(error)
        else:
            self._note(commit, refusal)
            self.trouble = self.fetch_trouble

    async def poll(self) -> bool:
        """Fetch once and return whether anything is other than before."""
        before = (self.desired, self.trouble, self.source_verified)
        is_fetched = False
        try:
            newest = await run_beside(self._mirror.fetch, "git fetch")
            is_fetched = True
            refusal = await self._consider(newest)
            if refusal is not None and self.desired is None:
                # The mirror could not be read at the start and has been repaired since.
                last = await run_beside(self._trust.find_start, "git head")
                if last is not None:
                    await self._consider(last)
            self._note(newest, refusal)
            self.trouble = None
            self.fetched_at_seconds = time.time()
        except Exception as error:
            self._note_trouble(error)
        self.fetch_trouble = None if is_fetched else self.trouble
        return (self.desired, self.trouble, self.source_verified) != before

    async def _consider(self, commit: Commit) -> UnverifiedError | None:
        async with self._reading:
            return await self._follow(commit)

    async def _follow(self, commit: Commit) -> UnverifiedError | None:
        """Follow the commit, or return why it may not be followed."""
        self._unread = None
        if self.desired is not None and self.desired.commit == commit:
            await run_beside(self._trust.save, "git trust")
            return None
        try:
            signer = await run_beside(lambda: self._trust.check(commit), "git verify")
        except UnverifiedError as error:
            return error
        self._unread = commit
        self.desired = desired = await run_beside(lambda: self._repo.read(commit), "git read")
        self._unread = None
        await run_beside(lambda: self._trust.follow(desired, signer), "git trust")
        return None

    def _note_trouble(self, error: Exception) -> None:
        self.trouble = _explain(error, self.trouble)

    def _note(self, newest: Commit, refusal: UnverifiedError | None) -> None:
        if refusal is None:
            self.unverified, self.source_verified = None, self._trust.describe()
            return
        self.unverified = newest
        self.source_verified = Condition(SOURCE_VERIFIED, False, refusal.reason, str(refusal))


def _explain(error: Exception, before: Unavailable | None) -> Unavailable:
    """Return why a commit is not followed; a bug is logged unless it was said `before`."""
    if isinstance(error, ReconcilerError):
        return Unavailable(error.reason, str(error))
    # What one push brings would else end every agent of the fleet, again at each start.
    trouble = Unavailable(
        "Bug",
        f"the newest commit could not be read because of a bug ({error!r}); please report it,"
        " and take the change back for now",
    )
    if trouble != before:
        log.error("%s", trouble.sentence, exc_info=error)
    return trouble
