"""Follows the config repo: what its newest readable commit asks of this node.

The mirror on disk is the cache that lets a node start while the git server is away.
"""

import time

from reconciler.config_repo.desired import ConfigRepo
from reconciler.config_repo.mirror import Mirror
from reconciler.errors import ReconcilerError
from reconciler.model import Commit, Desired, Unavailable
from reconciler.threads import run_beside

STALE = "Stale"
"""What is in force comes from the mirror on disk; no fetch has succeeded or failed yet."""


class GitWatch:
    """The newest desired state, and why it may not be the newest."""

    def __init__(self, mirror: Mirror, repo: ConfigRepo) -> None:
        self._mirror = mirror
        self._repo = repo
        self.desired: Desired | None = None
        self.trouble: Unavailable | None = Unavailable(STALE, "the config repo was not fetched yet")
        self.fetched_at_seconds: float | None = None
        """When a fetch last succeeded, Unix time."""

    async def restore(self) -> None:
        """Read what the mirror on disk holds, without the network."""
        try:
            commit = await run_beside(self._mirror.head, "git head")
            if commit is not None:
                self.desired = await self._read(commit)
        except ReconcilerError as error:
            self.trouble = Unavailable(error.reason, str(error))

    async def poll(self) -> bool:
        """Fetch once and return whether anything is other than before."""
        before = (self.desired, self.trouble)
        try:
            commit = await run_beside(self._mirror.fetch, "git fetch")
            if self.desired is None or self.desired.commit != commit:
                self.desired = await self._read(commit)
            self.trouble = None
            self.fetched_at_seconds = time.time()
        except ReconcilerError as error:
            self.trouble = Unavailable(error.reason, str(error))
        return (self.desired, self.trouble) != before

    async def _read(self, commit: Commit) -> Desired:
        return await run_beside(lambda: self._repo.read(commit), "git read")
