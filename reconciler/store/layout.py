"""Where everything lies in the models folder, and why nothing there can be mistaken.

    <models>/<model>/<version>/...              an installed version, never written again
    <models>/<model>/.manifests/<version>.json  what was installed, with checksums
    <models>/<model>/.removing-<version>-...    on its way out
    <models>/<model>/.foreign-<version>-...     was in our place and is not ours; kept for people
    <models>/.staging/<model>/<version>-<id>/   a download in progress:
        files/                                      what will be the version
        linked/                                     files that other versions have already
        packed/, unpacked/                          its archive, and what comes out of it

TensorFlow Serving takes every name in a model's folder that parses as a number for a version, so
all other names begin with a dot. Everything is on one file system, so that a version comes and
goes by one rename.
"""

import re
from pathlib import Path

from reconciler.errors import InstallError
from reconciler.model import Snapshot

STAGING = ".staging"
MANIFESTS = ".manifests"
REMOVING = ".removing-"
FOREIGN = ".foreign-"

_ID_LENGTH = 16
_STAGING_NAME = re.compile(r"([0-9]+)-([0-9a-f]{16})")


def model_folder(models_dir: Path, model: str) -> Path:
    """Return a model's folder; raises InstallError for a name that would lead elsewhere."""
    if not model or model.startswith(".") or "/" in model or "\0" in model:
        raise InstallError(
            f"{model!r} cannot be the name of a model's folder; a name has no slash and does not"
            " begin with a dot",
            "BadModelName",
        )
    return models_dir / model


def version_folder(models_dir: Path, model: str, version: int) -> Path:
    """Return the folder of an installed version."""
    return model_folder(models_dir, model) / str(version)


def manifest_file(models_dir: Path, model: str, version: int) -> Path:
    """Return the manifest that belongs to an installed version."""
    return model_folder(models_dir, model) / MANIFESTS / f"{version}.json"


def staging_folder(models_dir: Path, model: str, version: int, digest: str) -> Path:
    """Return where the snapshot with this digest is gathered; other bytes, other folder."""
    home = model_folder(models_dir / STAGING, model)
    return home / f"{version}-{digest[:_ID_LENGTH]}"


def files_folder(staging: Path) -> Path:
    """Return the folder in a staging folder that becomes the version."""
    return staging / "files"


def linked_folder(staging: Path) -> Path:
    """Return where files are that other versions have, too; they are begun anew after a kill."""
    return staging / "linked"


def unpacked_folder(staging: Path) -> Path:
    """Return where an archive is unpacked to; what is in it after a kill is begun anew."""
    return staging / "unpacked"


def gathering_folder(staging: Path, snapshot: Snapshot) -> Path:
    """Return where a snapshot's files are downloaded to, just as they are stored."""
    return staging / "packed" if snapshot.archive else files_folder(staging)


def parse_staging_name(name: str) -> tuple[int, str] | None:
    """Return version and the beginning of the digest that a staging folder's name holds."""
    match = _STAGING_NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else None
