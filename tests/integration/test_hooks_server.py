"""POST /hooks/git over real sockets: what wakes the fetch, and what is turned away how early."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pytest

from reconciler.demo.services import free_port
from reconciler.status.board import StatusBoard
from reconciler.status.hooks import BURST, MAX_BODY_BYTES, HookSettings
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.server import StatusServer
from tests.forges import DELIVERIES, SECRET, Delivery, github, gitlab, sign
from tests.gitserver import ConfigRemote, serve_http

_DEADLINE_SECONDS = 30
_MIB = 1024 * 1024
_JSON = {"content-type": "application/json"}


@dataclass
class Node:
    client: httpx.AsyncClient
    port: int
    secret_file: Path
    woken: list[str]

    async def post(self, delivery: Delivery, **headers: str) -> httpx.Response:
        """Send what a forge sends; a header that is given replaces its own."""
        replaced = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(
            "/hooks/git",
            content=delivery.body,
            headers={**_JSON, **delivery.headers, **replaced},
        )


@asynccontextmanager
async def running_node(
    tmp_path: Path, *, has_secret: bool = True, body_seconds: float = 0.3
) -> AsyncIterator[Node]:
    secret_file = tmp_path / "secret"
    secret_file.write_bytes(SECRET + b"\n")
    woken: list[str] = []
    board = StatusBoard(
        Journal(tmp_path / "history.jsonl"),
        Metrics("0.1.0"),
        lambda: woken.append("everything"),
        wake_git=lambda: woken.append("git"),
        heartbeat_limit_seconds=30,
    )
    hooks = HookSettings(secret_file if has_secret else None, "main", body_seconds)
    server = StatusServer(board, "127.0.0.1:0", hooks=hooks)
    task = asyncio.create_task(server.serve())
    try:
        url = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield Node(client, server.port, secret_file, woken)
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=_DEADLINE_SECONDS)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path) as running:
        yield running


def error_in(answer: httpx.Response) -> str:
    assert set(answer.json()) == {"error"}
    assert SECRET.decode() not in answer.text
    return str(answer.json()["error"])


# --- what is taken --------------------------------------------------------------------------


@pytest.mark.parametrize("make", DELIVERIES)
async def test_a_push_wakes_the_fetch_and_nothing_else(node: Node, make: Any) -> None:
    answer = await node.post(make("refs/heads/main"))

    assert (answer.status_code, answer.json()["hook"]) == (202, "fetching")
    assert node.woken == ["git"]


@pytest.mark.parametrize("make", DELIVERIES)
async def test_what_is_not_about_the_branch_wakes_nothing(node: Node, make: Any) -> None:
    for ref, is_gone in (
        ("refs/heads/other", False),
        ("refs/heads/main", True),
        ("refs/tags/main", False),
    ):
        answer = await node.post(make(ref, is_gone=is_gone))
        assert (answer.status_code, answer.json()["hook"]) == (200, "ignored"), ref
    assert node.woken == []


async def test_a_ping_says_that_the_secret_is_right(node: Node) -> None:
    answer = await node.post(github("refs/heads/main", event="ping"))

    assert (answer.status_code, answer.json()["hook"]) == (200, "pong")
    assert "GitHub reaches this node and knows its secret" in answer.json()["sentence"]
    assert node.woken == []


async def test_a_rotated_secret_counts_from_the_next_push_on(node: Node) -> None:
    node.secret_file.write_bytes(b"another")
    assert (await node.post(github("refs/heads/main"))).status_code == 401
    node.secret_file.write_bytes(SECRET)
    assert (await node.post(github("refs/heads/main"))).status_code == 202


# --- what is refused ------------------------------------------------------------------------


async def test_without_a_secret_hooks_are_off(tmp_path: Path) -> None:
    async with running_node(tmp_path, has_secret=False) as node:
        answer = await node.post(github("refs/heads/main"))

    assert answer.status_code == 403
    assert "RECONCILER_WEBHOOK_SECRET_FILE" in error_in(answer)
    assert node.woken == []


@pytest.mark.parametrize("content", [None, b"", b" \n", pytest.param(b"a" * 4097, id="long")])
async def test_a_secret_that_is_not_there_lets_nobody_in(node: Node, content: bytes | None) -> None:
    node.secret_file.unlink()
    if content is not None:
        node.secret_file.write_bytes(content)
    answer = await node.post(gitlab("refs/heads/main"), x_gitlab_token="")

    assert answer.status_code == 403
    assert "missing, unreadable, empty or longer than 4096 bytes" in error_in(answer)
    assert node.woken == []


_PUSH = github("refs/heads/main")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x_hub_signature_256", "sha256=" + "0" * 64),
        ("x_hub_signature_256", sign(_PUSH.body)),
        ("x_hub_signature_256", "sha1=" + sign(_PUSH.body)),
        ("x_hub_signature_256", "sha256="),
        ("x_hub_signature_256", "sha256=é"),
        ("x_hub_signature_256", SECRET.decode()),
        ("x_gitea_event", "push"),  # signed as GitHub does, sent as Gitea
    ],
)
async def test_a_wrong_signature_is_refused(
    node: Node, caplog: pytest.LogCaptureFixture, header: str, value: str
) -> None:
    replaced = {header.replace("_", "-"): value.encode("latin-1")}
    answer = await node.client.post(
        "/hooks/git",
        content=_PUSH.body,
        headers=httpx.Headers(
            [(k, v) for k, v in {**_JSON, **_PUSH.headers}.items() if k not in replaced]
            + list(replaced.items())  # type: ignore[arg-type]
        ),
    )

    assert answer.status_code == 401
    assert "x-hub-signature-256" in error_in(answer) or "x-gitea-signature" in error_in(answer)
    assert "a webhook from 127.0.0.1 was refused" in caplog.text
    assert SECRET.decode() not in caplog.text
    assert node.woken == []


async def test_a_changed_body_is_refused(node: Node) -> None:
    answer = await node.post(Delivery(_PUSH.headers, _PUSH.body + b" "))

    assert answer.status_code == 401
    assert "was not made with this node's webhook secret" in error_in(answer)


@pytest.mark.parametrize("make", DELIVERIES)
async def test_a_hook_without_a_secret_is_refused_with_what_to_do(node: Node, make: Any) -> None:
    delivery = make("refs/heads/main")
    headers = {k: v for k, v in delivery.headers.items() if "signature" not in k}
    headers.pop("x-gitlab-token", None)
    answer = await node.post(Delivery(headers, delivery.body))

    assert answer.status_code == 401
    assert "give the hook in" in error_in(answer)
    assert node.woken == []


async def test_a_request_of_no_known_forge_is_refused(node: Node) -> None:
    answer = await node.post(Delivery({}, _PUSH.body))

    assert answer.status_code == 400
    assert "x-github-event" in error_in(answer)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_is_possible(node: Node, method: str) -> None:
    answer = await node.client.request(method, "/hooks/git")

    assert (answer.status_code, node.woken) == (405, [])


@pytest.mark.parametrize(
    "body", [b"not JSON", b"[]", b"{}", b"\xff\xfe", b"[" * 200_000, b'{"ref": 1, "after": []}']
)
async def test_a_signed_body_that_is_no_push_is_refused(node: Node, body: bytes) -> None:
    headers = {"x-github-event": "push", "x-hub-signature-256": f"sha256={sign(body)}"}
    answer = await node.post(Delivery(headers, body))

    assert answer.status_code == 400
    assert "signed but not" in error_in(answer)
    assert node.woken == []


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]
)
async def test_another_content_type_is_refused_with_what_to_set(
    node: Node, content_type: str
) -> None:
    answer = await node.post(_PUSH, content_type=content_type)

    assert answer.status_code == 415
    assert "application/json" in error_in(answer)
    assert (await node.post(_PUSH, content_type="application/json; charset=utf-8")).is_success


# --- bodies that would hold the node up -----------------------------------------------------


def head(*lines: str) -> bytes:
    signature = f"x-hub-signature-256: sha256={'0' * 64}"
    fixed = ("POST /hooks/git HTTP/1.1", "host: node", "x-github-event: push", signature)
    return "\r\n".join([*fixed, "content-type: application/json", *lines, "", ""]).encode()


async def talk(
    port: int, send: Callable[[asyncio.StreamWriter], Awaitable[None]]
) -> tuple[str, bytes]:
    """Send in one's own way; return the answer, and what came after it until the end."""
    async with asyncio.timeout(_DEADLINE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            await send(writer)
            answer = await reader.readuntil(b"\r\n\r\n")
            try:
                return answer.decode().lower(), await reader.read()
            except ConnectionError:  # it closes on us while we still send
                return answer.decode().lower(), b""


async def test_a_body_that_is_announced_too_long_is_not_waited_for(node: Node) -> None:
    async def announce(writer: asyncio.StreamWriter) -> None:
        writer.write(head(f"content-length: {100 * _MIB}"))

    answer, rest = await talk(node.port, announce)

    assert "413" in answer.splitlines()[0]
    assert "connection: close" in answer
    assert b"more than 5 MiB is not read" in rest


async def test_an_absurd_length_is_an_answer_and_no_crash(node: Node) -> None:
    async def announce(writer: asyncio.StreamWriter) -> None:
        writer.write(head(f"content-length: {'9' * 19}"))

    answer, _ = await talk(node.port, announce)

    assert "413" in answer.splitlines()[0]


async def test_of_a_body_that_is_sent_all_the_same_only_the_bound_is_taken(node: Node) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    sent_bytes = 0

    async def flood(writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        writer.write(head("transfer-encoding: chunked"))
        try:
            while sent_bytes < 100 * _MIB:
                writer.write(chunk)
                await writer.drain()
                sent_bytes += len(chunk)
        except ConnectionError:
            pass

    # The answer itself may be lost: whoever goes on sending is cut off.
    try:
        answer, _ = await talk(node.port, flood)
    except (ConnectionError, asyncio.IncompleteReadError):
        answer = ""
    assert "413" in answer or not answer
    # What the sockets themselves buffer on both sides comes on top.
    assert MAX_BODY_BYTES < sent_bytes < 30 * _MIB
    assert (await node.post(_PUSH)).status_code == 202


async def test_a_body_that_drips_is_given_up(node: Node) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(head("content-length: 1000") + b"{")

    answer, rest = await talk(node.port, drip)

    assert "408" in answer.splitlines()[0]
    assert "connection: close" in answer
    assert b"was not there within 0.3 s" in rest


async def test_a_sender_that_hangs_up_leaves_no_trace(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(head("content-length: 1000") + b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert (await node.post(_PUSH)).status_code == 202
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_all_bodies_together_are_bounded_too(tmp_path: Path) -> None:
    # Long enough for all of them to be there at once.
    async with running_node(tmp_path, body_seconds=3.0) as node:
        await _send_too_much(node)


async def _send_too_much(node: Node) -> None:
    async def send_most(writer: asyncio.StreamWriter) -> None:
        writer.write(head(f"content-length: {MAX_BODY_BYTES}") + b" " * (MAX_BODY_BYTES - 1))

    async def ask() -> str:
        try:
            return (await talk(node.port, send_most))[0].splitlines()[0]
        except (ConnectionError, asyncio.IncompleteReadError):
            return "cut off"

    answers = await asyncio.gather(*(ask() for _ in range(12)))

    assert any("503" in answer or answer == "cut off" for answer in answers), answers
    assert any("408" in answer for answer in answers), answers
    assert (await node.post(_PUSH)).status_code == 202


# --- limits ---------------------------------------------------------------------------------


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def test_pushes_over_the_limit_are_told_so_and_still_not_lost(node: Node) -> None:
    answers = [await node.post(_PUSH) for _ in range(BURST + 5)]

    codes = [answer.status_code for answer in answers]
    over = next(answer for answer in answers if answer.status_code == 429)
    assert codes[:BURST] == [202] * BURST
    assert int(over.headers["retry-after"]) >= 1
    assert "need not be sent again" in error_in(over)
    taken = codes.count(202)
    await wait_until(lambda: len(node.woken) == taken + 1)  # all that were over come to one


async def test_forged_hooks_use_up_their_own_limit_alone(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    forged = Delivery(_PUSH.headers, b"{}")
    answers = [await node.post(forged) for _ in range(BURST + 5)]

    codes = [answer.status_code for answer in answers]
    assert codes[:BURST] == [401] * BURST
    over = next(answer for answer in answers if answer.status_code == 429)
    assert int(over.headers["retry-after"]) >= 1
    assert caplog.text.count("was refused") == codes.count(401)
    assert (await node.post(_PUSH)).status_code == 202


async def test_the_agent_follows_a_push_at_once_and_asks_git_once_a_second(tmp_path: Path) -> None:
    remote = ConfigRemote(tmp_path)
    remote.commit({"groups/g.yaml": "nodes: [node]\n", "fleet.yaml": "keep: 1\n"})
    (tmp_path / "secret").write_bytes(SECRET)
    port = free_port()
    with serve_http(tmp_path) as server, (tmp_path / "log").open("wb") as log:
        settings = {
            "REPO": server.url,
            "NODE": "node",
            "MODELS_DIR": str(tmp_path / "models"),
            "STATE_DIR": str(tmp_path / "state"),
            "SERVING": f"127.0.0.1:{free_port()}",
            "LISTEN": f"127.0.0.1:{port}",
            "GIT_INTERVAL": "1h",
            "WEBHOOK_SECRET_FILE": str(tmp_path / "secret"),
        }
        environment = {f"RECONCILER_{name}": value for name, value in settings.items()}
        agent = Popen(
            [sys.executable, "-m", "reconciler.cli.main", "run"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", trust_env=False
            ) as client:
                node = Node(client, port, tmp_path / "secret", [])
                first = await _observe(agent, client, lambda commit: commit != "")
                begun_at = time.monotonic()
                asked = _count_fetches(server.requests)
                pushed = remote.commit({"fleet.yaml": "keep: 2\n"}, "Keep two")
                for _ in range(BURST):
                    assert (await node.post(_PUSH)).status_code == 202
                    await asyncio.sleep(0.05)  # apart, so that each could have a fetch of its own
                assert await _observe(agent, client, lambda commit: commit != first) == pushed
                asked_again = _count_fetches(server.requests) - asked
                assert 1 <= asked_again <= 2 + time.monotonic() - begun_at
        except TimeoutError:
            pytest.fail((tmp_path / "log").read_text())
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(_DEADLINE_SECONDS)
    assert SECRET.decode() not in (tmp_path / "log").read_text()


def _count_fetches(requests: list[tuple[str, str]]) -> int:
    return sum("/info/refs" in path for path, _ in requests)


async def _observe(
    agent: "Popen[bytes]", client: httpx.AsyncClient, is_it: Callable[[str], bool]
) -> str:
    """Return the commit that the node has read once it is the one."""
    async with asyncio.timeout(3 * _DEADLINE_SECONDS):
        while True:
            if agent.poll() is not None:
                raise TimeoutError
            try:
                report = (await client.get("/status")).json()
            except httpx.TransportError:
                report = {}
            commit = str((report.get("observed") or {}).get("id", ""))
            if is_it(commit):
                return commit
            await asyncio.sleep(0.02)
