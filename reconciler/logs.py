"""What a log line is about: commit, model and version, for lines that machines read.

Sentences are for people and name what they need to name. A machine that collects the lines of a
fleet asks other questions (everything about this commit, everything about that model), so the code
that works on something says once what it is about, and every line that is logged meanwhile carries
it, whoever logs it. Tasks begin with what the task that started them was about.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

Facts = Mapping[str, str | int]

_NOTHING: Facts = MappingProxyType({})
_facts: ContextVar[Facts] = ContextVar("facts", default=_NOTHING)


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence that somebody else will log, with what it is about."""

    sentence: str
    facts: Facts = field(default_factory=dict)


@contextmanager
def about(**facts: str | int | None) -> Iterator[None]:
    """Let the lines that are logged in this block carry `facts`; those that are None are unknown.

    What the block around it is about stays, unless it is said anew.
    """
    before = _facts.get()
    _facts.set(_merge(facts))
    try:
        yield
    finally:
        _facts.set(before)  # not by a token: a task that is thrown away ends in another context


def turn_to(**facts: str | int | None) -> None:
    """Let all further lines of this task carry `facts`; None takes one of them away."""
    _facts.set(_merge(facts))


def _merge(facts: Mapping[str, str | int | None]) -> Facts:
    merged = {**_facts.get(), **facts}
    return {name: value for name, value in merged.items() if value is not None}


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, message, and what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; it is in ASCII and without a line break, whatever the message holds."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, str | int] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "message": record.getMessage(),
            **_facts.get(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
