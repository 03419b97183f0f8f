"""Versions come into their place whole, and a kill between any two steps leaves old or new."""

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import google_crc32c
import pytest

from reconciler.errors import DownloadError, InstallError
from reconciler.files import exchange, sync_file_system
from reconciler.model import LocalVersion, Query, Snapshot
from reconciler.sources.file import FileSource
from reconciler.store import install
from reconciler.store.collect import clear_leftovers, remove_version
from reconciler.store.completeness import find_lack
from reconciler.store.install import make_durable, place
from reconciler.store.inventory import read_inventory
from reconciler.store.lanes import Lanes
from reconciler.store.layout import staging_folder
from reconciler.store.manifest import Manifest
from reconciler.store.store import Store
from tests.bucket import WHOLE, read_files, write_files
from tests.crashes import die_before_step

OTHER = {**WHOLE, "saved_model.pb": b"another graph", "assets/more": b"more"}


class World:
    """A source folder and a models folder."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.source = folder / "source"

    def publish(self, version: int, files: dict[str, bytes]) -> Snapshot:
        """Put a version into the source; its snapshot has checksums, as a bucket's would."""
        write_files(self.source / str(version), files)
        listed = FileSource().list(Query(f"file://{self.source}")).snapshots[version]
        summed = (
            replace(file, crc32c=google_crc32c.value(files[file.path])) for file in listed.files
        )
        return replace(listed, files=tuple(summed))

    def fetch(self, snapshot: Snapshot) -> LocalVersion:
        async def run() -> LocalVersion:
            store = Store(self.models)
            try:
                return await store.fetch("ranker", snapshot, FileSource())
            finally:
                store.close()

        return asyncio.run(run())

    def verify(self, version: int) -> bool:
        async def run() -> bool:
            store = Store(self.models)
            try:
                return await store.verify("ranker", version)
            finally:
                store.close()

        return asyncio.run(run())

    def names(self) -> set[str]:
        """What lies in the model's folder."""
        return {entry.name for entry in (self.models / "ranker").iterdir()}

    def installed(self, version: int) -> dict[str, bytes]:
        return read_files(self.models / "ranker" / str(version))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_folder_with_the_right_bytes_is_adopted_without_download(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = world.publish(1, dict(WHOLE))
    write_files(world.models / "ranker" / "1", WHOLE)
    monkeypatch.setattr(FileSource, "read", None)
    answer = world.fetch(snapshot)
    assert read_inventory(world.models).versions == {"ranker": {1: answer}}
    assert world.verify(1)


@pytest.mark.parametrize(
    "files",
    [
        {**WHOLE, "saved_model.pb": b"A graph"},
        {**WHOLE, "more": b""},
        {"saved_model.pb": WHOLE["saved_model.pb"]},
    ],
    ids=["other bytes", "a file too many", "files missing"],
)
def test_a_foreign_folder_is_kept_aside(world: World, files: dict[str, bytes]) -> None:
    snapshot = world.publish(1, dict(WHOLE))
    write_files(world.models / "ranker" / "1", files)
    world.fetch(snapshot)
    assert world.installed(1) == WHOLE
    (aside,) = (name for name in world.names() if name.startswith(".foreign-1-"))
    assert read_files(world.models / "ranker" / aside) == files


def test_two_versions_of_a_new_model_come_at_once(world: World) -> None:
    snapshots = [world.publish(version, dict(WHOLE)) for version in (1, 2, 3)]

    async def run() -> None:
        store = Store(world.models)
        fetches = [store.fetch("ranker", snapshot, FileSource()) for snapshot in snapshots]
        await asyncio.gather(*fetches)
        store.close()

    asyncio.run(run())
    versions = read_inventory(world.models).versions["ranker"]
    assert {v: found.digest for v, found in versions.items()} == {
        snapshot.version: snapshot.digest for snapshot in snapshots
    }


def test_a_stray_file_with_a_number_for_a_name_is_kept_aside(world: World) -> None:
    snapshot = world.publish(20260101, dict(WHOLE))
    (world.models / "ranker").mkdir(parents=True)
    (world.models / "ranker" / "20260101").write_bytes(b"stray")
    assert read_inventory(world.models).strays == ("ranker/20260101",)
    world.fetch(snapshot)
    assert world.installed(20260101) == WHOLE
    assert read_inventory(world.models).strays == ()


@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchange", "two renames"])
def test_a_broken_version_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    def refuse(first: Path, second: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(install, "exchange", exchange if can_exchange else refuse)
    snapshot = world.publish(1, dict(WHOLE))
    world.fetch(snapshot)
    (world.models / "ranker/1/saved_model.pb").write_bytes(b"A graph")
    assert not world.verify(1)
    world.fetch(snapshot)
    assert world.installed(1) == WHOLE
    assert world.verify(1)
    assert world.names() == {"1", ".manifests"}


def test_what_a_late_write_took_away_is_not_installed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose_bytes(lanes: Lanes, files: Path) -> None:
        os.truncate(files / "saved_model.pb", 0)
        await make_durable(lanes, files)

    snapshot = world.publish(1, {**WHOLE})
    with monkeypatch.context() as late:
        late.setattr("reconciler.store.store.make_durable", lose_bytes)
        with pytest.raises(DownloadError, match="fetched again"):
            world.fetch(snapshot)
    assert not (world.models / "ranker").exists()
    assert world.fetch(snapshot).intact
    assert world.installed(1) == WHOLE


def test_a_model_folder_that_is_a_link_is_refused(world: World, tmp_path: Path) -> None:
    snapshot = world.publish(1, dict(WHOLE))
    world.models.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (world.models / "ranker").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InstallError, match="not a folder of its own"):
        world.fetch(snapshot)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", ".staging", "a/b", "/etc", "a\0"])
def test_a_model_name_cannot_lead_out_of_the_models_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InstallError) as raised:
        staging_folder(tmp_path, name, 1, "0" * 64)
    assert raised.value.reason == "BadModelName"


