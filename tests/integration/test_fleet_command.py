"""`reconciler fleet`: a real clone, real nodes, a real page of its own."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from click.testing import CliRunner, Result

from reconciler.cli.fleet import fleet
from reconciler.errors import SettingsError
from reconciler.model import Commit, Phase
from reconciler.resources import data_folder
from reconciler.status.report import NodeReport
from tests.fleetnodes import Answer, body, node_saying, outcome, report, saying, serving
from tests.gitserver import ConfigRemote

TOKEN = "a-token-nobody-should-see"
DEADLINE_SECONDS = 20.0
BOTH = {"ranker": ["search-1", "search-2"]}


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(fleet, arguments, env={"COLUMNS": "160"})


def node(name: str, phase: Phase = Phase.DEPLOYED, **more: Any) -> NodeReport:
    made = report(name, [outcome("ranker", phase)], BOTH, **more)
    return replace(made, generated_at_seconds=time.time())


def make_clone(folder: Path, addresses: dict[str, str]) -> tuple[Path, Commit]:
    """A clone whose group has these nodes, with its commit as a node tells of it."""
    remote = ConfigRemote(folder)
    nodes = "".join(f"- {{name: {name}, address: '{at}'}}\n" for name, at in addresses.items())
    commit_id = remote.commit(
        {
            "groups/search.yaml": f"nodes:\n{nodes}",
            "deployments/search/ranker.yaml": (
                "model: ranker\nsource: gs://acme/ranker\nversion: 42\n"
            ),
        }
    )
    return remote.work, Commit(commit_id, "Ada", "Roll ranker out", 1e9)


def test_a_fleet_that_serves_what_git_says_is_exit_code_0(tmp_path: Path) -> None:
    reports: dict[str, NodeReport] = {}
    nodes = [node_saying(lambda name=name: reports[name]) for name in ("search-1", "search-2")]  # type: ignore[misc]
    with serving(nodes) as (one, other):
        clone, commit = make_clone(tmp_path, {"search-1": one, "search-2": other})
        for name in ("search-1", "search-2"):
            reports[name] = node(name, observed=commit, applied=commit)
        result = ask("status", "-C", str(clone))
        as_json = ask("status", "-C", str(clone), "--json")
    assert result.exit_code == 0, result.output
    assert "2 nodes (2 well); 1 deployment (1 Deployed)" in result.output
    assert re.search(r"search/ranker +Deployed +42 +2 of 2 +2 of 2 replicas serve", result.output)
    view = json.loads(as_json.stdout)
    schema = json.loads((data_folder("schema") / "fleet-view.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(view)
    assert (view["expected_from"], view["newest"]["id"]) == ("git", commit.id)


def test_a_dead_node_is_shown_as_such_and_hides_nothing(tmp_path: Path) -> None:
    reports: list[NodeReport] = []
    with serving([node_saying(lambda: reports[0])]) as (one,):
        clone, commit = make_clone(tmp_path, {"search-1": one, "search-2": "127.0.0.1:1"})
        reports.append(node("search-1", observed=commit, applied=commit))
        result = ask("status", "-C", str(clone))
    assert result.exit_code == 1
    assert "serious: search-2: it has not answered yet: http://127.0.0.1:1/status" in result.output
    assert re.search(r"search/ranker +Unknown +42 +1 of 2", result.output)


@pytest.mark.parametrize(
    ("phase", "code"),
    [(Phase.DEPLOYED, 0), (Phase.STOPPED, 1), (Phase.DEPLOYING, 1), (Phase.FAILED, 1)],
)
def test_exit_codes_by_addresses_alone(phase: Phase, code: int) -> None:
    reports = [node("search-1"), node("search-2", phase)]
    with serving([node_saying(lambda: reports[0]), node_saying(lambda: reports[1])]) as addresses:
        result = ask("status", *(f"--node={address}" for address in addresses))
    assert result.exit_code == code, result.output


def test_nobody_who_can_be_asked_is_exit_code_2(tmp_path: Path) -> None:
    alone = ask("status", "--node", "127.0.0.1:1")
    assert alone.exit_code == 2
    assert "no node answers, so what is served is not known" in alone.output
    assert ask("status", "--url", "127.0.0.1:1").exit_code == 2
    no_clone = ask("status", "-C", str(tmp_path))
    assert no_clone.exit_code == 2
    assert "is not in a git repository" in no_clone.stderr
    assert "--node HOST:PORT" in no_clone.stderr


def test_a_clone_without_addresses_says_what_to_write(tmp_path: Path) -> None:
    remote = ConfigRemote(tmp_path)
    remote.commit(
        {
            "groups/search.yaml": "nodes: [search-1]\n",
            "groups/ads.yaml": "nodes: {dns: tasks.ads, port: 8080}\n",
        }
    )
    result = ask("status", "-C", str(remote.work))
    assert result.exit_code == 2
    assert "no node in groups/*.yaml has an address" in result.stderr
    assert "the nodes of group ads are left out: only a registry knows them" in result.stderr


def test_a_folder_without_groups_says_so(tmp_path: Path) -> None:
    remote = ConfigRemote(tmp_path)
    remote.commit({"fleet.yaml": "keep: 1\n"})
    result = ask("status", "-C", str(remote.work))
    assert result.exit_code == 2
    assert f"has no group in {remote.work}; name the config repo's folder by -C" in result.stderr


@pytest.mark.parametrize("command", ["status", "serve", "sync"])
def test_an_address_that_is_none_is_refused_and_its_password_not_shown(
    tmp_path: Path, command: str
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    more = ("--token-file", str(token)) if command == "sync" else ()
    for wrong, words in {
        "": "--node '': this is not a URL of a node",
        "127.0.0.1:99999": "--node '127.0.0.1:99999': this is not a URL",
        "::1:8080": "--node '::1:8080': this is not a URL",
        "http://ada:hunter2@127.0.0.1:1": "the URL has a user name, password or query in it",
        "127.0.0.1:1?token=hunter2": "the URL has a user name, password or query in it",
    }.items():
        result = ask(command, "--node", "127.0.0.1:1", "--node", wrong, *more)
        assert isinstance(result.exception, SettingsError)
        assert words in str(result.exception)
        assert "hunter2" not in result.output + str(result.exception)


@pytest.mark.parametrize("listen", ["8090", ":8090", "127.0.0.1:http", "127.0.0.1:99999"])
def test_where_no_page_can_be_served_is_said_with_what_would_be_right(listen: str) -> None:
    result = ask("serve", "--listen", listen, "--node", "127.0.0.1:1")
    assert isinstance(result.exception, SettingsError)
    assert f"--listen '{listen}' is not host:port, as 127.0.0.1:8090" in str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "h:1", "--node", "h:1"),
        ("--url", "h:1", "-C", "."),
        ("-C", ".", "--node", "h:1"),
        ("--watch", "--json", "--node", "h:1"),
    ],
)
def test_arguments_that_contradict_each_other(arguments: tuple[str, ...]) -> None:
    result = ask("status", *arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_any_node_can_be_asked_for_its_view_of_all() -> None:
    example = (data_folder("tests") / "data" / "fleet-view.json").read_bytes()
    views = {"/fleet.json": example}
    with serving([lambda path: saying(views.get(path, b""))]) as (address,):
        result = ask("status", "--url", f"http://{address}")
        assert result.exit_code == 1
        assert "fleet as search-1 sees it" in result.output
        page = ask("status", "--url", f"http://{address}/fleet")
        assert page.output == result.output, "the URL that people have open in their browser"
        as_json = ask("status", "--url", address, "--json")
        assert json.loads(as_json.stdout) == json.loads(example)
        views["/fleet.json"] = b'{"wrong": []}'
        wrong = ask("status", "--url", address)
    assert (wrong.exit_code, wrong.stderr) == (
        2,
        "reconciler fleet: the answer is not a reconciler's view of a fleet\n",
    )


def test_of_many_rows_the_worst_are_shown() -> None:
    names = [f"m{number:03}" for number in range(60)]
    outcomes = [outcome(name) for name in names] + [outcome("zebra", Phase.FAILED)]
    made = report("search-1", outcomes, {name: ["search-1"] for name in [*names, "zebra"]})
    with serving([node_saying(lambda: made)]) as (address,):
        short = ask("status", "--node", address).output
        long = ask("status", "--node", address, "--all").output
    assert "search/zebra" in short
    assert "search/m059" not in short
    assert "… and 21 more deployments; --all shows them" in short
    assert "search/m059" in long


def test_a_narrow_terminal_has_room_for_the_sentence() -> None:
    why = "version 3 failed to load: the graph is cut off; version 1 goes on serving"
    made = report("search-1", [outcome("ranker", Phase.FAILED, sentence=why)], BOTH)
    with serving([node_saying(lambda: made)]) as (address,):
        shown = {
            width: CliRunner().invoke(
                fleet, ["status", "--node", address], env={"COLUMNS": str(width)}
            ).output
            for width in (60, 80, 100)
        }  # fmt: skip
    for width, columns in {
        60: "node +state +behind +what is going on",
        80: "node +group +state +commit +behind +what is going on",
        100: "node +group +state +commit +behind +disk free +what is going on",
    }.items():
        assert re.search(columns, shown[width]), shown[width]
        assert max(map(len, shown[width].splitlines())) <= width
        row = shown[width].partition("what is going on")[2].partition("deployment ")[0]
        assert len(row.strip().splitlines()) <= 6, row


def test_a_name_that_would_steer_the_terminal_does_not() -> None:
    made = report("search-1", [outcome("ranker", sentence="\x1b[2Jgone [red]x[/red]")], BOTH)
    with serving([node_saying(lambda: made)]) as (address,):
        output = ask("status", "--node", address).output
    assert "\x1b" not in output


# --- watch, serve -----------------------------------------------------------------------------


def test_watch_redraws_until_it_is_interrupted() -> None:
    reports = [node("search-1", Phase.DEPLOYING)]
    with serving([node_saying(lambda: reports[0])]) as (address,):
        own, other = pty.openpty()
        command = [sys.executable, "-m", "reconciler.cli.main", "fleet", "status", "--watch"]
        with subprocess.Popen(
            [*command, "--node", address], stdin=other, stdout=other, stderr=other,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        ) as process:  # fmt: skip
            os.close(other)
            try:
                _read_until(own, b"Deploying")
                reports[0] = node("search-1", Phase.FAILED)
                _read_until(own, b"Failed")
            finally:
                process.send_signal(signal.SIGINT)
                _drain(own)
                code = process.wait(DEADLINE_SECONDS)
                os.close(own)
    assert code == 0


def test_an_answer_that_was_not_waited_for_is_not_exit_code_0() -> None:
    came, goes_on = threading.Event(), threading.Event()

    def hang(_: str) -> Answer:
        came.set()
        goes_on.wait(DEADLINE_SECONDS)
        return saying(b"", 500)

    with serving([hang]) as (address,):
        command = [sys.executable, "-m", "reconciler.cli.main", "fleet", "status"]
        with subprocess.Popen([*command, "--url", address], stderr=subprocess.PIPE) as process:
            try:
                assert came.wait(DEADLINE_SECONDS)
                process.send_signal(signal.SIGINT)
                assert process.wait(DEADLINE_SECONDS) == 1
            finally:
                goes_on.set()
                process.kill()


def _read_until(terminal: int, word: bytes) -> None:
    seen, end = b"", time.monotonic() + DEADLINE_SECONDS
    while word not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, seen
        seen += os.read(terminal, 65536)


def _drain(terminal: int) -> None:
    """Read to the end, so that the program is not held up while it writes its last."""
    try:
        while select.select([terminal], [], [], DEADLINE_SECONDS)[0] and os.read(terminal, 65536):
            pass
    except OSError:
        return  # the other side was closed


@contextmanager
def page_of(*arguments: str) -> Iterator[tuple[httpx.Client, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "reconciler.cli.main", "fleet", "serve"]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://\S+(?=/fleet)", line)
            assert found is not None, line
            with httpx.Client(base_url=found[0], timeout=DEADLINE_SECONDS) as client:
                yield client, process
        finally:
            process.terminate()
            process.communicate(timeout=DEADLINE_SECONDS)


def _wait_for(client: httpx.Client, state: str) -> httpx.Response:
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        answer = client.get("/fleet.json")
        if answer.json()["state"] == state:
            return answer
        assert time.monotonic() < end, answer.text
        time.sleep(0.05)


def test_the_page_is_served_beside_no_node_and_follows_what_nodes_say() -> None:
    reports = [node("search-1")]
    is_dead: list[bool] = []
    alive = node_saying(lambda: reports[0])

    def answer(path: str) -> Answer:
        return saying(b"", 500) if is_dead else alive(path)

    with serving([answer]) as (address,), page_of("--node", address) as (client, process):
        assert client.get("/livez").json() == {"live": True}
        assert client.get("/").headers["location"] == "/fleet"
        # search-2 is a holder, and nobody knows of it.
        first = _wait_for(client, "well")
        assert first.headers["content-encoding"] == "gzip"
        plain = client.get("/fleet.json", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.json()["deployments"] == first.json()["deployments"]

        tag = {"if-none-match": first.headers["etag"]}
        same = client.get("/fleet.json", headers=tag)
        assert (same.status_code, same.content) == (304, b"")
        is_dead.append(True)
        dead = _wait_for(client, "blind")
        assert dead.headers["etag"] != first.headers["etag"]
        assert dead.json()["nodes"][0]["state"] == "dead"

        for path in ("/fleet", "/fleet/fleet.js", "/fleet.json", "/nothing"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
        assert client.get("/fleet").headers["content-type"] == "text/html; charset=utf-8"
        assert client.get("/fleet/..%2fapp.py").status_code == 404
        assert "see /fleet, /fleet.json" in client.get("/nothing").json()["error"]

        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with serving([node_saying(lambda: node("search-1"))]) as (address,):
        result = subprocess.run(
            [sys.executable, "-m", "reconciler.cli.main", "fleet", "serve", "--listen", address,
             "--node", address],
            capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False,
        )  # fmt: skip
    assert result.returncode == 2
    assert f"the fleet's page cannot listen on {address}" in result.stderr


# --- sync -------------------------------------------------------------------------------------


def takes_token(asked: list[str]) -> Any:
    """A node that takes a POST /sync with the token, as an agent does."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(f"{request.command} {request.path}")
        if request.headers.get("authorization") == f"Bearer {TOKEN}":
            return saying(b'{"sync": "started"}', 202)(request)
        return saying(b'{"error": "The token is not the one of this node."}', 401)(request)

    return lambda _: answer


