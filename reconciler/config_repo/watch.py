"""Follows the config repo: what its newest readable commit asks of this node.

The mirror on disk is the cache that lets a node start while the git server is away.
"""

import asyncio
import time

from reconciler.config_repo.desired import ConfigRepo
from reconciler.config_repo.mirror import Mirror
from reconciler.errors import ReconcilerError
from reconciler.model import Desired, Unavailable

STALE = "Stale"


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
            commit = await asyncio.to_thread(self._mirror.head)
            if commit is not None:
                self.desired = await asyncio.to_thread(self._repo.read, commit)
        except ReconcilerError as error:
            self.trouble = Unavailable(error.reason, str(error))

    async def poll(self) -> bool:
        """Fetch once and return whether anything is other than before."""
        before = (self.desired, self.trouble)
        try:
            commit = await asyncio.to_thread(self._mirror.fetch)
            if self.desired is None or self.desired.commit != commit:
                self.desired = await asyncio.to_thread(self._repo.read, commit)
            self.trouble = None
            self.fetched_at_seconds = time.time()
        except ReconcilerError as error:
            self.trouble = Unavailable(error.reason, str(error))
        return (self.desired, self.trouble) != before
