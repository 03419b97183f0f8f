"""Reads a secret from its file, each time anew, so that it can be rotated without a restart."""

import logging
from pathlib import Path

_log = logging.getLogger(__name__)

_MAX_SECRET_BYTES = 4096


def read_secret(file: Path) -> bytes:
    """Return what is in `file`, without the white space around it.

    Empty where the file is missing, unreadable or empty: the caller then lets nobody in.
    """
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_SECRET_BYTES).strip()
    except OSError as error:
        _log.warning("the secret in %s cannot be read: %s", file, error.strerror)
        return b""
