"""Reads a secret from its file, each time anew, so that it can be rotated without a restart."""

import hmac
import logging
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

_log = logging.getLogger(__name__)

_MAX_SECRET_BYTES = 4096
NO_SECRET = f"missing, unreadable, empty or longer than {_MAX_SECRET_BYTES} bytes"
"""What a file is in which no secret was found; the log says which of these."""


def read_secret(file: Path) -> bytes:
    """Return what is in `file`, without the white space around it.

    Empty where the file is missing, unreadable, empty or too long to be a secret, as half a token
    must let nobody in: the caller then lets in nobody at all.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        _warn_once(file, str(error.strerror))
        return b""
    if len(content) > _MAX_SECRET_BYTES:
        _warn_once(file, f"it has more than {_MAX_SECRET_BYTES} bytes")
        return b""
    return content.strip()


def read_tokens(file: Path) -> tuple[bytes, ...]:
    """Return the tokens in `file`, one a line; none where it is missing, unreadable or empty.

    Each of them is let in, and the first is shown to others: so one can be put in another's place
    in turn on all nodes, without a moment in which they refuse each other.
    """
    lines = (line.strip() for line in read_secret(file).splitlines())
    return tuple(line for line in lines if line)


def is_among(given: bytes, tokens: Iterable[bytes]) -> bool:
    """Tell whether `given` is one of `tokens`, in a time that does not tell how nearly."""
    matches = [hmac.compare_digest(given, token) for token in tokens]
    return any(matches)


@lru_cache(maxsize=64)
def _warn_once(file: Path, why: str) -> None:
    """Say it once: whoever is refused asks again every second."""
    _log.warning("the secret in %s cannot be read: %s", file, why)
