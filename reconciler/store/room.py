"""Whether a version fits on the disk, asked before its first byte is fetched.

What one version was promised no other may count on. A packed version needs room twice, for the
archive and for what is in it; until the archive is here nobody knows how much that is, and it is
taken to be as much as the archive itself: weights hardly compress.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import DownloadError
from reconciler.model import Snapshot
from reconciler.planning.wording import format_bytes
from reconciler.store.journal import read_journal
from reconciler.store.lanes import Lanes

_BLOCK_BYTES = 4096


@dataclass(slots=True, eq=False)
class Claim:
    """The room that one version was promised, and how much of it is written by now."""

    promised_bytes: int
    taken_bytes: int = 0

    @property
    def open_bytes(self) -> int:
        """What is promised and not yet written."""
        return max(self.promised_bytes - self.taken_bytes, 0)


class Room:
    """The disk of one models folder."""

    def __init__(self, models_dir: Path, lanes: Lanes) -> None:
        self._models_dir = models_dir
        self._lanes = lanes
        self._lock = asyncio.Lock()
        self._claims: set[Claim] = set()

    @asynccontextmanager
    async def claim(self, model: str, snapshot: Snapshot, staging: Path) -> AsyncIterator[Claim]:
        """Hold the room that a version still needs; what is staged of it counts as there.

        Raises DownloadError with the numbers where it does not fit.
        """
        async with self._lock:
            needed_bytes = await self._lanes.run(_measure_need, snapshot, staging)
            free_bytes = await self.measure_free()
            if needed_bytes > free_bytes:
                raise self._refuse(model, snapshot, needed_bytes, free_bytes)
            claim = Claim(needed_bytes)
            self._claims.add(claim)
        try:
            yield claim
        finally:
            self._claims.discard(claim)

    async def measure_free(self, claim: Claim | None = None) -> int:
        """Return what is free and not promised to others than the one with this claim."""
        usage = await self._lanes.run(self._ask_disk)
        return usage - sum(other.open_bytes for other in self._claims if other is not claim)

    def _ask_disk(self) -> int:
        self._models_dir.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._models_dir).free

    def _refuse(
        self, model: str, snapshot: Snapshot, needed_bytes: int, free_bytes: int
    ) -> DownloadError:
        promised_bytes = sum(claim.open_bytes for claim in self._claims)
        twice = " for its archive and what is in it" if snapshot.archive else ""
        promised = (
            f", of which other downloads need {format_bytes(promised_bytes)}"
            if promised_bytes
            else ""
        )
        return DownloadError(
            f"{model} {snapshot.title} needs {format_bytes(needed_bytes)}{twice} and"
            f" {self._models_dir} has {format_bytes(free_bytes + promised_bytes)} free{promised};"
            " it is not downloaded until there is room",
            "DiskFull",
        )


def _measure_need(snapshot: Snapshot, staging: Path) -> int:
    journal = read_journal(staging)
    blocks = sum(-(-file.size_bytes // _BLOCK_BYTES) for file in snapshot.files)
    times = 2 if snapshot.archive else 1
    return times * blocks * _BLOCK_BYTES - (journal.bytes if journal else 0)
