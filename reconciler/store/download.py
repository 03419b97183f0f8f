"""Brings the stored files of one snapshot into its staging folder, whole or not at all.

Every file is cut into chunks; as many workers as there are connections take chunks from all files
in turn, so that one huge file and ten thousand small ones both fill the line. A chunk is written
in place in a file of the final size, summed up on the way, and noted in the journal. After a kill
the next run reads back what the journal names and fetches the rest.

A chunk that fails in passing is tried again, with pauses that do not hold a connection. A file
whose checksum is wrong in the end is fetched once more from the start. Memory is about a buffer or
two per connection, whatever the size of the files.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

from reconciler.errors import DownloadError
from reconciler.model import Progress, Snapshot, StoredFile
from reconciler.sources.source import Source, TransientReadError
from reconciler.store.checksum import combine, extend, read_checksum
from reconciler.store.journal import Chunk, append_chunk, read_journal, start_journal
from reconciler.store.lanes import Lanes, work_off
from reconciler.store.layout import gathering_folder
from reconciler.store.room import Claim

CHUNK_BYTES = 16 * 1024 * 1024
"""One request. Small enough to lose little in a kill, large enough that its latency is lost."""

_FILE_ATTEMPTS = 3


class Download:
    """One snapshot on its way into `staging`."""

    def __init__(
        self,
        staging: Path,
        snapshot: Snapshot,
        source: Source,
        lanes: Lanes,
        claim: Claim,
        on_progress: Callable[[Progress], None],
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._staging = staging
        self._files = gathering_folder(staging, snapshot)
        self._snapshot = snapshot
        self._source = source
        self._lanes = lanes
        self._claim = claim
        self._on_progress = on_progress
        self._chunk_bytes = chunk_bytes
        self._sums: dict[Chunk, int] = {}
        self._file_sums: dict[int, int] = {}
        self._done_bytes = 0

    async def run(self) -> tuple[StoredFile, ...]:
        """Fetch what is missing and return all files, each with its crc32c.

        Raises DownloadError when the bytes cannot be had intact, SourceError as the source does,
        OSError when the disk refuses. Staging is left so that a later run goes on from there.
        """
        written = await self._lanes.finish(self._prepare)
        self._on_progress(Progress(0, self._snapshot.size_bytes))
        pending = list(range(len(self._snapshot.files)))
        for _ in range(_FILE_ATTEMPTS):
            bring = partial(self._bring, written)
            await work_off(self._cut(pending), bring, self._lanes.count)
            pending = await self._lanes.run(self._find_broken, pending)
            if not pending:
                return tuple(
                    replace(file, crc32c=self._file_sums[index])
                    for index, file in enumerate(self._snapshot.files)
                )
            self._forget(pending)
            written = {}
        raise DownloadError(
            f"{self._name(self._snapshot.files[pending[0]])} does not have the checksum (crc32c)"
            f" that its listing names ({_FILE_ATTEMPTS} attempts); it is not installed, publish it"
            " again",
            "ChecksumMismatch",
        )

    def _prepare(self) -> Mapping[Chunk, int]:
        """Make all files in their final size; return the chunks that the journal vouches for."""
        self._files.mkdir(parents=True, exist_ok=True)
        journal = read_journal(self._staging)
        if journal is not None and journal.digest != self._snapshot.digest:
            journal = None
        if journal is None:
            start_journal(self._staging, self._snapshot.digest)
        for file in self._snapshot.files:
            path = self._files / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                os.ftruncate(descriptor, file.size_bytes)
            finally:
                os.close(descriptor)
        return journal.chunks if journal else {}

    def _cut(self, indexes: list[int]) -> Iterator[Chunk]:
        for index in indexes:
            size = self._snapshot.files[index].size_bytes
            for start in range(0, size, self._chunk_bytes):
                yield Chunk(index, start, min(start + self._chunk_bytes, size))

    async def _bring(self, written: Mapping[Chunk, int], chunk: Chunk) -> None:
        """Take a chunk from the disk if it is there intact, else from the source."""
        written_sum = written.get(chunk)
        if written_sum is not None:
            on_disk = await self._lanes.run(
                read_checksum, self._path(chunk), chunk.start, chunk.end
            )
            if on_disk == written_sum:
                self._sums[chunk] = written_sum
                self._advance(chunk.end - chunk.start)
                return
        self._sums[chunk] = await self._fetch(chunk)

    async def _fetch(self, chunk: Chunk) -> int:
        patience = self._lanes.patience
        for attempt in range(1, patience.attempts + 1):
            try:
                async with self._lanes.connections:
                    return await self._try_fetch(chunk)
            except TransientReadError as error:
                if attempt == patience.attempts:
                    raise DownloadError(
                        f"{error} ({attempt} attempts); what is verified stays and the next try"
                        " goes on from there",
                        error.reason,
                    ) from error
            await asyncio.sleep(patience.delay_seconds(attempt))
        raise AssertionError("patience has at least one attempt")

    async def _try_fetch(self, chunk: Chunk) -> int:
        file = self._snapshot.files[chunk.file]
        path = self._path(chunk)
        crc, offset = 0, chunk.start
        try:
            pieces = self._source.read(self._snapshot, file, chunk.start, chunk.end)
            async with aclosing(pieces):
                async for piece in pieces:
                    if offset + len(piece) > chunk.end:
                        raise TransientReadError(f"{self._name(file)} came with too many bytes")
                    crc = await self._lanes.run(_write, path, offset, piece, crc)
                    offset += len(piece)
                    self._claim.taken_bytes += len(piece)
                    self._advance(len(piece))
            if offset < chunk.end:
                raise TransientReadError(
                    f"{self._name(file)} ended after {offset - chunk.start:,} of"
                    f" {chunk.end - chunk.start:,} bytes"
                )
            await self._lanes.run(append_chunk, self._staging, chunk, crc)
        except BaseException:
            self._claim.taken_bytes -= offset - chunk.start
            self._advance(chunk.start - offset)
            raise
        return crc

    def _forget(self, indexes: list[int]) -> None:
        for chunk in self._cut(indexes):
            del self._sums[chunk]
            self._advance(chunk.start - chunk.end)

    def _find_broken(self, indexes: list[int]) -> list[int]:
        """Sum up whole files from their chunks; return those that are not what was listed."""
        broken = []
        for index in indexes:
            chunks = self._cut([index])
            first = next(chunks, None)
            crc = self._sums[first] if first else 0
            for chunk in chunks:
                crc = combine(crc, self._sums[chunk], chunk.end - chunk.start)
            self._file_sums[index] = crc
            if self._snapshot.files[index].crc32c not in (None, crc):
                broken.append(index)
        return broken

    def _advance(self, count_bytes: int) -> None:
        self._done_bytes += count_bytes
        self._on_progress(Progress(self._done_bytes, self._snapshot.size_bytes))

    def _path(self, chunk: Chunk) -> Path:
        return self._files / self._snapshot.files[chunk.file].path

    def _name(self, file: StoredFile) -> str:
        return f"{self._snapshot.source}/{self._snapshot.place_of(file)}"


def _write(path: Path, offset: int, piece: bytes, crc: int) -> int:
    """Write a piece and return the checksum extended by it.

    The file is opened for every piece: a descriptor kept open could be closed, and its number
    given to another file, while a thread whose download was cancelled still writes to it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        written = 0
        while written < len(piece):
            view = memoryview(piece)[written:]
            written += os.pwrite(descriptor, view, offset + written)
    finally:
        os.close(descriptor)
    return extend(crc, piece)
