"""Holds the files of a folder against what they must be, byte by byte.

In steps of a few MiB, so that a cancelled check of a large version ends at once.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from reconciler.model import StoredFile
from reconciler.store.checksum import read_checksum
from reconciler.store.lanes import Lanes

_STEP_BYTES = 16 * 1024 * 1024


def has_size(path: Path, size_bytes: int) -> bool:
    """Whether there is a real file of this size; a link is none."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size_bytes


async def matches(lanes: Lanes, folder: Path, files: Sequence[StoredFile]) -> bool:
    """Whether `folder` has all `files` with their sizes and checksums."""
    for file in files:
        path = folder / file.path
        if not await lanes.run(has_size, path, file.size_bytes):
            return False
        crc = 0
        for start in range(0, file.size_bytes, _STEP_BYTES):
            end = min(start + _STEP_BYTES, file.size_bytes)
            extended = await lanes.run(read_checksum, path, start, end, crc)
            if extended is None:
                return False
            crc = extended
        if crc != file.crc32c:
            return False
    return True


async def holds_exactly(lanes: Lanes, folder: Path, files: Sequence[StoredFile]) -> bool:
    """Whether `folder` has all `files`, byte for byte, and nothing else."""
    names = await lanes.run(_list_files, folder)
    return names == {file.path for file in files} and await matches(lanes, folder, files)


def _list_files(folder: Path) -> set[str]:
    """Return the files in a folder; a link to a folder is not followed, so what it shows lacks."""
    if folder.is_symlink():
        return set()
    return {
        os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118 - a hundred thousand
        for parent, _, names in os.walk(folder)
        for name in names
    }
