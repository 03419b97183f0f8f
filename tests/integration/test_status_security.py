"""Who may read a status endpoint, over real sockets: tokens, TLS, and how often."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from reconciler.errors import SettingsError
from reconciler.fleet.app import fleet_routes
from reconciler.fleet.desk import FleetDesk
from reconciler.fleet.expected import Expected
from reconciler.fleet.poll import FleetPoller, Target
from reconciler.fleet.server import FleetServer
from reconciler.fleet.sync import sync_all
from reconciler.membership.dns import DnsRegistry
from reconciler.membership.registry import RegistryError
from reconciler.model import Desired, Group, Member, Membership, Registry, Unavailable
from reconciler.status import connections, guard
from reconciler.status.access import Access
from reconciler.status.board import StatusBoard
from reconciler.status.certificate import Certificate, open_certificate
from reconciler.status.client import StatusError, fetch_fleet, fetch_history
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.peers import Badge, PeerWatch
from reconciler.status.server import StatusServer, WebServer
from tests.browser import running_browser
from tests.fleetnodes import NEW, report

TOKEN = "a-read-token"
NEXT_TOKEN = "the-next-token"
SYNC_TOKEN = "a-sync-token"
READS = ("/", "/assets/page.js", "/status", "/history", "/metrics", "/fleet", "/fleet.json")


@dataclass
class Files:
    """The files with secrets and certificates, each replaced by a rename as who rotates does."""

    folder: Path
    ca: trustme.CA

    def path(self, name: str) -> Path:
        return self.folder / name

    def put(self, name: str, content: bytes) -> Path:
        new = self.folder / f"{name}.new"
        new.write_bytes(content)
        return new.rename(self.path(name))

    def issue(self, *names: str, **more: Any) -> trustme.LeafCert:
        return self.ca.issue_cert(*(names or ("127.0.0.1",)), **more)

    def show(self, leaf: trustme.LeafCert) -> Certificate:
        """Return a server's certificate, from files."""
        self.put("key.pem", leaf.private_key_pem.bytes())
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return Certificate(self.put("cert.pem", chain), self.path("key.pem"))

    @property
    def access(self) -> Access:
        """What those who know everything ask with."""
        return Access(self.path("token"), self.path("ca.pem"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    made = Files(tmp_path, authority)
    made.put("token", f"{TOKEN}\n".encode())
    made.put("sync-token", f"{SYNC_TOKEN}\n".encode())
    made.put("ca.pem", authority.cert_pem.bytes())
    return made


@asynccontextmanager
async def serving(server: WebServer) -> AsyncIterator[str]:
    """Serve, and yield the address with its scheme."""
    task = asyncio.create_task(server.serve())
    try:
        yield f"{server.scheme}://127.0.0.1:{server.port}"
    finally:
        server.stop()
        await asyncio.wait_for(task, 10)


async def make_node(
    files: Files, *, certificate: Certificate | None = None, token: bool = True
) -> StatusServer:
    """Return a node called a, which serves nothing and says so."""
    board = StatusBoard(
        Journal(files.path("history.jsonl")),
        Metrics("0.1.0"),
        lambda: None,
        heartbeat_limit_seconds=30,
    )
    await board.publish(report("a"))
    desk = FleetDesk(lambda: Expected((), (), {}), "a", has_git=False)
    return StatusServer(
        board,
        "127.0.0.1:0",
        token_file=files.path("sync-token"),
        others=fleet_routes(desk),
        read_token_file=files.path("token") if token else None,
        certificate=certificate,
    )


@asynccontextmanager
async def running_node(files: Files, **options: Any) -> AsyncIterator[str]:
    server = await make_node(files, **options)
    async with serving(server) as url:
        yield url


async def ask(url: str, access: Access) -> str:
    """Ask for the node's history and return why it could not be had; empty where it could."""
    try:
        await asyncio.to_thread(fetch_history, url, 5.0, 10, access)
    except StatusError as error:
        return str(error)
    return ""


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect by TCP alone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def wait_for_end(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has hung up."""
    async with asyncio.timeout(5):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
async def client(files: Files) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a node with a read token."""
    async with (
        running_node(files) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as made,
    ):
        yield made


# --- the token --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*READS, "/nothing", "/livez/", "/assets/../status"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_nothing_is_read_without_the_token(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 401
    challenges = answer.headers.get_list("www-authenticate")
    assert challenges == ["Bearer", 'Basic realm="reconciler", charset="UTF-8"']
    assert answer.headers["x-content-type-options"] == "nosniff"
    if method == "GET":
        assert "as `Authorization: Bearer <token>`" in answer.json()["error"]
        assert "in a browser as the password" in answer.json()["error"]


@pytest.mark.parametrize("path", READS)
async def test_who_knows_the_token_reads_all(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path, headers=bearer(TOKEN))).status_code == 200
    assert (await client.get(path, auth=("anybody", TOKEN))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer"},
        bearer("another"),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        bearer(SYNC_TOKEN),
        {"authorization": TOKEN},
        {"authorization": f"Digest {TOKEN}"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": "Basic %%%"},
        {"authorization": "Basic YQ=="},
        {"cookie": f"token={TOKEN}"},
    ],
)
async def test_anything_else_is_not_the_token(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await client.get("/metrics", headers=headers)).status_code == 401
    assert (await client.get(f"/metrics?token={TOKEN}", headers=headers)).status_code == 401


async def test_probes_and_what_has_its_own_secret_need_no_read_token(
    client: httpx.AsyncClient,
) -> None:
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.post("/sync", headers=bearer(SYNC_TOKEN))).status_code == 202
    assert (await client.post("/sync", headers=bearer(TOKEN))).status_code == 401
    assert "no secret file is set" in (await client.post("/hooks/git")).json()["error"]


async def test_a_token_is_rotated_without_a_moment_in_which_nobody_is_let_in(
    client: httpx.AsyncClient, files: Files
) -> None:
    async def who() -> list[bool]:
        answers = [await client.get("/history", headers=bearer(t)) for t in (TOKEN, NEXT_TOKEN)]
        return [answer.is_success for answer in answers]

    assert await who() == [True, False]
    files.put("token", f"{TOKEN}\n{NEXT_TOKEN}\n".encode())
    assert await who() == [True, True]
    assert files.access.headers() == bearer(TOKEN)
    files.put("token", f"{NEXT_TOKEN}\n\n{TOKEN}".encode())
    assert await who() == [True, True]
    assert files.access.headers() == bearer(NEXT_TOKEN)
    files.put("token", NEXT_TOKEN.encode())
    assert await who() == [False, True]
    files.put("sync-token", f"{SYNC_TOKEN}\n{NEXT_TOKEN}".encode())
    for token in (SYNC_TOKEN, NEXT_TOKEN):
        assert (await client.post("/sync", headers=bearer(token))).status_code == 202


async def test_without_its_token_file_a_node_lets_nobody_read(
    client: httpx.AsyncClient, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    for content in (b"", b"\n \n", None):
        if content is None:
            files.path("token").unlink()
        else:
            files.put("token", content)
        for headers in (bearer(TOKEN), {"authorization": "Bearer"}, {}):
            answer = await client.get("/status", headers=headers)
            assert answer.status_code == 403
            assert "nobody is let in but to /livez and /readyz" in answer.json()["error"]
        assert (await client.get("/livez")).status_code == 200
    assert len(caplog.records) == 1, "said once, not for each request"


async def test_a_node_without_a_token_lets_everybody_read(files: Files) -> None:
    async with running_node(files, token=False) as url:
        assert await ask(url, Access()) == ""


async def test_a_browser_asks_for_the_token_once_and_shows_both_pages(files: Files) -> None:
    def look(url: str) -> None:
        with running_browser() as browser:
            # Headless it has nobody to ask; this is what it does with what it was told.
            browser.open(f"http://me:{TOKEN}@{url.removeprefix('http://')}/metrics")
            browser.open(f"{url}/")
            browser.wait_for("document.querySelector('h1')?.textContent === 'a'")
            browser.open(f"{url}/fleet")
            browser.wait_for("document.body?.innerText.includes('Seen from a')")
            assert browser.console == []

    async with running_node(files) as url:
        await asyncio.to_thread(look, url)


# --- who asks ---------------------------------------------------------------------------------


async def test_who_asks_is_told_what_is_missing(files: Files) -> None:
    async with running_node(files) as url:
        assert await ask(url, files.access) == ""
        assert f"{url}/history answered 401: This node's read token must come" in (
            await ask(url, Access())
        )
        files.put("wrong", b"wrong")
        assert "answered 401: That is not this node's read token" in (
            await ask(url, Access(files.path("wrong")))
        )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "is missing, unreadable, empty or longer than 4096 bytes"),
        (b"\n", "is missing, unreadable, empty or longer than 4096 bytes"),
        pytest.param(
            b"a" * 4097, "is missing, unreadable, empty or longer than 4096 bytes", id="long"
        ),
        (b"a\x00b", "has characters in it that no token has"),
        ("geheimnis-\u00fc".encode(), "has characters in it that no token has"),
    ],
)
async def test_a_token_that_cannot_be_one_is_sent_nowhere(
    files: Files, content: bytes | None, why: str
) -> None:
    access = Access(files.path("own"))
    if content is not None:
        files.put("own", content)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        words = await ask(url, access)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert words.startswith(f"{url}/history is not asked: ")
    assert why in words
    assert "geheimnis" not in words


