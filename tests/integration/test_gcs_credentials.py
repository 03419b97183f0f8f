"""Credentials as nodes have them: Google's own libraries against endpoints on this machine.

The bucket is a real emulator behind a gate that lets in only what bears the newest token.
"""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.auth.exceptions import RefreshError

from reconciler.errors import DownloadError, SourceError
from reconciler.model import Listing, Query, Snapshot, StoredFile
from reconciler.sources import gcs_access
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from reconciler.sources.gcs_trouble import quote
from reconciler.sources.registry import Sources
from reconciler.sources.source import TransientReadError, read_range
from reconciler.store.lanes import Patience
from reconciler.store.store import Store
from reconciler.threads import run_beside
from tests.bucket import WHOLE, FakeBucket, read_files, run_fake_gcs
from tests.faultproxy import Fault, FaultProxy, Request, always, run_proxy
from tests.tokens import Issuer, make_private_key, run_issuer

RANKER = "gs://acme/ranker"
HURRIED = Patience(attempts=4, first_seconds=0.15, longest_seconds=0.2)
CHUNK = 1024
PAGE = b"<html><body>Please log in, user</body></html>"


@dataclass
class World:
    """The gate before a bucket, the issuer of what it lets in, and a node with credentials."""

    proxy: FaultProxy
    issuer: Issuer
    folder: Path
    accesses: list[Access]

    def open(self, **options: Any) -> GcsSource:
        access = Access({}, endpoint=self.proxy.url, **options)
        self.accesses.append(access)
        return GcsSource("acme", access, retry_seconds=0.1)

    async def list(self, source: GcsSource) -> Listing:
        return await asyncio.to_thread(source.list, Query(RANKER))

    async def refuse(self, source: GcsSource) -> SourceError:
        """Return what a listing says that does not succeed."""
        with pytest.raises(SourceError) as raised:
            await self.list(source)
        return raised.value

    async def read(self, source: GcsSource, listing: Listing) -> bytes:
        snapshot = listing.snapshots[1]
        (file,) = (file for file in snapshot.files if file.path == "saved_model.pb")
        return await read_range(source, snapshot, file, 0, file.size_bytes)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with run_fake_gcs() as address:
        FakeBucket(address, "acme").put_version("1")
        yield address


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with run_issuer() as issuer:
        yield issuer


@pytest.fixture(autouse=True)
def bare_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without any credentials of the machine, whose ways out all end at a closed port."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")


@pytest.fixture
async def world(endpoint: str, issuer: Issuer, tmp_path: Path) -> AsyncIterator[World]:
    async with run_proxy(endpoint) as proxy:
        proxy.rules = [issuer.admit]
        world = World(proxy, issuer, tmp_path, [])
        yield world
        for access in world.accesses:
            access.close()


