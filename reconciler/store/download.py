"""Brings the stored files of one snapshot into its staging folder, whole or not at all.

Every file is cut into chunks; as many workers as there are connections take chunks from all files
in turn, so that one huge file and ten thousand small ones both fill the line. Small ones are taken
several at a time, as handing one to a thread costs more than to fetch it. A chunk is written in
place in a file of the final size, summed up on the way, and noted in the journal, a large one every
now and then while it comes. After a kill the next run reads back what the journal names and fetches
the rest: of all that was on its way about as much is lost as one chunk.

A chunk that fails in passing is tried again, with pauses that do not hold a connection. A file
whose checksum is wrong in the end is fetched once more from the start. Memory is about a buffer or
two per connection, whatever the size of the files.
"""

import asyncio
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from reconciler.errors import DownloadError
from reconciler.files import start_writing
from reconciler.model import Progress, Snapshot, StoredFile
from reconciler.sources.source import Halt, HaltedError, Part, Source, TransientReadError
from reconciler.store.checksum import combine, extend, read_checksum
from reconciler.store.journal import Chunk, Note, extend_journal, read_journal, start_journal
from reconciler.store.lanes import Lanes, work_off
from reconciler.store.layout import gathering_folder
from reconciler.store.room import Claim

Written = Mapping[tuple[int, int], tuple[int, int]]
"""Where a chunk starts (file, byte) -> up to where the journal vouches for it, with that crc32c."""

CHUNK_BYTES = 16 * 1024 * 1024
"""One request. Small enough to lose little in a kill, large enough that its latency is lost."""

