"""How the endpoint is reached: its addresses, the way through a proxy, whose certificates count.

All this is asked of the environment, by the names that the official client goes by, so that bytes
come over the same way as listings: HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE. What a proxy's
address has of a password is told to that proxy alone, and to no message.
"""

import base64
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

import certifi

from reconciler.sources.gcs_http import Line
from reconciler.sources.turn import Turn, make_turns

_CONNECT_SECONDS = 5.0
_ADDRESS_SECONDS = 2.0
"""For one of a host's addresses, before the next one is tried."""


class Route:
    """The way to one endpoint. May be used from several threads."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._host = parts.hostname or ""
        self._is_secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_secure else 80)
        self._lock = threading.Lock()
        self._trust: ssl.SSLContext | None = None

    def connect(self) -> socket.socket:
        """Return a new connection, over which HTTP can be spoken; raises OSError."""
        host, port, headers = self._find_way()
        connection = _reach(host, port)
        try:
            if headers is not None:
                _open_tunnel(connection, f"{self._host}:{self._port}", headers)
            if self._is_secure:
                return self._trusted().wrap_socket(connection, server_hostname=self._host)
        except BaseException:
            connection.close()
            raise
        return connection

    def _find_way(self) -> tuple[str, int, dict[str, str] | None]:
        """Return where to connect to, and what to tell the proxy if that is one.

        HTTP_PROXY is not looked at: what is reached without TLS is an emulator, and close by.
        """
        proxy = urllib.request.getproxies().get("https") if self._is_secure else None
        if not proxy or urllib.request.proxy_bypass(self._host):
            return self._host, self._port, None
        try:
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            host, port = None, 0
        if not host:
            # Not `from` the error before, which quotes the address and with it a password.
            raise OSError("the proxy in HTTPS_PROXY has no address of the form host:port")
        if parts.scheme != "http":
            # Its login would be sent for all to read, to where something else is spoken.
            raise OSError("the proxy in HTTPS_PROXY is to be spoken to by HTTP, without TLS")
        headers = {}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        return host, port, headers

    def _trusted(self) -> ssl.SSLContext:
        """Return whose certificates are taken: the same as for listings, and the system's."""
        with self._lock:
            if self._trust is None:
                named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
                path = Path(named or certifi.where())
                is_folder = path.is_dir()
                self._trust = ssl.create_default_context(
                    cafile=None if is_folder else path, capath=path if is_folder else None
                )
                if not named:
                    self._trust.load_default_certs()
            return self._trust


def _reach(host: str, port: int) -> socket.socket:
    """Connect to the first of a host's addresses that answers; one deadline holds for them all."""
    deadline = time.monotonic() + _CONNECT_SECONDS
    failure: OSError = TimeoutError("no connection within the time for one")
    for *kind, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0:
            break
        connection = socket.socket(*kind)
        try:
            connection.settimeout(min(left_seconds, _ADDRESS_SECONDS))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _open_tunnel(connection: socket.socket, place: str, headers: Mapping[str, str]) -> None:
    """Have a proxy pass on what follows, which it cannot read."""
    fields = {"Host": place, **headers}
    lines = [f"CONNECT {place} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields), "", ""]
    line = Line(connection, _ADDRESS_SECONDS, Turn(make_turns()))
    line.ask(["\r\n".join(lines).encode("latin-1")])
    status = line.read_answer().status
    connection.settimeout(_ADDRESS_SECONDS)
    if status != HTTPStatus.OK:
        raise OSError(f"the proxy in HTTPS_PROXY refused to connect (HTTP {status})")
