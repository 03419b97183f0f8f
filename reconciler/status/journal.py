"""The history that survives restarts: `history.jsonl`, one change a line, only ever appended to.

Every append is on disk when it returns (fsync). What a kill or a full disk leaves of a line is cut
off by the next append, and skipped by readers until then. At 10 MiB the file becomes
`history.jsonl.1`, replacing the one before, so the history never takes more than twice that.

The newest 1,000 changes are kept in memory, read once at the start line by line, so that a request
for the history never waits for a disk.
"""

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from reconciler.files import sync_folder
from reconciler.model import Commit
from reconciler.status.changes import Change, Result
from reconciler.status.report import Json, render_commit, timestamp

MAX_READ = 1000
"""How many changes can be read back."""

_MAX_FILE_BYTES = 10 * 1024 * 1024
_MAX_LINE_BYTES = 64 * 1024
_MAX_TEXT = 2000
"""Characters of one text in a line: a sentence that quotes a whole log must not fill the file."""


class Journal:
    """The changes of one node; one process at a time may append (the state folder is locked)."""

    def __init__(self, path: Path, *, max_file_bytes: int = _MAX_FILE_BYTES) -> None:
        """Read what is there; raises OSError when the file exists and cannot be read."""
        self._path = path
        self._max_file_bytes = max_file_bytes
        self._last: dict[str, Change] = {}
        newest: deque[Change] = deque(maxlen=MAX_READ)
        for file in (self._old_path, path):
            for change in _read_changes(file):
                newest.append(change)
                self._remember(change)
        self._newest_first = tuple(reversed(newest))

    def read(self, limit: int) -> tuple[Change, ...]:
        """Return the newest `limit` changes, newest first; never touches the disk."""
        return self._newest_first[:limit]

    @property
    def last(self) -> Mapping[str, Change]:
        """The last change of each model that was not removed since."""
        return MappingProxyType(self._last)

    def append(self, change: Change) -> None:
        """Write `change` durably; raises OSError, and has then recorded nothing."""
        line = json.dumps(render_change(change), separators=(",", ":")).encode() + b"\n"
        self._rotate_before(len(line))
        self._write(line)
        self._remember(change)
        self._newest_first = (change, *self._newest_first)[:MAX_READ]

    @property
    def _old_path(self) -> Path:
        return self._path.with_name(self._path.name + ".1")

    def _remember(self, change: Change) -> None:
        if change.result is Result.REMOVED:
            self._last.pop(change.model, None)
        else:
            self._last[change.model] = change

    def _rotate_before(self, coming_bytes: int) -> None:
        if self._path.exists() and self._path.stat().st_size + coming_bytes > self._max_file_bytes:
            self._path.replace(self._old_path)
            sync_folder(self._path.parent)

    def _write(self, line: bytes) -> None:
        new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            _cut_torn_line(file.fileno())
            # A write that stops half way (disk full) leaves a torn line, which the next one cuts.
            if file.write(line) != len(line):
                raise OSError(f"{self._path} took only a part of a line; is the disk full?")
            os.fsync(file.fileno())
        if new:
            sync_folder(self._path.parent)


def render_change(change: Change) -> Json:
    """Return a change as /history and the file have it (`$defs/change` of the status schema)."""
    commit = render_commit(change.commit)
    return {
        "time": timestamp(change.time_seconds),
        "commit": {**commit, "author": _cut(commit["author"]), "subject": _cut(commit["subject"])},
        "model": change.model,
        "from": change.from_version,
        "to": change.to_version,
        "from_name": change.from_name,
        "to_name": change.to_name,
        "result": change.result.value,
        "reason": change.reason,
        "why": _cut(change.why),
        "commit_to_serving_seconds": change.commit_to_serving_seconds,
    }


def _parse_change(line: bytes) -> Change | None:
    """Return the change a line holds; None for a torn or damaged line, or one of a later format."""
    try:
        entry = json.loads(line)
        commit = entry["commit"]
        return Change(
            time_seconds=_unix_seconds(entry["time"]),
            commit=_share(
                Commit(
                    id=commit["id"],
                    author=commit["author"],
                    subject=commit["subject"],
                    time_seconds=_unix_seconds(commit["time"]),
                )
            ),
            model=entry["model"],
            from_version=entry["from"],
            to_version=entry["to"],
            result=Result(entry["result"]),
            reason=entry["reason"],
            why=entry["why"],
            commit_to_serving_seconds=entry["commit_to_serving_seconds"],
            from_name=entry.get("from_name"),
            to_name=entry.get("to_name"),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


@lru_cache(maxsize=1024)
def _share(commit: Commit) -> Commit:
    """Return the one value that is kept of a commit, which may have changed 10,000 models."""
    return commit


def _read_changes(path: Path) -> Iterator[Change]:
    if not path.exists():
        return
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE_BYTES):
            change = _parse_change(line) if line.endswith(b"\n") else None
            if change is not None:
                yield change


def _cut_torn_line(descriptor: int) -> None:
    """Cut the file behind its last newline."""
    size = os.fstat(descriptor).st_size
    kept = size
    while kept > 0:
        start = max(0, kept - _MAX_LINE_BYTES)
        newline = os.pread(descriptor, kept - start, start).rfind(b"\n")
        if newline >= 0:
            kept = start + newline + 1
            break
        kept = start
    if kept != size:
        os.ftruncate(descriptor, kept)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _unix_seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