async def poll(address: str, access: Access) -> str:
    """Return the name of who answers the fleet's poller at an address, or why nobody does."""
    poller = FleetPoller(access=access)
    poller.follow([Target(address)])
    await poller.ask_all()
    (sighting,) = poller.sightings
    return sighting.answer.node if sighting.answer else str(sighting.trouble)


async def test_the_fleet_is_asked_with_the_token_and_shown_to_those_who_know_it(
    files: Files,
) -> None:
    async with running_node(files) as node:
        assert await poll(node, files.access) == "a"
        assert "answered 401" in await poll(node, Access())
        desk = FleetDesk(lambda: Expected((), (), {}), "a", has_git=False)
        certificate = files.show(files.issue())
        page = FleetServer(desk, "127.0.0.1:0", files.path("token"), certificate)
        async with serving(page) as url:
            view = await asyncio.to_thread(fetch_fleet, url, 5.0, files.access)
            assert b'"seen_from":"a"' in view
            with pytest.raises(StatusError, match="answered 401"):
                await asyncio.to_thread(fetch_fleet, url, 5.0, Access(ca_file=files.path("ca.pem")))


# --- TLS --------------------------------------------------------------------------------------


async def test_a_node_with_a_certificate_is_asked_by_tls(files: Files) -> None:
    names = ("127.0.0.1", "localhost", "::1")
    async with running_node(files, certificate=files.show(files.issue(*names))) as url:
        assert url.startswith("https://")
        assert await ask(url, files.access) == ""
        assert await ask(url.replace("127.0.0.1", "localhost"), files.access) == ""
        context = ssl.create_default_context(cafile=files.path("ca.pem"))
        async with httpx.AsyncClient(base_url=url, verify=context, trust_env=False) as client:
            first = await client.get("/metrics", headers=bearer(TOKEN))
            second = await client.get("/livez")
        assert (first.status_code, second.status_code) == (200, 200)


