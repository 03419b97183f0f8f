"""Keeps the view of the fleet up to date for whoever looks at it, at one roll-up for all of them.

Any node can serve the view, so there may be hundreds of desks, and each must not ask hundreds of
nodes all the time: a desk asks while somebody looks, and soon stops when nobody does any more.
Only `reconciler fleet serve`, of which there are few, goes on and so sees restarts.
"""

import asyncio
import gzip
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from reconciler.errors import ReconcilerError
from reconciler.fleet.expected import Expected
from reconciler.fleet.nodes import Now
from reconciler.fleet.poll import INTERVAL_SECONDS, FleetPoller, Sighting
from reconciler.fleet.roll_up import roll_up
from reconciler.fleet.view import FleetView, render, render_lasting
from reconciler.status.web import make_etag

_log = logging.getLogger(__name__)

LOOKS_ON_SECONDS: Final = 30.0
"""How long after the last look the nodes are asked still."""
_FIRST_PATIENCE_SECONDS = 0.7
"""How long the first look waits for nodes; those that are slower are shown as not asked yet."""
_FRESH_SECONDS = 1.0
_GZIP_LEVEL = 1  # nearly as small as the best for such a text, at a fraction of the time


@dataclass(frozen=True, slots=True)
class ViewPage:
    """A view that is ready to be sent."""

    body: bytes
    gzipped: bytes
    etag: str


class FleetDesk:
    """The view of one fleet; belongs to one event loop, and works while `run` runs."""

    def __init__(
        self,
        read_expected: Callable[[], Expected],
        seen_from: str,
        *,
        has_git: bool = True,
        always: bool = False,
        poller: FleetPoller | None = None,
    ) -> None:
        """Show the nodes that `read_expected` names; it may block, and raise ReconcilerError.

        Without `has_git` it names addresses alone, and what is expected is learnt from the nodes.
        """
        self._read_expected = read_expected
        self._seen_from = seen_from
        self._has_git = has_git
        self._always = always
        self._poller = poller or FleetPoller()
        self._expected: Expected | None = None
        self._trouble = ""
        self._looked_at: float | None = None
        self._look = asyncio.Event()
        self._asked = asyncio.Event()
        self._lock = asyncio.Lock()
        self._made_at = 0.0
        self._page: ViewPage | None = None

    async def run(self) -> None:
        """Ask the nodes again and again, while somebody looks."""
        try:
            while True:
                if not self._is_looked_at():
                    # Who looks again an hour later must not take this hour's answers for new ones.
                    self._poller.follow(())
                    self._page = None
                    self._look.clear()
                    self._asked.clear()
                    await self._look.wait()
                begun_at = self._poller.clock()
                await self.ask()
                passed_seconds = self._poller.clock() - begun_at
                await asyncio.sleep(max(0.0, INTERVAL_SECONDS - passed_seconds))
        finally:
            await self._poller.stop()

    async def ask(self) -> None:
        """Ask every node once."""
        try:
            self._expected = await asyncio.to_thread(self._read_expected)
            self._trouble = ""
        except ReconcilerError as error:
            if str(error) != self._trouble:
                _log.warning("the fleet's nodes are those known before: %s", error)
            self._trouble = str(error)
        if self._expected is not None:
            self._poller.follow(self._expected.targets)
        await self._poller.ask_all()
        self._asked.set()

    async def read_page(self) -> ViewPage:
        """Return the view as it is now, ready to be sent."""
        self._looked_at = self._poller.clock()
        self._look.set()
        if not self._asked.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_PATIENCE_SECONDS):
                    await self._asked.wait()
        async with self._lock:
            is_old = self._poller.clock() - self._made_at > _FRESH_SECONDS
            if self._page is None or is_old:
                sightings, now = self._poller.sightings, self._now()
                self._page = await asyncio.to_thread(self._make_page, sightings, now)
                self._made_at = self._poller.clock()
            return self._page

    def view(self) -> FleetView:
        """Return the view as it is now."""
        return self._roll_up(self._poller.sightings, self._now())

    def _make_page(self, sightings: tuple[Sighting, ...], now: Now) -> ViewPage:
        view = self._roll_up(sightings, now)
        body = render(view)
        return ViewPage(body, gzip.compress(body, _GZIP_LEVEL), make_etag(render_lasting(view)))

    def _roll_up(self, sightings: tuple[Sighting, ...], now: Now) -> FleetView:
        return roll_up(sightings, self._expected if self._has_git else None, now, self._seen_from)

    def _now(self) -> Now:
        return Now(self._poller.clock(), self._poller.wall_clock())

    def _is_looked_at(self) -> bool:
        if self._always:
            return True
        looked_at = self._looked_at
        return looked_at is not None and self._poller.clock() - looked_at < LOOKS_ON_SECONDS
