"""Connections to Cloud Storage that are kept, and the GET requests for bytes on them.

Bytes are most of what a node does, so this is HTTP/1.1 with nothing between the socket and the
disk: a piece is read into the very object that is summed up and written.

A connection carries one request at a time and is used again when the answer was read to its end.
That the server has closed it meanwhile is found out by using it, so then the request is sent once
more, on a new one. One on which more came than was asked for is let go: the rest would be taken for
the next answer. Every wait is bounded: for the connection, and for each next byte. How long an
answer may take as a whole is the caller's to say, who can end it by its Halt.
"""

import base64
import os
import select
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import certifi

from reconciler.sources.source import Halt

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GOOGLE = "https://storage.googleapis.com"

_CONNECT_SECONDS = 5.0
_ADDRESS_SECONDS = 2.0
"""For one of a host's addresses, before the next one is tried."""
_ANSWER_SECONDS = 20.0
_KEPT_SECONDS = 30.0
"""Idle for longer than this it is not worth trying whether the other side still listens."""
_MAX_KEPT = 64
_PIECE_BYTES = 256 * 1024
"""Small enough for a processor's cache, in which it still lies when it is written."""
_BUFFER_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_NOT_HTTP = "the answer is not HTTP/1.1"
_ENDED = "the connection ended before the answer did"
_MAX_TEXT_BYTES = 64 * 1024
"""Of an answer that is read for what it says, not for an object's bytes."""


class BrokenAnswerError(Exception):
    """The other side ended the connection, or does not speak HTTP."""