async def ask_peer(address: str, access: Access) -> str:
    """Return the name of who answers another agent's question, or why nobody does."""
    group = Group("search", "groups/search.yaml", (Member("a", address),))
    watch = PeerWatch(Badge("b", "1"), time.monotonic, access)
    watch.want(Desired(NEW, "b", group, ()), ["a"])
    await watch.refresh()
    found = watch.peers["a"]
    return found.sentence if isinstance(found, Unavailable) else found.node


async def test_all_who_ask_check_the_certificate_and_take_the_token_along(files: Files) -> None:
    certificate = files.show(files.issue())
    async with running_node(files, certificate=certificate) as url:
        port = int(url.rpartition(":")[2])
        assert await poll(url, files.access) == "a"
        refusals = await sync_all([Target(url)], SYNC_TOKEN, files.access)
        assert list(refusals.values()) == [None]
        membership = Membership(Registry.DNS, "tasks.agent", port, tls=True)
        registry = DnsRegistry(lambda _host: ["127.0.0.1"], files.access)
        assert await registry.list(membership) == (Member("a", url),)
        with pytest.raises(RegistryError, match="is not accepted"):
            await DnsRegistry(lambda _host: ["127.0.0.1"]).list(membership)
        assert await ask_peer(url, files.access) == "a"
        assert "is not accepted" in await ask_peer(url, Access())


