"""`reconciler commit-status`: real git, nodes that answer, a server that plays the forges."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.cli import commit_status as command
from reconciler.cli.forge_options import TOKEN_VARIABLE
from reconciler.demo.services import free_port
from reconciler.forge import requests
from reconciler.model import Commit, Condition, Deployment, Outcome, Phase
from reconciler.status.followers import MAX_SUMMARY_CHARACTERS
from reconciler.status.report import NodeReport, render
from tests.gitserver import ConfigRemote, git

TOKEN = "a-forge-token-nobody-should-see"
_RANKER = Deployment("ranker", "search", "deployments/search/ranker.yaml", "gs://b/ranker", 42)


@dataclass
class Http:
    """A server whose answers are told beforehand, and what it was asked."""

    port: int
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """The last one counts for all requests that follow."""
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, code: int, content: Any = None, **headers: str) -> None:
        self.answers.append(
            (code, headers, b"" if content is None else json.dumps(content).encode())
        )


@contextmanager
def serving() -> Iterator[Http]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, body: Any) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            http.requests.append((f"{self.command} {self.path}", headers, body))
            code, more, content = http.answers[0]
            if len(http.answers) > 1:
                http.answers.pop(0)
            self.send_response(code)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        http = Http(server.server_port)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield http
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Fleet:
    """Two nodes, their config repo, a clone of it, and a forge."""

    remote: ConfigRemote
    clone: Path
    nodes: dict[str, Http]
    forge: Http
    commit: str

    def say(self, node: str, *outcomes: Outcome, **more: Any) -> None:
        """Let a node say how it is; it is at the commit and has applied it unless told other."""
        values = {"observed": self.commit, "applied": self.commit, "name": node, **more}
        report = NodeReport(
            values["name"], "search", "0.1.0", 0, 1000, True, "did this", outcomes=outcomes,
            observed=_commit(values["observed"]), applied=_commit(values["applied"]),
            conditions=values.get("conditions", ()),
        )  # fmt: skip
        self.nodes[node].say(200, render(report))

    def run(self, *options: str, to: str = "github", **environment: str) -> Result:
        return CliRunner().invoke(
            command.commit_status,
            ["-C", str(self.clone), "--to", to, "--project", "acme/fleet",
             "--api", self.forge.url, *options],
            env={TOKEN_VARIABLE: TOKEN, "no_proxy": "127.0.0.1", **environment},
        )  # fmt: skip

    @property
    def said(self) -> list[tuple[str, str]]:
        """State and description of each status that the forge was sent."""
        return [(body["state"], body["description"]) for _, _, body in self.forge.requests]


def _commit(commit_id: str | None) -> Commit | None:
    return Commit(commit_id, "Ada", "Change", 990.0) if commit_id else None


def _outcome(phase: Phase, sentence: str = "About it.", **more: Any) -> Outcome:
    return Outcome(_RANKER, phase, "Reason", sentence, 42, **more)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        nodes = {name: stack.enter_context(serving()) for name in ("search-1", "search-2")}
        remote = ConfigRemote(tmp_path)
        entries = [{"name": name, "address": f"127.0.0.1:{n.port}"} for name, n in nodes.items()]
        commit = remote.commit({"groups/search.yaml": json.dumps({"nodes": entries})})
        git("clone", "--quiet", remote.url, str(tmp_path / "clone"))
        forge_server = stack.enter_context(serving())
        forge_server.say(201, {})
        yield Fleet(remote, tmp_path / "clone", nodes, forge_server, commit)


def test_github_is_told_that_all_nodes_serve_the_commit(fleet: Fleet) -> None:
    fleet.say("search-1", _outcome(Phase.DEPLOYED))
    fleet.say("search-2", _outcome(Phase.DEPLOYED))
    result = fleet.run("--target-url", "https://dash.example.org/?a=1")

    assert (result.exit_code, result.output) == (0, "success: 2 of 2 nodes serve it\n")
    ((request, headers, body),) = fleet.forge.requests
    assert request == f"POST /repos/acme/fleet/statuses/{fleet.commit}"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["accept"] == "application/vnd.github+json"
    assert headers["x-github-api-version"] == "2022-11-28"
    assert headers["user-agent"]
    assert body == {
        "state": "success",
        "context": "reconciler",
        "description": "2 of 2 nodes serve it",
        "target_url": "https://dash.example.org/?a=1",
    }


def test_gitlab_is_told_which_model_failed_where(fleet: Fleet) -> None:
    fleet.say("search-1", _outcome(Phase.DEPLOYED))
    fleet.say(
        "search-2",
        _outcome(Phase.FAILED, "It does not load.", last_error="NOT_FOUND: no op Foo"),
        applied=None,
    )
    result = fleet.run("--project", "acme/sub/fleet", to="gitlab")

    assert result.exit_code == 1
    assert result.stderr == "search-2: ranker 42 failed: NOT_FOUND: no op Foo\n"
    ((request, headers, body),) = fleet.forge.requests
    assert request == f"POST /api/v4/projects/acme%2Fsub%2Ffleet/statuses/{fleet.commit}"
    assert headers["private-token"] == TOKEN
    assert body == {
        "state": "failed",
        "name": "reconciler",
        "description": "1 of 2 nodes serve it; search-2: ranker 42 failed: NOT_FOUND: no op Foo",
    }


def test_a_description_is_no_longer_than_a_forge_takes(fleet: Fleet) -> None:
    for node in fleet.nodes:
        fleet.say(node, _outcome(Phase.FAILED, last_error="x\n" * 2000), applied=None)
    assert fleet.run().exit_code == 1
    ((_, description),) = fleet.said
    assert MAX_SUMMARY_CHARACTERS - 2 < len(description) <= MAX_SUMMARY_CHARACTERS
    assert description.endswith("x x…")
    assert "\n" not in description


@pytest.mark.parametrize(
    ("outcome", "more", "words"),
    [
        (_outcome(Phase.DEPLOYING, "Downloading."), {}, "search-2: ranker 42: Downloading."),
        (_outcome(Phase.DEPLOYED), {}, "search-2: is about to be done with it"),
        (
            _outcome(Phase.DEPLOYED),
            {"conditions": (Condition("BucketReachable", False, "Forbidden", "gs://b: 403."),)},
            "search-2: gs://b: 403.",
        ),
        (
            _outcome(Phase.DEPLOYED),
            {"observed": None},
            "search-2: has read no commit yet",
        ),
        (
            _outcome(Phase.FAILED),
            {"observed": "0" * 40},
            "search-2: is at 0000000, which this clone does not hold; fetch it",
        ),
        (
            _outcome(Phase.FAILED),
            {"observed": "--upload-pack=x"},
            "search-2: is at --uploa, which this clone does not hold; fetch it",
        ),
        (
            _outcome(Phase.DEPLOYED),
            {"name": "search-3"},
            "search-2: its address is answered by search-3; correct it in groups/",
        ),
        (
            _outcome(Phase.DEPLOYED),
            {
                "conditions": (
                    Condition("SourceVerified", False, "Unsigned", "0000000: not signed."),
                )
            },
            "search-2: 0000000: not signed.",
        ),
    ],
)
def test_what_may_still_come_right_is_pending(
    fleet: Fleet, outcome: Outcome, more: dict[str, Any], words: str
) -> None:
    fleet.say("search-1")
    fleet.say("search-2", outcome, **{"applied": None, **more})
    result = fleet.run()

    assert result.exit_code == 1
    assert fleet.said == [("pending", f"1 of 2 nodes serve it; {words}")]


def test_a_commit_that_a_node_refuses_as_not_signed_has_failed(fleet: Fleet) -> None:
    sentence = f"commit {fleet.commit[:8]} is not signed"
    condition = Condition("SourceVerified", False, "Unsigned", sentence)
    older = git("commit-tree", "-m", "older", f"{fleet.commit}^{{tree}}", cwd=fleet.clone)
    fleet.say("search-1")
    fleet.say("search-2", applied=older, observed=older, conditions=(condition,))

    assert fleet.run().exit_code == 1
    assert fleet.said == [("failure", f"1 of 2 nodes serve it; search-2: {sentence}")]


def test_a_newer_commit_that_contains_it_counts_also_if_only_the_nodes_know_it(
    fleet: Fleet,
) -> None:
    newer = fleet.remote.commit({"README.md": "new"}, "Newer")
    failing = fleet.remote.commit({"README.md": "newest"}, "Newest")
    fleet.say("search-1", applied=newer, observed=newer)
    fleet.say("search-2", _outcome(Phase.FAILED), applied=newer, observed=failing)

    result = fleet.run()
    assert (result.exit_code, result.output) == (0, "success: 2 of 2 nodes serve it\n")


def test_what_fails_under_a_newer_commit_is_not_the_failure_of_this_one(fleet: Fleet) -> None:
    newer = fleet.remote.commit({"README.md": "new"}, "Newer")
    fleet.say("search-1")
    fleet.say("search-2", _outcome(Phase.FAILED), applied=None, observed=newer)

    assert fleet.run().exit_code == 1
    words = f"1 of 2 nodes serve it; search-2: is under way to the newer {newer[:7]}"
    assert fleet.said == [("pending", words)]


def test_a_commit_that_does_not_contain_it_does_not_count(fleet: Fleet) -> None:
    older = fleet.commit
    fleet.commit = fleet.remote.commit({"README.md": "new"}, "Newer")
    git("pull", "--quiet", cwd=fleet.clone)
    fleet.say("search-1")
    fleet.say("search-2", applied=older, observed=older)

    assert fleet.run().exit_code == 1
    assert fleet.said == [("pending", f"1 of 2 nodes serve it; search-2: is still at {older[:7]}")]
    fleet.say("search-2")
    assert fleet.run(older).exit_code == 0
    assert fleet.forge.requests[-1][0].endswith(older)


def test_a_node_that_does_not_answer_is_waited_for(fleet: Fleet) -> None:
    entry = {"name": "search-3", "address": f"127.0.0.1:{free_port()}"}
    fleet.commit = fleet.remote.commit(
        {"groups/vision.yaml": json.dumps({"nodes": [entry, "vision-1"]})}
    )
    git("pull", "--quiet", cwd=fleet.clone)
    fleet.say("search-1")
    fleet.say("search-2")

    assert fleet.run().exit_code == 1
    ((state, description),) = fleet.said
    assert state == "pending"
    assert description.startswith("2 of 3 nodes serve it (1 without an address); search-3: http://")
    assert "cannot be asked" in description


def test_a_commit_with_a_mistake_has_failed_and_no_node_is_asked(fleet: Fleet) -> None:
    fleet.remote.commit({"fleet.yaml": "keep: -1\nlock: maybe\n"})
    git("pull", "--quiet", cwd=fleet.clone)

    assert fleet.run().exit_code == 1
    ((state, description),) = fleet.said
    assert state == "failure"
    assert description.startswith("not valid: fleet.yaml:1:7: keep (-1) must be")
    assert description.endswith("(and 1 more)")
    assert not any(node.requests for node in fleet.nodes.values())


def test_without_any_address_nothing_is_said(fleet: Fleet) -> None:
    fleet.remote.commit({"groups/search.yaml": "nodes: [search-1]\n"})
    git("pull", "--quiet", cwd=fleet.clone)
    result = fleet.run()

    assert result.exit_code == 1
    assert "has an address, so none can be asked" in str(result.exception)
    assert fleet.forge.requests == []


def test_waiting_ends_when_it_has_come_right(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_LOOK_EVERY_SECONDS", 0.02)
    fleet.say("search-1")
    for sentence in ("Downloading.", "Loading.", "Loading."):
        fleet.say("search-2", _outcome(Phase.DEPLOYING, sentence), applied=None)
    fleet.say("search-2", _outcome(Phase.DEPLOYED))

    assert fleet.run("--wait", "30s").exit_code == 0
    assert fleet.said == [
        ("pending", "1 of 2 nodes serve it; search-2: ranker 42: Downloading."),
        ("success", "2 of 2 nodes serve it"),
    ]


def test_waiting_ends_when_its_time_is_over(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_LOOK_EVERY_SECONDS", 0.02)
    fleet.say("search-1")
    fleet.say("search-2", _outcome(Phase.DEPLOYING, "Loading."), applied=None)

    assert fleet.run("--wait", "1s").exit_code == 1
    assert {state for state, _ in fleet.said} == {"pending"}
    assert len(fleet.said) == 2  # at the beginning and at the end


def test_a_dry_run_says_it_here_and_needs_no_token(fleet: Fleet) -> None:
    fleet.say("search-1")
    fleet.say("search-2")
    result = fleet.run("--dry-run", **{TOKEN_VARIABLE: ""})

    assert (result.exit_code, result.output) == (0, "success: 2 of 2 nodes serve it\n")
    assert fleet.forge.requests == []


# --- a forge that does not take it ----------------------------------------------------------


@pytest.fixture
def done(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A fleet that is done, and a forge that has not been told what to answer."""
    monkeypatch.setattr(requests, "_RETRY_AFTER_SECONDS", (0.0, 0.0))
    fleet.say("search-1")
    fleet.say("search-2")
    fleet.forge.answers.clear()
    return fleet