@pytest.fixture
def key(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a service account's key, which the node is given."""
    path = issuer.write_key(tmp_path / "key.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


# --- a service account's key ------------------------------------------------------------------


async def test_a_service_accounts_token_serves_listing_and_reads_alike(
    world: World, key: Path
) -> None:
    source = world.open()
    listing = await world.list(source)
    assert await world.read(source, listing) == WHOLE["saved_model.pb"]
    assert len(world.issuer.issued) == 1
    assert len(world.proxy.listings) == len(world.proxy.reads) == 1


async def test_a_token_that_is_about_to_expire_is_replaced(world: World, key: Path) -> None:
    world.issuer.lifetime_seconds = 30
    world.proxy.rules = []
    source = world.open()
    listing = await world.list(source)
    before = {f"Bearer {token}" for token in world.issuer.issued}
    assert await world.read(source, listing) == WHOLE["saved_model.pb"]
    (read,) = world.proxy.reads
    assert read.headers["authorization"] not in before


async def test_a_download_goes_on_when_its_token_ends_before_its_time(
    world: World, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_access, "_MIN_TOKEN_AGE_SECONDS", 0.0)
    source = world.open()
    snapshot = (await world.list(source)).snapshots[1]
    world.proxy.rules.insert(0, world.issuer.revoke_after(3))
    store = Store(world.folder / "models", 1, HURRIED, CHUNK)
    await store.fetch("ranker", snapshot, source, lambda _: None)
    store.close()
    assert read_files(world.folder / "models" / "ranker" / "1") == WHOLE
    assert len(world.issuer.issued) == 2
    bearers = [request.headers["authorization"] for request in world.proxy.reads]
    assert bearers == sorted(bearers), "the old token until it was refused, then the new one"


async def test_a_token_that_is_refused_for_ever_ends_in_a_sentence(world: World, key: Path) -> None:
    source = world.open()
    snapshot = (await world.list(source)).snapshots[1]
    world.proxy.rules = [always(Fault(status=401), lambda request: request.is_read)]
    store = Store(world.folder / "models", 1, HURRIED, CHUNK)
    with pytest.raises(DownloadError, match="Cloud Storage refused this node's token") as raised:
        await store.fetch("ranker", snapshot, source, lambda _: None)
    store.close()
    assert raised.value.reason == TransientReadError.reason
    assert len(world.issuer.issued) == 1, "a fresh token is not replaced for each refusal"


async def test_the_key_of_another_is_called_so(world: World, key: Path) -> None:
    world.issuer.write_key(key, private_key=make_private_key())
    error = await world.refuse(world.open())
    assert error.reason == "Unauthenticated"
    assert "this node's key is refused (invalid_grant: Invalid JWT Signature)" in str(error)
    assert "give the node a new one" in str(error)


@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_wrong_clock_is_called_so_and_needs_no_restart(
    world: World, key: Path, hours: int
) -> None:
    world.issuer.clock_ahead_seconds = hours * 3600.0
    source = world.open()
    error = await world.refuse(source)
    assert error.reason == "Unauthenticated"
    assert "this node's clock is wrong; set the clock" in str(error)
    world.issuer.clock_ahead_seconds = 0
    assert set((await world.list(source)).snapshots) == {1}


async def test_a_read_without_a_token_says_why(world: World, key: Path) -> None:
    world.issuer.lifetime_seconds = 30
    source = world.open()
    listing = await world.list(source)
    world.issuer.clock_ahead_seconds = 5 * 3600
    with pytest.raises(SourceError, match="this node's clock is wrong") as raised:
        await world.read(source, listing)
    assert not isinstance(raised.value, TransientReadError)
    world.issuer.fault = lambda _: Fault(status=200, body=PAGE, kind="text/html")
    with pytest.raises(TransientReadError, match="something other than Cloud Storage"):
        await world.read(source, listing)


BROKEN = {
    "not there": None,
    "empty": "",
    "no JSON": "secret-key",
    "a list": '["secret-key"]',
    "no type": '{"private_key": "secret-key"}',
    "fields missing": '{"type": "service_account", "private_key": "secret-key"}',
    "no PEM": json.dumps(
        {
            "type": "service_account",
            "private_key": "secret-key",
            "client_email": "x",
            "token_uri": "http://127.0.0.1:9/token",
        }
    ),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_key_is_an_error_and_is_read_again_once_it_was_exchanged(
    content: str | None, key: Path, issuer: Issuer
) -> None:
    key.unlink()
    if content is not None:
        key.write_text(content)
    sources = Sources()
    with pytest.raises(SourceError) as raised:
        sources.open(RANKER)
    assert raised.value.reason == "Unauthenticated"
    assert f"GOOGLE_APPLICATION_CREDENTIALS names {key}, which" in str(raised.value)
    assert "put the JSON key of a service account there" in str(raised.value)
    assert "secret-key" not in str(raised.value)
    assert "\n" not in str(raised.value)
    issuer.write_key(key)
    opened = sources.open(RANKER)
    assert sources.open(RANKER) is opened
    issuer.write_key(key, private_key=make_private_key(), project_id="another")
    assert sources.open(RANKER) is not opened
    sources.close()


@pytest.mark.parametrize("content", ["", "{", "{}", '{"type": "authorized_user"}'])
def test_a_broken_file_of_gclouds_is_no_reason_to_go_unsigned(content: str, tmp_path: Path) -> None:
    folder = tmp_path / "gcloud"
    folder.mkdir()
    (folder / "application_default_credentials.json").write_text(content)
    with pytest.raises(SourceError, match="credentials of this machine cannot be used") as raised:
        Sources().open(RANKER)
    assert raised.value.reason == "Unauthenticated"


# --- other kinds ------------------------------------------------------------------------------


async def test_a_workload_identity_changes_its_token_file_for_a_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file = world.folder / "subject"
    config = world.issuer.write_workload(world.folder / "workload.json", token_file)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(config))
    source = world.open()
    error = await world.refuse(source)
    assert error.reason == "Unauthenticated"
    assert "this node's credentials are refused" in str(error)
    token_file.write_text("another subject token")
    assert "does not match the expected audience" in str(await world.refuse(source))
    token_file.write_text(world.issuer.subject_token)
    listing = await world.list(source)
    assert await world.read(source, listing) == WHOLE["saved_model.pb"]
    assert len(world.issuer.issued) == 1


_ON_A_MACHINE = """
import asyncio, sys
from reconciler.model import Query
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from reconciler.sources.source import read_range

async def read():
    source = GcsSource("acme", Access({}, endpoint=sys.argv[1]))
    snapshot = source.list(Query("gs://acme/ranker")).snapshots[1]
    (file,) = (file for file in snapshot.files if file.path == "saved_model.pb")
    sys.stdout.buffer.write(await read_range(source, snapshot, file, 0, file.size_bytes))

asyncio.run(read())
"""


async def test_a_machine_of_google_has_its_metadata_server(world: World) -> None:
    # The library takes the server's address from the environment when it is imported.
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(world.folder),
        "GCE_METADATA_HOST": world.issuer.host,
        "GCE_METADATA_IP": world.issuer.host,
    }
    command = [sys.executable, "-c", _ON_A_MACHINE, world.proxy.url]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, timeout=60, check=False
    )
    assert done.stdout == WHOLE["saved_model.pb"], done.stderr.decode()
    assert len(world.issuer.issued) == 1


