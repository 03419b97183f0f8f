"""Takes files that are installed already instead of fetching them again.

The same bytes come back under another model's name, or another number, whenever a model is
promoted from one to the other. Then a new version shares them with the one that has them: a hard
link, which costs neither the line nor the disk. Every version still stands for itself: nothing
installed is ever written again, so a repair puts other files beside and exchanges the folders, and
a removal takes away a name; neither reaches the other version.

Bytes are the same when size and crc32c are those that the listing names, and its md5, or the
sha256 of a lock, is the same, too: a checksum of 32 bits alone is too easily met by chance among
many files. What is linked is read in full before it is taken, as nobody knows what has been done
to it on the disk. Where anything is in the way of a link, the file is fetched.
"""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from reconciler.model import Snapshot, StoredFile
from reconciler.store.lanes import Lanes, work_off
from reconciler.store.manifest import Manifest
from reconciler.store.verify import find_other_bytes, matches

Installed = Mapping[tuple[str, int], Manifest]
"""(model, version) -> what was installed there, of those that are not known to be damaged."""


class Contents:
    """Finds installed files by what is in them."""

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._installed: Installed = {}
        self._places: dict[tuple[int, int | None], dict[Path, StoredFile]] = {}

    def update(self, installed: Installed) -> None:
        """Take up what is installed now."""
        before, self._installed = self._installed, dict(installed)
        for key, manifest in before.items():
            if installed.get(key) is not manifest:
                for path, file in self._list(key, manifest):
                    places = self._places.get(_name(file), {})
                    places.pop(path, None)
                    if not places:
                        self._places.pop(_name(file), None)
        for key, manifest in installed.items():
            if before.get(key) is not manifest:
                for path, file in self._list(key, manifest):
                    self._places.setdefault(_name(file), {})[path] = file

    def find(self, file: StoredFile, *, has_sha256: bool) -> list[Path]:
        """Return where the bytes of `file` seem to be; a sha256 stands in where no md5 is known."""
        if file.crc32c is None or not (file.md5 or has_sha256):
            return []
        return [
            path
            # A copy: meanwhile another thread may take up what is new.
            for path, known in self._places.get(_name(file), {}).copy().items()
            if has_sha256 or known.md5 == file.md5
        ]

    def _list(self, key: tuple[str, int], manifest: Manifest) -> Iterator[tuple[Path, StoredFile]]:
        model, version = key
        for file in manifest.files:
            yield self._models_dir / model / str(version) / file.path, file


def _name(file: StoredFile) -> tuple[int, int | None]:
    return file.size_bytes, file.crc32c


async def link_known(
    lanes: Lanes, contents: Contents, snapshot: Snapshot, folder: Path, sums: Mapping[str, str]
) -> frozenset[str]:
    """Link to `folder` what is installed of the snapshot's files; return the paths of those.

    `sums` has the sha256 that a lock gives for a path. The folder is begun anew.
    """
    await lanes.finish(shutil.rmtree, folder, ignore_errors=True)
    linked: set[str] = set()

    async def take(file: StoredFile) -> None:
        sums_of_file = {file.path: sums[file.path]} if file.path in sums else {}
        for original in contents.find(file, has_sha256=bool(sums_of_file)):
            if not await lanes.run(_link, original, folder / file.path):
                continue
            is_right = await matches(lanes, folder, [file])
            if is_right and sums_of_file:
                is_right = not await find_other_bytes(lanes, folder, [file], sums_of_file)
            if is_right:
                linked.add(file.path)
                return
            await lanes.run((folder / file.path).unlink, missing_ok=True)

    await work_off((file for file in snapshot.files if file.size_bytes), take, lanes.count)
    return frozenset(linked)


def move_links(folder: Path, paths: Iterable[str], files: Path) -> None:
    """Put the linked files where the others of the version are."""
    for path in paths:
        target = files / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / path).rename(target)
    shutil.rmtree(folder, ignore_errors=True)


def drop_shared(files: Path) -> None:
    """Remove every file below `files` that has a second name: a download must not write into it.

    A kill may have come between the moving of the links and the installation.
    """
    for parent, _, names in os.walk(files):
        for name in names:
            path = Path(parent, name)
            if path.lstat().st_nlink > 1:
                path.unlink()


def _link(original: Path, target: Path) -> bool:
    """Give a regular file of our own a second name; return whether that could be done.

    What someone else copied in he could write to later on, and we could not set its mode.
    """
    with suppress(OSError):
        status = original.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        os.link(original, target, follow_symlinks=False)
        return True
    return False
