"""The status endpoint over real sockets: what each route answers, and what it refuses."""

import asyncio
import json
import logging
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import jsonschema
import pytest

from reconciler.errors import SettingsError
from reconciler.fleet.answers import read_answer
from reconciler.model import Commit, Deployment, Outcome, Phase
from reconciler.resources import data_folder
from reconciler.status import connections, guard
from reconciler.status.board import StatusBoard
from reconciler.status.client import fetch_status
from reconciler.status.connections import MAX_CONNECTIONS
from reconciler.status.hooks import HookSettings, HookTaker
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.pushes import Result, Verdict
from reconciler.status.report import NodeReport, render
from reconciler.status.server import StatusServer

COMMIT = Commit("1a2b3c4d5e6f", "Ada Lovelace", "Roll ranker out", 990.0)
RANKER = Deployment("ranker", "search", "deployments/search/ranker.yaml", "gs://b/ranker", 42)
REPORT = NodeReport(
    node="search-1",
    group="search",
    program_version="0.1.0",
    started_at_seconds=900.0,
    generated_at_seconds=1000.0,
    ready=True,
    summary="deployed ranker 42 for commit 1a2b3c4",
    observed=COMMIT,
    applied=COMMIT,
    outcomes=(Outcome(RANKER, Phase.DEPLOYED, "Serving", "Version 42 serves.", 42, (42,)),),
)
DEADLINE_SECONDS = 60.0
TOKEN = "a-token-nobody-should-see"


