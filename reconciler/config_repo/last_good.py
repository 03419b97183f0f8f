"""Remembers across restarts which text of each file was good last, by blob id.

The texts themselves are in the mirror, which keeps the whole history; should one be gone (a
rewritten history and a rebuilt mirror at once), its file has no last good text any more.

A text that was good by the schemas of this very program need not be held against them again when
the agent starts: of 1,500 files that takes as long as all else about them together.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from reconciler import __version__
from reconciler.config_repo.layout import Kind
from reconciler.files import write_atomically
from reconciler.resources import read_schema

log = logging.getLogger(__name__)

_MAX_BYTES = 64 * 1024 * 1024


class LastGood:
    """Path -> blob id of the last good text, kept in one file.

    `origin` says which repo and folder the paths are of: those of another mean nothing here.
    """

    def __init__(self, file: Path, origin: str) -> None:
        self._file = file
        self._origin = origin
        self._edition = _find_edition()
        self._blob_ids, self._edition_passed = self._load()
        self._is_saved = True

    @property
    def blob_ids(self) -> Mapping[str, str]:
        """What is remembered."""
        return self._blob_ids

    @property
    def passed(self) -> Mapping[str, str]:
        """What is remembered, as far as the schemas as they are now find nothing wrong with it."""
        return self._blob_ids if self._edition_passed == self._edition else {}

    def save(self, blob_ids: Mapping[str, str], *, has_passed: bool) -> None:
        """Remember `blob_ids` in place of all before; writes nothing when they are the same.

        `has_passed` says that all of them are good by the schemas as they are now.
        """
        edition = self._edition if has_passed else ""
        is_same = (blob_ids, edition) == (self._blob_ids, self._edition_passed)
        self._blob_ids, self._edition_passed = blob_ids, edition
        if is_same and self._is_saved:
            return
        content = {
            "origin": self._origin,
            "edition": edition,
            "good": dict(sorted(blob_ids.items())),
        }
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, json.dumps(content).encode())
        except OSError as error:
            # A full disk must not keep a commit from being followed; the next one tries again.
            self._is_saved = False
            log.warning("%s cannot be written (%s)", self._file, error.strerror)
        else:
            self._is_saved = True

    def _load(self) -> tuple[Mapping[str, str], str]:
        # A file that is not there or makes no sense is an empty memory, never a reason to stop.
        try:
            if self._file.stat().st_size > _MAX_BYTES:
                return {}, ""
            content = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}, ""
        if not isinstance(content, dict) or content.get("origin") != self._origin:
            return {}, ""
        good = content.get("good")
        if not isinstance(good, dict):
            return {}, ""
        blob_ids = {path: blob for path, blob in good.items() if isinstance(blob, str)}
        return blob_ids, str(content.get("edition", ""))


def _find_edition() -> str:
    """Return a text that is another one as soon as a text might be judged otherwise."""
    digest = hashlib.sha256(__version__.encode())
    for kind in Kind:
        digest.update(read_schema(kind))
    return digest.hexdigest()
