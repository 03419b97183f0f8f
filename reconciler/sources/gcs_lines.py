"""Connections to Cloud Storage that are kept, and the GET requests for bytes on them.

Of many requests the next ones are sent before the first is answered (HTTP's pipelining), so that
small objects do not cost the way there and back each. The answers come in the same order. A new
connection has to answer one request before it is asked for more: what closes after each answer, as
some proxies do, is then not asked in vain. Where a connection ended before it had answered all, be
it by a refusal, nothing is asked ahead for a while: it is one of the few proxies that do not bear
it, or asks for less haste.

That the server has closed a connection meanwhile is found out by using it, so then what it has not
answered is asked on another one. It is kept for the next when all answers were read to their ends;
one on which more came than was asked for is let go. Every wait is bounded: for the connection, and
for each next byte. How long answers may take as a whole is the caller's to say, who can end them
by its Halt.
"""

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from urllib.parse import urlsplit

from reconciler.sources.gcs_http import Answer, BrokenAnswerError, Line
from reconciler.sources.gcs_route import Route
from reconciler.sources.source import Halt
from reconciler.sources.turn import Turn, make_turns

GOOGLE = "https://storage.googleapis.com"

_ANSWER_SECONDS = 20.0
"""For each next byte."""
_KEPT_SECONDS = 30.0
"""Idle for longer than this it is not worth trying whether the other side still listens."""
_MAX_KEPT = 64
_AHEAD = 8
"""Requests on their way at once; few enough for the buffers of any connection."""
_CAUTIOUS_SECONDS = 60.0


class Lines:
    """The connections to one endpoint. May be used from several threads."""

    def __init__(self, endpoint: str) -> None:
        self._shown_host = urlsplit(endpoint).netloc.rpartition("@")[2]
        self._route = Route(endpoint)
        self._turns = make_turns()
        self._lock = threading.Lock()
        self._kept: list[Line] = []
        self._is_closed = False
        self._cautious_until = 0.0

    def close(self) -> None:
        """Let go of the kept connections; those in use are closed by whoever has them."""
        with self._lock:
            self._is_closed = True
            kept, self._kept = self._kept, []
        for line in kept:
            line.close()

    @contextmanager
    def get(self, target: str, headers: Mapping[str, str], halt: Halt) -> Iterator[Answer]:
        """Ask for `target` and yield the answer; see `get_each`."""
        with closing(self.get_each([(target, headers)], halt)) as answers:
            yield next(answers)

    def get_each(
        self, requests: Iterable[tuple[str, Mapping[str, str]]], halt: Halt
    ) -> Generator[Answer]:
        """Ask for targets, each with its headers, and yield their answers one after the other.

        Each is to be read before the next is taken, and without delay: few threads at once have
        their turn to read. Blocking, `halt` ends it from another thread.
        Raises OSError and BrokenAnswerError as a connection does.
        """
        coming = (self._render(target, headers) for target, headers in requests)
        asked = deque(islice(coming, 1))
        while asked:
            line = self._take() or self._connect()
            try:
                with halt.ending(line.hang_up):
                    yield from self._converse(line, asked, coming)
            except (ConnectionError, BrokenAnswerError):
                if halt.called or not line.has_answered:
                    raise
            finally:
                line.end_turn()
                if line.is_free and not halt.called:
                    self._keep(line)
                else:
                    if line.due and not halt.called:
                        self._cautious_until = time.monotonic() + _CAUTIOUS_SECONDS
                    line.close()
            asked.extend(islice(coming, 0 if asked else 1))

    def _converse(
        self, line: Line, asked: deque[bytes], coming: Iterator[bytes]
    ) -> Generator[Answer]:
        """Yield the answers to all requests, or to as many as this connection answers.

        `asked` has at first what is to be asked in any case, and in the end what was not answered.
        """
        while asked:
            is_cautious = time.monotonic() < self._cautious_until or not line.has_answered
            ahead = 1 if is_cautious else _AHEAD
            if line.due <= ahead // 2:  # several at once, as each sending has its price
                asked.extend(islice(coming, max(0, ahead - len(asked))))
                if more := list(islice(asked, line.due, ahead)):
                    line.ask(more)
            answer = line.read_answer()
            asked.popleft()
            yield answer
            if not (answer.is_whole and line.may_go_on):
                return

    def _render(self, target: str, headers: Mapping[str, str]) -> bytes:
        fields = {"Host": self._shown_host, **headers}
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields), "", ""]
        return "\r\n".join(lines).encode("latin-1")

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
        return Line(self._route.connect(), _ANSWER_SECONDS, Turn(self._turns))