@pytest.mark.parametrize(
    ("issue", "why"),
    [
        pytest.param(
            lambda files: files.issue(
                not_before=datetime.now(UTC) - timedelta(days=9),
                not_after=datetime.now(UTC) - timedelta(days=1),
            ),
            "certificate has expired; it must be renewed there (RECONCILER_TLS_CERT_FILE)",
            id="expired",
        ),
        pytest.param(
            lambda files: files.issue("search-1.internal"),
            "is not valid for '127.0.0.1'.; ask the node by a name that is in its certificate",
            id="another host",
        ),
        pytest.param(
            lambda files: trustme.CA().issue_cert("127.0.0.1"),
            "name a file with the certificate that it was signed by (RECONCILER_TLS_CA_FILE)",
            id="another authority",
        ),
    ],
)
async def test_a_certificate_that_is_not_good_is_refused(
    files: Files, issue: Callable[[Files], trustme.LeafCert], why: str
) -> None:
    async with running_node(files, certificate=files.show(issue(files))) as url:
        words = await ask(url, files.access)
        assert words.startswith(f"{url}/history shows a certificate that is not accepted: ")
        assert why in words
        assert TOKEN not in words


async def test_the_systems_certificates_count_where_no_others_are_named(files: Files) -> None:
    async with running_node(files, certificate=files.show(files.issue())) as url:
        assert "shows a certificate that is not accepted" in await ask(url, Access())


async def test_a_renewed_certificate_is_shown_without_a_restart(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    old, new = files.issue(), files.issue()
    certificate = files.show(old)
    async with running_node(files, certificate=certificate) as url:
        port = int(url.rpartition(":")[2])

        async def shown() -> bytes:
            pem = await asyncio.to_thread(
                ssl.get_server_certificate, ("127.0.0.1", port), timeout=5.0
            )
            return "".join(pem.split()).encode()

        def text(leaf: trustme.LeafCert) -> bytes:
            return b"".join(leaf.cert_chain_pems[0].bytes().split())

        assert await shown() == text(old)
        files.put("cert.pem", new.cert_chain_pems[0].bytes())
        assert await shown() == text(old), "the key is not that of the new one yet"
        assert "it is for another key; the one before stays in use" in caplog.text
        assert await ask(url, files.access) == ""
        files.put("key.pem", new.private_key_pem.bytes())
        assert await shown() == text(new)
        assert await ask(url, files.access) == ""
        files.path("key.pem").unlink()
        assert await shown() == text(new)
        assert "No such file or directory; the one before stays in use" in caplog.text


async def test_another_authority_is_believed_without_a_restart(files: Files) -> None:
    other = trustme.CA()
    async with running_node(files, certificate=files.show(other.issue_cert("127.0.0.1"))) as url:
        assert "is not accepted" in await ask(url, files.access)
        files.put("ca.pem", files.path("ca.pem").read_bytes() + other.cert_pem.bytes())
        assert await ask(url, files.access) == ""


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff"])
async def test_authorities_that_cannot_be_read_are_named(
    files: Files, content: bytes | None
) -> None:
    if content is not None:
        files.put("other.pem", content)
    words = await ask("https://127.0.0.1:9", Access(None, files.path("other.pem")))
    assert words.startswith("https://127.0.0.1:9/history is not asked: the certificates in ")


async def test_http_and_https_are_told_apart(files: Files) -> None:
    async with running_node(files, certificate=files.show(files.issue())) as url:
        words = await ask(url.replace("https", "http"), files.access)
        assert words.endswith("; if it speaks TLS, write https://host:port")
    async with running_node(files) as url:
        words = await ask(url.replace("http", "https"), files.access)
        assert words.endswith("; if it does not speak TLS, write http://host:port")


def encrypt(key: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    loaded = load_pem_private_key(key, None)
    locked = BestAvailableEncryption(b"password")
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)


def test_a_certificate_that_cannot_be_shown_is_a_setting_to_change(files: Files) -> None:
    leaf = files.issue()
    files.show(leaf)
    cert, key = files.path("cert.pem"), files.path("key.pem")
    advice = r"; give a PEM certificate chain and its unencrypted key \(RECONCILER_TLS_CERT_FILE"
    files.put("key.pem", encrypt(leaf.private_key_pem.bytes()))
    with pytest.raises(SettingsError, match=f"the key is encrypted{advice}"):
        Certificate(cert, key)
    files.put("key.pem", b"no key")
    with pytest.raises(SettingsError, match=f"it is damaged or not PEM{advice}"):
        Certificate(cert, key)
    files.put("key.pem", files.issue().private_key_pem.bytes())
    with pytest.raises(SettingsError, match=f"it is for another key{advice}"):
        Certificate(cert, key)
    key.unlink()
    with pytest.raises(SettingsError, match=f"No such file or directory{advice}"):
        Certificate(cert, key)
    with pytest.raises(SettingsError, match=r"there is a TLS key .* but no certificate to it"):
        open_certificate(None, key)
    assert open_certificate(None, None) is None
    both = files.put("both.pem", leaf.private_key_and_cert_chain_pem.bytes())
    assert open_certificate(both, None) is not None


async def test_who_connects_and_shakes_no_hands_keeps_nobody_out(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    server = await make_node(files, certificate=files.show(files.issue()))
    async with serving(server) as url, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(server.port)) for _ in range(8)]
        assert await ask(url, files.access) == ""
        for reader, _ in silent[:4]:
            await wait_for_end(reader)


