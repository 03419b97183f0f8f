"""Writes that survive a crash: temp file, fsync, rename, fsync of the folder.

A reader of any file written here sees the old text or the new one, never a part of either, and
after a power cut the new one is there once the call has returned.
"""

import ctypes
import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from reconciler.errors import ReconcilerError, SettingsError

FOLDER_IN_USE = "FolderInUse"
"""Another process holds a folder that must be one's alone."""

_PRIVATE_UMASK = 0o077
_HOLDER = re.compile(r"process [0-9]+ on \S{1,255}")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2
_SYNCED_AS_A_WHOLE = (0xEF53, 0x58465342, 0x9123683E, 0x01021994)
"""ext4, XFS, Btrfs and tmpfs (linux/magic.h)."""
_SYNCFS_TELLS = (5, 8)
"""The first Linux whose syncfs(2) says that what was written could not be brought to the disk."""


def be_private() -> None:
    """Let all that this process makes be its user's alone, where no mode is named."""
    os.umask(_PRIVATE_UMASK)


def make_folder(path: Path, mode: int) -> None:
    """Make the folder at `path` with exactly `mode`; one that is there stays as it is.

    Missing folders above it are made for everybody to pass: a private umask must not keep the
    model server out of a models folder. Raises OSError.
    """
    if path.is_dir():
        return
    make_folder(path.parent, 0o755)
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def write_atomically(path: Path, content: bytes, mode: int | None = None) -> None:
    """Replace the file at `path` by `content` in one step that a crash cannot cut in half.

    Its mode is exactly `mode`, else what the umask leaves of 0644.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    descriptor = os.open(temporary, flags, 0o644 if mode is None else mode)
    with os.fdopen(descriptor, "wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
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


def sync_file_system(path: Path) -> bool:
    """Bring all that was written to the file system of `path` to its disk, if that is to be had.

    Linux's syncfs(2). False, and nothing done, for kinds of which it is not known to be as good as
    an fsync of every file: through FUSE, for one, it may stop half way, and a kernel of old keeps
    a failure to itself. Raises OSError as fsync.
    """
    if not _is_release_since(_SYNCFS_TELLS):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    # struct statfs begins with the kind, a word; it is nowhere longer than this.
    status = (ctypes.c_long * 64)()
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.fstatfs(descriptor, status) != 0 or status[0] not in _SYNCED_AS_A_WHOLE:
            return False
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
    return True


def _is_release_since(first: tuple[int, int]) -> bool:
    numbers = re.match(r"([0-9]+)\.([0-9]+)", os.uname().release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= first


def start_writing(descriptor: int, start: int, count_bytes: int) -> None:
    """Have the kernel begin to bring a range of a file to the disk, and do not wait for it.

    Linux's sync_file_range(2) with SYNC_FILE_RANGE_WRITE. It promises nothing, fsync still has to
    be called and then finds less to do; so where it is not to be had nothing happens.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "sync_file_range"):
        offset, count = ctypes.c_int64(start), ctypes.c_int64(count_bytes)
        libc.sync_file_range(descriptor, offset, count, _SYNC_FILE_RANGE_WRITE)


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
def lock_folder(path: Path, mode: int = 0o755) -> Iterator[None]:
    """Hold the folder at `path` for this process alone, until the block or the process ends.

    Two agents on one folder would undo each other's work. The lock is the kernel's (flock), which
    lets go of it however the process ends; the file's text is for people alone. A folder that is
    missing is made with `mode`. Raises ReconcilerError (FOLDER_IN_USE) when another process holds
    it, SettingsError when it cannot be made, opened or locked.
    """
    try:
        make_folder(path, mode)
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be used ({error.strerror}); give the agent a folder that it may write"
            " to (RECONCILER_MODELS_DIR, RECONCILER_STATE_DIR)"
        ) from None
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise SettingsError(
                    f"{path} cannot be locked ({error.strerror}); give the agent a folder on a file"
                    " system that has locks, as a local disk and NFSv4 have"
                ) from None
            raise ReconcilerError(
                f"{path} is in use by another reconciler{_name_holder(file)}; stop that one or"
                " give this one a folder of its own",
                FOLDER_IN_USE,
            ) from None
        with suppress(OSError):  # on a full disk, which the agent is needed to make room on
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def _name_holder(file: TextIO) -> str:
    try:
        text = file.read(300).strip()
    except UnicodeDecodeError:
        return ""
    return f" ({text})" if _HOLDER.fullmatch(text) else ""