@pytest.mark.parametrize(
    ("code", "words", "sentence"),
    [
        (401, "Bad credentials", "the token is not valid"),
        (403, "Resource not accessible", "may not write statuses of acme/fleet"),
        (404, "Not Found", "check --project and the token"),
        (422, "No commit found for SHA", "push the commit first"),
        (418, "I am a teapot", "answered 418"),
        (500, "Sorry", "answered 500"),
    ],
)
@pytest.mark.parametrize("to", ["github", "gitlab"])
def test_a_refusal_is_a_sentence_without_the_token(
    done: Fleet, code: int, words: str, sentence: str, to: str
) -> None:
    done.forge.say(code, {"message": f"{words} {TOKEN}"})
    result = done.run(to=to)

    assert result.exit_code == 1
    said = str(result.exception)
    assert said.startswith({"github": "GitHub", "gitlab": "GitLab"}[to] + " took no status: ")
    assert sentence in said
    assert f"({words} ***)" in said
    assert TOKEN not in said + result.output


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"<html>", b"[1]", b"[" * 9000, b'{"message": {"a": ["b"]}}']
)
def test_a_refusal_in_another_form_is_a_sentence_too(done: Fleet, content: bytes) -> None:
    done.forge.answers.append((404, {}, content))
    said = str(done.run().exception)
    assert "GitHub took no status" in said
    assert len(said) < 500


