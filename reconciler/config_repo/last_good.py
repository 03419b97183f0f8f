"""Remembers across restarts which text of each file was good last, by blob id.

The texts themselves are in the mirror, which keeps the whole history; should one be gone (a
rewritten history and a rebuilt mirror at once), its file has no last good text any more.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from reconciler.files import write_atomically

log = logging.getLogger(__name__)

_MAX_BYTES = 64 * 1024 * 1024


class LastGood:
    """Path -> blob id of the last good text, kept in one file.

    `origin` says which repo and folder the paths are of: those of another mean nothing here.
    """

    def __init__(self, file: Path, origin: str) -> None:
        self._file = file
        self._origin = origin
        self._blob_ids = self._load()
        self._is_saved = True

    @property
    def blob_ids(self) -> Mapping[str, str]:
        """What is remembered."""
        return self._blob_ids

    def save(self, blob_ids: Mapping[str, str]) -> None:
        """Remember `blob_ids` in place of all before; writes nothing when they are the same."""
        if blob_ids == self._blob_ids and self._is_saved:
            return
        self._blob_ids = dict(blob_ids)
        content = {"origin": self._origin, "good": dict(sorted(blob_ids.items()))}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._file, json.dumps(content).encode())
        except OSError as error:
            # A full disk must not keep a commit from being followed; the next one tries again.
            self._is_saved = False
            log.warning("%s cannot be written (%s)", self._file, error.strerror)
        else:
            self._is_saved = True

    def _load(self) -> dict[str, str]:
        # A file that is not there or makes no sense is an empty memory, never a reason to stop.
        try:
            if self._file.stat().st_size > _MAX_BYTES:
                return {}
            content = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict) or content.get("origin") != self._origin:
            return {}
        good = content.get("good")
        if not isinstance(good, dict):
            return {}
        return {path: blob for path, blob in good.items() if isinstance(blob, str)}
