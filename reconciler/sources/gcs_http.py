"""HTTP/1.1 on one connection: GET requests for bytes, and their answers in the same order.

Bytes are most of what a node does, so nothing stands between the socket and the disk: a piece is
read into the very object that is summed up and written. Who reads has a turn for as long as bytes
are there, and every wait for a next one is bounded. A connection on which more came than was asked
for is found out: the rest would be taken for the next answer.
"""

import select
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from io import BufferedReader, RawIOBase
from typing import TYPE_CHECKING

from reconciler.sources.turn import Turn

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PIECE_BYTES = 256 * 1024
"""Small enough for a processor's cache, in which it still lies when it is written."""
_PAGE_BYTES = 4096
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

    def __init__(self, line: "Line", status: int, headers: Mapping[str, str]) -> None:
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
            size_bytes = _parse_count(self.headers["content-length"], 10)
            done = 0
            while done < size_bytes:
                # Up to where a page ends: a page that is written in two parts is cleared before.
                most = _PIECE_BYTES - done % _PAGE_BYTES
                piece = self._line.read_piece(min(size_bytes - done, most))
                done += len(piece)
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


class Line:
    """One connection; what is read from it is handled in its thread's turn."""

    def __init__(self, connection: socket.socket, timeout_seconds: float, turn: Turn) -> None:
        connection.settimeout(0.0)  # as it waits by itself
        self._socket = connection
        self._timeout_seconds = timeout_seconds
        self._turn = turn
        self._incoming = _Incoming(connection, timeout_seconds, turn)
        self._file = BufferedReader(self._incoming, _BUFFER_BYTES)
        # TLS hands out 16 KiB at a time, which would be many pieces, so those wait to be full. What
        # has come without it is taken as it is: with every call more, threads wait for each other.
        is_secure = isinstance(connection, ssl.SSLSocket)
        self._read_some = self._file.read if is_secure else self._file.read1
        self._used_bytes = 0
        self._answer: Answer | None = None
        self.due = 0
        """How many answers are still to come."""
        self.may_go_on = True
        """Whether the other side means to answer further requests."""
        self.used_at = 0.0

    @property
    def has_answered(self) -> bool:
        """Whether the head of an answer ever came."""
        return self._answer is not None

    @property
    def is_free(self) -> bool:
        """Whether it can carry another's requests: all answers came and were read to their ends."""
        is_read = self._answer is None or self._answer.is_whole
        return self.may_go_on and not self.due and is_read

    def ask(self, requests: Sequence[bytes]) -> None:
        """Send requests, after those that were sent before."""
        self.due += len(requests)  # first, as of a sending that fails a part may be sent
        self._socket.settimeout(self._timeout_seconds)
        self._socket.sendall(b"".join(requests))
        self._socket.settimeout(0.0)

    def read_answer(self) -> Answer:
        """Read the head of the next answer; the one before has been read to its end."""
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
        self.due -= 1
        self._answer = Answer(self, status, headers)
        return self._answer

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
        if not self._incoming.has_come(0):
            return True
        # It was closed, or TLS has something to say of itself, or it is for us.
        self._incoming.may_wait = False
        try:
            return not self._file.peek()
        except OSError:
            return False
        finally:
            self._incoming.may_wait = True

    def end_turn(self) -> None:
        """Let others handle bytes, once what came has been."""
        self._turn.end()

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

    def __init__(self, connection: socket.socket, timeout_seconds: float, turn: Turn) -> None:
        self._socket = connection
        self._timeout_seconds = timeout_seconds
        self._turn = turn
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self.taken_bytes = 0
        self.may_wait = True

    def readable(self) -> bool:
        """Yes: BufferedReader asks."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        """Read what is there, or wait for the next, and let others have their turn meanwhile."""
        while True:
            if self.may_wait:
                self._turn.take()
            try:
                count_bytes = self._socket.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                if not self.may_wait:
                    return None
                self._turn.end()
                if not self.has_come(self._timeout_seconds):
                    raise TimeoutError("no byte came in time") from None
            else:
                self.taken_bytes += count_bytes
                return count_bytes

    def has_come(self, within_seconds: float) -> bool:
        """Wait so long for something that can be read, an end too."""
        return bool(self._poll.poll(1000 * within_seconds))


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
