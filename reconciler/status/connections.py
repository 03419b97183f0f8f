"""One connection to the status endpoint, which cannot take another one's place for long.

uvicorn waits without end for the first request of a connection, and answers 503 to all when as many
are open as it takes. So whoever opens them and says nothing would make a healthy agent look dead to
the probe that restarts it. Here the oldest of those that wait, or of all where none does, gives way
to the newest, and none, whether it drips its request or does not read its answer, stays beyond a
limit. How many requests are answered at once is the guard's to bound, who knows the probes.

With TLS the same holds from the first byte on: asyncio's own TLS server tells nobody of those that
have connected and not shaken hands yet, so here the handshake is a connection's first part.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Protocol, TypeGuard

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
MAX_SECONDS = 60.0
"""Of one connection with all its requests; a client that asks on and on makes a new one."""
HANDSHAKE_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0
"""How long a client's end of TLS is waited for, once the last answer was sent."""


class _Guest(Protocol):
    """Whoever has connected."""

    opened_at: float
    transport: asyncio.Transport

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn."""
        ...


class Connection(H11Protocol):
    """uvicorn's connection, within limits."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what uvicorn gives its own."""
        super().__init__(*arguments, **options)
        self.opened_at = self.loop.time()
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, in the place of the one that has waited longest if there is no other."""
        super().connection_made(transport)
        self._end = self.loop.call_later(MAX_SECONDS, transport.abort)
        _make_room(self.connections, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, whoever ended it."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)

    @property
    def waits(self) -> bool:
        """Whether no request is being answered, or not before the client has sent all of it."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body


class Handshake(asyncio.Protocol):
    """A connection until it has shaken hands; counts, and gives way, as all others do."""

    waits = True

    def __init__(self, read_context: Callable[[], ssl.SSLContext], **options: Any) -> None:
        """Greet with the context of the moment; `options` are what uvicorn gives its own."""
        self._read_context = read_context
        self._connection = Connection(**options)
        self._connections = self._connection.connections
        self._loop = self._connection.loop
        self._task: asyncio.Task[None] | None = None
        self.opened_at = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to shake hands."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - it is a TCP connection
        self.transport = transport
        self._connections.add(self)  # type: ignore[arg-type]
        _make_room(self._connections, self)
        self._task = self._loop.create_task(self._shake_hands())

    def shutdown(self) -> None:
        """End at once: the server stops."""
        self.transport.abort()

    async def _shake_hands(self) -> None:
        early = _EarlyBytes()
        try:
            secured = await self._loop.start_tls(
                self.transport,
                early,
                self._read_context(),
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )
        except OSError:
            return  # the client does not speak TLS, does not believe us, or is gone
        finally:
            self._connections.discard(self)
        if secured is None or secured.is_closing():
            return
        secured.set_protocol(self._connection)
        self._connection.connection_made(secured)
        if early.received:
            self._connection.data_received(bytes(early.received))


class _EarlyBytes(asyncio.Protocol):
    """Keeps what a client sends along with the end of its handshake, which is little.

    It is asked for no more than the loop reads at once until the handshake's task goes on.
    """

    def __init__(self) -> None:
        self.received = bytearray()

    def data_received(self, data: bytes) -> None:
        self.received += data


def _make_room(connections: Any, newest: _Guest) -> None:
    if len(connections) >= MAX_CONNECTIONS:
        others = [other for other in connections if other is not newest and _is_guest(other)]
        waiting = [other for other in others if other.waits]
        if others:
            min(waiting or others, key=lambda other: other.opened_at).transport.abort()


def _is_guest(other: object) -> TypeGuard[_Guest]:
    return isinstance(other, Connection | Handshake)
