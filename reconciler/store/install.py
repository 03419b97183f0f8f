"""Puts a verified version in its place by one rename.

Before the rename everything is on the disk for good; after it TensorFlow Serving may load the
version at any moment. A kill between any two steps leaves either the old state or the new one:

- A manifest is written before a version appears where there was none, and after it where
  something stood before, so that it never vouches for files it was not made from. One that is
  about the same files stays: without it, a kill would leave a version that passes for another's.
- What stood there is exchanged in one step, so that the number is never missing while the server
  looks, and is deleted (a broken version of ours) or kept aside (anything else).
- A model's first version comes with the model's folder: a server that is told of the model never
  finds the folder empty.
"""

import errno
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reconciler.errors import InstallError
from reconciler.files import exchange, sync_file_system, sync_folder
from reconciler.store.lanes import Lanes
from reconciler.store.layout import (
    FOREIGN,
    MANIFESTS,
    REMOVING,
    files_folder,
    manifest_file,
    model_folder,
    version_folder,
)
from reconciler.store.manifest import Manifest, read_manifest, write_manifest

_log = logging.getLogger(__name__)
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_NEW_MODEL = "model"
_FEW_FILES = 64
"""Each is brought to the disk by itself, so as not to wait for what others write."""


async def make_durable(lanes: Lanes, files: Path) -> None:
    """Bring all files and folders under `files` to the disk, readable for the server's user.

    Many at once where the file system can: a disk is asked to empty its cache for each fsync.
    """
    paths = await lanes.run(_list_all, files)
    if len(paths) <= _FEW_FILES or not await lanes.run(_sync_at_once, paths):
        await lanes.run_all(_sync_one, paths)


def _list_all(files: Path) -> list[str]:
    """Return the files under `files`, then its folders from the innermost to itself."""
    paths: list[str] = []
    for folder, _, names in os.walk(files, topdown=False):
        paths += [f"{folder}/{name}" for name in names]
        paths.append(folder)
    return paths


def _sync_at_once(paths: Sequence[str]) -> bool:
    for path in paths:
        with _open_to_readers(path):
            pass
    return sync_file_system(Path(paths[-1]))


def _sync_one(path: str) -> None:
    with _open_to_readers(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _open_to_readers(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o755 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0o644)
        yield descriptor
    finally:
        os.close(descriptor)


def place(
    models_dir: Path, model: str, version: int, staging: Path, manifest: Manifest, *, ours: bool
) -> None:
    """Move `staging/files` to the version's place; what stood there goes.

    `ours` says whether what may stand there was installed by this reconciler. Raises InstallError
    for a model folder that is a link, OSError as renames do.
    """
    home = model_folder(models_dir, model)
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        raise InstallError(
            f"{home} is not a folder of its own; remove it, so that {model} can be installed"
        )
    path = manifest_file(models_dir, model, version)
    target = version_folder(models_dir, model, version)
    if not home.exists():
        _place_model(home, version, staging, manifest)
    elif not os.path.lexists(target):
        write_manifest(path, manifest)
        files_folder(staging).rename(target)
        sync_folder(home)
    else:
        before = read_manifest(path)
        if before is None or before.files != manifest.files:
            path.unlink(missing_ok=True)
        prefix = REMOVING if ours else FOREIGN
        aside = home / f"{prefix}{version}-{time.time_ns()}"
        files_folder(staging).rename(aside)
        _swap(aside, target)
        sync_folder(home)
        write_manifest(path, manifest)
        if ours:
            shutil.rmtree(aside)
        else:
            _log.warning(
                "%s/%s was not put there by this agent and differs from its source; it is kept"
                " as %s",
                model,
                version,
                aside,
            )


def recover_files(staging: Path, version: int) -> None:
    """Undo the first step of placing a whole model, should a kill have come after it."""
    moved = staging / _NEW_MODEL / str(version)
    if moved.is_dir() and not files_folder(staging).exists():
        moved.rename(files_folder(staging))


def _place_model(home: Path, version: int, staging: Path, manifest: Manifest) -> None:
    new = staging / _NEW_MODEL
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    write_manifest(new / MANIFESTS / f"{version}.json", manifest)
    files_folder(staging).rename(new / str(version))
    new.chmod(0o755)
    for folder in (new / MANIFESTS, new):
        sync_folder(folder)
    new.rename(home)
    sync_folder(home.parent)


def _swap(first: Path, second: Path) -> None:
    """Exchange two names, in one step where the file system can."""
    try:
        exchange(first, second)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        between = second.with_name(f"{first.name}.swap")
        second.rename(between)
        first.rename(second)
        between.rename(first)
