"""Packed versions over a real bucket and on disks that refuse."""

import asyncio
import hashlib
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.errors import DownloadError, InstallError
from reconciler.model import LocalVersion, Query, Snapshot
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from reconciler.sources.sums import read_sums, render_sums
from reconciler.store.lanes import Patience
from reconciler.store.store import Store
from tests.archives import PACKINGS, Packing, pack
from tests.bucket import WHOLE, FakeBucket, read_files, run_fake_gcs, write_files
from tests.faultproxy import Fault, FaultProxy, once, run_proxy

_NUMBERS = itertools.count(1)
CHUNK = 64 * 1024
CONNECTIONS = 4
HURRIED = Patience(attempts=4, first_seconds=0.01, longest_seconds=0.02)
NOISE = hashlib.shake_256(b"weights").digest(512 * 1024)
LARGE = {**WHOLE, "variables/variables.data-00000-of-00001": NOISE}
"""Half a MiB that does not compress, so that its archive comes in many chunks."""


@dataclass
class World:
    """A bucket, a proxy before it, and a source."""

    bucket: FakeBucket
    proxy: FaultProxy
    source: GcsSource
    models: Path

    async def snapshot(self, version: int | None = 42) -> Snapshot:
        query = Query(f"gs://{self.bucket.name}/ranker", version)
        return (await asyncio.to_thread(self.source.list, query)).snapshots[42]

    async def fetch(
        self,
        snapshot: Snapshot,
        sha256: Mapping[str, str] | None = None,
        models: Path | None = None,
    ) -> LocalVersion:
        store = Store(models or self.models, CONNECTIONS, HURRIED, CHUNK)
        try:
            return await store.fetch("ranker", snapshot, self.source, sha256=sha256)
        finally:
            store.close()

    @property
    def installed(self) -> dict[str, bytes]:
        return read_files(self.models / "ranker" / "42")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with run_fake_gcs() as endpoint:
        yield endpoint


@pytest.fixture
async def world(endpoint: str, tmp_path: Path) -> AsyncIterator[World]:
    bucket = FakeBucket(endpoint, f"acme-{next(_NUMBERS)}")
    async with run_proxy(endpoint) as proxy:
        access = Access(proxy.environment)
        yield World(bucket, proxy, GcsSource(bucket.name, access), tmp_path / "models")
        access.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, timeout=10).returncode != 0:
        pytest.skip("NOT TESTED: a full disk; mounting a small one needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=10)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("place", ["42.{}", "42/model.{}"], ids=["beside", "in a folder"])
async def test_a_packed_version_is_fetched_verified_and_unpacked(
    world: World, packing: Packing, place: str
) -> None:
    world.bucket.put(f"ranker/{place.format(packing)}", pack(LARGE, packing, "export/"))
    world.proxy.rules = [once(Fault(action="flip", after_bytes=1000), lambda r: r.is_read)]
    snapshot = await world.snapshot()
    assert snapshot.digest == (await world.snapshot(None)).digest
    answer = await world.fetch(snapshot)
    assert world.installed == LARGE
    assert answer.size_bytes == sum(map(len, LARGE.values()))
    assert answer.digest == snapshot.digest
    assert len(world.proxy.reads) > len(NOISE) / CHUNK


async def test_an_archive_that_was_overwritten_is_not_unpacked(world: World) -> None:
    world.bucket.put("ranker/42.zip", pack(WHOLE, "zip"))
    snapshot = await world.snapshot()
    await world.fetch(snapshot)
    world.bucket.put("ranker/42.zip", pack(LARGE, "zip"))
    with pytest.raises(InstallError) as raised:
        await world.fetch(await world.snapshot())
    assert raised.value.reason == "SourceChanged"
    assert world.installed == WHOLE


async def test_an_archive_that_someone_put_in_place_is_not_taken_for_the_version(
    world: World,
) -> None:
    archive = pack(WHOLE, "zip")
    world.bucket.put("ranker/42/model.zip", archive)
    write_files(world.models / "ranker/42", {"model.zip": archive})
    await world.fetch(await world.snapshot())
    assert world.installed == WHOLE
    (aside,) = (world.models / "ranker").glob(".foreign-42-*")
    assert read_files(aside) == {"model.zip": archive}


async def test_the_sums_of_an_archive_are_locked_and_held(world: World) -> None:
    archive = pack(WHOLE, "tar.gz")
    sums = {"model.tar.gz": hashlib.sha256(archive).hexdigest()}
    world.bucket.put("ranker/42/SHA256SUMS", render_sums(sums))
    world.bucket.put("ranker/42/model.tar.gz", archive)
    snapshot = await world.snapshot()
    locked = await read_sums(world.source, snapshot)
    assert locked.items() >= sums.items()
    with pytest.raises(InstallError) as raised:
        await world.fetch(snapshot, {**locked, "model.tar.gz": "0" * 64})
    assert raised.value.reason == "LockMismatch"
    await world.fetch(snapshot, locked)
    assert world.installed == WHOLE


async def test_a_packed_version_needs_room_twice(world: World, small_disk: Path) -> None:
    files = {**WHOLE, "noise": hashlib.shake_256(b"noise").digest(1_200_000)}
    world.bucket.put("ranker/42.tar", pack(files, "tar"))
    with pytest.raises(DownloadError, match=r"needs 2\.4 MB for its archive and what") as raised:
        await world.fetch(await world.snapshot(), models=small_disk)
    assert raised.value.reason == "DiskFull"
    assert world.proxy.reads == []


@pytest.mark.parametrize("packing", ["zip", "tar.gz"])
async def test_what_does_not_fit_unpacked_waits_as_an_archive(
    world: World, small_disk: Path, packing: Packing
) -> None:
    """A zip says so beforehand, a tar.gz shows it on the way."""
    files = {**WHOLE, "zeros": bytes(3 * 1024 * 1024)}
    world.bucket.put(f"ranker/42.{packing}", pack(files, packing))
    snapshot = await world.snapshot()
    with pytest.raises(DownloadError, match=r"unpacks to .* or more and 2\.1 MB are") as raised:
        await world.fetch(snapshot, models=small_disk)
    assert raised.value.reason == "DiskFull"
    assert not (small_disk / "ranker").exists()
    staged = {Path(name).name for name in read_files(small_disk / ".staging")}
    assert staged == {f"42.{packing}", "journal"}
    count = len(world.proxy.reads)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True, timeout=10)
    await world.fetch(snapshot, models=small_disk)
    assert read_files(small_disk / "ranker/42") == files
    assert len(world.proxy.reads) == count


async def test_a_read_only_disk_is_said_to_be_one(world: World, small_disk: Path) -> None:
    world.bucket.put("ranker/42.zip", pack(WHOLE, "zip"))
    (small_disk / "models").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True, timeout=10)
    with pytest.raises(DownloadError, match="Read-only file system; what is installed") as raised:
        await world.fetch(await world.snapshot(), models=small_disk / "models")
    assert raised.value.reason == "WriteFailed"
