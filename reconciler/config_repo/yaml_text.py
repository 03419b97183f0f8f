"""YAML text to plain values with the place of each, for text that nobody vouches for.

The values are built from the events of PyYAML's C parser, not by its composer: an explicit stack
bounds the depth (the C composer recurses, and a few hundred kB of `[` end the process), aliases
are refused before they can multiply, duplicate keys are seen, and every value keeps its line.

A plain scalar must mean one thing. `0042`, `1_000`, `yes` and `2026-01-31` mean different things
to YAML 1.1 and 1.2 readers, that is to this program and to the author's editor, so each is
refused with a sentence that says what to write. Keys are always text.
"""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Path: TypeAlias = tuple[str | int, ...]

MAX_TEXT_BYTES = 1024 * 1024
"""A larger file is refused by its size alone, before it is read."""
MAX_DEPTH = 32
MAX_VALUES = 50_000
"""Enough for 10,000 nodes with addresses; each value costs memory for its place."""
MAX_MISTAKES = 50
"""After so many, a file is something else than meant, and more would bury those of others."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_CONFLICT = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
_LFS_POINTER = "version https://git-lfs.github.com/spec/"

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,15})\.[0-9]{1,17}")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_YAML_12_NUMBER = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+"
)
_RESOLVER = yaml.resolver.Resolver()
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*")
"""Characters that mean nothing else to YAML wherever they stand."""
_TEXT_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """What is wrong at one place of one file; line and column count from 1."""

    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something is written, and a scalar's text as written."""

    line: int
    column: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A YAML text as values; `mistakes` are those that need no schema to see."""

    value: Json
    spots: Mapping[Path, Spot] = field(default_factory=dict)
    """Path of a value -> where the value is."""
    keys: Mapping[Path, Spot] = field(default_factory=dict)
    """Path of a value in a mapping -> where its key is."""
    mistakes: tuple[Mistake, ...] = ()
    spoiled: frozenset[Path] = frozenset()
    """Values that a mistake was found in: what stands there says nothing."""
    is_complete: bool = True
    """False where reading stopped early, so that what is missing says nothing either."""


def read_yaml(data: bytes) -> Text:
    """Return the values in one YAML text, or what is wrong with it; never raises."""
    if len(data) > MAX_TEXT_BYTES:
        return _refuse(too_large(len(data)))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        return _refuse(Mistake(line, column, "the file is not UTF-8 text; save it as UTF-8"))
    if text.startswith(_LFS_POINTER):
        message = "the file is a Git LFS pointer, which is not followed; keep YAML in git itself"
        return _refuse(Mistake(1, 1, message))
    if found := _CONTROL.search(text):
        message = f"the character U+{ord(found[0]):04X} is not allowed in YAML; remove it"
        return _refuse(_mistake_at(text, found.start(), message))
    if found := _CONFLICT.search(text):
        message = "a merge conflict was committed here; choose one side and remove the markers"
        return _refuse(_mistake_at(text, found.start(), message))
    return _Reader().read(text)


def too_large(size_bytes: int) -> Mistake:
    """Return the mistake of a file that is larger than any configuration could be."""
    return Mistake(
        1,
        1,
        f"the file has {size_bytes / 1e6:.1f} MB and is not read;"
        " a file of the config repo may have 1 MiB at most",
    )


def _refuse(mistake: Mistake) -> Text:
    return Text(None, mistakes=(mistake,), is_complete=False)


def _mistake_at(text: str, offset: int, message: str) -> Mistake:
    line = text.count("\n", 0, offset) + 1
    return Mistake(line, offset - text.rfind("\n", 0, offset), message)


def show(text: str) -> str:
    """Return a value's text for a sentence: quoted, and cut where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def write_scalar(text: str) -> str:
    """Return how YAML writes a text of printable ASCII: plain, or quoted where it needs that."""
    is_plain = _PLAIN_TEXT.fullmatch(text) and _resolve(text) == (text, None)
    return text if is_plain else json.dumps(text)