async def test_without_credentials_requests_go_unsigned(world: World) -> None:
    source = world.open()
    error = await world.refuse(source)
    assert error.reason == "Unauthenticated"
    assert "needs credentials and there are none" in str(error)
    world.proxy.rules = []
    listing = await world.list(source)
    assert await world.read(source, listing) == WHOLE["saved_model.pb"]
    assert all("authorization" not in request.headers for request in world.proxy.requests)


async def test_credentials_are_looked_for_again_where_none_were_found_and_some_are_needed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_access, "_LOOK_AGAIN_SECONDS", 0.0)
    source = world.open()
    (access,) = world.accesses
    before = access.outdated
    await world.refuse(source)
    assert (before, access.outdated) == (False, True)


PROXIES = {
    "closed": "http://user:hunter2@127.0.0.1:9",
    "no address": "http://user:hunter2@[bad",
    "no port": "http://user:hunter2@127.0.0.1:many",
}


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES.keys())
async def test_where_nobody_answers_the_failure_is_a_sentence(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    access = Access({})
    source = GcsSource("acme", access, retry_seconds=0.1)
    with pytest.raises(SourceError, match="listing gs://acme/ranker failed") as raised:
        await asyncio.to_thread(source.list, Query(RANKER))
    assert (access.anonymous, raised.value.reason) == (True, "ListingFailed")
    messages = [str(raised.value)]
    if proxy == PROXIES["closed"]:  # others are passed by
        file = StoredFile("saved_model.pb", 7, 1, None, 0.0)
        snapshot = Snapshot(RANKER, 1, "1", (file,))
        with pytest.raises(TransientReadError, match="reading gs://acme/ranker/1") as unread:
            await read_range(source, snapshot, file, 0, 7)
        messages.append(str(unread.value))
    access.close()
    assert all("hunter2" not in message for message in messages), messages


@pytest.mark.parametrize(
    ("value", "endpoint_"),
    [("127.0.0.1:4443", "http://127.0.0.1:4443"), ("https://emu/", "https://emu"), ("", None)],
)
def test_the_emulators_address(value: str, endpoint_: str | None) -> None:
    access = Access({"STORAGE_EMULATOR_HOST": value})
    access.close()
    assert access.endpoint == endpoint_
    assert access.anonymous


# --- what stands between ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 403, 407])
async def test_a_proxys_page_is_no_listing(world: World, key: Path, status: int) -> None:
    page = Fault(status=status, body=PAGE, kind="text/html; charset=utf-8")
    source = world.open()
    world.proxy.rules = [always(page, lambda request: True)]
    error = await world.refuse(source)
    assert error.reason == "ListingFailed"
    assert "answered by something other than Cloud Storage" in str(error)
    assert "HTTPS_PROXY" in str(error)
    assert "log in" not in str(error)


@pytest.mark.parametrize("status", [200, 403, 407])
async def test_a_proxys_page_is_no_file(world: World, key: Path, status: int) -> None:
    source = world.open()
    listing = await world.list(source)
    page = Fault(status=status, body=PAGE, kind="text/html")
    world.proxy.rules = [always(page, lambda request: request.is_read)]
    with pytest.raises(TransientReadError, match="something other than Cloud Storage") as raised:
        await world.read(source, listing)
    assert "log in" not in str(raised.value)


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (Fault(status=200, body=PAGE, kind="text/html"), "ListingFailed", "something other than"),
        (Fault(status=403, body=PAGE, kind="text/html"), "ListingFailed", "something other than"),
        (Fault(status=200, body=b"fine", kind="text/plain"), "Unauthenticated", "was no token"),
        (Fault(status=200, body=b"[]"), "Unauthenticated", "was no token"),
        (Fault(status=200, body=b"{}"), "Unauthenticated", "No access token in response"),
    ],
)
async def test_what_is_no_token(
    world: World, key: Path, fault: Fault, reason: str, words: str
) -> None:
    source = world.open()
    world.issuer.fault = lambda _: fault
    error = await world.refuse(source)
    assert error.reason == reason
    assert words in str(error)
    world.issuer.fault = lambda _: None
    assert set((await world.list(source)).snapshots) == {1}


