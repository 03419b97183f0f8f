"""Paths as TensorFlow's file systems take them: plain, or `file://`; nothing remote."""

import os
import re

from reconciler.serving.protocol.control_pb2 import Code
from reconciler.standin.errors import StatusError, from_os_error

_URI = re.compile(r"([a-zA-Z][0-9a-zA-Z.]*)://[^/]*(.*)", re.DOTALL)
_VERSION = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")


def is_relative(uri: str) -> bool:
    """Tell whether a base_path has neither a scheme nor a leading slash."""
    return not _URI.fullmatch(uri) and not uri.startswith("/")


def join(base: str, child: str) -> str:
    """Return the path of `child` in `base`, with one slash between them."""
    return base + child if base.endswith("/") else f"{base}/{child}"


def require(path: str) -> str:
    """Return the local path that `path` names; raises NOT_FOUND where nothing is there."""
    local = to_local(path)
    if not os.access(local, os.F_OK):
        raise StatusError(Code.NOT_FOUND, f"{path} not found")
    return local


def exists(path: str) -> bool:
    """Tell whether something is at `path`; a dangling link is nothing."""
    return os.access(to_local(path), os.F_OK)


def list_children(path: str) -> list[str]:
    """Return the names in a folder in byte order; raises what opening it would."""
    try:
        with os.scandir(to_local(path)) as entries:
            return sorted((entry.name for entry in entries), key=os.fsencode)
    except OSError as error:
        raise from_os_error(path, error) from None


def to_local(path: str) -> str:
    """Return the path without `file://`; raises UNIMPLEMENTED for any other scheme."""
    match = _URI.fullmatch(path)
    if match is None:
        return path
    if match[1] != "file":
        raise StatusError(
            Code.UNIMPLEMENTED, f"File system scheme '{match[1]}' not implemented (file: '{path}')"
        )
    return match[2]


def parse_version(name: str) -> int | None:
    """Return the version a folder's name stands for, None if it is no whole 64-bit number.

    Blanks around it and a sign are taken, as absl::SimpleAtoi does.
    """
    match = _VERSION.fullmatch(name)
    if match is None:
        return None
    version = int(match[1])
    return version if -(2**63) <= version < 2**63 else None