@pytest.mark.parametrize(
    ("content", "lacks"),
    [
        (b"..\x12\x0bVarHandleOp..", True),
        (b"..\x12\x0aVariableV2..", True),
        (b"..\x12\x08Variable..", True),
        (b"x" * (1024 * 1024 - 5) + b"\x12\x0bVarHandleOp", True),
        (b"..\x0a\x0bVarHandleOp..", False),
        (b"a graph of constants", False),
    ],
)
def test_a_graph_with_variables_needs_its_variables(
    tmp_path: Path, content: bytes, lacks: bool
) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    assert (find_lack(tmp_path, ["saved_model.pb"]) is not None) is lacks


def test_a_graph_in_text_form_needs_its_variables_too(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pbtxt").write_text('node { name: "v" op: "VarHandleOp" }')
    assert find_lack(tmp_path, ["saved_model.pbtxt"]) is not None


# --- kill -9 between any two steps ------------------------------------------------------------


def before_nothing(world: World) -> None:
    """A model's first version."""


def before_another_version(world: World) -> None:
    world.fetch(world.publish(7, dict(WHOLE)))


def before_a_broken_version(world: World) -> None:
    world.fetch(world.publish(1, dict(WHOLE)))
    (world.models / "ranker/1/saved_model.pb").write_bytes(b"broken")


def before_a_foreign_folder(world: World) -> None:
    # The same sizes as what comes: a manifest would vouch for it if it were there too early.
    write_files(world.models / "ranker/1", {**OTHER, "saved_model.pb": b"ANOTHER GRAPH"})


@pytest.mark.parametrize(
    "prepare",
    [before_nothing, before_another_version, before_a_broken_version, before_a_foreign_folder],
)
def test_a_kill_between_any_two_steps_of_an_installation(
    tmp_path: Path, prepare: Callable[[World], None]
) -> None:
    for number in range(1, 100):
        world = World(tmp_path / str(number))
        prepare(world)
        snapshot = world.publish(1, OTHER)
        staging = staging_folder(world.models, "ranker", 1, snapshot.digest)
        write_files(staging / "files", OTHER)
        manifest = Manifest(snapshot.source, snapshot.digest, 0.0, snapshot.files)
        stood_there = (world.models / "ranker/1").exists()
        ours = prepare is before_a_broken_version
        work = partial(place, world.models, "ranker", 1, staging, manifest, ours=ours)
        is_done = die_before_step(number, work)
        _check_after_kill(world, snapshot, stood_there)
        clear_leftovers(world.models)
        world.fetch(snapshot)
        assert world.installed(1) == OTHER
        assert world.verify(1)
        if prepare is before_another_version:
            assert world.installed(7) == WHOLE
        if is_done:
            assert number > 3, "no step was seen"
            return
    raise AssertionError("the installation has more steps than expected")


def _check_after_kill(world: World, snapshot: Snapshot, stood_there: bool) -> None:
    """Whoever looks now sees the old files or the new ones, and a manifest only with its files."""
    found = read_inventory(world.models).versions.get("ranker", {}).get(1)
    if stood_there:
        assert found is not None, "the number must never be missing while a server may look"
    if (world.models / "ranker").exists():
        assert any(name.isdecimal() for name in world.names()), "a server must not find it empty"
    if found is not None and found.digest == snapshot.digest and found.intact:
        assert world.installed(1) == OTHER


def test_a_kill_between_any_two_steps_of_a_removal(tmp_path: Path) -> None:
    for number in range(1, 100):
        world = World(tmp_path / str(number))
        world.fetch(world.publish(1, dict(WHOLE)))
        is_done = die_before_step(number, partial(remove_version, world.models, "ranker", 1))
        if (world.models / "ranker/1").exists():
            assert world.installed(1) == WHOLE
            remove_version(world.models, "ranker", 1)
        clear_leftovers(world.models)
        assert world.names() <= {".manifests"}
        assert list((world.models / "ranker/.manifests").iterdir()) == []
        if is_done:
            assert number > 3, "no step was seen"
            return
    raise AssertionError("the removal has more steps than expected")


# --- durable before it is there ---------------------------------------------------------------

MANY = {**WHOLE, **{f"assets/part-{number}": b"words" for number in range(100)}}


@pytest.fixture
def private_umask() -> Iterator[None]:
    """As the agent has it, so that the server could read nothing unless it is let."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what is brought to the disk by itself, by its path at that moment."""
    paths: list[str] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return paths


def staged(paths: list[str]) -> set[str]:
    """Return which files of the version were synced while they still lay in staging."""
    return {path.partition("/files/")[2] for path in paths if "/files/" in path}


@pytest.mark.usefixtures("private_umask")
def test_many_files_are_brought_to_the_disk_at_once(
    world: World, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def sync_all(path: Path) -> bool:
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.rglob("*") if file.is_file()}
        seen.append(read_files(path) == MANY and modes == {0o644})
        return sync_file_system(path)

    monkeypatch.setattr(install, "sync_file_system", sync_all)
    world.fetch(world.publish(1, MANY))
    assert seen == [True], "once, when all was there and nothing in its place yet"
    assert staged(synced) == set()
    assert read_files(world.models / "ranker/1") == MANY


@pytest.mark.usefixtures("private_umask")
@pytest.mark.parametrize("files", [WHOLE, MANY], ids=["few", "many"])
def test_each_file_is_brought_to_the_disk_where_that_is_surer(
    world: World, files: dict[str, bytes], synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "sync_file_system", lambda path: files is not MANY)
    world.fetch(world.publish(1, files))
    assert staged(synced) >= {*files, "variables", "assets"}
    for path in (world.models / "ranker/1").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_a_file_system_that_is_not_known_is_not_synced_as_a_whole(tmp_path: Path) -> None:
    assert not sync_file_system(Path("/proc"))
    with pytest.raises(OSError):
        sync_file_system(tmp_path / "missing")


@pytest.mark.parametrize(
    ("release", "is_synced"),
    [("5.7.19-generic", False), ("4.18.0-553.el8", False), ("5.8.0", True), ("6.12.1", True)],
)
def test_a_kernel_that_keeps_failures_to_itself_syncs_nothing_as_a_whole(
    release: str, is_synced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sync_file_system(tmp_path):
        pytest.skip("the temporary folder's file system is synced file by file")
    here = os.uname()
    there = os.uname_result((here.sysname, here.nodename, release, here.version, here.machine))
    monkeypatch.setattr(os, "uname", lambda: there)
    assert sync_file_system(tmp_path) is is_synced
