"""SHA256SUMS: the sha256 of each file of a version, kept beside the files.

`reconciler publish` writes it where the export lies; a lock takes it over, and every node holds
what it has downloaded against it. Cloud Storage knows no sha256 of its own: its crc32c finds
accidents, this finds intent. The format is that of sha256sum(1), so `sha256sum -c SHA256SUMS`
checks a version without us.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import google_crc32c

from reconciler.errors import SourceError
from reconciler.model import Snapshot, StoredFile
from reconciler.planning import versions
from reconciler.sources.source import Source, TransientReadError, read_range

SUMS_NAME = versions.SUMS_NAME
"""The list's own name in the version's folder; it does not list itself."""
BAD_SUMS = "BadSums"
"""A version's SHA256SUMS cannot be read, or is not about the files that are there."""
MAX_FILES = 5000
"""Of a version with more files no sums are taken: a lock file is for people to review."""
MAX_SUMS_BYTES = 8 * 1024 * 1024
"""Of the list itself; more is not read."""

_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5
_READ_DEADLINE_SECONDS = 60.0
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")
_NAMED_PATHS = 3


def render_sums(sums: Mapping[str, str]) -> bytes:
    """Return the text of a SHA256SUMS, sorted by path.

    Paths with a line break or backslash, which sha256sum would escape, cannot be published.
    """
    return "".join(f"{sums[path]}  {path}\n" for path in sorted(sums)).encode()


def parse_sums(data: bytes) -> dict[str, str]:
    """Return path -> hex sha256 of a SHA256SUMS; raises ValueError, saying which line is wrong."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    if lines[-1] == "":
        lines.pop()
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is not a sha256 sum, two blanks and a path")
        if match[2] in sums:
            raise ValueError(f"line {number} names {versions.show_name(match[2])} a second time")
        sums[match[2]] = match[1].lower()
    return sums


def sum_files(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of each file of a folder; raises OSError where one cannot be read."""
    sums = {}
    for path in paths:
        with (folder / path).open("rb") as file:
            sums[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


async def read_sums(source: Source, snapshot: Snapshot) -> dict[str, str]:
    """Return the sha256 of every file of a version, its SHA256SUMS included.

    Empty where the version was published without one, or has more files than a lock can list.
    Raises SourceError, BadSums when the list does not name exactly the version's files.
    """
    listed = {file.path: file for file in snapshot.files}
    file = listed.get(SUMS_NAME)
    if file is None or len(listed) > MAX_FILES:
        return {}
    if file.size_bytes > MAX_SUMS_BYTES:
        raise _bad_sums(snapshot, f"it has {file.size_bytes:,} bytes, more than such a list can")
    data = await _read_patiently(source, snapshot, file)
    try:
        sums = parse_sums(data)
    except ValueError as error:
        raise _bad_sums(snapshot, str(error)) from None
    others = listed.keys() - {SUMS_NAME}
    if missing := others - sums.keys():
        raise _bad_sums(snapshot, f"it does not name {_show_paths(missing)}")
    if unknown := sums.keys() - others:
        raise _bad_sums(snapshot, f"it names {_show_paths(unknown)}, which it cannot vouch for")
    return {**sums, SUMS_NAME: hashlib.sha256(data).hexdigest()}


async def _read_patiently(source: Source, snapshot: Snapshot, file: StoredFile) -> bytes:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            async with asyncio.timeout(_READ_DEADLINE_SECONDS):
                return await _read(source, snapshot, file)
        except TransientReadError:
            if attempt == _ATTEMPTS:
                raise
        except TimeoutError:
            if attempt == _ATTEMPTS:
                raise SourceError(
                    f"{_name(snapshot)} was not read within {_READ_DEADLINE_SECONDS:.0f} s",
                    TransientReadError.reason,
                ) from None
        await asyncio.sleep(_PAUSE_SECONDS * attempt)
    raise AssertionError("there is at least one attempt")


async def _read(source: Source, snapshot: Snapshot, file: StoredFile) -> bytes:
    data = await read_range(source, snapshot, file, 0, file.size_bytes)
    # A flipped bit would go into a lock and make every node refuse the version.
    is_whole = file.crc32c in (None, google_crc32c.value(data))
    if len(data) != file.size_bytes or not is_whole:
        raise TransientReadError(f"{_name(snapshot)} did not arrive as it was listed")
    return data


def _bad_sums(snapshot: Snapshot, what: str) -> SourceError:
    return SourceError(
        f"{_name(snapshot)} cannot be used: {what}; publish the version again under a new number"
        " by `reconciler publish`, which writes a true one",
        BAD_SUMS,
    )


def _name(snapshot: Snapshot) -> str:
    return f"{snapshot.source}/{snapshot.folder}/{SUMS_NAME}"


def _show_paths(paths: Iterable[str]) -> str:
    ordered = sorted(paths)
    more = len(ordered) - _NAMED_PATHS
    named = ", ".join(versions.show_name(path) for path in ordered[:_NAMED_PATHS])
    return f"{named} and {more:,} more" if more > 0 else named