class _StopReadingError(Exception):
    """What follows cannot be understood any more."""


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is not closed yet."""

    container: list[Json] | dict[str, Json]
    path: Path
    key: str | None = None

    def place(self) -> Path:
        """Return the path of the value that comes next."""
        if isinstance(self.container, list):
            return (*self.path, len(self.container))
        return (*self.path, self.key or "")


class _Reader:
    """Builds one text's values, event by event."""

    def __init__(self) -> None:
        self._stack: list[_Frame] = []
        self._value: Json = None
        self._spots: dict[Path, Spot] = {}
        self._keys: dict[Path, Spot] = {}
        self._mistakes: list[Mistake] = []
        self._spoiled: set[Path] = set()
        self._documents = 0

    def read(self, text: str) -> Text:
        is_complete = False
        try:
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                self._take(event)
            is_complete = True
        except _StopReadingError:
            pass
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            self._mistakes.append(Mistake(line, column, _explain_syntax(error, text)))
        except yaml.YAMLError as error:
            self._mistakes.append(Mistake(1, 1, f"this is not YAML: {error}"))
        if is_complete and self._value is None and not self._mistakes:
            self._mistakes.append(Mistake(1, 1, "the file is empty"))
            is_complete = False
        return Text(
            self._value,
            self._spots,
            self._keys,
            tuple(sorted(self._mistakes)),
            frozenset(self._spoiled),
            is_complete,
        )

    def _take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._take_scalar(event)
            case yaml.MappingStartEvent():
                self._open(event, {})
            case yaml.SequenceStartEvent():
                self._open(event, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._stack.pop()
            case yaml.AliasEvent():
                message = f"the alias {show(str(event.anchor))} is not allowed; write the value out"
                self._spoil(event, message)
                if self._expects_key():
                    raise _StopReadingError
                self._put(event, None)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    message = "a second document begins here; keep one document a file"
                    self._complain(event, message)
                    raise _StopReadingError

    def _expects_key(self) -> bool:
        return (
            bool(self._stack)
            and isinstance(self._stack[-1].container, dict)
            and self._stack[-1].key is None
        )

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        if self._expects_key():
            self._take_key(event)
            return
        value: Json = event.value
        if event.tag is not None:
            message = f"the tag {show(event.tag)} is not allowed; quote the value if it is text"
            self._spoil(event, message)
        elif event.implicit[0]:
            value, trap = _resolve(event.value)
            if trap:
                self._spoil(event, trap)
        self._put(event, value, event.value)

    def _take_key(self, event: yaml.ScalarEvent) -> None:
        frame = self._stack[-1]
        frame.key = sys.intern(event.value)  # thousands of files have the same few
        path = frame.place()
        first = self._keys.get(path)
        if first is None:
            self._keys[path] = _spot(event)
        else:
            message = f"{show(event.value)} is written twice; the first is in line {first.line}"
            self._complain(event, message)

    def _open(
        self, event: yaml.CollectionStartEvent, container: list[Json] | dict[str, Json]
    ) -> None:
        if self._expects_key():
            self._complain(event, "a key must be plain text, not a list or mapping")
            raise _StopReadingError
        if len(self._stack) >= MAX_DEPTH:
            self._complain(event, f"lists and mappings are nested deeper than {MAX_DEPTH}")
            raise _StopReadingError
        if event.tag is not None:
            self._spoil(event, f"the tag {show(event.tag)} is not allowed; remove it")
        path = self._stack[-1].place() if self._stack else ()
        self._put(event, container)
        self._stack.append(_Frame(container, path))

    def _put(self, event: yaml.NodeEvent, value: Json, text: str = "") -> None:
        if len(self._spots) >= MAX_VALUES:
            self._complain(event, f"the file holds more than {MAX_VALUES:,} values")
            raise _StopReadingError
        if not self._stack:
            self._value = value
            self._spots[()] = _spot(event, text)
            return
        frame = self._stack[-1]
        self._spots[frame.place()] = _spot(event, text)
        if isinstance(frame.container, list):
            frame.container.append(value)
        else:
            frame.container[frame.key or ""] = value
            frame.key = None

    def _spoil(self, event: yaml.Event, message: str) -> None:
        self._complain(event, message)
        self._spoiled.add(self._stack[-1].place() if self._stack else ())

    def _complain(self, event: yaml.Event, message: str) -> None:
        spot = _spot(event)
        self._mistakes.append(Mistake(spot.line, spot.column, message))
        if len(self._mistakes) >= MAX_MISTAKES:
            raise _StopReadingError


def _spot(event: yaml.Event, text: str = "") -> Spot:
    mark = event.start_mark
    assert mark is not None  # the parser marks every event  # noqa: S101
    return Spot(mark.line + 1, mark.column + 1, text)


def _resolve(text: str) -> tuple[Json, str | None]:
    """Return what a plain scalar means, or a sentence on why it means more than one thing."""
    if text in _WORDS:
        return _WORDS[text], None
    if _INTEGER.fullmatch(text):
        return int(text), None
    if _FLOAT.fullmatch(text):
        return float(text), None
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    if tag == _TEXT_TAG and not _YAML_12_NUMBER.fullmatch(text):
        return text, None
    return text, _explain_trap(text, tag.rpartition(":")[2])


def _explain_trap(text: str, kind: str) -> str:
    if len(text) > 40:
        return f"{show(text)} is too long for a number; put it in quotes if it is text"
    quoted = f'write "{text}" in quotes if it is text'
    if kind == "bool":
        meaning = "true" if text.lower() in ("yes", "on") else "false"
        return (
            f"{text} is {meaning} to some YAML readers and text to others;"
            f" write {meaning}, or {quoted}"
        )
    if kind == "timestamp":
        return f"{text} is a date to some YAML readers and text to others; {quoted}"
    if kind in ("merge", "value"):
        return f"{text} is an operator to some YAML readers; {quoted}"
    if ":" in text:
        return f"{text} is a number in base 60 to some YAML readers; {quoted}"
    digits = text.replace("_", "")
    if re.fullmatch(r"[-+]?0+[0-9]+", digits):
        plain = digits.lstrip("+-0") or "0"
        return f"{text} is an octal number to some YAML readers; write {plain}, or {quoted}"
    if "_" in text and _INTEGER.fullmatch(digits):
        return (
            f"{text} is a number to some YAML readers and text to others;"
            f" write {digits}, or {quoted}"
        )
    return f"{text} is not a plain decimal number of usual size; write one such as 42, or {quoted}"


def _explain_syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    problem = str(error.problem or error.context or "it cannot be read")
    character = _character_at(text, error.problem_mark)
    if "cannot start any token" in problem and character == "\t":
        return "a tab is used for indentation, which YAML does not allow; use spaces"
    if "cannot start any token" in problem:
        return f"a value cannot begin with {character}; put it in quotes"
    if "unexpected end of stream" in problem and error.context_mark:
        return f"the quote that opens in line {error.context_mark.line + 1} is never closed"
    if "mapping values are not allowed" in problem:
        return (
            "a second `: ` in one line, or a wrong indentation; put text that holds a colon in"
            " quotes and align the keys"
        )
    if "did not find expected" in problem or "could not find expected" in problem:
        return (
            f"this is not YAML: {problem}; look for a missing colon, quote or bracket, or a wrong"
            " indentation, here or in the lines before"
        )
    return f"this is not YAML: {problem}"


def _character_at(text: str, mark: yaml.Mark | None) -> str:
    lines = text.splitlines()
    if mark is None or mark.line >= len(lines):
        return ""
    return lines[mark.line][mark.column : mark.column + 1]
