"""The models folder of a node: fetch, verify and install versions; everything else reads it.

`fetch` is idempotent: called again for what is installed it reads it back and returns, after a
kill it goes on where the disk says, and for a folder that someone copied in by hand with the right
bytes it only writes the manifest.

Of a packed version the archive is fetched, verified and held against its lock as it is stored;
then it is unpacked beside it, and from there on the version is like any other. The archive goes
with the rest of staging once the version is installed: a kill before costs no second download.
"""

import asyncio
import errno
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from reconciler.errors import DownloadError, InstallError, ReconcilerError
from reconciler.model import Local, LocalVersion, Progress, Snapshot, StoredFile
from reconciler.planning.locks import LOCK_MISMATCH
from reconciler.planning.resolve import INCOMPLETE
from reconciler.planning.versions import BAD_ARCHIVE, show_name
from reconciler.sources.source import Source
from reconciler.store.collect import remove_staging
from reconciler.store.completeness import find_lack
from reconciler.store.download import CHUNK_BYTES, Download
from reconciler.store.install import make_durable, place, recover_files
from reconciler.store.inventory import Inventory
from reconciler.store.lanes import Lanes, Patience
from reconciler.store.layout import (
    STAGING,
    files_folder,
    gathering_folder,
    linked_folder,
    manifest_file,
    staging_folder,
    unpacked_folder,
    version_folder,
)
from reconciler.store.links import Contents, drop_shared, link_known, move_links
from reconciler.store.manifest import Manifest, write_manifest
from reconciler.store.room import Claim, Room
from reconciler.store.unpack import Unpacking
from reconciler.store.verify import find_other_bytes, has_size, holds_exactly, matches

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = "what is installed stays; mount the volume so that this user may write to it"
_HINTS = {
    errno.EROFS: _NOT_WRITABLE,
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EXDEV: (
        f"{STAGING} and the models' folders must be on one file system, as a version comes into"
        " its place by one rename; mount one volume there and no other within it"
    ),
}
_FRUITLESS = ("SourceChanged", INCOMPLETE, LOCK_MISMATCH, BAD_ARCHIVE)


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
        self._contents = Contents(models_dir)
        # In a thread, as of 10,000 versions it takes a while; and in one only.
        self._listing = asyncio.Lock()
        self._room = Room(models_dir, self._lanes)
        # Two versions of a new model at once would both try to make the model's folder.
        self._placing = asyncio.Lock()

    def close(self) -> None:
        """End the store's threads; nothing is running any more."""
        self._lanes.close()

    def read_inventory(self, urgent: Collection[str] | None = None) -> Local:
        """Return what the models folder holds; blocking, see Inventory.read."""
        return self._inventory.read(urgent)

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
        most_bytes: int | None = None,
    ) -> LocalVersion:
        """Bring `snapshot` to the models folder as a version of `model`, whole and verified.

        `sha256` is what a lock says of the files as they are stored, an archive as one, each by
        its path; empty or None where it says nothing. `most_bytes` is what a packed version may
        have unpacked. `on_progress` is called on the event loop for every piece. One call at a
        time for one version. Cancellation ends it within a second and loses at most the chunks in
        flight.

        Raises DownloadError (DiskFull, GroupQuotaExceeded, ReadFailed, ChecksumMismatch,
        WriteFailed), InstallError (Incomplete, BadArchive, SourceChanged, LockMismatch, ...) and
        SourceError (SourceChanged, Forbidden).
        """
        sums = sha256 or {}
        staging = staging_folder(self.models_dir, model, snapshot.version, snapshot.digest)
        try:
            found = await self._find_installed(model, snapshot, sums)
            if found is not None:
                return found
            await self._lanes.finish(_recover, staging, snapshot)
            linked = await self._link_known(snapshot, staging, sums)
            missing = snapshot.without(linked)
            async with self._room.claim(model, missing, staging) as claim:
                download = Download(
                    staging, missing, source, self._lanes, claim, on_progress, self._chunk_bytes
                )
                files = await download.run()
                if linked:
                    place = files_folder(staging)
                    await self._lanes.finish(move_links, linked_folder(staging), linked, place)
                    files = _join(snapshot, files)
                gathered = gathering_folder(staging, snapshot)
                await self._check_sums(model, snapshot, gathered, sums)
                if snapshot.archive:
                    files = await self._unpack(model, snapshot, staging, claim, most_bytes)
            return await self._install(model, snapshot, staging, files)
        except OSError as error:
            raise await self._explain(error, model, snapshot) from error
        except ReconcilerError as error:
            if error.reason in _FRUITLESS:
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
            if snapshot.archive:  # nobody can tell without unpacking what would be right
                return None
            if not await holds_exactly(self._lanes, folder, snapshot.files):
                return None
            if sums and await find_other_bytes(self._lanes, folder, snapshot.files, sums):
                return None
            await self._check_complete(model, snapshot, folder, snapshot.files)
            path = manifest_file(self.models_dir, model, version)
            manifest = _make_manifest(snapshot, snapshot.files)
            await self._lanes.finish(write_manifest, path, manifest)
        elif not await self.verify(model, version):
            return None
        elif (manifest.name or str(version)) != snapshot.title:
            raise InstallError(
                f"{model} {manifest.name or version} is installed under the number {version}, which"
                f" stands for {snapshot.title} by now; the installed one stays",
                "SourceChanged",
            )
        elif manifest.digest != snapshot.digest:
            raise InstallError(
                f"{model} {snapshot.title} is installed with other bytes than {snapshot.source}"
                " holds now; the installed ones stay, publish a change under a new number",
                "SourceChanged",
            )
        size_bytes, digest = manifest.size_bytes, manifest.digest
        return LocalVersion(model, version, size_bytes, digest, name=manifest.name)

    async def _link_known(
        self, snapshot: Snapshot, staging: Path, sums: Mapping[str, str]
    ) -> frozenset[str]:
        """Take files that other versions have; an archive is never one of them."""
        if snapshot.archive:
            return frozenset()
        async with self._listing:
            await self._lanes.finish(self._list_contents)
        folder = linked_folder(staging)
        return await link_known(self._lanes, self._contents, snapshot, folder, sums)

    def _list_contents(self) -> None:
        self._contents.update(self._inventory.list_installed())

    async def _unpack(
        self,
        model: str,
        snapshot: Snapshot,
        staging: Path,
        claim: Claim,
        most_bytes: int | None,
    ) -> tuple[StoredFile, ...]:
        archive = gathering_folder(staging, snapshot) / str(snapshot.archive)
        folder = unpacked_folder(staging)
        unpacking = Unpacking(model, snapshot, archive, folder, self._room, claim, most_bytes)
        try:
            top, files = await unpacking.run(self._lanes)
        except ReconcilerError:
            # The disk may be what is short.
            await self._lanes.finish(shutil.rmtree, folder, ignore_errors=True)
            raise
        await self._lanes.finish(top.rename, files_folder(staging))
        return files

    async def _install(
        self, model: str, snapshot: Snapshot, staging: Path, files: tuple[StoredFile, ...]
    ) -> LocalVersion:
        version = snapshot.version
        await self._check_complete(model, snapshot, files_folder(staging), files)
        await make_durable(self._lanes, files_folder(staging))
        if not await self._lanes.run(_have_sizes, files_folder(staging), files):
            # As by the last write of a download that was cancelled, on a disk that stands still.
            raise DownloadError(
                f"{model} {snapshot.title} is not installed: a file of it was changed on the disk"
                " after it was written; it is fetched again",
                "WriteFailed",
            )
        ours = await self._lanes.run(self._inventory.read_manifest, model, version) is not None
        manifest = _make_manifest(snapshot, files)
        folder = version_folder(self.models_dir, model, version)
        if not ours and snapshot.archive and await holds_exactly(self._lanes, folder, files):
            # A kill came right before this, or someone unpacked it there by hand.
            path = manifest_file(self.models_dir, model, version)
            await self._lanes.finish(write_manifest, path, manifest)
        else:
            async with self._placing:
                await self._lanes.finish(
                    place, self.models_dir, model, version, staging, manifest, ours=ours
                )
        self._inventory.mark(model, version, intact=True)
        await self._discard(model, snapshot)
        size_bytes, digest = manifest.size_bytes, manifest.digest
        return LocalVersion(model, version, size_bytes, digest, name=manifest.name)

    async def _check_sums(
        self, model: str, snapshot: Snapshot, folder: Path, sums: Mapping[str, str]
    ) -> None:
        path = await find_other_bytes(self._lanes, folder, snapshot.files, sums) if sums else None
        if path is not None:
            raise InstallError(
                f"{model} {snapshot.title} is not installed: {show_name(path)} is not the file"
                " whose sha256 its lock names; what is installed stays, publish the right bytes"
                " under a new number and lock that",
                LOCK_MISMATCH,
            )

    async def _check_complete(
        self, model: str, snapshot: Snapshot, folder: Path, files: Sequence[StoredFile]
    ) -> None:
        lack = await self._lanes.run(find_lack, folder, [file.path for file in files])
        if lack is not None:
            raise InstallError(
                f"{model} {snapshot.title} is not installed: its SavedModel lacks {lack};"
                " publish it again",
                INCOMPLETE,
            )

    async def _explain(self, error: OSError, model: str, snapshot: Snapshot) -> DownloadError:
        if error.errno not in _DISK_FULL:
            hint = _HINTS.get(error.errno or 0, "what is installed stays")
            return DownloadError(
                f"{model} {snapshot.title} cannot be written to {self.models_dir}:"
                f" {error.strerror}; {hint}",
                "WriteFailed",
            )
        # Half a version that cannot become whole would only keep the disk full for all others.
        await self._discard(model, snapshot)
        return DownloadError(
            f"the disk of {self.models_dir} became full while {model} {snapshot.title} was"
            " written; its part was removed and it is tried again, free some space",
            "DiskFull",
        )

    async def _discard(self, model: str, snapshot: Snapshot) -> None:
        await self._lanes.finish(
            remove_staging, self.models_dir, model, snapshot.version, snapshot.digest
        )


def _recover(staging: Path, snapshot: Snapshot) -> None:
    """Bring back what a kill interrupted, and remove what has to be begun anew."""
    recover_files(staging, snapshot.version)
    drop_shared(files_folder(staging))
    if snapshot.archive:
        for folder in (files_folder(staging), unpacked_folder(staging)):
            shutil.rmtree(folder, ignore_errors=True)


def _join(snapshot: Snapshot, fetched: tuple[StoredFile, ...]) -> tuple[StoredFile, ...]:
    """Return all files of a snapshot, those that were `fetched` with the checksum found then."""
    by_path = {file.path: file for file in fetched}
    return tuple(by_path.get(file.path, file) for file in snapshot.files)


def _have_sizes(folder: Path, files: Sequence[StoredFile]) -> bool:
    return all(has_size(folder / file.path, file.size_bytes) for file in files)


def _make_manifest(snapshot: Snapshot, files: tuple[StoredFile, ...]) -> Manifest:
    return Manifest(snapshot.source, snapshot.digest, time.time(), files, snapshot.name)
