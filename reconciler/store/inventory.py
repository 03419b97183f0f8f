"""What the models folder holds, looked at in every tick.

Cheap enough for that: names and sizes only, and each manifest is parsed once. Of a folder with
thousands of models only those are looked at that something is going on with, and a share of the
others in turn: nobody but this agent is to change anything here, and who does so all the same is
noticed within a round. Whether the bytes behind the sizes are still right is found out by reading
them all, which is done at start and before a version is reused; a version found broken that way
is remembered as such until it has been replaced.
"""

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import InstallError
from reconciler.model import Local, LocalVersion, Staged
from reconciler.planning.versions import parse_version
from reconciler.rotation import Rotation
from reconciler.store.journal import read_journal
from reconciler.store.layout import STAGING, manifest_file, parse_staging_name, version_folder
from reconciler.store.manifest import Manifest, read_manifest
from reconciler.store.verify import has_size

_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class _Found:
    """One model's folder."""

    versions: Mapping[int, LocalVersion]
    strays: tuple[str, ...]


class Inventory:
    """Reads one models folder."""

    def __init__(self, models_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._models_dir = models_dir
        self._rotation = Rotation(clock)
        self._found: dict[str, _Found] = {}
        self._models: tuple[str, ...] = ()
        self._listed: tuple[int, int] | None = None
        """When the folder of all models was changed last when it was listed, and when that was."""
        self._versions: Mapping[str, Mapping[int, LocalVersion]] = {}
        self._strays: tuple[str, ...] = ()
        self._marked: set[str] = set()
        """Models of which something was found out by other means since the last look."""
        self._manifests: dict[tuple[str, int], tuple[tuple[int, int, int], Manifest | None]] = {}
        self._broken: set[tuple[str, int]] = set()

    def read(self, urgent: Collection[str] | None = None) -> Local:
        """Return the versions, downloads and strays in the models folder, and the disk's room.

        With `urgent` only these models, new ones and a share of the others are looked at. What has
        not changed comes back as the same values.

        Raises InstallError when the folder cannot be read: nothing may be concluded then.
        """
        try:
            if not self._models_dir.exists():
                self._take_up((), {})
                return Local({})
            models = self._list_models()
            due = self._choose(models, urgent)
            looks = ((model, self._look_at(model)) for model in due)
            changed = {model: look for model, look in looks if look is not self._found.get(model)}
            if changed or models is not self._models:
                self._take_up(models, changed)
            staged = tuple(_list_staged(self._models_dir / STAGING))
            usage = shutil.disk_usage(self._models_dir)
        except OSError as error:
            raise InstallError(
                f"the models folder {self._models_dir} cannot be read ({error.strerror}); nothing"
                " is installed or removed meanwhile",
                "ModelsFolderUnreadable",
            ) from error
        return Local(self._versions, staged, usage.free, usage.total, self._strays)

    def read_manifest(self, model: str, version: int) -> Manifest | None:
        """Return the manifest of a version, parsed again only when the file is another."""
        key, path = (model, version), manifest_file(self._models_dir, model, version)
        try:
            status = path.stat()
        except OSError:
            self._manifests.pop(key, None)
            return None
        mark = (status.st_ino, status.st_mtime_ns, status.st_size)
        cached = self._manifests.get(key)
        if cached is None or cached[0] != mark:
            cached = self._manifests[key] = (mark, read_manifest(path))
        return cached[1]

    def list_installed(self) -> dict[tuple[str, int], Manifest]:
        """Return the manifests that were read last, without those of damaged versions.

        The disk is not asked: whoever uses what they name must look at it anyhow.
        """
        return {
            key: manifest
            # A copy: meanwhile another thread may read a manifest that is new.
            for key, (_, manifest) in self._manifests.copy().items()
            if manifest is not None and key not in self._broken
        }

    def mark(self, model: str, version: int, *, intact: bool) -> None:
        """Remember what reading all bytes of a version has shown."""
        if intact:
            self._broken.discard((model, version))
        else:
            self._broken.add((model, version))
        self._marked.add(model)

    def _choose(self, models: Collection[str], urgent: Collection[str] | None) -> set[str]:
        """Return the models to look at."""
        marked, self._marked = self._marked, set()
        if urgent is None:
            return set(models)
        due = self._rotation.take(models, urgent) | marked
        return (due & set(models)) | (set(models) - self._found.keys())

    def _look_at(self, model: str) -> "_Found":
        versions, strays = {}, []
        for name, is_folder in _list_names(self._models_dir / model):
            version = parse_version(name)
            if version is None:
                continue
            if is_folder and version >= 0 and name == str(version):
                versions[version] = self._describe(model, version)
            else:
                strays.append(f"{model}/{name}")
        found, before = _Found(versions, tuple(strays)), self._found.get(model)
        return before if before == found else found

    def _list_models(self) -> tuple[str, ...]:
        """Return the names of the models' folders, by the same value while the folder is the same.

        A folder that was changed a moment ago is listed again: its time may not tell two changes
        apart that come close to each other. And one whose time is another than before, be it an
        older one, as where the clock was set back.
        """
        changed_ns = self._models_dir.stat().st_mtime_ns
        if self._listed is None or not _is_settled(changed_ns, *self._listed):
            self._listed = changed_ns, time.time_ns()
            models = tuple(sorted(_list_folders(self._models_dir)))
            return self._models if models == self._models else models
        return self._models

    def _take_up(self, models: tuple[str, ...], changed: Mapping[str, "_Found"]) -> None:
        self._models = models
        self._found = {
            model: changed[model] if model in changed else self._found[model] for model in models
        }
        self._versions = {model: found.versions for model, found in self._found.items()}
        self._strays = tuple(sorted(s for found in self._found.values() for s in found.strays))
        self._forget_absent(self._versions)

    def _forget_absent(self, versions: Mapping[str, Mapping[int, LocalVersion]]) -> None:
        present = {(model, version) for model, found in versions.items() for version in found}
        # New objects rather than deletions: a fetch may be looking something up in its thread.
        self._manifests = {key: entry for key, entry in self._manifests.items() if key in present}
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


def _is_settled(changed_ns: int, listed_change_ns: int, listed_at_ns: int) -> bool:
    """Whether a folder's time says that it is as it was when it was listed."""
    return changed_ns == listed_change_ns and changed_ns + _SETTLED_NS <= listed_at_ns


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