def test_an_overloaded_forge_is_asked_three_times(done: Fleet) -> None:
    done.forge.say(502)
    done.forge.say(429)
    done.forge.say(201)
    assert done.run().exit_code == 0
    assert len(done.forge.requests) == 3

    done.forge.answers.clear()
    done.forge.say(503)
    assert "answered 503" in str(done.run().exception)
    assert len(done.forge.requests) == 6


def test_a_forge_that_is_not_there_is_a_sentence(done: Fleet) -> None:
    result = done.run("--api", f"http://127.0.0.1:{free_port()}")
    assert "did not answer; check --api and the network" in str(result.exception)


def test_gitlab_may_have_been_told_the_same_before(done: Fleet) -> None:
    words = "Cannot transition status via :enqueue from :pending (Reason(s): ...)"
    done.forge.say(400, {"message": words})
    assert done.run(to="gitlab").exit_code == 0

    done.forge.answers.clear()
    done.forge.say(400, {"message": "state does not have a valid value"})
    assert "does not have a valid value" in str(done.run(to="gitlab").exception)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_the_token_does_not_follow_a_redirect(done: Fleet, code: int) -> None:
    with serving() as elsewhere:
        elsewhere.say(201)
        done.forge.say(code, location=f"{elsewhere.url}/")
        result = done.run()
        assert elsewhere.requests == []
    assert f"answered {code}, a redirect; name the right --api" in str(result.exception)


def test_the_token_may_stand_in_a_file(done: Fleet, tmp_path: Path) -> None:
    done.forge.say(201)
    (tmp_path / "token").write_text("another\n")
    assert done.run("--token-file", str(tmp_path / "token")).exit_code == 0
    assert done.forge.requests[0][1]["authorization"] == "Bearer another"


@pytest.mark.parametrize("token", ["", " ", "two words", "two\r\nX-Lines: 1", "tökén"])
def test_a_token_that_cannot_be_one_is_not_sent_and_not_shown(done: Fleet, token: str) -> None:
    result = done.run(**{TOKEN_VARIABLE: token})
    assert result.exit_code == 2
    assert "there is no usable token" in result.output
    assert not token.strip() or token not in result.output
    assert done.forge.requests == []


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--api", "http://git.example.org", "--api must be https"),
        ("--api", "git.example.org", "--api is not a URL"),
        ("--api", "https://[::1", "--api is not a URL"),
        ("--api", "https://host:port", "--api is not a URL"),
        ("--api", "https://ada:geheim@git.example.org", "more in it than scheme, host and path"),
        ("--api", "https://git.example.org/?token=geheim", "more in it than scheme"),
        ("--project", "fleet", "write it as owner/name"),
        ("--project", "../../user", "write it as owner/name"),
        ("--project", "acme/..", "write it as owner/name"),
        ("--project", "acme/fleet?x", "write it as owner/name"),
        ("--target-url", "javascript:alert(1)", "--target-url must be a URL"),
    ],
)
def test_an_address_that_cannot_be_right_is_wrong_usage(
    done: Fleet, option: str, value: str, sentence: str
) -> None:
    result = done.run(option, value)
    assert result.exit_code == 2
    assert sentence in re.sub(r"\s+", " ", result.output)
    assert "geheim" not in result.output
    assert done.forge.requests == []


def test_an_unknown_commit_is_a_sentence(done: Fleet) -> None:
    result = done.run("nowhere")
    assert "there is no commit 'nowhere'" in str(result.exception)
