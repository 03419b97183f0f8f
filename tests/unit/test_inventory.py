"""What the models folder is seen to hold, and what is removed from it."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import InstallError
from reconciler.model import Local, Query, Staged
from reconciler.sources.file import FileSource
from reconciler.store.collect import (
    clear_leftovers,
    remove_model_folder,
    remove_staging,
    remove_version,
)
from reconciler.store.inventory import Inventory, read_inventory
from reconciler.store.journal import Chunk, extend_journal, read_journal, start_journal
from reconciler.store.manifest import Manifest, read_manifest
from reconciler.store.store import Store
from tests.bucket import WHOLE, write_files

DIGEST = "ab" * 32


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with ranker 1 and 2, installed."""
    for version in (1, 2):
        write_files(tmp_path / "source" / str(version), WHOLE)
    listing = FileSource().list(Query(f"file://{tmp_path}/source"))
    folder = tmp_path / "models"

    async def install() -> None:
        store = Store(folder)
        for snapshot in listing.snapshots.values():
            await store.fetch("ranker", snapshot, FileSource())
        store.close()

    asyncio.run(install())
    return folder


def test_a_missing_models_folder_holds_nothing(tmp_path: Path) -> None:
    assert read_inventory(tmp_path / "absent") == Local({})


def test_an_unreadable_models_folder_is_an_error_and_not_emptiness(tmp_path: Path) -> None:
    (tmp_path / "models").write_bytes(b"")
    with pytest.raises(InstallError, match="nothing is installed or removed") as raised:
        read_inventory(tmp_path / "models")
    assert raised.value.reason == "ModelsFolderUnreadable"


def test_versions_strays_and_room(models: Path) -> None:
    (models / "models.config").write_bytes(b"")
    (models / "ranker/20260101").write_bytes(b"stray")
    (models / "ranker/0007").mkdir()
    (models / "ranker/9").symlink_to(models / "ranker/1")
    write_files(models / "ranker/5", {"saved_model.pb": b"12345"})
    (models / "ranker/notes").mkdir()
    (models / "link").symlink_to(models / "ranker")
    local = read_inventory(models)
    assert set(local.versions) == {"ranker"}
    assert {v: found.digest is not None for v, found in local.versions["ranker"].items()} == {
        1: True,
        2: True,
        5: False,
    }
    assert local.versions["ranker"][5].size_bytes == 5
    assert local.strays == ("ranker/0007", "ranker/20260101", "ranker/9")
    assert 0 < local.free_bytes <= local.total_bytes


@pytest.mark.parametrize("damage", ["missing", "another size", "a link"])
def test_damage_that_shows_in_the_sizes(models: Path, damage: str) -> None:
    path = models / "ranker/1/variables/variables.index"
    path.unlink()
    if damage == "another size":
        path.write_bytes(b"1")
    elif damage == "a link":
        path.symlink_to(models / "ranker/2/variables/variables.index")
    versions = read_inventory(models).versions["ranker"]
    assert (versions[1].intact, versions[2].intact) == (False, True)


def test_damage_that_only_reading_shows_is_remembered(models: Path) -> None:
    (models / "ranker/1/saved_model.pb").write_bytes(b"A graph")

    async def verify() -> list[bool]:
        store = Store(models)
        before = store.read_inventory().versions["ranker"][1].intact
        answers = [before, await store.verify("ranker", 1), await store.verify("ranker", 2)]
        after = store.read_inventory().versions["ranker"]
        store.close()
        return [*answers, after[1].intact, after[2].intact]

    assert asyncio.run(verify()) == [True, False, True, False, True]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": [{"x": 1}]}'])
def test_a_torn_manifest_vouches_for_nothing(models: Path, text: str) -> None:
    path = models / "ranker/.manifests/1.json"
    path.write_text(text)
    assert read_manifest(path) is None
    assert read_inventory(models).versions["ranker"][1].digest is None


def test_a_manifest_that_changed_is_read_again_and_others_are_not(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def count(path: Path) -> Manifest | None:
        reads.append(path.name)
        return read_manifest(path)

    monkeypatch.setattr("reconciler.store.inventory.read_manifest", count)
    inventory = Inventory(models)
    first = inventory.read()
    assert inventory.read().versions == first.versions
    assert sorted(reads) == ["1.json", "2.json"]
    path = models / "ranker/.manifests/1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": DIGEST}))
    assert inventory.read().versions["ranker"][1].digest == DIGEST
    assert sorted(reads) == ["1.json", "1.json", "2.json"]


