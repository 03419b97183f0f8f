"""Writes that a crash cannot cut in half, and folders held by one process."""

import errno
import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import ReconcilerError, SettingsError
from reconciler.files import FOLDER_IN_USE, exchange, lock_folder, make_folder, write_atomically


@pytest.fixture
def private_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_a_file_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomically(path, b"one")
    with path.open("rb") as reader:
        write_atomically(path, b"two")
        assert reader.read() == b"one", "a reader keeps the old text whole"
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_two_folders_change_places(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "name").read_text() == "b"
    with pytest.raises(OSError, match="No such file"):
        exchange(tmp_path / "a", tmp_path / "c")


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    holder = rf"in use by another reconciler \(process {os.getpid()} on {socket.gethostname()}\);"
    for _ in range(2):
        with lock_folder(folder), pytest.raises(ReconcilerError, match=holder) as refusal:
            lock_folder(folder).__enter__()
        assert refusal.value.reason == FOLDER_IN_USE


def test_a_folder_on_a_full_disk_is_held_all_the_same(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, timeout=10).returncode != 0:
        pytest.skip("NOT TESTED: a lock on a full disk; mounting a small one needs root")
    try:
        (tmp_path / ".lock").touch()
        with (tmp_path / "all").open("wb", buffering=0) as file, pytest.raises(OSError, match="28"):
            while True:
                file.write(bytes(4096))
        with lock_folder(tmp_path), pytest.raises(ReconcilerError, match="in use by another"):
            lock_folder(tmp_path).__enter__()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=10)


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(SettingsError, match=r"cannot be locked \(No locks available\); give"):
        lock_folder(tmp_path).__enter__()


@pytest.mark.parametrize("text", [b"", b"\xff", b"\x1b[2J", b"process 1 on a" * 100])
def test_what_a_lock_file_says_is_shown_only_where_it_names_a_process(
    tmp_path: Path, text: bytes
) -> None:
    with lock_folder(tmp_path):
        (tmp_path / ".lock").write_bytes(text)
        with pytest.raises(ReconcilerError, match="by another reconciler; stop that one"):
            lock_folder(tmp_path).__enter__()


def test_modes_are_exact_whatever_the_umask(tmp_path: Path, private_umask: None) -> None:
    make_folder(tmp_path / "a" / "b" / "state", 0o700)
    write_atomically(tmp_path / "a" / "memory", b"")
    write_atomically(tmp_path / "a" / "models.config", b"", mode=0o644)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        "a": 0o755,
        "b": 0o755,
        "state": 0o700,
        "memory": 0o600,
        "models.config": 0o644,
    }


def test_the_mode_of_a_file_that_a_crash_left_half_written_does_not_last(tmp_path: Path) -> None:
    left = tmp_path / ".secret.tmp"
    left.write_bytes(b"half")
    left.chmod(0o666)
    write_atomically(tmp_path / "secret", b"whole", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o750)
    with lock_folder(tmp_path / "state", 0o700):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o750


def test_a_folder_that_cannot_be_made_is_a_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="give the agent a folder that it may write to"):
        lock_folder(tmp_path / "file" / "state").__enter__()
