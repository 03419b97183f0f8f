"""Writes that survive a crash: temp file, fsync, rename, fsync of the folder.

A reader of any file written here sees the old text or the new one, never a part of either, and
after a power cut the new one is there once the call has returned.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.errors import SettingsError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace the file at `path` by `content` in one step that a crash cannot cut in half."""
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in the folder at `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(first: Path, second: Path) -> None:
    """Swap two names on one file system in one step, so that neither is ever missing.

    Linux's renameat2 with RENAME_EXCHANGE (renameat2(2)). Raises OSError as a rename does;
    file systems without it (some network ones) say EINVAL.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = libc.renameat2(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE
    )
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(first))


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """Hold the folder at `path` for this process alone, until the block or the process ends.

    Two agents on one folder would undo each other's work. Raises SettingsError when another
    process holds it, or when it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = (path / ".lock").open("w")
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be used ({error.strerror}); give the agent a folder that it may write"
            " to (RECONCILER_MODELS_DIR, RECONCILER_STATE_DIR)"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise SettingsError(
                f"{path} is in use by another reconciler; stop that one or give this one"
                " a folder of its own"
            ) from None
        yield