def test_begun_downloads(models: Path) -> None:
    staging = models / ".staging/ranker" / f"3-{DIGEST[:16]}"
    staging.mkdir(parents=True)
    assert read_inventory(models).staged == (Staged("ranker", 3, DIGEST[:16], 0),)
    start_journal(staging, DIGEST)
    with extend_journal(staging) as note:
        note(Chunk(0, 0, 100), 1)
        note(Chunk(0, 100, 150), 2)
    with extend_journal(staging) as note:
        note(Chunk(0, 0, 100), 3)
    assert read_inventory(models).staged == (Staged("ranker", 3, DIGEST, 150),)
    remove_staging(models, "ranker", 3, DIGEST)
    assert read_inventory(models).staged == ()
    assert list((models / ".staging").iterdir()) == []


@given(st.data())
def test_a_journal_cut_anywhere_says_nothing_that_was_not_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    staging = tmp_path_factory.mktemp("staging")
    start_journal(staging, DIGEST)
    written = {Chunk(i, 0, 10): 1000 + i for i in range(3)}
    with extend_journal(staging) as note:
        for chunk, crc in written.items():
            note(chunk, crc)
    text = (staging / "journal").read_bytes()
    whole_lines = text.count(b"\n")
    (staging / "journal").write_bytes(text[: data.draw(st.integers(0, len(text)))])
    journal = read_journal(staging)
    if journal is not None:
        assert journal.digest == DIGEST
        assert set(journal.chunks) <= set(written)
        # A torn number may remain in the last line; the bytes on disk decide about that.
        assert sum(written[c] == crc for c, crc in journal.chunks.items()) >= len(
            journal.chunks
        ) - (whole_lines > 0)


def test_removing_a_version_leaves_the_others(models: Path) -> None:
    remove_version(models, "ranker", 1)
    remove_version(models, "ranker", 1)
    assert set(read_inventory(models).versions["ranker"]) == {2}
    assert {path.name for path in (models / "ranker").iterdir()} == {"2", ".manifests"}
    assert [path.name for path in (models / "ranker/.manifests").iterdir()] == ["2.json"]


def test_of_a_version_that_is_gone_nothing_is_known(models: Path) -> None:
    inventory = Inventory(models)
    inventory.read()
    assert inventory.list_installed().keys() == {("ranker", 1), ("ranker", 2)}
    inventory.mark("ranker", 2, intact=False)
    assert inventory.list_installed().keys() == {("ranker", 1)}
    remove_version(models, "ranker", 1)
    inventory.read()
    assert inventory.list_installed() == {}


def test_links_are_removed_and_not_followed(models: Path, tmp_path: Path) -> None:
    precious = write_files(tmp_path / "precious", WHOLE)
    (models / "ranker/3").symlink_to(precious)
    (models / "ranker/2/assets/link").symlink_to(precious)
    remove_version(models, "ranker", 3)
    remove_version(models, "ranker", 2)
    assert (precious / "saved_model.pb").read_bytes() == WHOLE["saved_model.pb"]
    assert not (models / "ranker/3").is_symlink()


def test_a_models_folder_goes_only_when_nothing_else_is_in_it(models: Path) -> None:
    remove_version(models, "ranker", 1)
    assert not remove_model_folder(models, "ranker")
    remove_version(models, "ranker", 2)
    (models / "ranker/notes.txt").write_bytes(b"mine")
    assert not remove_model_folder(models, "ranker")
    assert (models / "ranker/notes.txt").exists()
    (models / "ranker/notes.txt").unlink()
    assert remove_model_folder(models, "ranker")
    assert not (models / "ranker").exists()
    assert remove_model_folder(models, "ranker")


def test_leftovers_of_dead_runs_go_and_downloads_stay(models: Path) -> None:
    write_files(models / "ranker/.removing-8-1", WHOLE)
    (models / "ranker/.manifests/8.json").write_text("{}")
    write_files(models / ".staging/ranker/trash", WHOLE)
    staged = models / ".staging/ranker" / f"3-{DIGEST[:16]}"
    write_files(staged, WHOLE)
    write_files(models / "ranker/.foreign-1-1", WHOLE)
    clear_leftovers(models)
    assert {path.name for path in (models / "ranker").iterdir()} == {
        "1",
        "2",
        ".manifests",
        ".foreign-1-1",
    }
    assert {path.name for path in (models / "ranker/.manifests").iterdir()} == {"1.json", "2.json"}
    assert list((models / ".staging/ranker").iterdir()) == [staged]
    assert all(found.intact for found in read_inventory(models).versions["ranker"].values())
