"""Holds the files of a folder against what they must be, byte by byte.

In steps of a few MiB, so that a cancelled check of a large version ends at once.
"""

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.model import StoredFile
from reconciler.store.checksum import read_checksum
from reconciler.store.lanes import Lanes, work_off

_STEP_BYTES = 16 * 1024 * 1024
_BLOCK_BYTES = 1024 * 1024


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


async def find_other_bytes(
    lanes: Lanes, folder: Path, files: Sequence[StoredFile], sums: Mapping[str, str]
) -> str | None:
    """Return the path of a file whose sha256 is not the one in `sums`, None if all are right.

    A file that only one side knows is a wrong one, too. Several files are read at a time.
    """
    sizes = {file.path: file.size_bytes for file in files}
    if one_sided := sizes.keys() ^ sums.keys():
        return min(one_sided)
    wrong: list[str] = []

    async def check(path: str) -> None:
        if not wrong and await _sum(lanes, folder / path, sizes[path]) != sums[path]:
            wrong.append(path)

    await work_off(sorted(sums), check, lanes.count)
    return min(wrong, default=None)


async def _sum(lanes: Lanes, path: Path, size_bytes: int) -> str | None:
    """Return the sha256 of a file; None when it ends early or cannot be read."""
    total = hashlib.sha256()
    for start in range(0, size_bytes, _STEP_BYTES):
        end = min(start + _STEP_BYTES, size_bytes)
        if not await lanes.run(_extend_sum, total, path, start, end):
            return None
    return total.hexdigest()


def _extend_sum(total: "hashlib._Hash", path: Path, start: int, end: int) -> bool:
    """Add a range of a file to a sum; return whether all of it was there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        while start < end:
            piece = os.pread(descriptor, min(_BLOCK_BYTES, end - start), start)
            if not piece:
                return False
            total.update(piece)
            start += len(piece)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _list_files(folder: Path) -> set[str]:
    """Return the files in a folder; a link to a folder is not followed, so what it shows lacks."""
    if folder.is_symlink():
        return set()
    return {
        os.path.relpath(os.path.join(parent, name), folder)  # noqa: PTH118 - a hundred thousand
        for parent, _, names in os.walk(folder)
        for name in names
    }
