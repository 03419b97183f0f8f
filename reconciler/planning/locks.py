"""What a lock says of a version, and whether what a source lists is still that.

The digest covers each object's generation, which Cloud Storage gives out itself: someone who can
write to the bucket can bring back the same name, size and checksum, but not the same generation.
"""

from collections.abc import Mapping

from reconciler.model import LockedVersion, Snapshot
from reconciler.planning.wording import format_bytes

LOCK_MISMATCH = "LockMismatch"
"""The source, or the disk, holds other bytes for a version than those that were locked."""

_SHOWN_DIGITS = 12


def lock_snapshot(snapshot: Snapshot, sha256: Mapping[str, str]) -> LockedVersion:
    """Return the lock of one version as its source lists it now."""
    return LockedVersion(
        version=snapshot.version,
        files=len(snapshot.files),
        size_bytes=snapshot.size_bytes,
        digest=snapshot.digest,
        sha256=sha256,
        name=snapshot.name,
    )


def find_mismatch(locked: LockedVersion, snapshot: Snapshot) -> str | None:
    """Return what differs between a locked version and what its source lists now, None if nothing.

    The text goes into a sentence: "3 files of 1.2 MB ... instead of ...; x was written last".
    """
    if snapshot.digest == locked.digest:
        return None
    newest = max(snapshot.files, key=lambda file: (file.updated_seconds, file.path), default=None)
    last = f"; {newest.path} was written last" if newest else ""
    return (
        f"{_show(len(snapshot.files), snapshot.size_bytes, snapshot.digest)} instead of"
        f" {_show(locked.files, locked.size_bytes, locked.digest)}{last}"
    )


def _show(files: int, size_bytes: int, digest: str) -> str:
    noun = "file" if files == 1 else "files"
    return f"{files} {noun} of {format_bytes(size_bytes)}, digest {digest[:_SHOWN_DIGITS]}"
