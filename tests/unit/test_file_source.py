"""Models in a folder: what is listed, what is refused, what is read."""

import asyncio
import os
from pathlib import Path

import pytest

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Rule, Snapshot, VersionScheme
from reconciler.sources.file import FileSource
from reconciler.sources.source import SourceChangedError, read_range
from tests.bucket import WHOLE, write_files


def list_folder(folder: Path, version: int | None = None) -> Listing:
    return FileSource().list(Query(f"file://{folder}", version))


def read_file(snapshot: Snapshot, path: str, start: int, end: int) -> bytes:
    async def read() -> bytes:
        (file,) = (file for file in snapshot.files if file.path == path)
        return await read_range(FileSource(), snapshot, file, start, end)

    return asyncio.run(read())


def test_versions_and_files(tmp_path: Path) -> None:
    write_files(tmp_path / "models" / "41", WHOLE)
    write_files(tmp_path / "models" / "0042", WHOLE)
    write_files(tmp_path / "models" / "notes", WHOLE)
    (tmp_path / "models" / "43").touch()
    listing = list_folder(tmp_path / "models")
    assert {v: s.folder for v, s in listing.snapshots.items()} == {41: "41", 42: "0042"}
    sizes = {file.path: file.size_bytes for file in listing.snapshots[42].files}
    assert sizes == {path: len(content) for path, content in WHOLE.items()}
    assert set(list_folder(tmp_path / "models", 42).snapshots) == {42}
    assert list_folder(tmp_path / "models", 44).snapshots == {}


def test_a_copy_that_keeps_the_old_times_counts_as_new(tmp_path: Path) -> None:
    write_files(tmp_path / "1", WHOLE)
    for path in (tmp_path / "1").rglob("*"):
        os.utime(path, (1, 1))
    listing = list_folder(tmp_path)
    assert listing.snapshots[1].newest_seconds > 1_000_000
    assert listing.snapshots[1].files[0].generation == 1_000_000_000


def test_links_and_pipes_refuse_their_version_alone(tmp_path: Path) -> None:
    for version in ("1", "2", "3", "4"):
        write_files(tmp_path / version, WHOLE)
    (tmp_path / "2/link").symlink_to("/etc/passwd")
    (tmp_path / "3/assets/folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "4/pipe")
    listing = list_folder(tmp_path)
    assert set(listing.snapshots) == {1}
    assert set(listing.refused) == {2, 3, 4}
    assert "symbolic link" in listing.refused[2]


def test_archives_beside_each_other_are_versions(tmp_path: Path) -> None:
    write_files(tmp_path, {"41.zip": b"an archive", "42.tar.gz": b"another", "latest.zip": b""})
    (tmp_path / "43.zip").symlink_to(tmp_path / "41.zip")
    (tmp_path / "44.zip").mkdir()
    listing = list_folder(tmp_path)
    assert {version: s.archive for version, s in listing.snapshots.items()} == {
        41: "41.zip",
        42: "42.tar.gz",
    }
    assert "symbolic link" in listing.refused[43]
    assert set(list_folder(tmp_path, 42).snapshots) == {42}
    assert read_file(listing.snapshots[41], "41.zip", 3, 10) == b"archive"


def test_a_name_that_is_not_text_refuses_its_version(tmp_path: Path) -> None:
    write_files(tmp_path / "1", WHOLE)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/1/\xff")).touch()
    listing = list_folder(tmp_path)
    assert listing.refused[1].isprintable()


def test_a_missing_folder_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist") as raised:
        list_folder(tmp_path / "absent")
    assert raised.value.reason == "FolderNotFound"
    assert list_folder(tmp_path).snapshots == {}


def test_a_range_is_read(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    write_files(tmp_path / "1", {"saved_model.pb": content})
    snapshot = list_folder(tmp_path).snapshots[1]
    assert read_file(snapshot, "saved_model.pb", 5, 2_000_000) == content[5:2_000_000]


@pytest.mark.parametrize("change", ["rewritten", "deleted", "made a link"])
def test_a_file_that_changed_after_the_listing_is_not_read(tmp_path: Path, change: str) -> None:
    write_files(tmp_path / "1", WHOLE)
    snapshot = list_folder(tmp_path).snapshots[1]
    path = tmp_path / "1/saved_model.pb"
    if change == "rewritten":
        path.write_bytes(b"A graph")
        os.utime(path, (1, 1))
    else:
        path.unlink()
        if change == "made a link":
            path.symlink_to(tmp_path / "1/assets/empty")
    expected = SourceChangedError if change != "made a link" else SourceError
    with pytest.raises(expected):
        read_file(snapshot, "saved_model.pb", 0, 7)


def test_a_folder_with_a_blank_in_its_url(tmp_path: Path) -> None:
    write_files(tmp_path / "my models" / "1", WHOLE)
    listing = FileSource().list(Query(f"file://{tmp_path}/my%20models"))
    assert set(listing.snapshots) == {1}


def test_a_pin_by_name_walks_only_its_own_folder(tmp_path: Path) -> None:
    for name in ("1.9.0", "1.9.00", "19.0.0", "9"):
        write_files(tmp_path / name, WHOLE)
    (tmp_path / "1.9.0.zip.part").touch()
    scheme = VersionScheme(Rule.SEMVER)
    version = scheme.parse("1.9.0")
    listing = FileSource().list(Query(f"file://{tmp_path}", version, scheme))
    assert [each.folder for each in listing.snapshots.values()] == ["1.9.0"]
    everything = FileSource().list(Query(f"file://{tmp_path}", scheme=scheme))
    assert {each.folder for each in everything.snapshots.values()} == {"1.9.0", "19.0.0"}
