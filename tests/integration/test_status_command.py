"""`reconciler status URL` against a real endpoint and against servers that are no reconciler."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.status import status
from reconciler.model import Commit, Condition, Deployment, Outcome, Phase, Problem, Progress
from reconciler.status.report import NodeReport, render

COMMIT = Commit("1a2b3c4d5e6f", "Ada Lovelace", "Roll ranker out", 990.0)
HOLDS = Condition("GitReachable", True, "Fetched", "The repo was read.")
BROKEN = Condition("BucketReachable", False, "Forbidden", "gs://b cannot be listed: 403.")

Answer = Callable[[BaseHTTPRequestHandler], None]


def outcome(model: str, phase: Phase, **more: object) -> Outcome:
    deployment = Deployment(model, "search", f"deployments/search/{model}.yaml", f"gs://b/{model}")
    return Outcome(deployment, phase, "Reason", f"About {model}.", **more)  # type: ignore[arg-type]


def report(*outcomes: Outcome, condition: Condition = HOLDS, **more: object) -> bytes:
    made = NodeReport(
        "search-1", "search", "0.1.0", 0, 1000, True, "did this", COMMIT, COMMIT, outcomes,
        conditions=(condition,), **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return json.dumps(render(made)).encode()


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server that answers each GET as told, for what no reconciler would do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def saying(body: bytes, code: int = 200) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path != "/status":
            request.send_error(404)
            return
        request.send_response(code)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def ask(url: str, *options: str) -> Result:
    return CliRunner().invoke(status, [url, *options], env={"COLUMNS": "120"})


@pytest.mark.parametrize("form", ["http://{}", "http://{}/", "http://{}/status", "{}"])
def test_a_node_at_rest_is_exit_code_0(form: str) -> None:
    body = report(
        outcome("ranker", Phase.DEPLOYED, wanted=42, serving=(42,)), outcome("old", Phase.STOPPED)
    )
    with answering(saying(body)) as address:
        result = ask(form.format(address))

    assert result.exit_code == 0, result.output
    assert "search-1, group search, commit 1a2b3c4 Roll ranker out (Ada Lovelace)" in result.output
    assert "GitReachable" not in result.output


def test_the_worst_comes_first_with_what_is_known_about_it() -> None:
    body = report(
        outcome("a-good", Phase.DEPLOYED, wanted=7, serving=(7,)),
        outcome(
            "b-moving", Phase.DEPLOYING, wanted=42, serving=(41,), progress=Progress(25, 100)
        ),
        outcome(
            "c-failed", Phase.FAILED, wanted=0, serving=(12,), last_error="no variables",
            retry_in_seconds=37.0,
        ),
        removals=(outcome("d-leaving", Phase.STOPPING, serving=(3,)),),
        problems=(Problem("deployments/x.yaml", 3, 1, "unknown field"),),
        condition=BROKEN,
    )  # fmt: skip
    with answering(saying(body)) as address:
        result = ask(address)

    assert result.exit_code == 1
    lines = result.output.splitlines()
    rows = [line.split()[:2] for line in lines if line.split()[0] in list(Phase)]
    assert rows == [
        ["Failed", "c-failed"],
        ["Deploying", "b-moving"],
        ["Stopping", "d-leaving"],
        ["Deployed", "a-good"],
    ]
    assert "12 → 0" in result.output
    assert "no variables Next try in 37 s." in result.output
    assert "41 → 42" in result.output
    assert "25 % downloaded." in result.output
    assert "3 → none" in result.output
    assert "BucketReachable does not hold (Forbidden): gs://b cannot be listed: 403." in lines
    assert "deployments/x.yaml:3:1: unknown field" in lines


@pytest.mark.parametrize(
    ("phase", "condition", "code"),
    [
        (Phase.DEPLOYED, HOLDS, 0),
        (Phase.STOPPED, HOLDS, 0),
        (Phase.DEPLOYING, HOLDS, 1),
        (Phase.STOPPING, HOLDS, 1),
        (Phase.FAILED, HOLDS, 1),
        (Phase.DEPLOYED, BROKEN, 1),
    ],
)
def test_exit_codes(phase: Phase, condition: Condition, code: int) -> None:
    with answering(saying(report(outcome("ranker", phase), condition=condition))) as address:
        assert ask(address).exit_code == code


def test_a_node_without_deployments_says_so() -> None:
    with answering(saying(report())) as address:
        result = ask(address)

    assert result.exit_code == 0
    assert "This node has nothing to serve." in result.output


def test_json_is_the_answer_unchanged_with_the_same_exit_code() -> None:
    body = report(outcome("ranker", Phase.FAILED))
    with answering(saying(body)) as address:
        result = ask(address, "--json")

    assert result.exit_code == 1
    assert result.output == body.decode() + "\n"


def test_texts_from_commits_cannot_steer_the_terminal() -> None:
    evil = Commit("\x1b]0;x", "\x1b[31mred\x1b[0m", "[bold]markup[/bold]\r\x07", 0)
    made = NodeReport("n", None, "0", 0, 0, True, "s\x9b2J", evil, evil)
    with answering(saying(json.dumps(render(made)).encode())) as address:
        result = ask(address)

    assert not {"\x1b", "\x9b", "\r", "\x07"} & set(result.output)
    assert "[bold]markup[/bold]" in result.output


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://node:8080", "not a URL of a node"),
        ("http://", "not a URL of a node"),
        ("", "not a URL of a node"),
        ("http://node:port", "not a URL of a node"),
        ("http://ops:hunter2@node:8080", "user name, password or query"),
        ("http://node:8080/status?token=hunter2", "user name, password or query"),
        ("http://node:8080/a b", "characters in it that no URL has"),
        ("http://" + "a" * 70 + ":1/", "cannot be asked"),
    ],
)
def test_a_url_that_cannot_be_is_exit_code_2_and_keeps_its_secrets(url: str, words: str) -> None:
    result = ask(url)

    assert result.exit_code == 2
    assert words in result.output
    assert "hunter2" not in result.output


def test_nobody_listening_is_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    result = ask(f"127.0.0.1:{port}")

    assert result.exit_code == 2
    assert f"http://127.0.0.1:{port}/status cannot be asked: " in result.output
    assert "refused" in result.output


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(saying(b"<html>"), "not JSON", id="html"),
        pytest.param(saying(b"[" * 100_000), "not JSON", id="deep-json"),
        pytest.param(saying(b'{"node": 7}'), "not a reconciler's status: at $", id="other-json"),
        pytest.param(saying(b"x" * (17 << 20)), "more than 16 MiB", id="endless"),
        pytest.param(saying(b'{"error": "No report yet."}', 503), "503: No report yet.", id="503"),
        pytest.param(saying(b"moved", 302), "answered 302", id="redirect"),
        pytest.param(lambda request: None, "cannot be asked", id="hangs-up"),
    ],
)
def test_an_answer_that_is_no_status_is_exit_code_2(answer: Answer, words: str) -> None:
    with answering(answer) as address:
        result = ask(address)

    assert result.exit_code == 2
    assert words in result.output
    assert len(result.output) < 1000


def test_a_body_that_is_cut_off_is_exit_code_2() -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("content-length", "1000")
        request.end_headers()
        request.wfile.write(b'{"node": "search-1"')

    with answering(cut) as address:
        result = ask(address)

    assert result.exit_code == 2
    assert "cannot be asked: IncompleteRead" in result.output


def test_a_body_that_drips_for_ever_ends_at_the_deadline() -> None:
    gone = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                request.wfile.write(b" ")
                gone.wait(0.02)
        except OSError:
            gone.set()

    with answering(drip) as address:
        result = ask(address, "--deadline", "0.3")

        assert result.exit_code == 2
        assert "did not answer within 0.3 s" in result.output
        assert gone.wait(10)
