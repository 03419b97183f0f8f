"""The manifest of an installed version: what it must consist of, for as long as it is there.

It is what tells a version that this reconciler put there from a folder that someone copied in,
and what the files are held against at every start.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from reconciler.files import write_atomically
from reconciler.model import StoredFile

_MAX_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was installed, from where and when; every file has its crc32c."""

    source: str
    digest: str
    installed_at_seconds: float
    files: tuple[StoredFile, ...]
    name: str | None = None
    """What the version was called in git and in its source; None where that was its number."""

    @property
    def size_bytes(self) -> int:
        """Sum of all files."""
        return sum(file.size_bytes for file in self.files)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Put a manifest in place, making the folder for it."""
    path.parent.mkdir(exist_ok=True)
    values = _list_fields(manifest)
    if manifest.name is None:
        del values["name"]  # an agent of an older release can read it, should this one be undone
    # On one line, as json indents in Python: for thousands of files that is a tenth of a sync.
    write_atomically(path, json.dumps(values, default=_list_fields).encode())


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest at `path`; None when there is none that can be read.

    A torn or foreign file counts as none: its version is then not vouched for, and is checked
    byte by byte against the source before it is used.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        loaded = json.loads(path.read_bytes())
        files = tuple(StoredFile(**file) for file in loaded.pop("files"))
        return Manifest(**loaded, files=files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _list_fields(record: Manifest | StoredFile) -> dict[str, object]:
    return {field.name: getattr(record, field.name) for field in fields(record)}
