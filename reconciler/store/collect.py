"""Removes what is no longer wanted, so that a kill in the middle leaves no half version.

A version first loses its number by a rename, by which it is gone for TensorFlow Serving, and only
then its files. Links are removed, never followed. Deciding what may go is the plan's business.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from reconciler.files import sync_folder
from reconciler.store.layout import (
    MANIFESTS,
    REMOVING,
    STAGING,
    manifest_file,
    model_folder,
    parse_staging_name,
    staging_folder,
    version_folder,
)


def remove_version(models_dir: Path, model: str, version: int) -> None:
    """Delete an installed version and then its manifest; nothing happens when it is gone."""
    folder = version_folder(models_dir, model, version)
    going = folder.with_name(f"{REMOVING}{version}-{time.time_ns()}")
    with suppress(FileNotFoundError):
        folder.rename(going)
        sync_folder(folder.parent)
        _delete(going)
    manifest_file(models_dir, model, version).unlink(missing_ok=True)


def remove_staging(models_dir: Path, model: str, version: int, digest: str) -> None:
    """Delete a begun download; `digest` may be its beginning, as a staging folder's name has it."""
    folder = staging_folder(models_dir, model, version, digest)
    _delete(folder)
    with suppress(OSError):  # other versions of the model may be staged
        folder.parent.rmdir()


def remove_model_folder(models_dir: Path, model: str) -> bool:
    """Delete the folder of a model that has left, provided nothing but our own is in it.

    To be called only once the server no longer knows the model: a configured model whose folder
    is missing keeps TensorFlow Serving from noticing any change of any model. Returns whether the
    folder is gone.
    """
    folder = model_folder(models_dir, model)
    if folder.is_symlink() or not folder.is_dir():
        return not os.path.lexists(folder)
    if {entry.name for entry in folder.iterdir()} - {MANIFESTS}:
        return False
    _delete(folder / MANIFESTS)
    try:
        folder.rmdir()
    except OSError:  # something appeared in it meanwhile
        return False
    sync_folder(models_dir)
    return True


def clear_leftovers(models_dir: Path) -> None:
    """Delete what earlier runs were about to delete, and manifests of versions that are gone.

    Downloads stay: they are resumed or, when no longer wanted, removed by name.
    """
    if not models_dir.is_dir():
        return
    for folder in list(models_dir.iterdir()):
        if folder.is_symlink() or not folder.is_dir() or folder.name.startswith("."):
            continue
        for entry in list(folder.iterdir()):
            if entry.name.startswith(REMOVING):
                _delete(entry)
        for manifest in list(folder.glob(f"{MANIFESTS}/*.json")):
            if not os.path.lexists(folder / manifest.stem):
                manifest.unlink(missing_ok=True)
    for folder in list((models_dir / STAGING).glob("*")):
        for entry in list(folder.iterdir()) if folder.is_dir() else []:
            if parse_staging_name(entry.name) is None:
                _delete(entry)
        with suppress(OSError):  # downloads remain in it
            folder.rmdir()


def _delete(path: Path) -> None:
    """Delete a file, a link or a folder with all in it; nothing happens when it is gone."""
    if path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
