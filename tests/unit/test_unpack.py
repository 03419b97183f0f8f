"""Packed versions: what is installed of an honest archive, and what is refused of any other."""

import asyncio
import gzip
import hashlib
import io
import shutil
import stat
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import DownloadError, InstallError
from reconciler.model import LocalVersion, Progress, Query, Snapshot
from reconciler.planning import versions
from reconciler.sources.file import FileSource
from reconciler.sources.sums import read_sums, render_sums
from reconciler.store import unpack
from reconciler.store.collect import clear_leftovers
from reconciler.store.lanes import Lanes, Patience
from reconciler.store.room import Claim, Room
from reconciler.store.store import Store
from reconciler.store.unpack import Unpacking
from tests.archives import (
    PACKINGS,
    Packing,
    encrypt,
    list_endlessly,
    make_member,
    pack,
    pack_tar,
    pack_zip,
)
from tests.bucket import WHOLE, read_files, write_files
from tests.crashes import die_before_step


@dataclass
class World:
    """A source folder and a models folder."""

    folder: Path
    progress: list[Progress] = field(default_factory=list)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def source(self) -> Path:
        return self.folder / "source"

    def publish(self, name: str, archive: bytes) -> Snapshot:
        """Put an archive into the source as version 42."""
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive)
        return self.list()

    def list(self) -> Snapshot:
        return FileSource().list(Query(f"file://{self.source}")).snapshots[42]

    def fetch(
        self,
        snapshot: Snapshot,
        sha256: Mapping[str, str] | None = None,
        most_bytes: int | None = None,
    ) -> LocalVersion:
        async def run() -> LocalVersion:
            store = Store(self.models)
            try:
                advance = self.progress.append
                return await store.fetch(
                    "ranker",
                    snapshot,
                    FileSource(),
                    advance,
                    sha256=sha256,
                    most_bytes=most_bytes,
                )
            finally:
                store.close()

        return asyncio.run(run())

    def verify(self) -> bool:
        async def run() -> bool:
            store = Store(self.models)
            try:
                return await store.verify("ranker", 42)
            finally:
                store.close()

        return asyncio.run(run())

    @property
    def installed(self) -> dict[str, bytes]:
        return read_files(self.models / "ranker" / "42")

    @property
    def staged(self) -> dict[str, bytes]:
        return read_files(self.models / ".staging")


class Disk(Room):
    """A disk of its own size, of which as much is free as the files in `folder` leave."""

    def __init__(self, folder: Path, lanes: Lanes, size_bytes: int = 2**40) -> None:
        super().__init__(folder, lanes)
        self._folder, self._size_bytes = folder, size_bytes

    @property
    def used_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def _ask_disk(self) -> int:
        return self._size_bytes - self.used_bytes


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


FINDERS = ("__MACOSX/._export", "__MACOSX/export/._saved_model.pb", ".DS_Store", "export/.DS_Store")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("within", ["", "export/"])
@pytest.mark.parametrize("content", [b"\0\5\x16\7", bytes(100_000)], ids=["small", "large"])
def test_what_finder_puts_beside_a_model_is_left_out(
    world: World, packing: Packing, within: str, content: bytes
) -> None:
    files = {within + path: data for path, data in WHOLE.items()}
    archive = pack({**dict.fromkeys(FINDERS, content), **files}, packing)
    world.fetch(world.publish(f"42.{packing}", archive))
    assert world.installed == WHOLE


@pytest.mark.parametrize(
    "name",
    [
        "__macosx/a",
        "__MACOSX",
        "__MACOSX.txt",
        "._export",
        "Thumbs.db",
        ".DS_Store/a",
        "DS_Store",
        ".ds_store",
    ],
)
def test_nothing_that_only_looks_like_it_is_left_out(world: World, name: str) -> None:
    snapshot = world.publish("42.zip", pack({**WHOLE, name: b"1"}, "zip"))
    world.fetch(snapshot)
    assert world.installed == {**WHOLE, name: b"1"}
    # Nor does it make two folders one.
    shutil.rmtree(world.models)
    within = {f"export/{path}": data for path, data in WHOLE.items()}
    with pytest.raises(InstallError, match="neither at its top nor within one single folder"):
        world.fetch(world.publish("42.zip", pack({**within, name: b"1"}, "zip")))


