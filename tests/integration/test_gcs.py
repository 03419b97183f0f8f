"""Listing and reading Cloud Storage: a real emulator, with a proxy that breaks the line."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import google_crc32c
import pytest

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Rule, Snapshot, VersionScheme
from reconciler.sources import gcs
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from reconciler.sources.registry import Sources
from reconciler.sources.source import SourceChangedError, TransientReadError, read_range
from tests.bucket import WHOLE, FakeBucket, run_fake_gcs
from tests.faultproxy import Fault, FaultProxy, Request, always, once, run_proxy

RANKER = "gs://acme/ranker"


@dataclass
class World:
    """A bucket, the proxy in front of it and the source that reads through both."""

    bucket: FakeBucket
    proxy: FaultProxy
    source: GcsSource

    async def list(self, version: int | None = None, source: str = RANKER) -> Listing:
        return await asyncio.to_thread(self.source.list, Query(source, version))

    async def snapshot(self, version: int) -> Snapshot:
        return (await self.list()).snapshots[version]

    async def read(self, snapshot: Snapshot, path: str, start: int, end: int) -> bytes:
        (file,) = (file for file in snapshot.files if file.path == path)
        return await read_range(self.source, snapshot, file, start, end)


@pytest.fixture
def bucket() -> Iterator[FakeBucket]:
    with run_fake_gcs() as endpoint:
        yield FakeBucket(endpoint, "acme")


@pytest.fixture
async def world(bucket: FakeBucket) -> AsyncIterator[World]:
    async with run_proxy(bucket.endpoint) as proxy:
        access = Access(proxy.environment)
        yield World(bucket, proxy, GcsSource("acme", access, retry_seconds=2))
        access.close()


async def test_a_listing_has_every_file_with_generation_and_checksum(world: World) -> None:
    world.bucket.put_version("41")
    world.bucket.put_version("42", {"saved_model.pb": b"new"})
    world.bucket.put("ranker/42/", b"")
    world.bucket.put("ranker-b/43/saved_model.pb", b"another model's")
    listing = await world.list()
    assert {v: s.folder for v, s in listing.snapshots.items()} == {41: "41", 42: "42"}
    assert {file.path: file.size_bytes for file in listing.snapshots[41].files} == {
        path: len(content) for path, content in WHOLE.items()
    }
    (file,) = listing.snapshots[42].files
    assert file.crc32c == google_crc32c.value(b"new")
    assert file.generation > 0
    assert len(world.proxy.listings) == 1


async def test_the_clock_is_the_servers(world: World) -> None:
    world.bucket.put_version("1")
    date = "Thu, 01 Jan 2015 00:00:00 GMT"
    world.proxy.rules = [always(Fault(replace_headers={"date": date}), lambda r: r.is_listing)]
    assert (await world.list()).read_at_seconds == 1420070400


async def test_a_pin_lists_its_own_folder_alone(world: World) -> None:
    for folder in ("4", "42", "421"):
        world.bucket.put_version(folder)
    listing = await world.list(42)
    assert set(listing.snapshots) == {42}
    (request,) = world.proxy.listings
    parts = request.decoded.partition("?")[2].split("&")
    assert {"prefix=ranker/42", "startOffset=ranker/42.", "endOffset=ranker/420"} <= set(parts)


async def test_a_pin_finds_its_archive_in_the_same_request(world: World) -> None:
    for name in ("42.zip", "42.tmp/saved_model.pb", "421.zip", "4.zip"):
        world.bucket.put(f"ranker/{name}", name.encode())
    listing = await world.list(42)
    (snapshot,) = listing.snapshots.values()
    assert (snapshot.version, snapshot.folder, snapshot.archive) == (42, "", "42.zip")
    assert await world.read(snapshot, "42.zip", 0, 6) == b"42.zip"
    world.bucket.put_version("42")
    listing = await world.list(42)
    assert "more than once ('42/', '42.zip')" in listing.refused[42]
    assert len(world.proxy.listings) == 2


async def test_a_zero_padded_pin_is_found_in_the_whole_prefix(world: World) -> None:
    world.bucket.put_version("0042")
    listing = await world.list(42)
    assert listing.snapshots[42].folder == "0042"
    assert len(world.proxy.listings) == 2
    assert await world.read(listing.snapshots[42], "saved_model.pb", 0, 7) == b"a graph"


async def test_one_call_for_each_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "_PAGE_OBJECTS", 3)
    for number in range(7):
        world.bucket.put(f"ranker/{number}/saved_model.pb", b"x")
    assert set((await world.list()).snapshots) == set(range(7))
    assert len(world.proxy.listings) == 3


@pytest.mark.parametrize(
    "fault", [Fault(status=500), Fault(action="cut", after_bytes=40)], ids=["500", "cut"]
)
async def test_a_listing_cut_off_half_way_fails_as_a_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(gcs, "_PAGE_OBJECTS", 3)
    for number in range(7):
        world.bucket.put(f"ranker/{number}/saved_model.pb", b"x")
    world.proxy.rules = [always(fault, lambda r: r.is_listing and "pageToken" in r.target)]
    with pytest.raises(SourceError, match="listing gs://acme/ranker failed") as raised:
        await world.list()
    assert raised.value.reason == "ListingFailed"
    world.proxy.rules = []
    assert len((await world.list()).snapshots) == 7


async def test_a_page_that_fails_in_passing_is_asked_for_again(world: World) -> None:
    world.bucket.put_version("1")
    world.proxy.rules = [once(Fault(status=503), lambda r: r.is_listing)]
    assert set((await world.list()).snapshots) == {1}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (401, "Unauthenticated", "needs credentials"),
        (403, "Forbidden", "roles/storage.objectViewer on bucket acme"),
        (404, "BucketNotFound", "bucket acme of gs://acme/ranker does not exist"),
        (400, "ListingFailed", "HTTP 400"),
    ],
)
async def test_what_a_refused_listing_says(
    world: World, status: int, reason: str, words: str
) -> None:
    world.proxy.rules = [always(Fault(status=status), lambda r: True)]
    with pytest.raises(SourceError, match=words) as raised:
        await world.list()
    assert raised.value.reason == reason


async def test_a_missing_bucket(world: World) -> None:
    access = Access(world.bucket.environment)
    source = GcsSource("nowhere", access)
    with pytest.raises(SourceError) as raised:
        await asyncio.to_thread(source.list, Query("gs://nowhere/ranker"))
    access.close()
    assert raised.value.reason == "BucketNotFound"


async def test_dangerous_names_refuse_their_version_alone(world: World) -> None:
    world.bucket.put_version("1")
    world.bucket.put("ranker/2/../../../etc/passwd", b"x")
    world.bucket.put("ranker/3/a\nb", b"x")
    world.bucket.put("ranker/4//etc/passwd", b"x")
    world.bucket.put("ranker/5/Words", b"x")
    world.bucket.put("ranker/5/words", b"x")
    listing = await world.list()
    assert set(listing.snapshots) == {1}
    assert set(listing.refused) == {2, 3, 4, 5}


async def test_gzip_encoded_objects_refuse_their_version(world: World) -> None:
    world.bucket.put("ranker/1/saved_model.pb", gzip.compress(b"x" * 100), encoding="gzip")
    listing = await world.list()
    assert "Content-Encoding gzip" in listing.refused[1]


async def test_reading_a_range_and_odd_names(world: World) -> None:
    world.bucket.put_version("1")
    snapshot = await world.snapshot(1)
    path = "variables/variables.data-00000-of-00001"
    assert await world.read(snapshot, path, 3, 12) == WHOLE[path][3:12]
    for path, content in WHOLE.items():
        if content:
            assert await world.read(snapshot, path, 0, len(content)) == content


@pytest.mark.parametrize("change", ["overwritten", "deleted"])
async def test_bytes_that_changed_after_the_listing_are_not_read(world: World, change: str) -> None:
    world.bucket.put_version("1")
    snapshot = await world.snapshot(1)
    if change == "overwritten":
        world.bucket.put("ranker/1/saved_model.pb", b"another")
    else:
        world.bucket.delete("ranker/1/saved_model.pb")
    with pytest.raises(SourceChangedError, match="was deleted or overwritten"):
        await world.read(snapshot, "saved_model.pb", 0, 7)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=408),
        Fault(status=429),
        Fault(status=500),
        Fault(status=503),
        Fault(action="reset", after_bytes=100),
        Fault(action="cut", after_bytes=100),
    ],
    ids=lambda fault: fault.action or str(fault.status),
)
async def test_what_may_pass_is_reported_as_such(world: World, fault: Fault) -> None:
    world.bucket.put_version("1")
    snapshot = await world.snapshot(1)
    world.proxy.rules = [always(fault, lambda r: r.is_read)]
    path = "variables/variables.data-00000-of-00001"
    with pytest.raises(TransientReadError) as raised:
        await world.read(snapshot, path, 0, len(WHOLE[path]))
    assert "\n" not in str(raised.value)
    assert len(world.proxy.reads) == 1, "the caller counts attempts, so one call is one attempt"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=412), SourceChangedError),
        (Fault(replace_headers={"X-Goog-Generation": "1"}), SourceChangedError),
        (Fault(replace_headers={"Content-Range": "bytes 1-7/7"}), TransientReadError),
        (Fault(status=200, body=b"a graph"), TransientReadError),
        (Fault(status=302, body=b"elsewhere"), TransientReadError),
    ],
    ids=["condition", "generation", "range", "whole", "redirect"],
)
async def test_an_answer_with_other_bytes_is_not_taken(
    world: World, fault: Fault, kind: type[SourceError]
) -> None:
    world.bucket.put_version("1")
    snapshot = await world.snapshot(1)
    world.proxy.rules = [always(fault, lambda r: r.is_read)]
    with pytest.raises(SourceError) as raised:
        await world.read(snapshot, "saved_model.pb", 0, 7)
    assert type(raised.value) is kind


async def test_a_read_is_on_the_condition_of_its_generation(world: World) -> None:
    world.bucket.put_version("1")
    snapshot = await world.snapshot(1)
    (file,) = (file for file in snapshot.files if file.path == "saved_model.pb")
    await world.read(snapshot, file.path, 0, 7)
    (read,) = world.proxy.reads
    assert f"ifGenerationMatch={file.generation}" in read.target
    assert read.headers["accept-encoding"] == "gzip", "what is stored, not what is in it"


async def test_a_forbidden_read_is_not_tried_again(world: World) -> None:
    world.bucket.put_version("1")
    snapshot = await world.snapshot(1)
    world.proxy.rules = [always(Fault(status=403), lambda r: r.is_read)]
    with pytest.raises(SourceError) as raised:
        await world.read(snapshot, "saved_model.pb", 0, 7)
    assert raised.value.reason == "Forbidden"
    assert not isinstance(raised.value, TransientReadError)


def test_the_registry_opens_one_source_for_each_bucket(
    bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.endpoint)
    bucket.put_version("1")
    sources = Sources()
    source = sources.open(RANKER)
    assert sources.open("gs://acme/other") is source
    assert sources.open("gs://another/ranker") is not source
    assert set(source.list(Query(RANKER)).snapshots) == {1}
    assert source.list(Query("gs://acme")).snapshots == {}
    sources.close()
    for url in ("s3://acme/ranker", "gs:///ranker", "/srv/models", "file://host/models"):
        with pytest.raises(SourceError) as raised:
            sources.open(url)
        assert raised.value.reason == "BadSource"


def test_the_proxy_counts_listings_and_reads() -> None:
    listing = Request("GET", "/storage/v1/b/acme/o?prefix=x", {})
    read = Request("GET", "/download/storage/v1/b/acme/o/x", {})
    assert (listing.is_listing, listing.is_read) == (True, False)
    assert (read.is_listing, read.is_read) == (False, True)


async def test_a_pin_by_name_asks_for_what_begins_with_its_name(world: World) -> None:
    for name in ("1.4.1", "1.4.10", "1.4.1-rc1", "11.4.1", "1000004000001"):
        world.bucket.put_version(name, {"saved_model.pb": name.encode()})
    world.bucket.put("ranker/1.4.2.zip", b"an archive")
    scheme = VersionScheme(Rule.SEMVER)
    for name, folder in (("1.4.1", "1.4.1"), ("1.4.2", "")):
        before = len(world.proxy.listings)
        query = Query(RANKER, scheme.parse(name), scheme)
        listing = await asyncio.to_thread(world.source.list, query)
        assert [(each.title, each.folder) for each in listing.snapshots.values()] == [
            (name, folder)
        ]
        assert len(world.proxy.listings) == before + 1
    absent = Query(RANKER, scheme.parse("2.0.0"), scheme)
    listing = await asyncio.to_thread(world.source.list, absent)
    titles = {each.title for each in listing.snapshots.values()}
    assert titles == {"1.4.1", "1.4.10", "11.4.1", "1.4.2"}
