"""What the models folder holds, read anew at every tick.

Cheap enough for that: names and sizes only, and each manifest is parsed once. Whether the bytes
behind the sizes are still right is found out by reading them all, which is done at start and
before a version is reused; a version found broken that way is remembered as such until it has
been replaced.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconciler.errors import InstallError
from reconciler.model import Local, LocalVersion, Staged
from reconciler.planning.versions import parse_version
from reconciler.store.journal import read_journal
from reconciler.store.layout import STAGING, manifest_file, parse_staging_name, version_folder
from reconciler.store.manifest import Manifest, read_manifest
from reconciler.store.verify import has_size


class Inventory:
    """Reads one models folder."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._manifests: dict[Path, tuple[tuple[int, int, int], Manifest | None]] = {}
        self._broken: set[tuple[str, int]] = set()

    def read(self) -> Local:
        """Return the versions, downloads and strays in the models folder, and the disk's room.

        Raises InstallError when the folder cannot be read: nothing may be concluded then.
        """
        versions: dict[str, dict[int, LocalVersion]] = {}
        strays: list[str] = []
        try:
            if not self._models_dir.exists():
                return Local({})
            for model in sorted(_list_folders(self._models_dir)):
                versions[model] = {}
                for name, is_folder in _list_names(self._models_dir / model):
                    version = parse_version(name)
                    if version is None:
                        continue
                    if is_folder and version >= 0 and name == str(version):
                        versions[model][version] = self._describe(model, version)
                    else:
                        strays.append(f"{model}/{name}")
            self._forget_absent(versions)
            staged = tuple(_list_staged(self._models_dir / STAGING))
            usage = shutil.disk_usage(self._models_dir)
        except OSError as error:
            raise InstallError(
                f"the models folder {self._models_dir} cannot be read ({error.strerror}); nothing"
                " is installed or removed meanwhile",
                "ModelsFolderUnreadable",
            ) from error
        return Local(versions, staged, usage.free, usage.total, tuple(sorted(strays)))

    def read_manifest(self, model: str, version: int) -> Manifest | None:
        """Return the manifest of a version, parsed again only when the file is another."""
        path = manifest_file(self._models_dir, model, version)
        try:
            status = path.stat()
        except OSError:
            self._manifests.pop(path, None)
            return None
        mark = (status.st_ino, status.st_mtime_ns, status.st_size)
        cached = self._manifests.get(path)
        if cached is None or cached[0] != mark:
            cached = self._manifests[path] = (mark, read_manifest(path))
        return cached[1]

    def mark(self, model: str, version: int, *, intact: bool) -> None:
        """Remember what reading all bytes of a version has shown."""
        if intact:
            self._broken.discard((model, version))
        else:
            self._broken.add((model, version))

    def _forget_absent(self, versions: Mapping[str, Mapping[int, LocalVersion]]) -> None:
        present = {(model, version) for model, found in versions.items() for version in found}
        paths = {manifest_file(self._models_dir, *item) for item in present}
        # New objects rather than deletions: a fetch may be looking something up in its thread.
        self._manifests = {path: entry for path, entry in self._manifests.items() if path in paths}
        self._broken = self._broken & present

    def _describe(self, model: str, version: int) -> LocalVersion:
        folder = version_folder(self._models_dir, model, version)
        manifest = self.read_manifest(model, version)
        if manifest is None:
            return LocalVersion(model, version, _measure(folder), None)
        intact = (model, version) not in self._broken and all(
            has_size(folder / file.path, file.size_bytes) for file in manifest.files
        )
        size_bytes, digest = manifest.size_bytes, manifest.digest
        return LocalVersion(model, version, size_bytes, digest, intact, manifest.name)


def read_inventory(models_dir: Path) -> Local:
    """Return what `models_dir` holds, once; see Inventory.read."""
    return Inventory(models_dir).read()


def _list_folders(folder: Path) -> Iterator[str]:
    """Yield the names of real folders; links are not followed and dot names are not models."""
    for name, is_folder in _list_names(folder):
        if is_folder and not name.startswith("."):
            yield name


def _list_names(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield names and whether each is a folder; nothing for a folder that just went away."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name, entry.is_dir(follow_symlinks=False)
    except FileNotFoundError:
        return


def _list_staged(staging: Path) -> Iterator[Staged]:
    for model in sorted(_list_folders(staging)):
        for name in sorted(_list_folders(staging / model)):
            parsed = parse_staging_name(name)
            if parsed is None:
                continue
            version, beginning = parsed
            journal = read_journal(staging / model / name)
            if journal is not None and journal.digest.startswith(beginning):
                yield Staged(model, version, journal.digest, journal.bytes)
            else:
                yield Staged(model, version, beginning, 0)


def _measure(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
