"""Notes what looks and steps take, and puts together what belongs to one stretch of work.

A node looks at the world every other second and mostly finds nothing to do; a trace of each look
would bury the few that matter. So everything is noted first, as plain values. When the node comes
to rest again, the notes become one trace if there was anything to do, and are forgotten if not.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from reconciler.errors import ReconcilerError
from reconciler.logs import Facts, about

PLAN = "plan"

_MAX_SPANS = 256
_MAX_PASS_SECONDS = 900.0
"""What goes on for longer is sent in parts, or nobody would see anything of it meanwhile."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that was done, and when (Unix time)."""

    name: str
    begun_ns: int
    ended_ns: int
    facts: Facts
    failure: str | None = None
    """The reason word of how it failed; a sentence might quote what a server said."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that belongs to one stretch of work, in the order in which it ended."""

    spans: tuple[Span, ...]
    facts: Facts
    ended_ns: int
    """When the node was found to be at rest, which may be after the last span ended."""

    @property
    def begun_ns(self) -> int:
        """When the first of it began."""
        return min(span.begun_ns for span in self.spans)


def _make_spans() -> deque[Span]:
    return deque(maxlen=_MAX_SPANS)


@dataclass(slots=True)
class Tracing:
    """Notes what is done and hands on what belongs together; belongs to one event loop."""

    send: Callable[[Trace], None] | None = None
    """Takes each trace, and must not wait; None where nobody wants any: nothing is noted then."""
    stop: Callable[[], None] | None = None
    """Has what was sent delivered, for a short time at most."""
    _spans: deque[Span] = field(default_factory=_make_spans)
    _look_begun_ns: int = 0
    _steps: Sequence[object] = ()
    _facts: Facts = field(default_factory=dict)
    _is_worth_telling: bool = False

    @contextmanager
    def span(self, name: str, **facts: str | int | None) -> Iterator[None]:
        """Note what is done in this block; its log lines are about `facts`."""
        with about(**facts):
            if self.send is None:
                yield
                return
            begun_ns, failure = time.time_ns(), None
            try:
                yield
            except BaseException as error:
                failure = _name_failure(error)
                raise
            finally:
                known = {key: value for key, value in facts.items() if value is not None}
                ended_ns = max(begun_ns, time.time_ns())  # the clock may be set back meanwhile
                self._spans.append(Span(name, begun_ns, ended_ns, known, failure))

    def begin_look(self) -> None:
        """Note that a tick begins."""
        self._look_begun_ns = time.time_ns()

    def end_look(
        self, steps: Sequence[object], *, is_moving: bool, **facts: str | int | bool
    ) -> None:
        """Note what a tick came to: its `steps`, and whether more is to be seen soon.

        `facts` are about the stretch of work as a whole.
        """
        if not steps or steps == self._steps:
            # While something loads there are ten looks a second, and all come to the same plan.
            self._keep(lambda span: span.name != PLAN or not self._is_of_look(span))
        self._steps, self._facts = steps, facts
        self._is_worth_telling |= bool(steps)
        if not steps and not is_moving:
            # What ended while this look went on is the beginning of what may come next.
            self._send([span for span in self._spans if not self._is_of_look(span)], facts)
            self._keep(self._is_of_look)
        elif self._is_long():
            self._send(list(self._spans), facts)
            self._spans.clear()

    def close(self) -> None:
        """Send what was begun, and have all that was sent delivered."""
        self._send(list(self._spans), self._facts)
        self._spans.clear()
        if self.stop is not None:
            self.stop()

    def _send(self, spans: list[Span], facts: Facts) -> None:
        if self.send is not None and spans and self._is_worth_telling:
            ended_ns = max(time.time_ns(), *(span.ended_ns for span in spans))
            self.send(Trace(tuple(spans), facts, ended_ns))
        self._is_worth_telling = False

    def _keep(self, is_kept: Callable[[Span], bool]) -> None:
        self._spans = deque(filter(is_kept, self._spans), maxlen=_MAX_SPANS)

    def _is_of_look(self, span: Span) -> bool:
        return span.ended_ns >= self._look_begun_ns

    def _is_long(self) -> bool:
        if not self._spans:
            return False
        passed_seconds = (time.time_ns() - min(span.begun_ns for span in self._spans)) / 1e9
        return len(self._spans) == _MAX_SPANS or passed_seconds > _MAX_PASS_SECONDS


def _name_failure(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "Cancelled"
    return error.reason if isinstance(error, ReconcilerError) else type(error).__name__