class Answer:
    """An answer of which the head has been read; `headers` have lower-case names."""

    def __init__(self, line: "_Line", status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.is_whole = False
        """Whether it was read to its end, so that the connection can carry the next."""
        self._line = line

    def read_pieces(self) -> Iterator[bytes]:
        """Yield the body; raises BrokenAnswerError where it breaks off."""
        if self.headers.get("transfer-encoding", "identity").lower() != "identity":
            yield from self._read_chunks()
        elif "content-length" in self.headers:
            left = _parse_count(self.headers["content-length"], 10)
            while left:
                piece = self._line.read_piece(left)
                left -= len(piece)
                yield piece
            self.is_whole = True
        else:
            with suppress(BrokenAnswerError):  # its end is that of the connection
                while True:
                    yield self._line.read_piece(_PIECE_BYTES)

    def read_text(self) -> str:
        """Return the beginning of what an answer says."""
        text = b""
        for piece in self.read_pieces():
            text += piece
            if len(text) > _MAX_TEXT_BYTES:
                break
        return text[:_MAX_TEXT_BYTES].decode(errors="replace")

    def _read_chunks(self) -> Iterator[bytes]:
        """Yield a body that comes in HTTP's own chunks, as some proxies pass it on."""
        while left := _parse_count(self._line.read_line().partition(";")[0], 16):
            while left:
                piece = self._line.read_piece(left)
                left -= len(piece)
                yield piece
            self._line.read_line()
        while self._line.read_line():
            pass  # what may follow the last chunk
        self.is_whole = True


class Lines:
    """The connections to one endpoint. May be used from several threads."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._host = parts.hostname or ""
        self._is_secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_secure else 80)
        self._shown_host = parts.netloc.rpartition("@")[2]
        self._lock = threading.Lock()
        self._kept: list[_Line] = []
        self._is_closed = False
        self._trust: ssl.SSLContext | None = None

    def close(self) -> None:
        """Let go of the kept connections; those in use are closed by whoever has them."""
        with self._lock:
            self._is_closed = True
            kept, self._kept = self._kept, []
        for line in kept:
            line.close()

    @contextmanager
    def get(self, target: str, headers: Mapping[str, str], halt: Halt) -> Iterator[Answer]:
        """Ask for `target` and yield the answer; blocking, `halt` ends it from another thread.

        Raises OSError and BrokenAnswerError as the line does.
        """
        fields = {"Host": self._shown_host, **headers}
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields), "", ""]
        request = "\r\n".join(lines).encode("latin-1")
        line, answer = self._ask(request, halt)
        try:
            with halt.ending(line.hang_up):
                yield answer
            if answer.is_whole and line.may_go_on and not halt.called:
                self._keep(line)
                return
        except BaseException:
            line.close()
            raise
        line.close()

    def _ask(self, request: bytes, halt: Halt) -> "tuple[_Line, Answer]":
        while True:
            kept = self._take()
            line = kept or self._connect()
            try:
                with halt.ending(line.hang_up):
                    return line, line.ask(request)
            except BaseException as error:
                line.close()
                was_closed = isinstance(error, ConnectionError | BrokenAnswerError)
                if kept is None or not was_closed or halt.called:
                    raise

    def _take(self) -> "_Line | None":
        while True:
            with self._lock:
                line = self._kept.pop() if self._kept else None
                old: list[_Line] = []
                if line is not None and time.monotonic() - line.used_at >= _KEPT_SECONDS:
                    # The last one was used last.
                    old, self._kept, line = [line, *self._kept], [], None
            for each in old:
                each.close()
            if line is None or line.is_quiet():
                return line
            line.close()

    def _keep(self, line: "_Line") -> None:
        with self._lock:
            if not self._is_closed and len(self._kept) < _MAX_KEPT:
                line.used_at = time.monotonic()
                self._kept.append(line)
                return
        line.close()

    def _connect(self) -> "_Line":
        host, port, headers = self._find_way()
        connection = _reach(host, port)
        try:
            if headers is not None:
                _open_tunnel(connection, f"{self._host}:{self._port}", headers)
            if self._is_secure:
                connection = self._trusted().wrap_socket(connection, server_hostname=self._host)
            connection.settimeout(_ANSWER_SECONDS)
            return _Line(connection)
        except BaseException:
            connection.close()
            raise

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


class _Line:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._incoming = _Incoming(connection)
        self._file = BufferedReader(self._incoming, _BUFFER_BYTES)
        # TLS hands out 16 KiB at a time, which would be many pieces, so those wait to be full. What
        # has come without it is taken as it is: with every call more, threads wait for each other.
        is_secure = isinstance(connection, ssl.SSLSocket)
        self._read_some = self._file.read if is_secure else self._file.read1
        self._used_bytes = 0
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self.may_go_on = True
        self.used_at = 0.0

    def ask(self, request: bytes) -> Answer:
        """Send a request and read the head of its answer."""
        self._socket.sendall(request)
        while True:
            first, headers = _parse_head(self._read_head())
            protocol, _, rest = first.partition(" ")
            if not protocol.startswith("HTTP/1."):
                raise BrokenAnswerError(_NOT_HTTP)
            status = _parse_count(rest[:3], 10)
            if status >= HTTPStatus.OK:
                break
        asked = headers.get("connection", "keep-alive").lower()
        self.may_go_on = protocol != "HTTP/1.0" and asked != "close"
        return Answer(self, status, headers)

    def read_piece(self, most_bytes: int) -> bytes:
        """Return the next bytes of a body, at least one."""
        piece = self._read_some(min(most_bytes, _PIECE_BYTES))
        self._used_bytes += len(piece)
        if not piece:
            raise BrokenAnswerError(_ENDED)
        return piece

    def read_line(self) -> str:
        """Return the next line without its end."""
        line = self._file.readline(_MAX_HEAD_BYTES)
        self._used_bytes += len(line)
        if not line.endswith(b"\n"):
            raise BrokenAnswerError(_ENDED)
        return line.rstrip(b"\r\n").decode("latin-1")

    def _read_head(self) -> str:
        """Return all up to the first empty line, mostly by looking at the buffer once."""
        head = b""
        while len(head) < _MAX_HEAD_BYTES:
            seen = self._file.peek()
            if not seen:
                raise BrokenAnswerError(_ENDED)
            both = head + seen
            end = both.find(b"\r\n\r\n")
            if end >= 0:
                self._read(end + 4 - len(head))
                return both[:end].decode("latin-1")
            self._read(len(seen))
            head = both
        raise BrokenAnswerError(_NOT_HTTP)

    def _read(self, count_bytes: int) -> bytes:
        data = self._file.read(count_bytes)
        self._used_bytes += len(data)
        return data

    def is_quiet(self) -> bool:
        """Whether nothing was said that nobody asked for; that it was closed shows in use."""
        if self._used_bytes != self._incoming.taken_bytes:
            return False
        # TLS holds nothing back either: a record is smaller than the buffer.
        if not self._poll.poll(0):
            return True
        # It was closed, or TLS has something to say of itself, or it is for us.
        try:
            self._socket.settimeout(0.0)
            said = self._file.peek()
            self._socket.settimeout(_ANSWER_SECONDS)
        except ssl.SSLWantReadError:
            self._socket.settimeout(_ANSWER_SECONDS)
            return True
        except OSError:
            return False
        return not said

    def hang_up(self) -> None:
        """End whatever waits on this connection, in any thread."""
        with suppress(OSError):
            # A TLS socket's own method would take its state away from the thread that reads.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it."""
        with suppress(OSError):
            self._file.close()
        self._socket.close()


class _Incoming(RawIOBase):
    """What comes over a connection, counted."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.taken_bytes = 0

    def readable(self) -> bool:
        """Yes: BufferedReader asks."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        """Read what is there, or wait for the next."""
        try:
            count_bytes = self._socket.recv_into(buffer)
        except BlockingIOError:
            return None
        self.taken_bytes += count_bytes
        return count_bytes


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
    status = _Line(connection).ask("\r\n".join(lines).encode("latin-1")).status
    if status != HTTPStatus.OK:
        raise OSError(f"the proxy in HTTPS_PROXY refused to connect (HTTP {status})")


def _parse_head(head: str) -> tuple[str, dict[str, str]]:
    first, *lines = head.split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return first, headers


def _parse_count(text: str, base: int) -> int:
    try:
        count = int(text.strip(), base)
    except ValueError:
        count = -1
    if count < 0:
        raise BrokenAnswerError(_NOT_HTTP)
    return count
