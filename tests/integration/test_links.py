"""The same bytes under another name cost no download, and no version can harm the other."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import google_crc32c
import pytest

from reconciler.errors import InstallError
from reconciler.model import LocalVersion, Query, Snapshot, StoredFile
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from reconciler.store.collect import remove_version
from reconciler.store.layout import files_folder, linked_folder, staging_folder
from reconciler.store.links import Contents
from reconciler.store.manifest import Manifest
from reconciler.store.store import Store
from tests.bucket import WHOLE, FakeBucket, read_files, run_fake_gcs
from tests.crashes import die_before_step
from tests.faultproxy import FaultProxy, run_proxy

WEIGHTS = "variables/variables.data-00000-of-00001"
CHUNK = 4096
LARGE = {**WHOLE, WEIGHTS: bytes(range(256)) * 64}
SUMS = {path: sha256(content).hexdigest() for path, content in LARGE.items()}


@dataclass
class World:
    """A bucket that counts what is read of it, and a store."""

    proxy: FaultProxy
    source: GcsSource
    store: Store

    async def fetch(
        self,
        model: str,
        version: int,
        sums: Mapping[str, str] | None = None,
        *,
        composite: bool = False,
    ) -> LocalVersion:
        """Install a version of the model, of which the store knows what an agent's would."""
        self.store.read_inventory()
        snapshot = await self.snapshot(model, version)
        if composite:
            files = tuple(replace(file, md5=None) for file in snapshot.files)
            snapshot = replace(snapshot, files=files)
        return await self.store.fetch(model, snapshot, self.source, sha256=sums)

    async def snapshot(self, model: str, version: int) -> Snapshot:
        query = Query(f"gs://acme/{model}")
        return (await asyncio.to_thread(self.source.list, query)).snapshots[version]

    def folder(self, model: str, version: int) -> Path:
        return self.store.models_dir / model / str(version)

    def reads(self) -> int:
        """Return how often bytes were read since the last call."""
        count = len(self.proxy.reads)
        self.proxy.requests.clear()
        return count


def forge(content: bytes) -> bytes:
    """Return other bytes of the same length and crc32c.

    The checksum is linear: of 33 bits that are flipped, some together change nothing of it.
    """
    plain = google_crc32c.value(content)
    basis: dict[int, tuple[int, int]] = {}
    for bit in range(33):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        change, bits = google_crc32c.value(bytes(flipped)) ^ plain, 1 << bit
        while change and change.bit_length() in basis:
            other_change, other_bits = basis[change.bit_length()]
            change, bits = change ^ other_change, bits ^ other_bits
        basis[change.bit_length()] = change, bits
    head = int.from_bytes(content[:5], "little") ^ basis[0][1]
    forged = head.to_bytes(5, "little") + content[5:]
    assert google_crc32c.value(forged) == plain
    assert forged != content
    return forged


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with run_fake_gcs() as endpoint:
        bucket = FakeBucket(endpoint, "acme")
        bucket.put_version("1", LARGE, under="candidate")
        bucket.put_version("7", LARGE, under="ranker")
        bucket.put_version("8", {**LARGE, "saved_model.pb": b"a graft"}, under="ranker")
        bucket.put_version("2", {**LARGE, WEIGHTS: forge(LARGE[WEIGHTS])}, under="candidate")
        yield endpoint


@pytest.fixture
async def world(endpoint: str, tmp_path: Path) -> AsyncIterator[World]:
    async with run_proxy(endpoint) as proxy:
        access = Access(proxy.environment)
        store = Store(tmp_path / "models", 4, chunk_bytes=CHUNK)
        yield World(proxy, GcsSource("acme", access), store)
        store.close()
        access.close()


async def test_a_promotion_to_another_model_reads_nothing(world: World) -> None:
    await world.fetch("candidate", 1)
    assert world.reads() > 0
    found = await world.fetch("ranker", 7)
    assert world.reads() == 0
    assert found.intact
    assert read_files(world.folder("ranker", 7)) == LARGE
    same = [(world.folder(*at) / WEIGHTS).stat().st_ino for at in (("candidate", 1), ("ranker", 7))]
    assert same[0] == same[1]
    assert await world.store.verify("ranker", 7)
    assert not (world.store.models_dir / ".staging/ranker").exists()


async def test_of_another_version_only_what_differs_is_read(world: World) -> None:
    await world.fetch("ranker", 7)
    world.reads()
    await world.fetch("ranker", 8)
    assert world.reads() == 1
    assert read_files(world.folder("ranker", 8)) == {**LARGE, "saved_model.pb": b"a graft"}


async def test_what_was_tampered_with_on_the_disk_is_not_taken(world: World) -> None:
    await world.fetch("candidate", 1)
    world.reads()
    weights = world.folder("candidate", 1) / WEIGHTS
    before = weights.stat()
    with weights.open("r+b") as file:
        file.write(b"X")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    await world.fetch("ranker", 7)
    assert world.reads() > 0
    assert read_files(world.folder("ranker", 7)) == LARGE
    assert weights.read_bytes()[:1] == b"X"
    assert not await world.store.verify("candidate", 1)


async def test_a_link_in_the_place_of_a_file_is_not_taken(world: World, tmp_path: Path) -> None:
    await world.fetch("candidate", 1)
    world.reads()
    weights = world.folder("candidate", 1) / WEIGHTS
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    await world.fetch("ranker", 7)
    assert world.reads() > 0
    assert not (world.folder("ranker", 7) / WEIGHTS).is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
async def test_a_file_of_another_user_is_not_taken(world: World) -> None:
    await world.fetch("candidate", 1)
    world.reads()
    weights = world.folder("candidate", 1) / WEIGHTS
    os.chown(weights, 65534, -1)
    await world.fetch("ranker", 7)
    assert world.reads() > 0
    found = (world.folder("ranker", 7) / WEIGHTS).stat()
    assert (found.st_uid, found.st_nlink) == (0, 1)