@pytest.mark.parametrize("name", ["__MACOSX/../../a", "__MACOSX//a", "../.DS_Store", "/.DS_Store"])
def test_a_name_that_leads_elsewhere_is_refused_under_finders_too(world: World, name: str) -> None:
    with pytest.raises(InstallError) as caught:
        world.fetch(world.publish("42.zip", pack({**WHOLE, name: b"1"}, "zip")))
    assert caught.value.reason == "BadArchive"
    assert not (world.models / "ranker" / "42").exists()


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("within", ["", "./", "export/", "./export/"])
@pytest.mark.parametrize("place", ["42.{}", "42/model.{}"], ids=["beside", "in a folder"])
def test_an_archive_becomes_the_files_in_it(
    world: World, packing: Packing, within: str, place: str
) -> None:
    snapshot = world.publish(place.format(packing), pack(WHOLE, packing, within))
    answer = world.fetch(snapshot)
    assert world.installed == WHOLE
    size_bytes = sum(map(len, WHOLE.values()))
    assert answer == LocalVersion("ranker", 42, size_bytes, snapshot.digest)
    store = Store(world.models)
    assert store.read_inventory().versions == {"ranker": {42: answer}}
    store.close()
    assert world.verify()
    assert world.staged == {}
    assert world.progress[-1] == Progress(snapshot.size_bytes, snapshot.size_bytes)
    for path in (world.models / "ranker").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_what_is_installed_is_neither_fetched_nor_unpacked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = world.publish("42.zip", pack(WHOLE, "zip"))
    first = world.fetch(snapshot)
    monkeypatch.setattr(FileSource, "read", None)
    assert world.fetch(snapshot) == first


def test_a_broken_file_of_a_packed_version_is_found_and_mended(world: World) -> None:
    snapshot = world.publish("42.zip", pack(WHOLE, "zip"))
    world.fetch(snapshot)
    (world.models / "ranker/42/saved_model.pb").write_bytes(b"A graph")
    assert not world.verify()
    world.fetch(snapshot)
    assert world.installed == WHOLE


def test_a_folder_that_someone_put_there_is_kept_aside(world: World) -> None:
    write_files(world.models / "ranker" / "42", WHOLE)
    world.fetch(world.publish("42.zip", pack({**WHOLE, "more": b"more"}, "zip")))
    assert world.installed == {**WHOLE, "more": b"more"}
    (aside,) = (world.models / "ranker").glob(".foreign-42-*")
    assert read_files(aside) == WHOLE


def test_tools_leave_folders_and_a_comment_in_archives(world: World) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", pax_headers={"comment": "of no use"}) as archive:
        for name in (".", "./assets", "./assets", "./empty"):
            archive.addfile(make_member(name, kind=tarfile.DIRTYPE)[0])
        for name, content in WHOLE.items():
            member, _ = make_member(f"./{name}", content)
            archive.addfile(member, io.BytesIO(content))
    world.fetch(world.publish("42.tar.gz", buffer.getvalue()))
    assert world.installed == WHOLE
    assert not (world.models / "ranker/42/empty").exists()


def test_an_archive_in_the_archive_stays_one(world: World) -> None:
    nested = {**WHOLE, "assets/more.tar.gz": pack(WHOLE, "tar.gz"), "more.zip": pack(WHOLE, "zip")}
    world.fetch(world.publish("42/model.tar", pack(nested, "tar")))
    assert world.installed == nested


def test_a_lock_is_about_the_archive_and_not_about_what_is_in_it(world: World) -> None:
    archive = pack(WHOLE, "zip")
    sums = {"model.zip": hashlib.sha256(archive).hexdigest()}
    write_files(world.source / "42", {"SHA256SUMS": render_sums(sums)})
    snapshot = world.publish("42/model.zip", archive)
    locked = asyncio.run(read_sums(FileSource(), snapshot))
    assert set(locked) == {"model.zip", "SHA256SUMS"}
    with pytest.raises(InstallError) as raised:
        world.fetch(snapshot, {**locked, "model.zip": "0" * 64})
    assert raised.value.reason == "LockMismatch"
    assert not (world.models / "ranker").exists()
    assert world.staged == {}
    world.fetch(snapshot, locked)
    assert world.installed == WHOLE


# --- refused ----------------------------------------------------------------------------------


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return pack_tar([make_member("saved_model.pb", b"a graph"), *members])


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    return pack_zip([("saved_model.pb", b"a graph"), *entries])