_BATCH_CHUNKS = 32
_BATCH_BYTES = 1024 * 1024
_BATCHES_PER_CONNECTION = 4
"""At least, so that all connections have their share of a few small files, and end together."""
_NOTE_BYTES = 1024 * 1024
"""What a connection may lose in a kill: by default a chunk's size over its 16 connections."""
_MOST_NOTES = 16_384
"""Of a huge version: its journal is read as a whole."""
_PROGRESS_SECONDS = 0.1
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
        self._note_bytes = max(_NOTE_BYTES, snapshot.size_bytes // _MOST_NOTES)
        self._sums: dict[Chunk, int] = {}
        self._begun: dict[Chunk, tuple[int, int]] = {}
        """Chunks of which the beginning is here: up to where, and its crc32c."""
        self._file_sums: dict[int, int] = {}
        self._done_bytes = 0
        self._total_bytes = snapshot.size_bytes
        self._counting = threading.Lock()

    async def run(self) -> tuple[StoredFile, ...]:
        """Fetch what is missing and return all files, each with its crc32c.

        Raises DownloadError when the bytes cannot be had intact, SourceError as the source does,
        OSError when the disk refuses. Staging is left so that a later run goes on from there.
        """
        written = await self._lanes.finish(self._prepare)
        self._report()
        reporting = asyncio.create_task(self._keep_reporting())
        try:
            files = await self._gather(written)
        finally:
            reporting.cancel()
        self._report()
        return files

    async def _gather(self, written: Written) -> tuple[StoredFile, ...]:
        pending = list(range(len(self._snapshot.files)))
        for _ in range(_FILE_ATTEMPTS):
            bring = partial(self._bring, written)
            most = len(pending) // (_BATCHES_PER_CONNECTION * self._lanes.count)
            batches = _join_small(self._cut(pending), min(most, _BATCH_CHUNKS))
            await work_off(batches, bring, self._lanes.count)
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

    def _prepare(self) -> Written:
        """Make all folders; return the chunks that the journal vouches for."""
        self._files.mkdir(parents=True, exist_ok=True)
        journal = read_journal(self._staging)
        if journal is not None and journal.digest != self._snapshot.digest:
            journal = None
        if journal is None:
            start_journal(self._staging, self._snapshot.digest)
        for folder in {file.path.rpartition("/")[0] for file in self._snapshot.files}:
            (self._files / folder).mkdir(parents=True, exist_ok=True)
        for file in self._snapshot.files:
            if file.size_bytes == 0 or file.size_bytes > self._chunk_bytes:
                # Where its place on the disk is known from the start, writing it costs less.
                descriptor = _open_file(self._files / file.path)
                try:
                    os.ftruncate(descriptor, file.size_bytes)
                finally:
                    os.close(descriptor)
        noted = journal.chunks.items() if journal else ()
        return {(chunk.file, chunk.start): (chunk.end, crc) for chunk, crc in noted}

    def _cut(self, indexes: list[int]) -> Iterator[Chunk]:
        for index in indexes:
            size = self._snapshot.files[index].size_bytes
            for start in range(0, size, self._chunk_bytes):
                yield Chunk(index, start, min(start + self._chunk_bytes, size))

    async def _bring(self, written: Written, batch: list[Chunk]) -> None:
        """Take chunks from the disk if they are there intact, else from the source."""
        if written:
            batch = await self._lanes.run(self._read_back, written, batch)
        pending = deque(batch)
        patience = self._lanes.patience
        attempts: Counter[Chunk] = Counter()
        while pending:
            try:
                await self._lanes.read(partial(self._copy, pending))
            except (TransientReadError, HaltedError) as error:
                name = self._name(self._snapshot.files[pending[0].file])
                cause = error if str(error) else TransientReadError(f"{name} took far too long")
                attempts[pending[0]] += 1
                attempt = attempts[pending[0]]
                if attempt == patience.attempts:
                    raise DownloadError(
                        f"{cause} ({attempt} attempts); what is verified stays and the next try"
                        " goes on from there",
                        TransientReadError.reason,
                    ) from error
                await asyncio.sleep(patience.delay_seconds(attempt))

    def _read_back(self, written: Written, batch: list[Chunk]) -> list[Chunk]:
        """Return the chunks that are not, or not wholly, on the disk as the journal says."""
        missing = []
        for chunk in batch:
            end, crc = written.get((chunk.file, chunk.start), (chunk.start, 0))
            is_there = chunk.start < end <= chunk.end
            if not is_there or crc != read_checksum(self._path(chunk), chunk.start, end):
                missing.append(chunk)
                continue
            self._count(end - chunk.start)
            if end == chunk.end:
                self._sums[chunk] = crc
            else:
                self._begun[chunk] = (end, crc)
                missing.append(chunk)
        return missing

    def _copy(self, pending: deque[Chunk], halt: Halt) -> None:
        """Bring chunk after chunk from the source to the disk, in this thread.

        The file is opened here for each: a descriptor that was shared could be closed, and its
        number given to another file, while a thread whose download was cancelled still has it.
        """
        chunks = tuple(pending)
        reads = self._source.read(self._snapshot, list(map(self._find_missing, chunks)), halt)
        with extend_journal(self._staging) as note, closing(reads):
            for chunk, pieces in zip(chunks, reads, strict=True):
                size_bytes = self._snapshot.files[chunk.file].size_bytes
                is_whole = chunk.end - chunk.start == size_bytes
                is_new = is_whole and chunk not in self._begun
                descriptor = _open_file(self._path(chunk), is_new=is_new)
                try:
                    self._sums[chunk] = self._copy_chunk(chunk, pieces, descriptor, halt, note)
                finally:
                    os.close(descriptor)
                note(chunk, self._sums[chunk])
                pending.popleft()

    def _find_missing(self, chunk: Chunk) -> Part:
        begin, _ = self._begun.get(chunk, (chunk.start, 0))
        return Part(self._snapshot.files[chunk.file], begin, chunk.end)

    def _copy_chunk(
        self, chunk: Chunk, pieces: Iterable[bytes], descriptor: int, halt: Halt, note: Note
    ) -> int:
        """Write a chunk, or what is missing of it, to an open file; return its whole checksum."""
        file = self._snapshot.files[chunk.file]
        begin, crc = self._begun.get(chunk, (chunk.start, 0))
        offset = noted = begin
        try:
            for piece in pieces:
                if offset + len(piece) > chunk.end:
                    raise TransientReadError(f"{self._name(file)} came with too many bytes")
                halt.check()
                crc = extend(crc, piece)
                _write(descriptor, offset, piece)
                offset += len(piece)
                self._count(len(piece), are_new=True)
                if noted + self._note_bytes <= offset < chunk.end:
                    note(Chunk(chunk.file, chunk.start, offset), crc)
                    noted = offset
            halt.check()
            if offset < chunk.end:
                raise TransientReadError(
                    f"{self._name(file)} ended after {offset - chunk.start:,} of"
                    f" {chunk.end - chunk.start:,} bytes"
                )
            if offset - chunk.start >= _BATCH_BYTES:
                # The disk is busy while the line is, so that little is left for fsync to wait for.
                start_writing(descriptor, chunk.start, offset - chunk.start)
        except BaseException:
            self._count(begin - offset, are_new=True)
            raise
        self._begun.pop(chunk, None)
        return crc

    def _forget(self, indexes: list[int]) -> None:
        for chunk in self._cut(indexes):
            del self._sums[chunk]
            self._count(chunk.start - chunk.end)

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

    def _count(self, more_bytes: int, *, are_new: bool = False) -> None:
        """Take in, in any thread, that so many bytes more are on the disk; fewer if negative.

        New are those that no journal named when room was claimed.
        """
        with self._counting:
            self._done_bytes += more_bytes
            if are_new:
                self._claim.taken_bytes += more_bytes

    def _report(self) -> None:
        self._on_progress(Progress(self._done_bytes, self._total_bytes))

    async def _keep_reporting(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            self._report()

    def _path(self, chunk: Chunk) -> str:
        # As text, because of small files there are thousands, and a Path takes its time.
        return f"{self._files}/{self._snapshot.files[chunk.file].path}"

    def _name(self, file: StoredFile) -> str:
        return f"{self._snapshot.source}/{self._snapshot.place_of(file)}"


def _join_small(chunks: Iterable[Chunk], most_chunks: int) -> Iterator[list[Chunk]]:
    """Yield chunks by themselves where they are large, else several at a time."""
    batch: list[Chunk] = []
    batch_bytes = 0
    for chunk in chunks:
        batch.append(chunk)
        batch_bytes += chunk.end - chunk.start
        if batch_bytes >= _BATCH_BYTES or len(batch) >= most_chunks:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def _open_file(path: Path | str, *, is_new: bool = False) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if is_new else 0)
    return os.open(path, flags, 0o644)


def _write(descriptor: int, offset: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]
