"""Keeps a proxy up to date: asks the nodes every second, and acts where the answer is another.

One look is: which nodes are there, what do they say, where do requests go, does the file say so.
A node that is slow is not waited for; what it said last counts for some seconds.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, TypeAlias

from reconciler.errors import ReconcilerError
from reconciler.fleet.poll import FleetPoller
from reconciler.ingress.keep import IngressError, Keeper
from reconciler.ingress.nodes import Node, Nodes, find_shared, read_words
from reconciler.ingress.proxy import Frontend
from reconciler.ingress.routes import Routes, find_routes
from reconciler.threads import run_beside

_log = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 1.0
_MAX_NOTES = 20
_MAX_NAMED = 5

Renderer: TypeAlias = Callable[[Routes, Frontend], str]


class Sidecar:
    """One proxy and the nodes behind it. Belongs to one event loop."""

    def __init__(
        self,
        nodes: Nodes,
        render: Renderer,
        frontend: Frontend,
        before: Routes,
        poller: FleetPoller | None = None,
    ) -> None:
        self._nodes = nodes
        self._render = render
        self._frontend = frontend
        self._poller = poller or FleetPoller()
        self._known: list[Node] = []
        self._said: frozenset[str] = frozenset()
        self.routes = before
        """Where requests go, as far as is known."""

    async def look(self, patience_seconds: float) -> tuple[str, list[str]]:
        """Ask the nodes and return what the proxy's file should be, with notes for a person.

        A node that has not answered within `patience_seconds` counts by its last answer. Raises
        IngressError where none can be asked: nothing is to be changed then.
        """
        notes = await self._find_nodes()
        with suppress(TimeoutError):  # what was asked goes on, and is not asked twice
            async with asyncio.timeout(patience_seconds):
                await self._poller.ask_all()
        words, more = read_words(self._known, self._poller.sightings, self._poller.clock())
        notes += more
        if all(word.is_blind for word in words):
            listed = "; ".join(notes[:_MAX_NOTES]) or "git names no node with an address"
            raise IngressError(f"no node can be asked, so nothing is changed: {listed}")
        self.routes = find_routes(words, self.routes)
        return self._render(self.routes, self._frontend), [*notes, *find_shared(self._known)]

    async def run(self, keeper: Keeper) -> None:
        """Keep the proxy up to date until cancelled."""
        placed = self.routes
        while True:
            next_look = asyncio.create_task(asyncio.sleep(INTERVAL_SECONDS))
            notes: list[str] = []
            try:
                text, notes = await self.look(INTERVAL_SECONDS)
                if await run_beside(lambda text=text: keeper.keep(text), "proxy"):  # type: ignore[misc]
                    _log.info("%s", describe_change(placed, self.routes))
                    placed = self.routes
            except ReconcilerError as error:
                notes.append(str(error))
            self._say(notes)
            await next_look

    async def close(self) -> None:
        """Ask nobody any more."""
        await self._poller.stop()

    async def _find_nodes(self) -> list[str]:
        try:
            self._known, notes = await run_beside(self._nodes.read, "nodes")
        except ReconcilerError as error:
            if not self._known:
                raise
            return [f"{error}; the nodes known before go on being asked"]
        self._poller.follow(node.target for node in self._known)
        return notes

    def _say(self, notes: Iterable[str]) -> None:
        """Log what was not so at the last look."""
        now = frozenset(notes)
        for note in sorted(now - self._said)[:_MAX_NOTES]:
            _log.warning("%s", note)
        if self._said and not now:
            _log.info("nothing is in the way any more")
        self._said = now


def describe_change(before: Routes, after: Routes) -> str:
    """Return in a sentence where requests go now that went elsewhere before."""
    changed = [
        model for model in sorted({*before, *after}) if before.get(model) != after.get(model)
    ]
    if not changed:
        return f"the proxy was told where {len(after)} models are served; nothing is other"
    named = "; ".join(
        f"{model} is served by {_name(after, model)} (was {_name(before, model)})"
        for model in changed[:_MAX_NAMED]
    )
    rest = len(changed) - _MAX_NAMED
    return f"the proxy was told: {named}" + (f"; {rest} other models changed" if rest > 0 else "")


def _name(routes: Routes, model: str) -> str:
    return ", ".join(server.node for server in routes.get(model, ())) or "no node"