def unix_entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def sparse_tar() -> bytes:
    """A file of 1 TiB in two blocks."""
    member, _ = make_member("hole", kind=tarfile.GNUTYPE_SPARSE)
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 2**33
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(2 * tarfile.BLOCKSIZE)


def endless_header() -> bytes:
    """A header that says of itself that it has 4 GiB, and goes on for long."""
    member, _ = make_member("././@PaxHeader", kind=tarfile.XHDTYPE)
    member.size = 2**32
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(2**24))


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "tar: absolute": ("42.tar", tar_of(make_member("/etc/passwd")), "absolute path"),
    "tar: absolute behind ./": ("42.tar", tar_of(make_member(".//etc")), "absolute path"),
    "tar: parent": ("42.tar", tar_of(make_member("../../x")), "points elsewhere"),
    "tar: parent within": ("42.tar", tar_of(make_member("a/../../x")), "points elsewhere"),
    "tar: parent folder": ("42.tar", tar_of(make_member("..", kind=tarfile.DIRTYPE)), "elsewhere"),
    "tar: symbolic link": (
        "42.tar",
        tar_of(make_member("a", kind=tarfile.SYMTYPE, target="/etc/passwd")),
        "'a' is a link",
    ),
    "tar: link within": (
        "42.tar",
        tar_of(make_member("a", kind=tarfile.SYMTYPE, target="saved_model.pb")),
        "'a' is a link",
    ),
    "tar: hard link": (
        "42.tar",
        tar_of(make_member("a", kind=tarfile.LNKTYPE, target="saved_model.pb")),
        "'a' is a link",
    ),
    "tar: device": ("42.tar", tar_of(make_member("a", kind=tarfile.CHRTYPE)), "a device"),
    "tar: pipe": ("42.tar", tar_of(make_member("a", kind=tarfile.FIFOTYPE)), "a pipe"),
    "tar: unknown kind": ("42.tar", tar_of(make_member("a", kind=b"Z")), "'a' is a link, a device"),
    "tar: sparse": ("42.tar", sparse_tar(), "a sparse file"),
    "tar: one name twice": ("42.tar", tar_of(make_member("saved_model.pb")), "there twice"),
    "tar: one name in two cases": ("42.tar", tar_of(make_member("Saved_Model.pb")), "the case of"),
    "tar: a file as a folder": ("42.tar", tar_of(make_member("saved_model.pb/a")), "both a file"),
    "tar: a control character": ("42.tar", tar_of(make_member("a\nb")), "control character"),
    "tar: no text": ("42.tar", tar_of(make_member("a\udcff")), "control character"),
    "tar: too long": ("42.tar", tar_of(make_member("x" * 300)), "too long for a file system"),
    "tar: too deep": ("42.tar", tar_of(make_member("a/" * 32 + "a")), "lies too deep"),
    "tar: a header that never ends": ("42.tgz", endless_header(), "longer than any name needs"),
    "tar: not compressed": ("42.tar.gz", tar_of(), "cut off or damaged"),
    "tar: compressed": ("42.tar", gzip.compress(tar_of()), "cut off or damaged"),
    "tar: goes on after its end": ("42.tgz", gzip.compress(tar_of() + bytes(2**25)), "goes on"),
    "tar: parts without content": ("42.tgz", gzip.compress(b"") * 50_000, "without content"),
    "tar: nothing": ("42.tar", b"", "cut off or damaged"),
    "zip: absolute": ("42.zip", zip_of(("/etc/passwd", b"")), "absolute path"),
    "zip: parent": ("42.zip", zip_of(("../x", b"")), "points elsewhere"),
    "zip: backslash": ("42.zip", zip_of(("..\\x", b"")), "backslash"),
    "zip: a zero byte": ("42.zip", zip_of(("xyz", b"")).replace(b"xyz", b"x\0z"), "control char"),
    "zip: link": ("42.zip", zip_of((unix_entry("a", stat.S_IFLNK | 0o777), b"/etc")), "is a link"),
    "zip: pipe": ("42.zip", zip_of((unix_entry("a", stat.S_IFIFO | 0o777), b"")), "a pipe"),
    "zip: one name twice": ("42.zip", zip_of(("saved_model.pb", b"")), "there twice"),
    "zip: encrypted": ("42.zip", encrypt(zip_of()), "is encrypted"),
    "zip: uncommon": ("42.zip", pack_zip([("a", b"a")], zipfile.ZIP_BZIP2), "uncommon way"),
    "zip: an endless list": ("42.zip", list_endlessly(200_000), "list of entries is longer"),
    "zip: nothing": ("42.zip", b"", "cut off or damaged"),
    "zip: a tar": ("42.zip", tar_of(), "cut off or damaged"),
    "zip: other bytes": (
        "42.zip",
        pack_zip([("saved_model.pb", b"a graph")], zipfile.ZIP_STORED).replace(b"grap", b"grab"),
        "Bad CRC-32",
    ),
}


