"""Whether a version fits on the disk, asked before its first byte is fetched."""

import shutil
from pathlib import Path

from reconciler.errors import DownloadError
from reconciler.model import Snapshot
from reconciler.planning.wording import format_bytes
from reconciler.store.journal import read_journal

_BLOCK_BYTES = 4096


def check_room(
    models_dir: Path, model: str, snapshot: Snapshot, staging: Path, promised_bytes: int
) -> int:
    """Return the room a version still needs; refuse one that does not fit.

    What is staged of it already counts as there; what the downloads under way have been promised
    counts as taken. Raises DownloadError with the numbers.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    journal = read_journal(staging)
    blocks = sum(-(-file.size_bytes // _BLOCK_BYTES) for file in snapshot.files)
    needed = blocks * _BLOCK_BYTES - (journal.bytes if journal else 0)
    free = shutil.disk_usage(models_dir).free
    if needed <= free - promised_bytes:
        return needed
    promised = (
        f", of which other downloads need {format_bytes(promised_bytes)}" if promised_bytes else ""
    )
    raise DownloadError(
        f"{model} {snapshot.version} needs {format_bytes(needed)} and {models_dir} has"
        f" {format_bytes(free)} free{promised}; it is not downloaded until there is room",
        "DiskFull",
    )