class Clock:
    """A monotonic clock that goes where it is told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Node:
    board: StatusBoard
    server: StatusServer
    client: httpx.AsyncClient
    clock: Clock
    token_file: Path
    woken: list[str]
    state_dir: Path


@asynccontextmanager
async def running_node(
    tmp_path: Path, *, token_file: bool = True, listen: str = "127.0.0.1:0"
) -> AsyncIterator[Node]:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    woken: list[str] = []
    clock = Clock()
    board = StatusBoard(
        Journal(tmp_path / "history.jsonl"),
        Metrics("0.1.0"),
        lambda: woken.append("woken"),
        heartbeat_limit_seconds=30,
        clock=clock,
    )
    hook_secret = tmp_path / "hook-secret"
    hook_secret.write_text("a secret of hooks")
    server = StatusServer(
        board,
        listen,
        token_file=token if token_file else None,
        hooks=HookSettings(hook_secret),
    )
    task = asyncio.create_task(server.serve())
    host = listen.rpartition(":")[0]
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{server.port}") as client:
            yield Node(board, server, client, clock, token, woken, tmp_path)
    finally:
        server.stop()
        await asyncio.wait_for(task, 10)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path) as running:
        yield running


def error_in(answer: httpx.Response) -> str:
    assert set(answer.json()) == {"error"}
    return str(answer.json()["error"])


async def test_liveness_is_the_heartbeat_of_the_loop_not_an_open_port(node: Node) -> None:
    node.clock.seconds = 29
    assert (await node.client.get("/livez")).status_code == 200

    node.clock.seconds = 31
    stale = await node.client.get("/livez")
    assert stale.status_code == 503
    assert "has not moved for 31 s (limit 30 s)" in error_in(stale)

    node.board.beat()
    assert (await node.client.get("/livez")).status_code == 200
    node.clock.seconds = 100
    await node.board.publish(REPORT)
    assert (await node.client.get("/livez")).status_code == 200


async def test_a_node_is_ready_once_its_report_says_so(node: Node) -> None:
    unready = await node.client.get("/readyz")
    await node.board.publish(replace(REPORT, ready=False))
    still = await node.client.get("/readyz")
    await node.board.publish(REPORT)
    ready = await node.client.get("/readyz")

    assert [unready.status_code, still.status_code, ready.status_code] == [503, 503, 200]
    assert "has not applied a commit" in error_in(unready)


async def test_status_is_the_newest_report(node: Node) -> None:
    early = await node.client.get("/status")
    assert early.status_code == 503
    assert "no report yet" in error_in(early)

    await node.board.publish(REPORT)
    answer = await node.client.get("/status")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == render(REPORT)


async def test_a_client_that_has_the_report_gets_304_until_something_differs(node: Node) -> None:
    await node.board.publish(REPORT)
    etag = (await node.client.get("/status")).headers["etag"]
    known = {"if-none-match": f'"other", {etag}'}

    await node.board.publish(replace(REPORT, generated_at_seconds=1002.0))
    same = await node.client.get("/status", headers=known)
    await node.board.publish(replace(REPORT, summary="nothing to do"))
    other = await node.client.get("/status", headers=known)

    assert (same.status_code, same.content) == (304, b"")
    assert (other.status_code, other.json()["summary"]) == (200, "nothing to do")


async def test_a_report_that_only_waits_on_is_the_same_report(node: Node) -> None:
    def waiting(seconds: float) -> NodeReport:
        (outcome,) = REPORT.outcomes
        frozen = replace(outcome, reason="Frozen", retry_in_seconds=3600.0 - seconds)
        # The report is written a moment after the plan was made, now longer and now shorter.
        written_at = REPORT.generated_at_seconds + seconds + seconds % 0.07
        return replace(REPORT, generated_at_seconds=written_at, outcomes=(frozen,))

    await node.board.publish(waiting(0))
    etag = (await node.client.get("/status")).headers["etag"]
    for seconds in (0.1, 2.0, 60.0, 3599.0):
        await node.board.publish(waiting(seconds))
        answer = await node.client.get("/status", headers={"if-none-match": etag})
        assert answer.status_code == 304


async def test_history_has_what_was_published_and_survives_a_restart(tmp_path: Path) -> None:
    schema = json.loads((data_folder("schema") / "status.schema.json").read_text())
    failed = Outcome(
        replace(RANKER, version=43), Phase.FAILED, "LoadFailed", "Version 43 does not load.", 43
    )
    async with running_node(tmp_path) as node:
        first = await node.board.publish(REPORT)
        second = await node.board.publish(replace(REPORT, outcomes=(failed,)))
        assert [change.to_version for change in (*first, *second)] == [42, 43]
    async with running_node(tmp_path) as node:
        await node.board.publish(replace(REPORT, outcomes=(failed,)))
        answer = (await node.client.get("/history")).json()
        newest = (await node.client.get("/history?limit=1")).json()
        scraped = (await node.client.get("/metrics")).text

    jsonschema.Draft202012Validator(
        {**schema["$defs"]["history"], "$defs": schema["$defs"]}
    ).validate(answer)
    told = [
        (entry["model"], entry["from"], entry["to"], entry["result"], entry["commit"]["author"])
        for entry in answer["changes"]
    ]
    assert told == [
        ("ranker", 42, 43, "failed", "Ada Lovelace"),
        ("ranker", None, 42, "deployed", "Ada Lovelace"),
    ]
    assert answer["changes"][1]["commit_to_serving_seconds"] == 10
    assert newest["changes"] == answer["changes"][:1]
    assert 'reconciler_changes_total{result="failed"} 0.0' in scraped


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "ten", "", "1.5", "9" * 5000, "²", "٣"])
async def test_a_limit_that_cannot_be_is_refused_with_what_would_be_right(
    node: Node, limit: str
) -> None:
    answer = await node.client.get("/history", params={"limit": limit})

    assert answer.status_code == 400
    assert error_in(answer) == (
        "limit must be a whole number from 1 to 1000, for example /history?limit=50."
    )


async def test_a_history_that_cannot_be_written_holds_nothing_up_and_is_caught_up_on(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    obstacle = node.state_dir / "history.jsonl"
    obstacle.mkdir()
    assert await node.board.publish(REPORT) == ()
    assert await node.board.publish(REPORT) == ()
    assert (await node.client.get("/status")).json()["summary"] == REPORT.summary
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "the history cannot be written" in warnings[0].getMessage()

    obstacle.rmdir()
    (change,) = await node.board.publish(REPORT)

    assert change.to_version == 42
    scraped = (await node.client.get("/metrics")).text
    assert 'reconciler_changes_total{result="deployed"} 1.0' in scraped


async def test_metrics_are_in_the_text_format_of_prometheus(node: Node) -> None:
    await node.board.publish(REPORT)

    answer = await node.client.get("/metrics")

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'reconciler_served_version{group="search",model="ranker"} 42.0' in answer.text
    assert "reconciler_commit_to_serving_seconds_sum 10.0" in answer.text


async def sync(node: Node, authorization: str | None = f"Bearer {TOKEN}") -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    return await node.client.post("/sync", headers=headers)


async def test_sync_wakes_the_loop_for_who_has_the_token(node: Node) -> None:
    answer = await sync(node)

    assert answer.status_code == 202
    assert node.woken == ["woken"]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Basic abc", "Bearer wrong", f"Bearer {TOKEN}x", TOKEN],
)
async def test_sync_refuses_who_does_not_have_the_token(
    node: Node, authorization: str | None
) -> None:
    answer = await sync(node, authorization)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert error_in(answer).endswith(".")
    assert node.woken == []


async def test_the_token_file_is_read_anew_each_time(node: Node) -> None:
    node.token_file.write_text("rotated")

    assert (await sync(node)).status_code == 401
    assert (await sync(node, "bearer rotated")).status_code == 202


@pytest.mark.parametrize("content", ["", " \n", None])
async def test_an_empty_or_missing_token_file_lets_nobody_in(
    node: Node, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    node.token_file.unlink()
    if content is not None:
        node.token_file.write_text(content)

    answer = await sync(node)

    assert answer.status_code == 403
    assert "nobody is let in" in error_in(answer)
    assert TOKEN not in answer.text + caplog.text
    assert node.woken == []


async def test_sync_without_a_token_file_is_off_and_says_how_to_turn_it_on(tmp_path: Path) -> None:
    async with running_node(tmp_path, token_file=False) as node:
        answer = await sync(node)

    assert answer.status_code == 403
    assert "RECONCILER_SYNC_TOKEN_FILE" in error_in(answer)


async def test_a_request_body_is_neither_read_nor_waited_for(node: Node) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    head = f"POST /sync HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write((head + "Content-Length: 1000000000\r\n\r\nfirst bytes").encode())

    answer = await asyncio.wait_for(reader.readline(), 10)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 202 ")
    assert node.woken == ["woken"]


async def test_the_connection_of_a_client_with_endless_headers_is_ended(node: Node) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000)

    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert (await node.client.get("/livez")).status_code == 200


async def check_that_probes_are_answered(
    node: Node,
    silent: Sequence[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Check that `silent` connections, the oldest first, give way, and close them."""
    answers = [await node.client.get("/livez") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert await _is_ended(silent[0][0]), "the oldest of them is still there"
    for _, writer in silent:
        writer.close()
    assert caplog.records == []


@pytest.mark.parametrize("beginning", [b"", b"GET /livez HTTP/1.1\r\nX-Slow: "])
async def test_connections_that_never_ask_do_not_make_a_healthy_node_look_dead(
    node: Node, caplog: pytest.LogCaptureFixture, beginning: bytes
) -> None:
    silent = []
    for _ in range(MAX_CONNECTIONS + 10):
        connection = await asyncio.open_connection("127.0.0.1", node.server.port)
        connection[1].write(beginning)
        silent.append(connection)

    await check_that_probes_are_answered(node, silent, caplog)


async def test_hooks_whose_bodies_never_come_do_not_make_a_healthy_node_look_dead(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /hooks/git HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
    head += b"Content-Type: application/json\r\n"
    head += b"X-GitHub-Event: push\r\nX-Hub-Signature-256: sha256=0\r\n\r\n"
    silent = []
    for number in range(MAX_CONNECTIONS + 10):
        # From several addresses, each of which is within its limit.
        address = (f"127.0.0.{2 + number // 50}", 0)
        connection = await asyncio.open_connection(
            "127.0.0.1", node.server.port, local_addr=address
        )
        connection[1].write(head)
        silent.append(connection)

    await check_that_probes_are_answered(node, silent, caplog)


async def test_requests_that_take_their_time_do_not_make_a_healthy_node_look_dead(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = 0, asyncio.Event()

    async def wait(*_: object) -> Verdict:
        nonlocal asked
        asked += 1
        await answer.wait()
        return Verdict(Result.FETCHING, "")

    monkeypatch.setattr(HookTaker, "take", wait)
    streams = []
    for number in range(MAX_CONNECTIONS + 10):
        address = (f"127.0.0.{2 + number // 50}", 0)
        streams.append(
            await asyncio.open_connection("127.0.0.1", node.server.port, local_addr=address)
        )
        streams[-1][1].write(b"POST /hooks/git HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        while asked < guard.MAX_UNDER_WAY:
            await asyncio.sleep(0.01)

    answers = [await node.client.get(path) for path in ("/livez", "/readyz", "/status")]

    assert [given.status_code for given in answers] == [200, 503, 503]
    assert "applied a commit" in error_in(answers[1])
    assert "Too many requests at once" in error_in(answers[2])
    assert asked == guard.MAX_UNDER_WAY
    answer.set()
    async with asyncio.timeout(10):
        while (await node.client.get("/metrics")).status_code != 200:
            await asyncio.sleep(0.01)
    for _, writer in streams:
        writer.close()


async def test_a_connection_ends_with_its_time_also_while_it_drips(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nX-Slow: ")

    assert await _is_ended(reader)
    writer.close()


async def _is_ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionResetError:
        return True


async def test_what_is_no_request_is_refused_and_fills_no_log(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.server.port)
    writer.write(b"\x16\x03\x01 tls to a port without\r\n\r\n")

    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400 ")
    writer.close()
    assert caplog.records == []


@pytest.mark.parametrize("path", ["/", "/livez", "/status", "/history", "/metrics", "/readyz"])
async def test_head_answers_as_get_without_a_body(node: Node, path: str) -> None:
    await node.board.publish(REPORT)

    get, head = await node.client.get(path), await node.client.head(path)

    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/assets/nothing.js", 404),
        ("GET", "/assets/..%2Fapp.py", 404),
        ("GET", "/assets/%2Fetc%2Fpasswd", 404),
        ("GET", "/sync", 405),
        ("POST", "/status", 405),
        ("DELETE", "/history", 405),
        ("GET", "/status", 503),
    ],
)
async def test_errors_are_sentences_in_json_with_the_security_headers(
    node: Node, method: str, path: str, code: int
) -> None:
    answer = await node.client.request(method, path)

    assert answer.status_code == code
    assert error_in(answer).endswith(".")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


async def test_the_page_and_its_files_come_from_the_node_itself(node: Node) -> None:
    page = await node.client.get("/")
    script = await node.client.get("/assets/page.js")
    again = await node.client.get(
        "/assets/page.js", headers={"if-none-match": script.headers["etag"]}
    )

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "http://" not in page.text + script.text
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert again.status_code == 304


async def test_a_port_that_is_taken_is_a_sentence_and_not_a_crash(tmp_path: Path) -> None:
    board = StatusBoard(
        Journal(tmp_path / "h"), Metrics("0"), lambda: None, heartbeat_limit_seconds=60
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=f"cannot listen on {address}: .*--listen"):
            StatusServer(board, address)


async def test_it_listens_on_ipv6_too(tmp_path: Path) -> None:
    async with running_node(tmp_path, listen="[::1]:0") as node:
        assert (await node.client.get("/livez")).status_code == 200


async def test_signals_stay_with_the_agent_and_a_cancelled_server_leaves_nothing_open(
    tmp_path: Path,
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    board = StatusBoard(
        Journal(tmp_path / "h"), Metrics("0"), lambda: None, heartbeat_limit_seconds=60
    )
    server = StatusServer(board, "127.0.0.1:0")
    port = server.port
    task = asyncio.create_task(server.serve())
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/livez")).status_code == 200
        assert signal.getsignal(signal.SIGTERM) is before
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"}"), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert reader.at_eof(), "the connection that was kept alive is still there"
        writer.close()

    with socket.create_server(("127.0.0.1", port)) as again:
        assert again.getsockname()[1] == port


async def test_what_is_written_in_pieces_is_the_report_word_for_word(node: Node) -> None:
    failed = replace(REPORT.outcomes[0], deployment=replace(RANKER, model="a"))
    for outcomes, removals in (((), ()), ((failed,), REPORT.outcomes), (REPORT.outcomes * 3, ())):
        report = replace(REPORT, outcomes=outcomes, removals=removals)
        await node.board.publish(report)
        page = node.board.status
        assert page is not None
        assert page.body == json.dumps(render(report)).encode()


async def test_where_a_deployment_stands_is_part_of_the_tag(node: Node) -> None:
    tags = set()
    for number in range(3):
        outcomes, removals = REPORT.outcomes[number:], REPORT.outcomes[: number % 2]
        await node.board.publish(replace(REPORT, outcomes=outcomes, removals=removals))
        assert node.board.status is not None
        tags.add(node.board.status.etag)
    assert len(tags) == 3


async def test_a_node_of_ten_thousand_models_can_be_read_by_the_others(node: Node) -> None:
    metadata = {f"key-{number}": "some value" for number in range(5)}
    outcomes = tuple(
        replace(
            REPORT.outcomes[0],
            deployment=replace(RANKER, model=f"search-ranking-{number:05d}", metadata=metadata),
            sentence="Version 42 serves, and so does its predecessor until the labels have moved.",
        )
        for number in range(10_000)
    )
    holders = {item.deployment.model: ("search-1", "search-2", "search-3") for item in outcomes}
    report = replace(REPORT, outcomes=outcomes, holders=holders, observed=None)  # not all as news
    await node.board.publish(report)
    url = f"http://127.0.0.1:{node.server.port}"
    body = await asyncio.to_thread(fetch_status, url, DEADLINE_SECONDS)
    assert len(read_answer(body).deployments) == len(outcomes)
