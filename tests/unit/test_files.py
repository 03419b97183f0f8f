"""Writes that a crash cannot cut in half, and folders held by one process."""

from pathlib import Path

import pytest

from reconciler.errors import SettingsError
from reconciler.files import exchange, lock_folder, write_atomically


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
    with lock_folder(folder), pytest.raises(SettingsError, match="in use by another reconciler"):
        lock_folder(folder).__enter__()
    with lock_folder(folder):
        assert folder.is_dir()


def test_a_folder_that_cannot_be_made_is_a_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="give the agent a folder that it may write to"):
        lock_folder(tmp_path / "file" / "state").__enter__()
