"""What a source of models is: something that lists versions and hands out their bytes.

Listing blocks and is called in a thread; it answers completely or not at all, because a half
listing would look like versions that were deleted. Reading is pinned to the generation that the
listing named: bytes written later are never mixed with those of the snapshot.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Snapshot, StoredFile


class TransientReadError(SourceError):
    """A read failed in a way that trying again may cure."""

    reason = "ReadFailed"


class SourceChangedError(SourceError):
    """The bytes that the listing named are gone: deleted or overwritten since."""

    reason = "SourceChanged"


class Source(Protocol):
    """A bucket or a folder with models; one object serves all prefixes in it."""

    def list(self, query: Query) -> Listing:
        """Return every version that answers `query`; blocking.

        For a pin the listing may hold other versions too. Raises SourceError with the reason
        BucketNotFound, FolderNotFound, Forbidden, Unauthenticated, BadSource or ListingFailed.
        """

    def read(
        self, snapshot: Snapshot, file: StoredFile, start: int, end: int
    ) -> AsyncGenerator[bytes]:
        """Yield the bytes from `start` up to `end` of one file, in pieces of about a MiB.

        Raises TransientReadError where a retry may help, SourceChangedError when these bytes no
        longer exist, and SourceError otherwise.
        """


def describe_change(snapshot: Snapshot, file: StoredFile) -> str:
    """Return the sentence about a file that is no longer what the listing said."""
    return (
        f"{snapshot.source}/{snapshot.place_of(file)} was deleted or overwritten after it was"
        " listed; the next listing decides what to take"
    )
