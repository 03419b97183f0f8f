"""The models folder of a node: fetch, verify and install versions; everything else reads it.

`fetch` is idempotent: called again for what is installed it reads it back and returns, after a
kill it goes on where the disk says, and for a folder that someone copied in by hand with the right
bytes it only writes the manifest.
"""

import asyncio
import errno
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from reconciler.errors import DownloadError, InstallError, ReconcilerError
from reconciler.model import Local, LocalVersion, Progress, Snapshot, StoredFile
from reconciler.planning.locks import LOCK_MISMATCH
from reconciler.planning.versions import show_name
from reconciler.sources.source import Source
from reconciler.store.collect import remove_staging
from reconciler.store.completeness import find_lack
from reconciler.store.download import CHUNK_BYTES, Download
from reconciler.store.install import list_unsynced, make_durable, place, recover_files
from reconciler.store.inventory import Inventory
from reconciler.store.lanes import Lanes, Patience
from reconciler.store.layout import manifest_file, staging_folder, version_folder
from reconciler.store.manifest import Manifest, write_manifest
from reconciler.store.room import check_room
from reconciler.store.verify import find_other_bytes, holds_exactly, matches

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Store:
    """One models folder with one budget of connections."""

    def __init__(
        self,
        models_dir: Path,
        connections: int = 16,
        patience: Patience | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.models_dir = models_dir
        self._lanes = Lanes(connections, patience or Patience())
        self._chunk_bytes = chunk_bytes
        self._inventory = Inventory(models_dir)
        self._room = asyncio.Lock()
        # Two versions of a new model at once would both try to make the model's folder.
        self._placing = asyncio.Lock()
        self._running: dict[Download, int] = {}
        """Downloads under way, each with the room that it was promised."""

    def close(self) -> None:
        """End the store's threads; nothing is running any more."""
        self._lanes.close()

    def read_inventory(self) -> Local:
        """Return what the models folder holds; blocking, see Inventory.read."""
        return self._inventory.read()

    async def verify(self, model: str, version: int) -> bool:
        """Read an installed version in full and return whether it is what its manifest says.

        The answer is also what the inventory reports from now on. A version without a manifest is
        nothing that could be verified: False.
        """
        manifest = await self._lanes.run(self._inventory.read_manifest, model, version)
        if manifest is None:
            return False
        folder = version_folder(self.models_dir, model, version)
        intact = await matches(self._lanes, folder, manifest.files)
        self._inventory.mark(model, version, intact=intact)
        return intact

    async def fetch(
        self,
        model: str,
        snapshot: Snapshot,
        source: Source,
        on_progress: Callable[[Progress], None] = lambda _: None,
        *,
        sha256: Mapping[str, str] | None = None,
    ) -> LocalVersion:
        """Bring `snapshot` to the models folder as a version of `model`, whole and verified.

        `sha256` is what a lock says of the files, each by its path; empty or None where it says
        nothing. `on_progress` is called on the event loop for every piece. One call at a time for
        one version. Cancellation ends it within a second and loses at most the chunks in flight.

        Raises DownloadError (DiskFull, ReadFailed, ChecksumMismatch, WriteFailed), InstallError
        (Incomplete, SourceChanged, LockMismatch, ...) and SourceError (SourceChanged, Forbidden).
        """
        sums = sha256 or {}
        staging = staging_folder(self.models_dir, model, snapshot.version, snapshot.digest)
        try:
            found = await self._find_installed(model, snapshot, sums)
            if found is not None:
                return found
            await self._lanes.run(recover_files, staging, snapshot.version)
            files = await self._download(model, snapshot, source, staging, on_progress)
            await self._check_sums(model, snapshot, staging / "files", sums)
            return await self._install(model, snapshot, staging, files)
        except OSError as error:
            raise await self._explain(error, model, snapshot) from error
        except ReconcilerError as error:
            if error.reason in ("SourceChanged", "Incomplete", LOCK_MISMATCH):
                # These bytes will never be installed; the next listing, or lock, names others.
                await self._discard(model, snapshot)
            raise

    async def _find_installed(
        self, model: str, snapshot: Snapshot, sums: Mapping[str, str]
    ) -> LocalVersion | None:
        """Return the version if these bytes are in place already.

        What we installed was held against its lock then and is known by its digest since; what
        someone copied in is held against `sums` now.

        Raises InstallError if other bytes of ours are there in good order: an installed version
        is never written again.
        """
        version = snapshot.version
        folder = version_folder(self.models_dir, model, version)
        manifest = await self._lanes.run(self._inventory.read_manifest, model, version)
        if manifest is None:
            if not await holds_exactly(self._lanes, folder, snapshot.files):
                return None
            if sums and await find_other_bytes(self._lanes, folder, snapshot.files, sums):
                return None
            await self._check_complete(model, snapshot, folder)
            path = manifest_file(self.models_dir, model, version)
            await self._lanes.finish(write_manifest, path, _make_manifest(snapshot, snapshot.files))
        elif not await self.verify(model, version):
            return None
        elif manifest.digest != snapshot.digest:
            raise InstallError(
                f"{model} {version} is installed with other bytes than {snapshot.source} holds"
                " now; the installed ones stay, publish a change under a new number",
                "SourceChanged",
            )
        return LocalVersion(model, version, snapshot.size_bytes, snapshot.digest)

    async def _download(
        self,
        model: str,
        snapshot: Snapshot,
        source: Source,
        staging: Path,
        on_progress: Callable[[Progress], None],
    ) -> tuple[StoredFile, ...]:
        download = Download(staging, snapshot, source, self._lanes, on_progress, self._chunk_bytes)
        async with self._room:
            promised = sum(room - other.fetched_bytes for other, room in self._running.items())
            self._running[download] = await self._lanes.run(
                check_room, self.models_dir, model, snapshot, staging, max(promised, 0)
            )
        try:
            return await download.run()
        finally:
            del self._running[download]

    async def _install(
        self, model: str, snapshot: Snapshot, staging: Path, files: tuple[StoredFile, ...]
    ) -> LocalVersion:
        version = snapshot.version
        await self._check_complete(model, snapshot, staging / "files")
        paths = await self._lanes.run(lambda: list(list_unsynced(staging / "files")))
        await self._lanes.run_all(make_durable, paths)
        ours = await self._lanes.run(self._inventory.read_manifest, model, version) is not None
        manifest = _make_manifest(snapshot, files)
        async with self._placing:
            await self._lanes.finish(
                place, self.models_dir, model, version, staging, manifest, ours=ours
            )
        self._inventory.mark(model, version, intact=True)
        await self._discard(model, snapshot)
        return LocalVersion(model, version, snapshot.size_bytes, snapshot.digest)

    async def _check_sums(
        self, model: str, snapshot: Snapshot, folder: Path, sums: Mapping[str, str]
    ) -> None:
        path = await find_other_bytes(self._lanes, folder, snapshot.files, sums) if sums else None
        if path is not None:
            raise InstallError(
                f"{model} {snapshot.version} is not installed: {show_name(path)} is not the file"
                " whose sha256 its lock names; what is installed stays, publish the right bytes"
                " under a new number and lock that",
                LOCK_MISMATCH,
            )

    async def _check_complete(self, model: str, snapshot: Snapshot, folder: Path) -> None:
        lack = await self._lanes.run(find_lack, folder, [file.path for file in snapshot.files])
        if lack is not None:
            raise InstallError(
                f"{model} {snapshot.version} is not installed: its SavedModel lacks {lack};"
                " publish it again",
                "Incomplete",
            )

    async def _explain(self, error: OSError, model: str, snapshot: Snapshot) -> DownloadError:
        if error.errno not in _DISK_FULL:
            return DownloadError(
                f"{model} {snapshot.version} cannot be written to {self.models_dir}:"
                f" {error.strerror}; what is installed stays",
                "WriteFailed",
            )
        # Half a version that cannot become whole would only keep the disk full for all others.
        await self._discard(model, snapshot)
        return DownloadError(
            f"the disk of {self.models_dir} became full while {model} {snapshot.version} was"
            " written; its part was removed and it is tried again, free some space",
            "DiskFull",
        )

    async def _discard(self, model: str, snapshot: Snapshot) -> None:
        await self._lanes.finish(
            remove_staging, self.models_dir, model, snapshot.version, snapshot.digest
        )


def _make_manifest(snapshot: Snapshot, files: tuple[StoredFile, ...]) -> Manifest:
    return Manifest(snapshot.source, snapshot.digest, time.time(), files)
