"""The board between the agent and the HTTP server: the agent writes on it, requests read it.

The agent calls `publish` once it has found or done something, and `beat` at every look. The report
is rendered when somebody asks for it, and once only until the next look: a node whose 10,000
models are at rest has better things to do than to write 10 MB every other second for nobody.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from reconciler.status.changes import Change, ChangeFinder
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.report import Json, NodeReport, render, render_outcomes

_log = logging.getLogger(__name__)

_CHANGES_BY_ITSELF = ("generated_at", "uptime_seconds", "retry_in_seconds", "deployed_seconds")
_MEETING_SECONDS = 90.0
"""How long one that has asked under this agent's name is remembered: it asks every 30 s."""


@dataclass(frozen=True, slots=True)
class Page:
    """Bytes that are ready to be sent, and the tag by which a client knows them again."""

    body: bytes
    etag: str


class StatusBoard:
    """What the status endpoint knows; belongs to the agent's event loop."""

    def __init__(
        self,
        journal: Journal,
        metrics: Metrics,
        wake: Callable[[], None],
        *,
        wake_git: Callable[[], None] | None = None,
        badge: str = "",
        heartbeat_limit_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wake` is called by POST /sync, `wake_git` (else `wake`) by POST /hooks/git.

        Both must only set a flag. `badge` is by what this agent asks others.
        """
        self.journal = journal
        self.metrics = metrics
        self.wake = wake
        self.wake_git = wake_git or wake
        self.heartbeat_limit_seconds = heartbeat_limit_seconds
        self.ready = False
        self._report: NodeReport | None = None
        self._published_at = 0.0
        self._page: Page | None = None
        self._etag: str | None = None
        self._badge = badge
        self._met_at: float | None = None
        self._clock = clock
        self._beaten_at = clock()
        self._finder = ChangeFinder()
        self._append_failed = False

    @property
    def silence_seconds(self) -> float:
        """How long ago the loop last showed that it moves."""
        return self._clock() - self._beaten_at

    def beat(self) -> None:
        """Show that the loop moves, and that what was published last is still so."""
        self._beaten_at = self._clock()
        self._page = None

    @property
    def status(self) -> Page | None:
        """The newest report as of the last beat, None before the first."""
        if self._page is None and self._report is not None:
            age_seconds = max(0.0, self._beaten_at - self._published_at)
            page = _write_page(replace(self._report, age_seconds=age_seconds))
            self._etag = self._etag or page.etag
            self._page = Page(page.body, self._etag)
        return self._page

    def meet(self, badge: str) -> None:
        """Note who asks: an agent of this one's name that is not this one."""
        node, _, instance = badge.rpartition(" ")
        own_node, _, own_instance = self._badge.rpartition(" ")
        if instance and node == own_node and instance != own_instance:
            self._met_at = self._clock()

    @property
    def has_namesake(self) -> bool:
        """Whether an agent of the same name has asked for the status lately."""
        return self._met_at is not None and self._clock() - self._met_at < _MEETING_SECONDS

    async def publish(self, report: NodeReport) -> tuple[Change, ...]:
        """Show `report`, beat, record what changed since the last one and return that.

        A history that cannot be written does not hold the node up: it is logged once, and what
        changed is found and tried again with the next report.
        """
        self.beat()
        self._report, self._etag, self._published_at = report, None, self._beaten_at
        self.ready = report.ready
        self.metrics.show(report)
        recorded = []
        for change in self._finder.find(report, self.journal.last):
            try:
                await asyncio.to_thread(self.journal.append, change)
            except OSError as error:
                if not self._append_failed:
                    _log.warning("the history cannot be written; trying on: %s", error)
                self._append_failed = True
                break
            self._append_failed = False
            self.metrics.count_change(change)
            recorded.append(change)
        return tuple(recorded)


def _write_page(report: NodeReport) -> Page:
    """Return the report as JSON, and a weak tag that the passing of time alone does not change.

    Word for word what json.dumps makes of `render`, but one deployment after the other: as one
    value, 10,000 of them would be the largest thing in the agent's memory.
    """
    digest = hashlib.sha256()

    pieces: list[bytes] = []
    lists = {"deployments": report.outcomes, "removals": report.removals}
    head = render(replace(report, outcomes=(), removals=()))
    digest.update(json.dumps(_leave_out_time(head)).encode())
    for name, value in head.items():
        pieces.append(f"{', ' if pieces else '{'}{json.dumps(name)}: ".encode())
        if name not in lists:
            pieces.append(json.dumps(value).encode())
            continue
        digest.update(name.encode())
        pieces.append(b"[")
        for number, item in enumerate(render_outcomes(lists[name], report)):
            digest.update(json.dumps(_leave_out_time(item)).encode())
            pieces.append(f"{', ' if number else ''}{json.dumps(item)}".encode())
        pieces.append(b"]")
    pieces.append(b"}")
    return Page(b"".join(pieces), f'W/"{digest.hexdigest()[:32]}"')


def _leave_out_time(content: Json) -> Json:
    return {key: value for key, value in content.items() if key not in _CHANGES_BY_ITSELF}
