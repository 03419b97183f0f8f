"""Keeps the listings that a plan needs: each query asked when it is due, and no more often.

A listing costs money and counts against the bucket's rate, so each query has its own time: the
bucket interval while something is wanted from it, a much longer one to compare an installed pin,
sooner when an upload is about to settle or the last try failed.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.errors import ReconcilerError
from reconciler.model import Available, Listing, Query, Unavailable
from reconciler.sources.registry import Sources
from reconciler.threads import run_beside
from reconciler.tracing import Tracing

_log = logging.getLogger(__name__)

_LISTINGS_AT_ONCE = 8
_LISTING_DEADLINE_SECONDS = 300.0
_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 30.0
"""However rarely a bucket is listed: a minute after an outage of it all is well."""
_JITTER = 0.1


@dataclass(slots=True)
class _Entry:
    due_at: float
    listing: Listing | None = None
    trouble: Unavailable | None = None
    failures: int = 0
    is_overtaken: bool = False
    """Whether something changed while it was being listed, which that listing may not show."""


class BucketWatch:
    """The last answer to each query that is wanted."""

    def __init__(
        self,
        sources: Sources,
        *,
        interval_seconds: float,
        recheck_seconds: float,
        clock: Callable[[], float],
        tracing: Tracing | None = None,
    ) -> None:
        self._sources = sources
        self._interval_seconds = interval_seconds
        self._recheck_seconds = recheck_seconds
        self._clock = clock
        self._tracing = tracing or Tracing()
        self._entries: dict[Query, _Entry] = {}
        self._rechecks: dict[Query, bool] = {}
        self._gate = asyncio.Semaphore(_LISTINGS_AT_ONCE)
        self._available: Available | None = None

    @property
    def available(self) -> Available:
        """Everything that is known, as one value: the same one until something else is known."""
        if self._available is None:
            self._available = Available(
                {q: entry.listing for q, entry in self._entries.items() if entry.listing},
                {q: entry.trouble for q, entry in self._entries.items() if entry.trouble},
            )
        return self._available

    @property
    def answered(self) -> bool:
        """Whether every query that is needed to go on was answered, well or badly."""
        return all(
            entry.listing or entry.trouble
            for query, entry in self._entries.items()
            if not self._rechecks[query]
        )

    def want(self, changes: Mapping[Query, bool | None]) -> bool:
        """Take what is to be listed otherwise than before; return whether something is due.

        True is only to be re-checked, None not to be listed any more.
        """
        now = self._clock()
        for query, is_recheck in changes.items():
            if is_recheck is None:
                if self._entries.pop(query, None) is not None:
                    del self._rechecks[query]
                    self._available = None
                continue
            if query not in self._entries:
                # A pin that is installed when the agent starts is known; it waits its turn.
                wait_seconds = self._jitter(self._recheck_seconds) if is_recheck else 0.0
                self._entries[query] = _Entry(now + wait_seconds)
            elif self._rechecks[query] and not is_recheck:
                self._entries[query].due_at = now
            elif is_recheck and not self._rechecks[query]:
                self._entries[query].due_at = now + self._jitter(self._recheck_seconds)
            self._rechecks[query] = is_recheck
        return self.next_due_seconds() <= 0

    def hasten(self, query: Query, within_seconds: float = 0.0) -> None:
        """Ask `query` again that soon, if it is not due before."""
        entry = self._entries.get(query)
        if entry is not None:
            entry.due_at = min(entry.due_at, self._clock() + within_seconds)

    def hasten_source(self, source: str) -> None:
        """Ask everything about one source now: its last answer has turned out to be old."""
        for query, entry in self._entries.items():
            if query.source == source:
                self.hasten(query)
                entry.is_overtaken = True

    def hasten_all(self) -> None:
        """Ask everything that is not a mere re-check now."""
        for query, is_recheck in self._rechecks.items():
            if not is_recheck:
                self.hasten(query)
                self._entries[query].is_overtaken = True

    def find_sources(self, url: str) -> set[str]:
        """Return the sources that are asked about and hold the object of that URL."""
        sources = {query.source for query in self._entries}
        return {source for source in sources if url.startswith(source.rstrip("/") + "/")}

    def next_due_seconds(self) -> float:
        """Return how long nothing is due, negative when something is overdue."""
        if not self._entries:
            return self._interval_seconds
        return min(entry.due_at for entry in self._entries.values()) - self._clock()

    async def refresh(self) -> bool:
        """Ask every query that is due and return whether any answer is other than before."""
        now = self._clock()
        due = [query for query, entry in self._entries.items() if entry.due_at <= now]
        changes = await asyncio.gather(*(self._ask(query) for query in due))
        return any(changes)

    async def _ask(self, query: Query) -> bool:
        async with self._gate:
            if query in self._entries:
                self._entries[query].is_overtaken = False
            answer = await self._list(query)
        entry = self._entries.get(query)
        if entry is None:
            return False
        before = (entry.listing, entry.trouble)
        self._available = None
        if isinstance(answer, Listing):
            entry.listing, entry.trouble, entry.failures = answer, None, 0
            is_recheck = self._rechecks[query]
            wait_seconds = self._recheck_seconds if is_recheck else self._interval_seconds
        else:
            entry.trouble = answer
            wait_seconds = min(
                self._interval_seconds,
                _LAST_RETRY_SECONDS,
                _FIRST_RETRY_SECONDS * 2 ** min(entry.failures, 20),
            )
            entry.failures += 1
        entry.due_at = self._clock()
        if not entry.is_overtaken:
            entry.due_at += self._jitter(wait_seconds)
        return before != (entry.listing, entry.trouble)

    async def _list(self, query: Query) -> Listing | Unavailable:
        def ask() -> Listing:
            return self._sources.open(query.source).list(query)

        try:
            with self._tracing.span("list", source=query.source):
                async with asyncio.timeout(_LISTING_DEADLINE_SECONDS):
                    return await run_beside(ask, "listing")
        except ReconcilerError as error:
            return Unavailable(error.reason, str(error))
        except TimeoutError:
            sentence = f"{query.source} was not listed within {_LISTING_DEADLINE_SECONDS:.0f} s"
            return Unavailable("ListingFailed", sentence)
        except Exception as error:
            # What one bucket answers would else end every agent that lists it, again at each start.
            _log.exception("a listing ended by a bug; please report it")
            sentence = f"{query.source} was not listed because of a bug: {error!r}"
            return Unavailable("Bug", sentence)

    @staticmethod
    def _jitter(seconds: float) -> float:
        return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load
