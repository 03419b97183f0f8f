"""The journal of a download: which chunks were written, with the crc32c of each.

One line is appended after a chunk has been written, without fsync. That is enough: after a kill,
or a power cut, a chunk counts only if the bytes on disk still have the journal's checksum, so a
line too many costs a read and a line too few costs one chunk.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_MAX_BYTES = 64 * 1024 * 1024
_NAME = "journal"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of one file; `file` is its number in the snapshot's order."""

    file: int
    start: int
    end: int


Note = Callable[[Chunk, int], None]
"""Notes a chunk with its crc32c."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What a staging folder's journal says: the snapshot's digest and each chunk's crc32c."""

    digest: str
    chunks: Mapping[Chunk, int]

    @property
    def bytes(self) -> int:
        """How much of the snapshot has been written."""
        return sum(chunk.end - chunk.start for chunk in self.chunks)


def start_journal(staging: Path, digest: str) -> None:
    """Begin an empty journal."""
    (staging / _NAME).write_text(json.dumps({"digest": digest}) + "\n")


@contextmanager
def extend_journal(staging: Path) -> Iterator[Note]:
    """Yield what notes that a chunk, or the beginning of one, has been written, with its crc32c.

    Of two notes on one chunk, by where it starts, the later counts. Several threads may each have
    the journal open.
    """
    descriptor = os.open(staging / _NAME, os.O_WRONLY | os.O_APPEND)
    try:
        yield partial(_append, descriptor)
    finally:
        os.close(descriptor)


def _append(descriptor: int, chunk: Chunk, crc: int) -> None:
    os.write(descriptor, f"{chunk.file} {chunk.start} {chunk.end} {crc}\n".encode())


def read_journal(staging: Path) -> Journal | None:
    """Return the journal of a staging folder, None when it has no usable one.

    Lines that a crash tore are left out.
    """
    path = staging / _NAME
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        head, *lines = path.read_text().splitlines()
        digest = str(json.loads(head)["digest"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    latest: dict[tuple[int, int], tuple[Chunk, int]] = {}
    for line in lines:
        try:
            file, start, end, crc = map(int, line.split(" "))
        except ValueError:
            continue
        latest[file, start] = Chunk(file, start, end), crc
    return Journal(digest, dict(latest.values()))
