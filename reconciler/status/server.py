"""A web server inside a program's own event loop, as the agent has one for its status endpoint.

It shares the loop on purpose: an agent whose loop hangs must not look alive. What a client can
make it hold is bounded (connections, headers, time to finish), and it never touches the process:
no signal handlers, no log configuration, no worker.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from reconciler.errors import SettingsError
from reconciler.status.app import make_app
from reconciler.status.board import StatusBoard
from reconciler.status.certificate import Certificate
from reconciler.status.connections import Connection, Handshake
from reconciler.status.hooks import HookSettings

_MAX_HEADER_BYTES = 16 * 1024
_GRACE_SECONDS = 2
_DATE_SECONDS = 1.0


class WebServer:
    """A listening socket and the server on it; the port is taken when the object is made."""

    def __init__(
        self, app: ASGIApp, listen: str, what: str, certificate: Certificate | None = None
    ) -> None:
        """Serve `app` on `listen` (host:port, 0 for any free port); `what` is it for people.

        With a certificate it is served by TLS. Raises SettingsError when the address cannot be had.
        """
        self.scheme = "https" if certificate else "http"
        self._socket = _listen(listen, what)
        config = uvicorn.Config(
            app,
            http=_choose_connection(certificate),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # what a client does wrong is no line of the log
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._server = _SignallessServer(config)

    @property
    def port(self) -> int:
        """The port that was bound."""
        port: int = self._socket.getsockname()[1]
        return port

    async def serve(self) -> None:
        """Answer requests until `stop` is called or the task is cancelled."""
        try:
            await self._server.serve(sockets=[self._socket])
        except asyncio.CancelledError:
            if self._server.started:
                await self._server.shutdown(sockets=[self._socket])
            raise
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Let `serve` return once the requests under way are answered."""
        self._server.stop()


class StatusServer(WebServer):
    """The server of a node's status endpoint."""

    def __init__(
        self,
        board: StatusBoard,
        listen: str,
        *,
        token_file: Path | None = None,
        hooks: HookSettings | None = None,
        others: Sequence[BaseRoute] = (),
        read_token_file: Path | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        """Show `board` and answer on `others` as well; without `hooks` none are taken.

        Without `read_token_file` everybody may read.
        """
        app = make_app(board, token_file, hooks or HookSettings(), others, read_token_file)
        super().__init__(app, listen, "the status endpoint", certificate)


class _SignallessServer(uvicorn.Server):
    """uvicorn without its signal handlers: SIGTERM belongs to the program, which stops us.

    And without its looking ten times a second whether it is to stop: on a node at rest that would
    be a third of all that the agent does.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Answer what is under way and end."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Keep the date of the answers right until it is time to end."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATE_SECONDS):
                    await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _choose_connection(certificate: Certificate | None) -> Any:
    """Return what uvicorn is to make for each client that connects."""
    return Connection if certificate is None else partial(Handshake, certificate.read_context)


def _listen(address: str, what: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=128)
    except (OSError, OverflowError, ValueError) as error:
        raise SettingsError(
            f"{what} cannot listen on {address}: {error}; give --listen another host:port"
        ) from None