async def test_no_answer_where_tokens_are_given(world: World, key: Path) -> None:
    world.issuer.write_key(key, token_uri="http://127.0.0.1:9/token")
    error = await world.refuse(world.open())
    assert error.reason == "ListingFailed"
    assert "where tokens are given nobody answers" in str(error)


class CountingLock:
    """A lock that knows how many have come to it."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.count += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


async def test_readers_who_wait_for_one_token_share_the_answer(
    world: World, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    all_wait = threading.Event()

    def refuse(body: str) -> Fault:
        asked.append(body)
        all_wait.wait(10)
        return Fault(status=400, body=b'{"error": "invalid_grant", "error_description": "no"}')

    access = Access({}, endpoint=world.proxy.url)
    world.accesses.append(access)
    world.issuer.fault = refuse
    lock = CountingLock()
    monkeypatch.setattr(access, "_renewing", lock)
    readers = [asyncio.create_task(run_beside(access.renew_token, "reader")) for _ in range(8)]
    async with asyncio.timeout(10):
        while lock.count < 8:
            await asyncio.sleep(0.01)
    all_wait.set()
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(answer) for answer in answers] == [RefreshError] * 8
    assert len(asked) == 1
    world.issuer.fault = lambda _: None
    await asyncio.to_thread(access.renew_token)
    assert access.make_headers()["Authorization"] == f"Bearer {world.issuer.issued[-1]}"


# --- who pays ---------------------------------------------------------------------------------

NO_PROJECT = b"Bucket is a requester pays bucket but no user project provided."
NO_GRANT = b"node@acme does not have serviceusage.services.use access to the project."


def bill(request: Request) -> Fault | None:
    """Refuse what names no project that pays, as Cloud Storage does, and one that may not."""
    project = request.headers.get("x-goog-user-project")
    if request.is_listing and "userProject=" in request.target:
        project = request.target.partition("userProject=")[2].partition("&")[0]
    if project == "payer":
        return None
    status, words = (400, NO_PROJECT) if project is None else (403, NO_GRANT)
    if request.is_listing:
        return Fault(
            status=status, body=json.dumps({"error": {"message": words.decode()}}).encode()
        )
    return Fault(status=status, body=b"<Error><Message>" + words + b"</Message></Error>")


@pytest.mark.parametrize(
    ("project", "words"),
    [("", "set user_project to the project that pays"), ("broke", "serviceUsageConsumer")],
)
async def test_a_bucket_that_bills_its_readers(
    world: World, key: Path, project: str, words: str
) -> None:
    world.proxy.rules = [bill]
    payer, other = world.open(user_project="payer"), world.open(user_project=project)
    listing = await world.list(payer)
    assert await world.read(payer, listing) == WHOLE["saved_model.pb"]
    error = await world.refuse(other)
    assert (error.reason, words in str(error)) == ("Forbidden", True)
    with pytest.raises(SourceError, match=words) as raised:
        await world.read(other, listing)
    assert raised.value.reason == "Forbidden"


async def test_commands_take_who_pays_from_the_environment(
    world: World, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access({"RECONCILER_USER_PROJECT": "payer"}, endpoint=world.proxy.url)
    world.accesses.append(access)
    world.proxy.rules = [bill]
    source = GcsSource("acme", access)
    assert await world.read(source, await world.list(source)) == WHOLE["saved_model.pb"]


def test_an_emulator_needs_nothing_of_the_machines_credentials(
    endpoint: str, issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = issuer.write_workload(tmp_path / "workload.json", tmp_path / "token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(config))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    sources = Sources()
    assert set(sources.open(RANKER).list(Query(RANKER)).snapshots) == {1}
    sources.close()
    assert issuer.issued == []


# --- secrets ----------------------------------------------------------------------------------


async def test_no_message_quotes_what_was_sent(
    world: World, key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source = world.open()
    messages = []
    sent: list[str] = []

    def echo(body: str) -> Fault:
        sent.append(body)
        content = {"error": "invalid_grant", "error_description": f"refused {body} {world.issuer}"}
        return Fault(status=400, body=json.dumps(content).encode())

    world.issuer.fault = echo
    messages.append(str(await world.refuse(source)))
    world.issuer.fault = lambda _: None
    listing = await world.list(source)
    (token,) = world.issuer.issued

    def echo_token(request: Request) -> Fault:
        words = f"refused {request.headers['authorization']}"
        return Fault(status=400, body=json.dumps({"error": {"message": words}}).encode())

    world.proxy.rules = [echo_token]
    messages.append(str(await world.refuse(source)))
    with pytest.raises(TransientReadError) as raised:
        await world.read(source, listing)
    messages.append(str(raised.value))
    assertion = sent[0].partition("assertion=")[2].partition("&")[0]
    for text in (*messages, caplog.text):
        for secret in (token, assertion):
            assert secret[:60] not in text
            assert secret[-30:] not in text
    assert "refused Bearer [...]" in messages[1]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        (
            "Max retries exceeded with url: /token?x=1 (Caused by X)",
            "Max retries exceeded (Caused by X)",
        ),
        ("bad proxy 'http://user:hunter2@host:1'", "bad proxy '"),
        ("GET https://host/x?secret in 5 ms", "GET in 5 ms"),
        (f"refused ya29.{'a' * 60} here.", "refused [...] here"),
        ("File '/run/secrets/token' was not found.", "File '/run/secrets/token' was not found"),
        ("one\ntwo", "one"),
        ("word " * 100, ("word " * 40).rstrip(".")),
        ("", "ValueError"),
    ],
)
def test_what_is_quoted_of_an_error(text: str, quoted: str) -> None:
    assert quote(ValueError(text)) == quoted