def test_sync_reaches_every_node(tmp_path: Path) -> None:
    asked: list[str] = []
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    with serving([takes_token(asked), takes_token(asked)]) as (one, other):
        clone, _ = make_clone(tmp_path, {"search-1": one, "search-2": other})
        result = ask("sync", "-C", str(clone), "--token-file", str(token))
        assert result.exit_code == 0, result.output
        assert asked == ["POST /sync"] * 2
        assert result.stdout == "2 of 2 nodes look at git now\n"

        some = ask("sync", "--node", one, "--node", "127.0.0.1:1", "--token-file", str(token))
        assert (some.exit_code, some.stdout) == (1, "1 of 2 nodes look at git now\n")
        assert "127.0.0.1:1: http://127.0.0.1:1/sync cannot be asked" in some.stderr

        token.write_text("another\n")
        none = ask("sync", "--node", one, "--token-file", str(token))
    assert none.exit_code == 2
    assert f"{one}: http://{one}/sync answered 401: The token is not the one" in none.stderr


@pytest.mark.parametrize("content", [b"", b"line\r\nx-evil: 1", "schlüssel".encode()])
def test_a_token_that_cannot_be_one_is_sent_nowhere_and_shown_nowhere(
    tmp_path: Path, content: bytes
) -> None:
    asked: list[str] = []
    token = tmp_path / "token"
    token.write_bytes(content)
    with serving([takes_token(asked)]) as (address,):
        result = ask("sync", "--node", address, "--token-file", str(token))
    assert result.exit_code != 0
    assert asked == []
    for word in ("evil", "schl"):
        assert word not in result.output + str(result.exception)


def test_what_is_wrong_with_a_body_stays_with_its_node() -> None:
    with serving(
        [node_saying(lambda: node("search-1")), lambda _: saying(body(node("x"))[:-9])]
    ) as addresses:
        result = ask("status", *(f"--node={address}" for address in addresses), "--json")
    view = json.loads(result.stdout)
    assert sorted(item["state"] for item in view["nodes"]) == ["dead", "well"]
