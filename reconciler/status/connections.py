"""One connection to the status endpoint, which cannot take another one's place for long.

uvicorn waits without end for the first request of a connection, and answers 503 to all when as many
are open as it takes. So whoever opens them and says nothing would make a healthy agent look dead to
the probe that restarts it. Here the oldest of those that wait gives way to the newest, and none,
whether it drips its request or does not read its answer, stays beyond a limit.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
MAX_SECONDS = 60.0
"""Of one connection with all its requests; a client that asks on and on makes a new one."""


class Connection(H11Protocol):
    """uvicorn's connection, within limits."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what uvicorn gives its own."""
        super().__init__(*arguments, **options)
        self._opened_at = self.loop.time()
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, in the place of the one that has waited longest if there is no other."""
        super().connection_made(transport)
        self._end = self.loop.call_later(MAX_SECONDS, transport.abort)
        if len(self.connections) >= MAX_CONNECTIONS:
            others = [c for c in self.connections if isinstance(c, Connection) and c is not self]
            waiting = [other for other in others if other._waits]
            if waiting:
                min(waiting, key=lambda other: other._opened_at).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, whoever ended it."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    @property
    def _waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete
