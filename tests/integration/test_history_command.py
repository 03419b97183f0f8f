"""`reconciler history` with real signatures and real nodes, as a terminal and a script see it."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.history import history
from reconciler.history import signatures
from reconciler.model import Commit
from reconciler.status import changes
from reconciler.status.board import StatusBoard
from reconciler.status.changes import Change
from reconciler.status.client import StatusError, fetch_history
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.server import StatusServer
from tests.gitserver import ConfigRemote, git
from tests.keys import make_ssh_key

RANKER = "deployments/search/ranker.yaml"


@pytest.fixture(autouse=True)
def _own_git_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


@pytest.fixture
def remote(tmp_path: Path) -> ConfigRemote:
    remote = ConfigRemote(tmp_path)
    remote.commit({"fleet.yaml": "keep: 1\n", "groups/search.yaml": "nodes: [search-1]\n"})
    return remote


def deployment(version: int | str) -> str:
    return f"source: gs://b/ranker\nversion: {version}\n"


def ask(remote: ConfigRemote, *arguments: str, color: bool = False) -> Result:
    return CliRunner().invoke(history, ["-C", str(remote.work), *arguments], color=color)


def ask_json(remote: ConfigRemote, *arguments: str) -> dict[str, Any]:
    result = ask(remote, "--json", *arguments)
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


# --- text and JSON ------------------------------------------------------------------------------


def test_a_block_says_when_who_what_and_why(remote: ConfigRemote) -> None:
    remote.commit({RANKER: deployment(41)}, "Begin with ranker")
    remote.commit(
        {RANKER: deployment(42) + "labels: {stable: 41}\nstop: true\n"},
        "Roll out 42\n\nIt is " + "much " * 30 + "better.",
    )
    commit = remote.commit({RANKER: deployment(41)}, "Revert\n\nThis reverts commit 1a2b3c4d5e6f.")

    result = ask(remote, "ranker")

    assert result.exit_code == 0
    newest, middle, oldest = result.stdout.strip().split("\n\n")
    head, *rest = newest.splitlines()
    assert head.endswith(" UTC  ranker 42 -> 41 in search")
    assert "  started again" in rest
    assert "  label stable removed (was 41)" in rest
    assert "  reverts 1a2b3c4d5e" in rest
    assert f"  commit {commit[:10]} by Ada <ada@example.org>, unsigned" in rest
    assert "    Revert" in rest
    assert "  label stable 41" in middle.splitlines()
    assert oldest.splitlines()[0].endswith(" UTC  ranker 41 in search: created")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_every_kind_of_change_has_its_words(remote: ConfigRemote) -> None:
    lock = (
        "model: ranker\nsource: gs://b/ranker\nversion: {}\nlocked: [{{version: {}, digest: {}}}]\n"
    )
    locked = "deployments/search/ranker.lock.yaml"
    moved = "deployments/vision/sorter.yaml"
    steps: list[tuple[Mapping[str, str | bytes | None], *tuple[str, ...]]] = [
        ({RANKER: deployment("latest")}, "ranker latest in search: created"),
        ({locked: lock.format(41, 41, "a")}, "ranker latest -> 41 (latest) in search", "locked"),
        ({locked: lock.format(42, 42, "b")}, "ranker 41 -> 42 in search"),
        (
            {locked: lock.format(42, 42, "c")},
            "ranker 42 in search", "other bytes locked for version 42",
        ),
        (
            {locked: None, RANKER: deployment(42)},
            "ranker 42 (latest) -> 42 in search", "lock removed",
        ),
        ({RANKER: deployment(42) + "suspend: true\n"}, "ranker 42 in search", "suspended"),
        (
            {RANKER: "source: gs://c/ranker\nversion: 42\nreplicas: 2\n"},
            "ranker 42 in search", "source gs://b/ranker -> gs://c/ranker", "replicas all -> 2",
            "no longer suspended",
        ),
        (
            {RANKER: "# why\nsource: gs://c/ranker\nversion: 42\nreplicas: 2\n"},
            "ranker 42 in search",
            "nothing that is served: description, metadata, comments or layout",
        ),
        (
            {RANKER: None, moved: "# why\nsource: gs://c/ranker\nversion: 42\nreplicas: 2\n"},
            "sorter 42 in vision", "moved from group search to vision", "renamed from ranker",
        ),
        (
            {moved: "source: [\n"},
            "sorter in vision: broken", "cannot be read; the nodes keep to the text before it",
        ),
        (
            {moved: deployment(43)},
            "sorter (unreadable) -> 43 in vision", "can be read again",
        ),
        ({moved: None}, "sorter 43 in vision: removed"),
    ]  # fmt: skip
    for files, *_ in steps:
        remote.commit(files)

    answer = ask_json(remote)

    told = [(entry["summary"], *entry["changes"]) for entry in answer["entries"]]
    assert told[::-1] == [tuple(words) for _, *words in steps]


def test_json_is_one_object_with_all_that_is_known(remote: ConfigRemote) -> None:
    remote.commit({RANKER: deployment(41)})
    git("switch", "--quiet", "--create", "change", cwd=remote.work)
    inner = remote.commit({RANKER: deployment(42)}, "Roll out\n\nBecause.")
    git("switch", "--quiet", "main", cwd=remote.work)
    git("merge", "--quiet", "--no-ff", "-m", "Merge it", "change", cwd=remote.work)

    answer = ask_json(remote, "search/ranker", "--limit", "1")

    (entry,) = answer["entries"]
    assert answer["revision"] == git("rev-parse", "HEAD", cwd=remote.work)
    assert answer["notes"] == ["older changes are not shown; give --all or a larger --limit"]
    assert (entry["model"], entry["group"], entry["path"]) == ("ranker", "search", RANKER)
    assert (entry["from_version"], entry["to_version"]) == (41, 42)
    assert (entry["commit"]["id"], entry["commit"]["body"]) == (inner, "Because.")
    assert (entry["merged_by"]["id"], entry["merged_by"]["subject"]) == (
        answer["revision"], "Merge it",
    )  # fmt: skip
    assert entry["signature"]["sentence"] == "unsigned"
    assert entry["after"]["version"] == 42
    assert entry["only_this"] is True
    assert entry["nodes"] == []


def test_nothing_in_a_commit_can_steer_the_terminal(remote: ConfigRemote) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\r"
    remote.write({RANKER: deployment(1)})
    git("add", "--all", cwd=remote.work)
    author = f"--author=Eve {evil} <eve{evil}@example.org>"
    message = f"Subject {evil}\n\nBody {evil}\x9b31m"
    git("commit", "--quiet", author, "-m", message, cwd=remote.work)

    plain, coloured = ask(remote), ask(remote, color=True)

    assert "Subject" in plain.stdout
    assert "Body" in plain.stdout
    assert all(line.isprintable() for line in plain.stdout.splitlines())
    without_our_own = coloured.stdout.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert without_our_own == plain.stdout
    assert coloured.stdout != plain.stdout


def test_limits_and_times(remote: ConfigRemote) -> None:
    for version in range(60):
        remote.write({RANKER: deployment(version)})
        git("commit", "--quiet", "--all", "-m", "x", cwd=remote.work) if version else git(
            "add", "--all", cwd=remote.work
        )

    assert len(ask_json(remote)["entries"]) == 50
    assert len(ask_json(remote, "--limit", "7")["entries"]) == 7
    everything = ask_json(remote, "--all", "--since", "2020-01-01T00:00:00Z")
    assert (len(everything["entries"]), everything["notes"]) == (59, [])
    assert len(ask_json(remote, "--all", "--since", "1h")["entries"]) == 59
    assert ask_json(remote, "--since", "2099-01-01")["entries"] == []
    assert ask(remote, "--since", "2099-01-01").stdout == "nothing has changed\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rankr"], "no model rankr; did you mean ranker?"),
        (["--limit", "1", "--all"], "contradict each other"),
        (["--no-nodes", "--node", "a:1"], "contradict each other"),
        (["--limit", "0"], "--limit"),
        (["--since", "yesteryear"], "write one such as 2026-03-01 or 14d"),
    ],
)
def test_what_cannot_work_is_exit_code_2(
    remote: ConfigRemote, arguments: list[str], words: str
) -> None:
    remote.commit({RANKER: deployment(1)})

    result = ask(remote, *arguments)

    assert result.exit_code == 2
    assert words in result.stderr


def test_a_shallow_clone_says_that_it_does_not_know_the_beginning(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    for version in (1, 2, 3):
        remote.commit({RANKER: deployment(version)})
    shallow = tmp_path / "shallow"
    git("clone", "--quiet", "--depth=2", remote.url, str(shallow))

    result = CliRunner().invoke(history, ["-C", str(shallow)])

    assert result.exit_code == 0
    assert "ranker 2 in search: created" in result.stdout
    assert "note: this clone is shallow" in result.stderr


# --- signatures -----------------------------------------------------------------------------------


def make_key(folder: Path, name: str) -> tuple[Path, str]:
    """A new SSH key, and what an allowed signers line says of it."""
    made = make_ssh_key(folder, name)
    return made.path, made.allow(f"{name}@example.org")


def commit_signed(remote: ConfigRemote, key: Path, version: int) -> None:
    remote.write({RANKER: deployment(version)})
    git("add", "--all", cwd=remote.work)
    git(
        "-c", "gpg.format=ssh", "-c", f"user.signingkey={key}",
        "commit", "--quiet", "-S", "-m", f"Version {version}",
        cwd=remote.work,
    )  # fmt: skip


def test_of_very_many_signatures_the_newest_are_verified(
    remote: ConfigRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, line = make_key(tmp_path, "alice")
    fleet = f"signatures:\n  mode: 'off'\n  ssh:\n    - {line}\n"
    remote.commit({"fleet.yaml": fleet, RANKER: deployment(1)})
    for version in (2, 3, 4):
        commit_signed(remote, alice, version)
    monkeypatch.setattr(signatures, "MAX_VERIFIED", 2)
    answer = ask_json(remote)
    found = [entry["signature"] for entry in answer["entries"]]
    assert [item["verified"] for item in found] == [True, True, False, False]
    assert found[2]["sentence"] == "signed, not verified here"
    assert found[3]["sentence"] == "unsigned"
    assert any("the signatures of 1 older commits were not ver" in n for n in answer["notes"])


def test_who_signed_is_judged_by_the_keys_of_fleet_yaml(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    alice, alice_line = make_key(tmp_path, "alice")
    mallory, mallory_line = make_key(tmp_path, "mallory")
    fleet = f"signatures:\n  mode: 'off'\n  ssh:\n    - {alice_line}\n"
    remote.commit({"fleet.yaml": fleet, RANKER: deployment(1)})
    commit_signed(remote, alice, 2)
    commit_signed(remote, mallory, 3)
    forged = git("cat-file", "commit", "HEAD~1", cwd=remote.work).replace("Version 2", "Version 4")
    tree = git("rev-parse", "HEAD^{tree}", cwd=remote.work)
    head = git("rev-parse", "HEAD", cwd=remote.work)
    lines = forged.split("\n")
    lines[:2] = [f"tree {tree}", f"parent {head}"]
    remote.write({RANKER: deployment(4)})
    git("add", "--all", cwd=remote.work)
    lines[0] = f"tree {git('write-tree', cwd=remote.work)}"
    forged_id = git(
        "hash-object", "-t", "commit", "-w", "--stdin",
        cwd=remote.work, stdin=("\n".join(lines) + "\n").encode(),
    )  # fmt: skip
    git("reset", "--quiet", "--hard", forged_id, cwd=remote.work)

    wrong, unknown, verified, unsigned = (
        entry["signature"] for entry in ask_json(remote)["entries"]
    )

    assert verified["sentence"] == "signed by alice@example.org (verified)"
    assert verified["verified"]
    assert unsigned["sentence"] == "unsigned"
    assert not unsigned["signed"]
    assert unknown["sentence"].startswith("signed, key unknown (SHA256:")
    assert (unknown["signed"], unknown["verified"]) == (True, False)
    assert wrong["sentence"].startswith("signed, signature is wrong")
    assert not wrong["verified"]

    # Whom the user's own git trusts counts only where the fleet names nobody.
    own = tmp_path / "allowed"
    own.write_text(mallory_line + "\n")
    settings = str(tmp_path / "gitconfig")
    git("config", "--file", settings, "gpg.ssh.allowedSignersFile", str(own))
    assert ask_json(remote)["entries"][1]["signature"] == unknown
    remote.write({"fleet.yaml": "keep: 1\n"})
    git("commit", "--quiet", "--all", "-m", "Trust nobody", cwd=remote.work)
    sentences = [entry["signature"]["sentence"] for entry in ask_json(remote)["entries"]]
    assert sentences[1] == "signed by mallory@example.org (verified)"
    assert sentences[2].startswith("signed, key unknown")
    git("config", "--file", settings, "--unset", "gpg.ssh.allowedSignersFile")
    sentences = [entry["signature"]["sentence"] for entry in ask_json(remote)["entries"]]
    assert all(sentence.startswith("signed, key unknown") for sentence in sentences[1:3])


# --- nodes ----------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(journal: Journal) -> AsyncIterator[str]:
    """The real status endpoint of a node that remembers what is in the journal."""
    board = StatusBoard(journal, Metrics("0.1.0"), lambda: None, heartbeat_limit_seconds=30)
    server = StatusServer(board, "127.0.0.1:0")
    task = asyncio.create_task(server.serve())
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.stop()
        await asyncio.wait_for(task, 10)


def arrive(journal: Journal, commit_id: str, version: int, seconds: float | None = 14.0) -> None:
    commit = Commit(commit_id, "Ada", "x", 0.0)
    result = changes.Result.DEPLOYED
    moment = 2_000_000_000.0 + version
    change = Change(
        moment, commit, "ranker", None, version, result, "Serving", "serves", seconds
    )  # fmt: skip
    journal.append(change)


async def test_each_change_has_when_each_node_served_it(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens there
        dead = f"127.0.0.1:{silent.getsockname()[1]}"
        first = remote.commit({RANKER: deployment(41)})
        remote.commit({RANKER: deployment(42)}, "Overtaken before any node saw it")
        third = remote.commit({RANKER: deployment(43)})
        journal = Journal(tmp_path / "history.jsonl")
        arrive(journal, first, 41)
        arrive(journal, "f" * 40, 40)  # of a branch that was thrown away
        failed = Change(
            2_000_000_042.5, Commit(third, "Ada", "x", 0.0), "ranker", 41, 43,
            changes.Result.FAILED, "LoadFailed", "no memory",
        )  # fmt: skip
        journal.append(failed)
        async with serving(journal) as address:
            nodes = f"  - {{name: search-1, address: '{address}'}}\n"
            nodes += f"  - {{name: search-2, address: '{dead}'}}\n  - search-3\n"
            # The node sees both commits at once, and names the newest.
            latest = remote.commit({"groups/search.yaml": f"nodes:\n{nodes}"})
            arrive(journal, latest, 43)
            arrive(journal, latest, 43, None)
            answer = await asyncio.to_thread(ask_json, remote, "ranker")
            text = await asyncio.to_thread(ask, remote, "ranker")
            alone = await asyncio.to_thread(ask_json, remote, "--no-nodes")
            named = await asyncio.to_thread(ask_json, remote, "--node", address)

    newest, overtaken, oldest = answer["entries"]
    (served,) = newest["nodes"]
    assert (served["node"], served["result"], served["version"]) == ("search-1", "deployed", 43)
    assert served["time"] == "2033-05-18T03:34:03.000Z"
    assert served["commit_to_serving_seconds"] > 0
    assert overtaken["nodes"] == []
    assert [served["version"] for served in oldest["nodes"]] == [41]
    assert len(answer["notes"]) == 1
    assert answer["notes"][0].startswith(f"node search-2 is left out: http://{dead}/history")
    assert "  search-1 served 43 at 2033-05-18 03:34 UTC" in text.stdout
    assert "note: node search-2 is left out" in text.stderr
    assert text.exit_code == 0
    assert (alone["notes"], [entry["nodes"] for entry in alone["entries"]]) == ([], [[], [], []])
    assert {item["node"] for item in named["entries"][0]["nodes"]} == {"search-1", address}


async def test_a_failure_is_told_where_nothing_came_to_serve(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    commit = remote.commit({RANKER: deployment(41)})
    journal = Journal(tmp_path / "history.jsonl")
    journal.append(
        Change(
            2e9, Commit(commit, "Ada", "x", 0.0), "ranker", None, 41, changes.Result.FAILED,
            "LoadFailed", "no memory",
        )
    )  # fmt: skip
    async with serving(journal) as address:
        result = await asyncio.to_thread(ask, remote, "--node", address)

    assert f"  {address} failed at 2033-05-18 03:33 UTC (LoadFailed)" in result.stdout


@contextmanager
def saying(body: bytes) -> Iterator[str]:
    """A server that is no reconciler."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

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


@pytest.mark.parametrize(
    "body",
    [
        b"hello", b"[]", b"{}", b'{"changes": 5}', b'{"changes": [7]}', b"[" * 50_000,
        b'{"changes": [{"time": "today"}]}',
        b'{"changes": [{"time": "2026-03-01T00:00:00Z", "commit": {"id": "a"}, "model": "m",'
        b' "to": Infinity, "result": "deployed", "reason": "r",'
        b' "commit_to_serving_seconds": null}]}',
    ],
)  # fmt: skip
def test_what_is_no_history_is_refused_in_a_sentence(body: bytes) -> None:
    with saying(body) as address, pytest.raises(StatusError, match="not a reconciler's history"):
        fetch_history(address, 10)