async def test_a_handshake_has_a_deadline(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.05)
    server = await make_node(files, certificate=files.show(files.issue()))
    async with serving(server), connected(server.port) as (reader, writer):
        writer.write(b"\x16\x03")  # the beginning of a client's hello
        await wait_for_end(reader)


async def test_the_server_ends_while_somebody_shakes_hands(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 3600.0)
    server = await make_node(files, certificate=files.show(files.issue()))
    async with AsyncExitStack() as stack:
        async with serving(server):
            reader, writer = await stack.enter_async_context(connected(server.port))
            writer.write(b"\x16\x03")
            await asyncio.to_thread(
                fetch_history, f"https://127.0.0.1:{server.port}", 5.0, 1, files.access
            )  # so the one before has been taken in
        await wait_for_end(reader)


async def test_what_comes_along_with_the_end_of_the_handshake_is_answered(files: Files) -> None:
    """A client may send its request before it has heard that the handshake is complete."""
    server = await make_node(files, certificate=files.show(files.issue()))
    context = ssl.create_default_context(cafile=files.path("ca.pem"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    async with serving(server), connected(server.port) as (reader, writer), asyncio.timeout(10):
        while True:
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
            writer.write(outgoing.read())
            incoming.write(await reader.read(65536))
        tls.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
        writer.write(outgoing.read())  # in one piece with the end of the handshake
        answer = b""
        while b'"live": true' not in answer:
            incoming.write(await reader.read(65536))
            with suppress(ssl.SSLWantReadError):
                while True:
                    answer += tls.read(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")


# --- how often --------------------------------------------------------------------------------


async def test_who_asks_too_often_is_told_when_to_come_again_and_others_are_not(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "READ_BURST", 3)
    monkeypatch.setattr(guard, "READS_PER_MINUTE", 0.6)
    async with running_node(files) as url:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            # Who does not know the token has no more guesses.
            codes = [(await client.get("/status")).status_code for _ in range(4)]
            assert codes == [401, 401, 401, 429]
            refused = await client.get("/metrics", headers=bearer(TOKEN))
            assert refused.status_code == 429
            assert 90 <= int(refused.headers["retry-after"]) <= 101
            assert refused.headers["connection"] == "close"
            assert refused.json() == {
                "error": "Too many requests from one address; ask less often."
            }
            probes = [await client.get("/livez") for _ in range(5)]
            assert {probe.status_code for probe in probes} == {200}
            assert (await client.post("/sync", headers=bearer(SYNC_TOKEN))).status_code == 202
        elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(base_url=url, transport=elsewhere) as other:
            assert (await other.get("/metrics", headers=bearer(TOKEN))).status_code == 200


async def test_posts_have_a_stricter_limit_of_their_own(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert guard.WRITE_BURST < guard.READ_BURST
    assert guard.WRITES_PER_MINUTE < guard.READS_PER_MINUTE
    monkeypatch.setattr(guard, "WRITE_BURST", 2)
    monkeypatch.setattr(guard, "WRITES_PER_MINUTE", 0.6)
    async with (
        running_node(files) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        codes = [(await client.post(path)).status_code for path in ("/sync", "/hooks/git", "/sync")]
        assert codes == [401, 403, 429]
        assert (await client.get("/metrics", headers=bearer(TOKEN))).status_code == 200