@pytest.mark.parametrize(("name", "archive", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(world: World, name: str, archive: bytes, words: str) -> None:
    snapshot = world.publish(name, archive)
    with pytest.raises(InstallError) as raised:
        world.fetch(snapshot)
    assert raised.value.reason == "BadArchive"
    sentence = str(raised.value)
    assert words in sentence
    assert sentence.isprintable()
    assert sentence.startswith(f"ranker 42 is not installed: file://{world.source}/{name} is")
    assert sentence.endswith("publish it again under a new number")
    check_that_nothing_came(world)


def check_that_nothing_came(world: World) -> None:
    """Nothing is installed, nothing is left in staging, nothing lies anywhere else."""
    assert world.staged == {}
    assert not (world.models / "ranker").exists()
    assert {path.name for path in world.folder.iterdir()} == {"models", "source"}
    assert {path.name for path in world.models.iterdir()} <= {".staging"}


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_archive_that_is_cut_off_anywhere_is_refused(world: World, packing: Packing) -> None:
    archive = pack({**WHOLE, "assets/empty": b"", "z": b"z" * 600}, packing)
    end = archive.rstrip(b"\0") if packing == "tar" else archive
    # What follows the first empty block of a tar is only there to fill up.
    last = -(-len(end) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE if packing == "tar" else len(end)
    for size in {*range(0, last, last // 20), *range(last - 20, last)}:
        snapshot = world.publish(f"42.{packing}", archive[:size])
        with pytest.raises(InstallError, match="cut off or damaged"):
            world.fetch(snapshot)
        check_that_nothing_came(world)


@pytest.mark.parametrize(
    ("files", "tops"),
    [
        ({"export/v1/saved_model.pb": b"a graph"}, "at its top are 'export';"),
        ({"a/saved_model.pb": b"a graph", "b/words": b""}, "at its top are 'a', 'b';"),
        ({"model.tar.gz": b"nested"}, "at its top are 'model.tar.gz';"),
        (dict.fromkeys("abcde", b""), "'a', 'b', 'c' and 2 more;"),
        ({}, "at its top are nothing;"),
    ],
    ids=["too deep", "two folders", "nested", "many", "empty"],
)
@pytest.mark.parametrize("packing", ["tar.gz", "zip"])
def test_an_archive_without_a_savedmodel_is_refused(
    world: World, packing: Packing, files: dict[str, bytes], tops: str
) -> None:
    with pytest.raises(InstallError) as raised:
        world.fetch(world.publish(f"42.{packing}", pack(files, packing)))
    assert raised.value.reason == "Incomplete"
    assert tops in str(raised.value)
    check_that_nothing_came(world)


def test_a_savedmodel_that_lacks_a_part_is_refused(world: World) -> None:
    files = {"export/saved_model.pb": b"a graph", "export/variables/variables.index": b"an index"}
    with pytest.raises(InstallError, match=r"lacks variables/variables\.data-00000") as raised:
        world.fetch(world.publish("42.zip", pack(files, "zip")))
    assert raised.value.reason == "Incomplete"
    check_that_nothing_came(world)


# --- too much ---------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["tar.gz", "zip"])
def test_a_bomb_is_refused(world: World, packing: Packing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "SMALL_BYTES", 1024 * 1024)
    archive = pack({**WHOLE, "zeros": bytes(16 * 1024 * 1024)}, packing)
    with pytest.raises(InstallError, match=r"unpack to more than \d+.* MB") as raised:
        world.fetch(world.publish(f"42.{packing}", archive))
    assert raised.value.reason == "BadArchive"
    check_that_nothing_came(world)


@pytest.mark.parametrize("packing", ["tar.gz", "zip"])
def test_a_bomb_among_what_is_left_out_is_refused(
    world: World, packing: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "SMALL_BYTES", 1024 * 1024)
    archive = pack({**WHOLE, "__MACOSX/zeros": bytes(16 * 1024 * 1024)}, packing)
    with pytest.raises(InstallError, match=r"unpack to more than \d+.* MB"):
        world.fetch(world.publish(f"42.{packing}", archive))
    check_that_nothing_came(world)


def test_a_bomb_that_lies_about_its_size_is_refused_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "SMALL_BYTES", 1024 * 1024)
    zeros = bytes(16 * 1024 * 1024)
    archive = pack_zip([("saved_model.pb", zeros)])
    lie = archive.replace(len(zeros).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    with pytest.raises(InstallError) as raised:
        world.fetch(world.publish("42.zip", lie))
    assert raised.value.reason == "BadArchive"
    check_that_nothing_came(world)


@pytest.mark.parametrize("packing", ["tar.gz", "zip"])
def test_a_small_model_of_zeros_is_no_bomb(world: World, packing: Packing) -> None:
    files = {**WHOLE, "zeros": bytes(4 * 1024 * 1024)}
    archive = pack(files, packing)
    assert len(archive) * unpack.MAX_RATIO < len(files["zeros"])
    world.fetch(world.publish(f"42.{packing}", archive))
    assert world.installed == files


def test_ten_million_entries_are_not_even_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "MAX_FILES", 1000)
    header = make_member("./a", kind=tarfile.DIRTYPE)[0].tobuf()
    thousands = gzip.compress(header * 10_000)
    monkeypatch.setattr(unpack, "_STEP_ENTRIES", 1)
    with pytest.raises(InstallError, match="more than the 1,000 entries") as raised:
        world.fetch(world.publish("42.tar.gz", thousands * 1000))
    assert raised.value.reason == "BadArchive"
    check_that_nothing_came(world)


def test_folders_that_files_bring_with_them_count_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 100,000 entries may name a path of its own, and each part of it is a folder."""
    monkeypatch.setattr(versions, "MAX_FILES", 1000)
    deep = {f"{number}/" + "a/" * 29 + "a": b"" for number in range(50)}
    with pytest.raises(InstallError, match="more than the 1,000 files and folders") as raised:
        world.fetch(world.publish("42.tar.gz", pack(deep, "tar.gz")))
    assert raised.value.reason == "BadArchive"
    check_that_nothing_came(world)


async def test_what_says_that_it_is_too_large_is_not_begun(world: World) -> None:
    snapshot = world.publish("42.zip", pack({**WHOLE, "zeros": bytes(1024 * 1024)}, "zip"))
    claim, folder, lanes = Claim(0), world.folder / "unpacked", Lanes(1, Patience())
    archive, disk = world.source / "42.zip", Disk(world.folder / "unpacked", lanes, 1024 * 1024)
    unpacking = Unpacking("ranker", snapshot, archive, folder, disk, claim)
    with pytest.raises(DownloadError, match=r"unpacks to 1\.1 MB or more and 1\.0 MB are free"):
        await unpacking.run(lanes)
    lanes.close()
    assert list(folder.iterdir()) == []
    assert claim.taken_bytes == 0


async def test_archives_that_are_unpacked_at_once_do_not_fill_the_disk_together(
    world: World,
) -> None:
    mib = 1024 * 1024
    snapshot = world.publish("42.tar.gz", pack({**WHOLE, "zeros": bytes(16 * mib)}, "tar.gz"))
    lanes, archive, folder = Lanes(2, Patience()), world.source / "42.tar.gz", world.folder / "all"
    disk = Disk(folder, lanes, 18 * mib)
    answers = await asyncio.gather(
        *(
            Unpacking("ranker", snapshot, archive, folder / name, disk, Claim(0)).run(lanes)
            for name in "ab"
        ),
        return_exceptions=True,
    )
    lanes.close()
    refused = [answer for answer in answers if isinstance(answer, DownloadError)]
    assert [error.reason for error in refused] in (["DiskFull"], ["DiskFull"] * 2)
    assert disk.used_bytes <= (18 + 4 + 4) * mib, "each may be a step ahead of what was measured"


def test_what_the_quota_leaves_no_room_for_is_not_installed(world: World) -> None:
    files = {**WHOLE, "zeros": bytes(1024 * 1024)}
    snapshot = world.publish("42.tar.gz", pack(files, "tar.gz"))
    with pytest.raises(DownloadError, match=r"quota leaves it 500\.0 kB; its archive") as raised:
        world.fetch(snapshot, most_bytes=500_000)
    assert raised.value.reason == "GroupQuotaExceeded"
    assert not (world.models / "ranker").exists()
    assert {Path(name).name for name in world.staged} == {"42.tar.gz", "journal"}
    world.fetch(snapshot, most_bytes=2_000_000)
    assert world.installed == files


@pytest.mark.parametrize("packing", ["tar.gz", "zip"])
async def test_an_archive_is_never_held_in_memory(world: World, packing: Packing) -> None:
    noise = hashlib.shake_256(b"noise").digest(24 * 1024 * 1024)
    snapshot = world.publish(f"42.{packing}", pack({**WHOLE, "noise": noise}, packing))
    lanes, archive = Lanes(1, Patience()), world.source / f"42.{packing}"
    folder = world.folder / "unpacked"
    unpacking = Unpacking("ranker", snapshot, archive, folder, Disk(folder, lanes), Claim(0))
    tracemalloc.start()
    try:
        await unpacking.run(lanes)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        lanes.close()
    assert (folder / "noise").read_bytes() == noise
    assert peak_bytes < len(noise) / 2


# --- interrupted ------------------------------------------------------------------------------


def test_a_cancelled_unpacking_goes_on_from_the_archive(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**WHOLE, "large": bytes(8 * 1024 * 1024)}
    snapshot = world.publish("42.zip", pack(files, "zip"))

    async def cancel_once_it_is_here() -> None:
        store = Store(world.models)
        here = asyncio.Event()

        def show(progress: Progress) -> None:
            if progress.done_bytes == progress.total_bytes:
                here.set()

        task = asyncio.create_task(store.fetch("ranker", snapshot, FileSource(), show))
        await here.wait()
        unpacked = next((world.models / ".staging/ranker").iterdir()) / "unpacked"
        while not unpacked.exists():
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        store.close()

    asyncio.run(asyncio.wait_for(cancel_once_it_is_here(), 20))
    assert not (world.models / "ranker").exists()
    monkeypatch.setattr(FileSource, "read", None)
    world.fetch(snapshot)
    assert world.installed == files
    assert world.staged == {}


def test_a_kill_between_any_two_steps(tmp_path: Path) -> None:
    files = {"saved_model.pb": b"a graph", "assets/words": b"words"}
    for number in range(1, 200):
        world = World(tmp_path / str(number))
        snapshot = world.publish("42/model.zip", pack(files, "zip", "export/"))
        is_done = die_before_step(number, partial(world.fetch, snapshot))
        is_installed = (world.models / "ranker" / "42").exists()
        if is_installed:
            assert world.installed == files
        world.fetch(snapshot)
        assert world.installed == files
        assert world.verify()
        assert is_installed or world.staged == {}
        if is_done:
            assert number > 15, "no step was seen"
            return
    raise AssertionError("a fetch has more steps than expected")


def test_a_kill_while_a_broken_version_is_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    files = {"saved_model.pb": b"a graph", "assets/words": b"words"}
    broken = {**files, "saved_model.pb": b"A graph"}
    for number in range(1, 200):
        world = World(tmp_path / str(number))
        snapshot = world.publish("42/model.zip", pack(files, "zip", "export/"))
        world.fetch(snapshot)
        write_files(world.models / "ranker/42", broken)
        is_done = die_before_step(number, partial(world.fetch, snapshot))
        world.fetch(snapshot)
        assert world.installed == files
        assert world.verify()
        clear_leftovers(world.models)
        assert {path.name for path in (world.models / "ranker").iterdir()} == {".manifests", "42"}
        if is_done:
            assert number > 15, "no step was seen"
            return
    raise AssertionError("a fetch has more steps than expected")


def test_a_packed_version_whose_manifest_was_not_written_is_only_given_one(world: World) -> None:
    """As after a kill, or where the disk became full, right after the version was renamed."""
    snapshot = world.publish("42.zip", pack(WHOLE, "zip"))
    world.fetch(snapshot)
    installed = (world.models / "ranker/42").stat().st_ino
    (world.models / "ranker/.manifests/42.json").unlink()
    world.fetch(snapshot)
    assert world.verify()
    assert (world.models / "ranker/42").stat().st_ino == installed
    assert {path.name for path in (world.models / "ranker").iterdir()} == {".manifests", "42"}
    assert world.staged == {}


# --- disks ------------------------------------------------------------------------------------


def test_staging_on_another_file_system_is_said_to_be(world: World) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == world.folder.stat().st_dev:
        pytest.skip("NOT TESTED: staging on another file system; there is no second one here")
    target = elsewhere / f"reconciler-test-{world.folder.parent.name}-{world.folder.name}"
    target.mkdir()
    try:
        world.models.mkdir()
        (world.models / ".staging").symlink_to(target)
        snapshot = world.publish("42.zip", pack(WHOLE, "zip"))
        with pytest.raises(DownloadError, match="must be on one file system") as raised:
            world.fetch(snapshot)
        assert raised.value.reason == "WriteFailed"
        assert not (world.models / "ranker" / "42").exists()
    finally:
        shutil.rmtree(target)


# --- anything ---------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["tgz", "zip"])
def test_an_archive_with_one_byte_changed_is_refused_or_whole(
    tmp_path: Path, packing: Packing
) -> None:
    files = {"saved_model.pb": b"a graph", "words": b"words"}
    archive = pack(files, packing)
    refused = 0
    for position in range(0, len(archive), 2):
        world = World(tmp_path / str(position))
        changed = bytes([*archive[:position], archive[position] ^ 0xFF, *archive[position + 1 :]])
        snapshot = world.publish(f"42.{packing}", changed)
        try:
            world.fetch(snapshot)
        except InstallError as error:
            assert error.reason == "BadArchive"
            check_that_nothing_came(world)
            refused += 1
        else:
            assert world.installed == files
    assert refused > len(archive) / 8


SAVED_MODEL = ("saved_model.pb", tarfile.REGTYPE, b"a graph")
NAMES = st.one_of(
    st.sampled_from(["saved_model.pb", "a", "./a", "A", "a/b", "top/saved_model.pb", "top/a"]),
    st.lists(st.sampled_from(["..", ".", "", "a", "b", "\n", "\\", "top"]), max_size=4).map(
        "/".join
    ),
)
KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.LNKTYPE: stat.S_IFREG,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.BLKTYPE: stat.S_IFBLK,
}
ENTRIES = st.lists(
    st.tuples(NAMES, st.sampled_from([tarfile.REGTYPE] * 8 + list(KINDS)), st.binary(max_size=20)),
    max_size=5,
)


def pack_anything(entries: list[tuple[str, bytes, bytes]], packing: Packing) -> bytes:
    if packing == "zip":
        infos = (
            (unix_entry(name + "/" * (kind == tarfile.DIRTYPE), KINDS[kind]), content)
            for name, kind, content in entries
        )
        return pack_zip(infos)
    members = (
        make_member(name, content if kind == tarfile.REGTYPE else b"", kind, "../source")
        for name, kind, content in entries
    )
    return pack_tar(members, compressed=packing != "tar")


def what_is_in(entries: list[tuple[str, bytes, bytes]], packing: Packing) -> dict[str, bytes]:
    """Return the files that an installation must consist of, if there is one.

    In a zip every name that ends in a slash is a folder's.
    """
    files = {
        str(PurePosixPath(name)): content
        for name, kind, content in entries
        if kind != tarfile.DIRTYPE and not (packing == "zip" and name.endswith("/"))
    }
    if "saved_model.pb" in files:
        return files
    return {name.removeprefix("top/"): content for name, content in files.items()}


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(ENTRIES, ENTRIES.map(lambda more: [SAVED_MODEL, *more])), st.sampled_from(PACKINGS)
)
def test_any_archive_is_refused_or_becomes_its_files_and_nothing_else(
    entries: list[tuple[str, bytes, bytes]], packing: Packing
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        snapshot = world.publish(f"42.{packing}", pack_anything(entries, packing))
        try:
            world.fetch(snapshot)
        except InstallError as error:
            assert error.reason in ("BadArchive", "Incomplete")
            assert str(error).isprintable()
            check_that_nothing_came(world)
        else:
            assert world.installed == what_is_in(entries, packing)
            assert world.staged == {}
            assert {path.name for path in world.folder.iterdir()} == {"models", "source"}
            assert {path.name for path in world.models.iterdir()} == {"ranker", ".staging"}
            assert {path.name for path in world.source.iterdir()} == {f"42.{packing}"}
            assert not any(path.is_symlink() for path in world.models.rglob("*"))
