"""Reads what a node says of itself, as far as a view of the whole fleet uses it.

Hundreds of answers are read every few seconds, which is too much for validation by schema. So each
field that is used is checked here for its kind and bounds, and what is not used may be anything.
Texts go on to terminals and pages: they are cut, and rid of what would steer a terminal.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from reconciler.model import Commit, Condition, Phase, Progress
from reconciler.status.client import StatusError, printable
from reconciler.status.report import Disk

_MAX_TEXT_CHARACTERS = 500
_MAX_ITEMS = 10_000
"""Of any list: more deployments, nodes or versions than a node can have."""
_MAX_INTEGER = 2**63 - 1

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Telling:
    """One deployment as a node tells of it."""

    group: str
    model: str
    path: str
    source: str
    description: str
    version: int | None
    """The version that git names, by a lock or a pin."""
    stop: bool
    holders: tuple[str, ...]
    """The nodes that are to serve it, by what this one knows; empty where nobody is."""
    phase: Phase
    reason: str
    sentence: str
    wanted: int | None
    serving: tuple[int, ...]
    labels: Mapping[str, int]
    progress: Progress | None
    names: Mapping[int, str] = field(default_factory=dict)
    """What its versions are called that are not simply called by their numbers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One node as it tells of itself."""

    node: str
    group: str | None
    instance: str
    """Tells two agents of one name apart; empty where the agent is too old to say."""
    members: tuple[str, ...]
    program_version: str
    uptime_seconds: float
    generated_at_seconds: float
    """By the node's clock, Unix time."""
    observed: Commit | None
    applied: Commit | None
    deployments: tuple[Telling, ...]
    removals: tuple[Telling, ...]
    """What it still has and is not, or no longer, to serve."""
    broken: tuple[Condition, ...]
    """The conditions that do not hold."""
    problems: int
    disk: Disk | None

    @property
    def tellings(self) -> tuple[Telling, ...]:
        """Every deployment that it has to do with."""
        return (*self.deployments, *self.removals)


def read_answer(body: bytes) -> Answer:
    """Return what the body of a /status says; raises StatusError where it is none."""
    try:
        return _read(json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise StatusError("what it answers is not a reconciler's status") from None


def _read(report: Mapping[str, Any]) -> Answer:
    conditions = _all(report["conditions"], _condition)
    return Answer(
        node=_text(report["node"]),
        group=_maybe(report["group"], _text),
        instance=_text(report.get("instance", "")),
        members=_all(report.get("members", []), _text),
        program_version=_text(report["program_version"]),
        uptime_seconds=_number(report["uptime_seconds"]),
        generated_at_seconds=_time(report["generated_at"]),
        observed=_maybe(report["observed"], _commit),
        applied=_maybe(report["applied"], _commit),
        deployments=_all(report["deployments"], _telling),
        removals=_all(report["removals"], _telling),
        broken=tuple(condition for condition in conditions if not condition.holds),
        problems=len(_list(report["problems"])),
        disk=_maybe(report["disk"], _disk),
    )


def _telling(item: Mapping[str, Any]) -> Telling:
    locked = item.get("locked_version")
    return Telling(
        group=_text(item["group"]),
        model=_text(item["model"]),
        path=_text(item["path"]),
        source=_text(item["source"]),
        description=_text(item["description"]),
        version=_maybe(item["pinned_version"] if locked is None else locked, _integer),
        stop=_flag(item["stop"]),
        holders=_all(item.get("holders", []), _text),
        phase=Phase(item["phase"]),
        reason=_text(item["reason"]),
        sentence=_text(item["sentence"]),
        wanted=_maybe(item["wanted_version"], _integer),
        serving=_all(item["serving_versions"], _integer),
        labels=_labels(item["labels"]),
        progress=_maybe(item["progress"], _progress),
        names=_names(item.get("version_names", {})),
    )


def _commit(item: Mapping[str, Any]) -> Commit:
    return Commit(
        id=_text(item["id"]),
        author=_text(item["author"]),
        subject=_text(item["subject"]),
        time_seconds=_time(item["time"]),
    )


def _condition(item: Mapping[str, Any]) -> Condition:
    return Condition(
        name=_text(item["name"]),
        holds=_flag(item["holds"]),
        reason=_text(item["reason"]),
        sentence=_text(item["sentence"]),
    )


def _disk(item: Mapping[str, Any]) -> Disk:
    return Disk(
        free_bytes=_integer(item["free_bytes"]),
        total_bytes=_integer(item["total_bytes"]),
        models_bytes=_integer(item["models_bytes"]),
    )


def _progress(item: Mapping[str, Any]) -> Progress:
    return Progress(_integer(item["done_bytes"]), _integer(item["total_bytes"]))


def _names(value: Mapping[str, Any]) -> dict[int, str]:
    if len(value) > _MAX_ITEMS:
        raise ValueError
    return {int(version): _text(name) for version, name in value.items()}


def _labels(value: Mapping[str, Any]) -> dict[str, int]:
    return {_text(name): _integer(version) for name, version in value.items()}


def _maybe(value: Any, read: Callable[[Any], ValueT]) -> ValueT | None:
    return None if value is None else read(value)


def _all(value: Any, read: Callable[[Any], ValueT]) -> tuple[ValueT, ...]:
    return tuple(read(item) for item in _list(value))


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if len(value) > _MAX_TEXT_CHARACTERS:
        value = value[: _MAX_TEXT_CHARACTERS - 1] + "…"
    # Half of a character that JSON can escape and no encoding can write would end the view.
    return value if value.isprintable() else printable(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise TypeError
    return value


def _number(value: Any) -> float:
    seconds = float(value)
    if not math.isfinite(seconds):
        raise TypeError
    return seconds


def _time(value: Any) -> float:
    return datetime.fromisoformat(_text(value)).timestamp()