async def test_a_removal_leaves_the_other_version_whole(world: World) -> None:
    await world.fetch("candidate", 1)
    await world.fetch("ranker", 7)
    remove_version(world.store.models_dir, "candidate", 1)
    assert read_files(world.folder("ranker", 7)) == LARGE
    assert await world.store.verify("ranker", 7)


def test_of_what_is_gone_nothing_is_remembered(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    file = StoredFile("saved_model.pb", 9, 1, 7, 0.0, md5="m")
    manifest = Manifest("gs://acme/ranker", "d", 0.0, (file,))
    contents.update({("ranker", 7): manifest, ("candidate", 1): manifest})
    contents.update({("candidate", 1): manifest})
    assert contents.find(file, has_sha256=False) == [tmp_path / "candidate/1/saved_model.pb"]
    contents.update({})
    assert contents.find(file, has_sha256=False) == []
    assert not contents._places  # else the memory grows with every version that ever was here


async def test_a_repair_puts_other_files_there_and_writes_into_none(world: World) -> None:
    await world.fetch("candidate", 1)
    await world.fetch("ranker", 7)
    for model, version in (("candidate", 1), ("ranker", 7)):  # the disk has lost a block of both
        with (world.folder(model, version) / WEIGHTS).open("r+b") as file:
            file.write(b"X")
        assert not await world.store.verify(model, version)
    damaged = (world.folder("candidate", 1) / WEIGHTS).stat()
    world.reads()
    await world.fetch("ranker", 7)
    assert world.reads() > 0
    assert read_files(world.folder("ranker", 7)) == LARGE
    after = (world.folder("candidate", 1) / WEIGHTS).stat()
    assert (after.st_ino, after.st_mtime_ns) == (damaged.st_ino, damaged.st_mtime_ns)
    await world.fetch("candidate", 1)
    assert read_files(world.folder("candidate", 1)) == LARGE


async def test_without_an_md5_only_the_sha256_of_a_lock_will_do(world: World) -> None:
    await world.fetch("candidate", 1, composite=True)
    world.reads()
    await world.fetch("ranker", 7)
    assert world.reads() > 0
    remove_version(world.store.models_dir, "ranker", 7)
    await world.fetch("ranker", 7, SUMS)
    assert world.reads() == 0
    assert read_files(world.folder("ranker", 7)) == LARGE


async def test_of_two_without_an_md5_neither_will_do_for_the_other(world: World) -> None:
    await world.fetch("candidate", 1, composite=True)
    world.reads()
    await world.fetch("ranker", 7, composite=True)
    assert world.reads() > 0


@pytest.mark.parametrize("composite", [True, False])
async def test_other_bytes_of_the_same_crc32c_are_not_taken(world: World, composite: bool) -> None:
    await world.fetch("candidate", 2)
    world.reads()
    await world.fetch("ranker", 7, SUMS if composite else None, composite=composite)
    assert world.reads() > 0
    assert read_files(world.folder("ranker", 7)) == LARGE


async def test_other_bytes_than_a_lock_names_are_refused_all_the_same(world: World) -> None:
    await world.fetch("candidate", 1)
    with pytest.raises(InstallError) as caught:
        await world.fetch("ranker", 7, {**SUMS, WEIGHTS: "0" * 64})
    assert caught.value.reason == "LockMismatch"
    assert not world.folder("ranker", 7).exists()
    assert read_files(world.folder("candidate", 1)) == LARGE


async def test_what_a_kill_left_shared_is_not_written_into(world: World) -> None:
    await world.fetch("candidate", 1)
    snapshot = await world.snapshot("ranker", 7)
    staging = staging_folder(world.store.models_dir, "ranker", 7, snapshot.digest)
    for folder in (files_folder(staging), linked_folder(staging)):
        (folder / "variables").mkdir(parents=True)
        os.link(world.folder("candidate", 1) / WEIGHTS, folder / WEIGHTS)
    before = (world.folder("candidate", 1) / WEIGHTS).stat()
    await world.fetch("ranker", 7, composite=True)  # what is there cannot be linked any more
    after = (world.folder("candidate", 1) / WEIGHTS).stat()
    assert (after.st_nlink, after.st_mtime_ns) == (1, before.st_mtime_ns)
    assert read_files(world.folder("ranker", 7)) == LARGE


def test_a_kill_between_any_two_steps_of_a_promotion_leaves_both_right(
    endpoint: str, tmp_path: Path
) -> None:
    models_dir = tmp_path / "models"

    async def fetch(model: str, version: int) -> None:
        access = Access({"STORAGE_EMULATOR_HOST": endpoint})
        source, store = GcsSource("acme", access), Store(models_dir, 2, chunk_bytes=CHUNK)
        store.read_inventory()
        listing = await asyncio.to_thread(source.list, Query(f"gs://acme/{model}"))
        await store.fetch(model, listing.snapshots[version], source)
        store.close()
        access.close()

    asyncio.run(fetch("candidate", 1))
    weights = models_dir / "candidate/1" / WEIGHTS
    before = weights.stat()
    step, is_done = 1, False
    while not is_done:
        is_done = die_before_step(step, lambda: asyncio.run(fetch("ranker", 7)))
        assert read_files(models_dir / "candidate/1") == LARGE, step
        assert weights.stat().st_mtime_ns == before.st_mtime_ns
        installed = models_dir / "ranker/7"
        assert not installed.exists() or read_files(installed) == LARGE, step
        step += 7
    assert step > 50
    assert (models_dir / "ranker/7" / WEIGHTS).stat().st_ino == before.st_ino
