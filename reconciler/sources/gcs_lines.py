"""Connections to Cloud Storage that are kept, and the GET requests for bytes on them.

A connection carries one request at a time and is used again when the answer was read to its end.
That the server has closed it meanwhile is found out by using it, so then the request is sent once
more, on a new one. One on which more came than was asked for is let go. Every wait is bounded: for
the connection, and for each next byte. How long an answer may take as a whole is the caller's to
say, who can end it by its Halt.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from reconciler.sources.gcs_http import Answer, BrokenAnswerError, Line
from reconciler.sources.gcs_route import Route
from reconciler.sources.source import Halt

GOOGLE = "https://storage.googleapis.com"

_ANSWER_SECONDS = 20.0
"""For each next byte."""
_KEPT_SECONDS = 30.0
"""Idle for longer than this it is not worth trying whether the other side still listens."""
_MAX_KEPT = 64


class Lines:
    """The connections to one endpoint. May be used from several threads."""

    def __init__(self, endpoint: str) -> None:
        self._shown_host = urlsplit(endpoint).netloc.rpartition("@")[2]
        self._route = Route(endpoint)
        self._lock = threading.Lock()
        self._kept: list[Line] = []
        self._is_closed = False

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

    def _ask(self, request: bytes, halt: Halt) -> tuple[Line, Answer]:
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

    def _take(self) -> Line | None:
        while True:
            with self._lock:
                line = self._kept.pop() if self._kept else None
                old: list[Line] = []
                if line is not None and time.monotonic() - line.used_at >= _KEPT_SECONDS:
                    # The last one was used last.
                    old, self._kept, line = [line, *self._kept], [], None
            for each in old:
                each.close()
            if line is None or line.is_quiet():
                return line
            line.close()

    def _keep(self, line: Line) -> None:
        with self._lock:
            if not self._is_closed and len(self._kept) < _MAX_KEPT:
                line.used_at = time.monotonic()
                self._kept.append(line)
                return
        line.close()

    def _connect(self) -> Line:
        connection = self._route.connect()
        connection.settimeout(_ANSWER_SECONDS)
        return Line(connection)
