"""What a source of models is: something that lists versions and hands out their bytes.

Listing blocks and is called in a thread; it answers completely or not at all, because a half
listing would look like versions that were deleted. Reading is pinned to the generation that the
listing named: bytes written later are never mixed with those of the snapshot. It blocks, too, as
the bytes of a model are read, summed up and written by one thread, and can be ended from another.
"""

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Snapshot, StoredFile
from reconciler.threads import run_beside


class TransientReadError(SourceError):
    """A read failed in a way that trying again may cure."""

    reason = "ReadFailed"


class SourceChangedError(SourceError):
    """The bytes that the listing named are gone: deleted or overwritten since."""

    reason = "SourceChanged"


class HaltedError(Exception):
    """A read was ended because nobody waits for it any more."""


class Halt:
    """Ends a blocking read from another thread."""

    def __init__(self) -> None:
        self.called = False
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None

    def call(self) -> None:
        """End the read that is under way, and each that would begin later."""
        with self._lock:
            self.called = True
            if self._end is not None:
                self._end()

    def check(self) -> None:
        """Raise HaltedError once it has been called."""
        if self.called:
            raise HaltedError

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Have `end` called, in the other thread, should the halt come within the block."""
        with self._lock:
            self.check()
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of one file from `start` up to `end`."""

    file: StoredFile
    start: int
    end: int


class Source(Protocol):
    """A bucket or a folder with models; one object serves all prefixes in it."""

    def list(self, query: Query) -> Listing:
        """Return every version that answers `query`; blocking.

        For a pin the listing may hold other versions too. Raises SourceError with the reason
        BucketNotFound, FolderNotFound, Forbidden, Unauthenticated, BadSource or ListingFailed.
        """

    def read(
        self, snapshot: Snapshot, parts: Sequence[Part], halt: Halt
    ) -> Generator[Iterator[bytes]]:
        """Yield for each part its bytes, in pieces of at most a MiB; blocking.

        One part is to be read before the next is taken. Those that come may be asked for ahead, yet
        what is raised is about the one whose turn it is: TransientReadError where a retry may help,
        SourceChangedError when these bytes no longer exist, SourceError otherwise, and HaltedError
        after a halt, which may also end a part early.
        """


async def read_range(
    source: Source, snapshot: Snapshot, file: StoredFile, start: int, end: int
) -> bytes:
    """Return a range that is small enough to be held, or what came of it; for asyncio."""
    halt = Halt()

    def read() -> bytes:
        data = bytearray()
        with closing(source.read(snapshot, [Part(file, start, end)], halt)) as parts:
            for piece in chain.from_iterable(parts):
                data += piece
                if len(data) > end - start:
                    break
        return bytes(data)

    try:
        return await run_beside(read, "read")
    except asyncio.CancelledError:
        halt.call()
        raise


def describe_change(snapshot: Snapshot, file: StoredFile) -> str:
    """Return the sentence about a file that is no longer what the listing said."""
    return (
        f"{snapshot.source}/{snapshot.place_of(file)} was deleted or overwritten after it was"
        " listed; the next listing decides what to take"
    )
