"""What is kept fresh beside the tick: git, the buckets, the group's members, and other nodes.

Each is looked at in its own time, by a task of its own, so that a git server that hangs does not
age the listings. Whoever finds something new wakes the tick, and the tick says what is worth a
look.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from reconciler.config_repo.desired import ConfigRepo
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from reconciler.follow.trust import Trust
from reconciler.follow.watch import GitWatch
from reconciler.membership.registry import Registries
from reconciler.membership.watch import MembershipWatch
from reconciler.model import Condition, Desired, Query, Unavailable
from reconciler.policy import Policy
from reconciler.settings import Settings
from reconciler.sources.registry import Sources
from reconciler.sources.watch import BucketWatch
from reconciler.status.access import Access
from reconciler.status.peers import Badge, PeerWatch
from reconciler.tracing import Tracing

_JITTER = 0.1
_MIN_FETCH_GAP_SECONDS = 1.0
_LAST_RETRY_SECONDS = 30.0
"""However rarely git is polled: what a failed fetch has missed, nothing else may bring."""


class Watches:
    """The four watches of one agent and the tasks that keep them."""

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        badge: Badge,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
        note_fetch: Callable[[float], None],
        tracing: Tracing | None = None,
    ) -> None:
        """`wake` is called when something is new, `note_fetch` with the time of each fetch."""
        self._settings = settings
        self._clock = clock
        self._wake = wake
        self._note_fetch = note_fetch
        self._tracing = tracing or Tracing()
        self._mirror = Mirror(MirrorSettings.of(settings))
        self._git_due = asyncio.Event()
        self._buckets_due = asyncio.Event()
        self._members_due = asyncio.Event()
        self._peers_due = asyncio.Event()
        repo = ConfigRepo(self._mirror, settings.node, settings.state_dir)
        self.git = GitWatch(self._mirror, repo, Trust(self._mirror, repo, settings))
        self.buckets = BucketWatch(
            sources,
            interval_seconds=settings.bucket_interval,
            recheck_seconds=settings.pin_check_interval,
            clock=clock,
            tracing=self._tracing,
        )
        self.members = MembershipWatch(
            Registries(
                docker_host=settings.docker_host,
                nomad_address=settings.nomad_address,
                nomad_token_file=settings.nomad_token_file,
                access=Access.of(settings),
            ),
            state_file=settings.state_dir / "members.json",
            clock=clock,
        )
        self.peers = PeerWatch(badge, clock, Access.of(settings))
        self.notifications: Condition | None = None
        """Whether the buckets' notifications are read; None where nobody reads them."""

    # --- what the tick says ---------------------------------------------------------------

    def wake_git(self) -> None:
        """Look at git now."""
        self._git_due.set()

    def wake_all(self) -> None:
        """Look at git and the buckets now."""
        self._git_due.set()
        self.buckets.hasten_all()
        self._buckets_due.set()

    def find_sources(self, url: str) -> set[str]:
        """Return what is followed and has the object of that URL: sources, or the config repo."""
        found = self.buckets.find_sources(url)
        return {*found, url} if url == self._settings.repo else found

    def wake_sources(self, sources: Iterable[str]) -> None:
        """Look at these sources now, and at git where the config repo is one of them."""
        for source in sources:
            if source == self._settings.repo:
                self.wake_git()
            self.buckets.hasten_source(source)
        self._buckets_due.set()

    def hasten(self, query: Query, within_seconds: float) -> None:
        """Ask `query` again that soon, if it is not due before."""
        self.buckets.hasten(query, within_seconds)
        self._buckets_due.set()

    def note_notifications(self, condition: Condition) -> None:
        """Take how it is with the buckets' notifications."""
        self.notifications = condition
        self._wake()

    def want_listings(self, changes: Mapping[Query, bool | None]) -> None:
        """Take what is to be listed otherwise (True: only re-checked, None: not any more)."""
        if self.buckets.want(changes):
            self._buckets_due.set()

    def want_members(self, desired: Desired | None) -> None:
        """Keep the members of all groups that git does not list the nodes of."""
        if desired is None and not self.git.groups:
            return  # no commit was read yet: those that are remembered may be asked for by one
        policy = desired.policy if desired else Policy()
        if self.members.want(self.git.groups, policy.member_timeout_seconds):
            self._members_due.set()

    def want_peers(self, desired: Desired, nodes: Iterable[str]) -> None:
        """Set which nodes are to be asked."""
        if self.peers.want(desired, nodes):
            self._peers_due.set()

    def find_members_trouble(self, desired: Desired) -> Unavailable | None:
        """Return why it is not sure which nodes the node's group has."""
        own = self.members.troubles.get(desired.group.name) if desired.group else None
        return self.git.members_trouble or own

    # --- keeping them ---------------------------------------------------------------------

    def follow(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return the tasks that keep the watches for ever, by name."""
        return {
            "git": self._follow_git(),
            "buckets": self._follow_buckets(),
            "members": self._follow_members(),
            "peers": self._follow_peers(),
        }

    async def fetch_git(self) -> bool:
        """Look at git once and return whether anything is other than before."""
        with self._tracing.span("fetch git"):
            return await self.git.poll()

    async def refresh(self) -> None:
        """Look once at all that is due, git apart."""
        await self.buckets.refresh()
        await self.peers.refresh()
        await self._refresh_members()

    @property
    def answered(self) -> bool:
        """Whether everything that is needed to go on was answered, well or badly."""
        return self.buckets.answered and self.peers.answered and self.members.answered

    async def close(self) -> None:
        """Give up what is being asked."""
        await self.members.close()
        self._mirror.close()

    async def _follow_git(self) -> None:
        while True:
            begun_at = self._clock()
            if await self.fetch_git():
                self._wake()
            if self.git.fetched_at_seconds is not None:
                self._note_fetch(self.git.fetched_at_seconds)
            interval_seconds = self._settings.git_interval
            wait_seconds = interval_seconds or None
            if self.git.fetch_trouble is not None:
                wait_seconds = min(interval_seconds or _LAST_RETRY_SECONDS, _LAST_RETRY_SECONDS)
            await sleep_until(self._git_due, wait_seconds)
            # However many hooks arrive meanwhile, they come to one fetch a second.
            gap_seconds = min(_MIN_FETCH_GAP_SECONDS, interval_seconds or _MIN_FETCH_GAP_SECONDS)
            await asyncio.sleep(max(0.0, begun_at + gap_seconds - self._clock()))
            self._git_due.clear()

    async def _follow_buckets(self) -> None:
        while True:
            if await self.buckets.refresh():
                self._wake()
            await sleep_until(self._buckets_due, max(0.0, self.buckets.next_due_seconds()), 0.0)

    async def _follow_members(self) -> None:
        while True:
            if await self._refresh_members():
                self._wake()
            await sleep_until(self._members_due, max(0.0, self.members.next_due_seconds()), 0.0)

    async def _refresh_members(self) -> bool:
        await self.members.refresh()
        return await self.git.set_members(self.members.members, self.members.troubles)

    async def _follow_peers(self) -> None:
        while True:
            if await self.peers.refresh():
                self._wake()
            await sleep_until(self._peers_due, max(0.0, self.peers.next_due_seconds()), 0.0)


async def sleep_until(wake: asyncio.Event, seconds: float | None, jitter: float = _JITTER) -> None:
    """Sleep for `seconds` (None: for ever) with jitter, or until `wake` is set; clears it."""
    if seconds is not None:
        seconds *= random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - spreads load
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass
    wake.clear()
