"""A small file system to fill and to make read-only, where this is root's machine to mount on."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "96m"
_BLOCK = bytes(64 * 1024)


class SmallDisk:
    """A tmpfs of its own below `folder`; nothing of it is there where it cannot be mounted."""

    def __init__(self, folder: Path, *, is_mounted: bool) -> None:
        self.folder = folder
        self.is_mounted = is_mounted
        self._ballast = folder / "ballast.log"
        self._read_only: Path | None = None

    def fill(self) -> None:
        """Leave not a byte free."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        block = _BLOCK
        try:
            while block:
                try:
                    os.write(descriptor, block)
                except OSError:
                    block = block[: len(block) // 2]
        finally:
            os.close(descriptor)

    def forbid(self, folder: Path) -> None:
        """Let whoever opens a path below `folder` from now on find it read-only."""
        if self._read_only is None and _mount("--bind", str(folder), str(folder)):
            self._read_only = folder
            _mount("-o", "remount,ro,bind", str(folder))

    def heal(self) -> None:
        """Give the room back, and let everything be written again."""
        self._ballast.unlink(missing_ok=True)
        if self._read_only is not None:
            _unmount(self._read_only)
            self._read_only = None


@contextmanager
def mount_small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount one at `folder` during the block, if that can be had."""
    folder.mkdir(parents=True)
    is_mounted = os.geteuid() == 0 and _mount(
        "-t", "tmpfs", "-o", f"size={_SIZE}", "t", str(folder)
    )
    disk = SmallDisk(folder, is_mounted=is_mounted)
    try:
        yield disk
    finally:
        if is_mounted:
            disk.heal()
            _unmount(folder)


def _mount(*arguments: str) -> bool:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, timeout=20, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)
