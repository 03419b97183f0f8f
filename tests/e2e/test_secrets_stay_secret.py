"""No secret comes out again, wherever it was put in, and least of all where something fails.

A secret of its own is planted in each place that takes one, and then looked for in everything that
a node says or leaves behind, as it is and in the forms in which it goes over the wire. Servers that
refuse quote what they were sent, as some do. Each test also checks that its secrets were used: one
that nobody ever read would be kept for the wrong reason.
"""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, quote

import httpx
import pytest

from reconciler.errors import SourceError
from reconciler.model import Query
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from tests.collector import run_collector
from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.faultproxy import Fault
from tests.gitserver import serve_http
from tests.tokens import run_issuer

PATHS = ("/", "/assets/page.js", "/status", "/history", "/metrics", "/fleet", "/livez", "/readyz",
         "/fleet.json", "/nothing")  # fmt: skip
USER = "somebody"
_ADVERTISEMENT = "application/x-git-upload-pack-advertisement"


class Secrets:
    """The secrets of one test, each made up anew, and where they must not be seen."""

    def __init__(self, *names: str) -> None:
        # Short, as a line that is quoted in part would hide the end of a long one.
        self._values = {name: f"S{secrets.token_hex(5)}" for name in names}
        self.said: dict[str, str] = {}
        """Everything that came out: where -> what."""

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def plant(self, name: str, value: str) -> None:
        """Take a value that was made elsewhere for one of the secrets."""
        self._values[name] = value

    def write(self, folder: Path, name: str) -> str:
        """Write one into a file of its own and return its path."""
        file = folder / f"secret-{name}"
        file.write_text(self[name] + "\n")
        return str(file)

    def find(self) -> set[tuple[str, str]]:
        """Return which secret came out where."""
        return {
            (name, where)
            for where, text in self.said.items()
            for name, value in self._values.items()
            if any(form in text for form in _forms(value))
        }


def _forms(value: str) -> Iterator[str]:
    yield value
    yield quote(value, safe="")
    yield json.dumps(value)[1:-1]
    for user in (USER, "x-access-token", ""):
        yield _basic(user, value).rstrip("=")


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def listen_to(stage: Stage, found: Secrets, **headers: str) -> None:
    """Note all that the agent says now."""
    for path in PATHS:
        answer = stage.ask(path, headers=headers)
        assert answer is not None, path
        found.said[f"{path} at {len(found.said)}"] = f"{answer.headers}\n{answer.text}"
    found.said["log"] = stage.log


def gather_files(stage: Stage, found: Secrets, *but: str) -> None:
    """Note all that the agent has written, apart from the files that are named."""
    folders = (stage.folder / "state", stage.models_dir)
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert any(file.name == "history.jsonl" for file in files) or but
    for file in files:
        name = str(file.relative_to(stage.folder))
        if name not in but:
            found.said[name] = file.read_bytes().decode("latin-1")


def is_refused(stage: Stage, condition: str, words: str = "") -> Callable[[], bool]:
    def check() -> bool:
        found = stage.condition(condition)
        return found.get("holds") is False and words in found["sentence"]

    return check


class _Parrot(BaseHTTPRequestHandler):
    """Refuses everything and quotes what it was sent, in words that git shows to people.

    With status 200 it is a git server that does so in its own protocol.
    """

    server: "Parrot"
    protocol_version = "HTTP/1.0"

    def _refuse(self) -> None:
        self.server.heard.append(str(self.headers))
        said = self.headers["Authorization"] or ""
        if self.server.status == 200 and said:
            password = base64.b64decode(said.split()[1]).decode().partition(":")[2]
            text = f"ERR {said} is wrong, and so are {password} and {quote(password)}\n"
            body, kind = f"{len(text) + 4:04x}{text}".encode(), _ADVERTISEMENT
        else:
            body, kind = f"you said {self.requestline}, {self.headers}".encode(), "text/plain"
        status = 401 if self.server.status == 200 and not said else self.server.status
        self.send_response(status, f"No {said}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_CONNECT = _refuse  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


class Parrot(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Parrot)
        self.status = status
        self.heard: list[str] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def run_parrot(status: int) -> Iterator[Parrot]:
    with Parrot(status) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(30)


def test_what_is_looked_for_is_found_in_every_form() -> None:
    found = Secrets("a", "b", "c", "d")
    found.plant("b", 'quo"te/d')
    found.said = {
        "log": f"failed at http://me:{found['a']}@host",
        "url": "?token=quo%22te%2Fd",
        "json": json.dumps({"said": found["b"]}),
        "header": "Basic " + base64.b64encode(f"{USER}:{found['c']}".encode()).decode(),
    }
    assert found.find() == {("a", "log"), ("b", "url"), ("b", "json"), ("c", "header")}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_node_in_good_days_and_bad_ones(
    make_stage: Callable[..., Stage], tmp_path: Path, log_format: str
) -> None:
    found = Secrets("git", "sync", "hook", "read", "traces", "proxy", "environment", "wrong")
    readers = {"authorization": f"Bearer {found['read']}"}

    class Reader(Stage):
        def ask(self, path: str, **options: Any) -> httpx.Response | None:
            return super().ask(path, **{"headers": readers, **options})

    endpoint = make_stage().endpoint
    folder = tmp_path / "node"
    folder.mkdir()
    with serve_http(folder) as git_server, run_collector() as collector:
        git_server.token = found["git"]
        settings = {
            "RECONCILER_REPO": git_server.url,
            "RECONCILER_LOG_FORMAT": log_format,
            "RECONCILER_GIT_TOKEN_FILE": found.write(tmp_path, "git"),
            "RECONCILER_SYNC_TOKEN_FILE": found.write(tmp_path, "sync"),
            "RECONCILER_WEBHOOK_SECRET_FILE": found.write(tmp_path, "hook"),
            "RECONCILER_READ_TOKEN_FILE": found.write(tmp_path, "read"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{found['traces']}",
            "HTTPS_PROXY": f"http://{USER}:{found['proxy']}@127.0.0.1:1",
            "SOME_API_KEY": found["environment"],
        }
        stage = Reader(folder, endpoint, settings=settings)
        try:
            stage.publish("ranker", 1)
            stage.commit({"groups/g.yaml": GROUP}, deployment("ranker"))
            stage.start()
            stage.wait_served("ranker", 1)
            stage.commit(deployment("missing"))
            stage.wait_phase("missing", "Failed", "VersionNotFound")
            _knock(stage, found)
            listen_to(stage, found, **readers)

            git_server.token = "another"
            wait_until(is_refused(stage, "GitReachable"), "git refuses the token")
            git_server.failure = 500
            listen_to(stage, found, **readers)
            wait_until(lambda: collector.bodies, "a trace")
            stage.stop_agent()
        finally:
            stage.close()
        used = _basic("x-access-token", found["git"])
        assert any(used in authorization for _, authorization in git_server.requests)
    found.said["log"] = stage.log
    found.said["traces"] = b"".join(collector.bodies).decode("latin-1")
    assert f"Bearer {found['traces']}" in collector.headers[0]
    gather_files(stage, found)

    assert "deployed ranker 1" in found.said["log"]
    assert found.find() == set()
    if log_format == "json":
        _check_json(found.said["log"])


def _knock(stage: Stage, found: Secrets) -> None:
    """Ask with every token, with the right one and with a wrong one."""
    url = f"http://{stage.host}:{stage.status_port}"
    push = json.dumps({"ref": "refs/heads/main", "after": "a" * 40}).encode()
    signature = hmac.new(found["hook"].encode(), push, hashlib.sha256).hexdigest()

    def post(path: str, body: bytes, **headers: str) -> int:
        answer = httpx.post(url + path, content=body, headers=headers, timeout=5, trust_env=False)
        found.said[f"POST {path} {len(found.said)}"] = f"{answer.headers}\n{answer.text}"
        return answer.status_code

    wrong = f"Bearer {found['wrong']}"
    assert post("/sync", b"", authorization=f"Bearer {found['sync']}") == 202
    assert post("/sync", b"", authorization=wrong) == 401
    github = {"content-type": "application/json", "x-github-event": "push"}
    signed = {"x-hub-signature-256": f"sha256={signature}"}
    assert post("/hooks/git", push, **github, **signed) < 300
    forged = {"x-hub-signature-256": f"sha256={found['wrong']}"}
    assert post("/hooks/git", push, **github, **forged) >= 400
    gitlab = {"x-gitlab-event": "Push Hook", "x-gitlab-token": found["wrong"]}
    assert post("/hooks/git", push, **gitlab) >= 400
    for path in ("/status", "/metrics"):
        answer = stage.ask(path, headers={"authorization": wrong})
        assert answer is not None
        assert answer.status_code == 401
        found.said[f"refused {path}"] = f"{answer.headers}\n{answer.text}"


def _check_json(log: str) -> None:
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    deployed = next(line for line in lines if line["message"].startswith("deployed ranker 1"))
    assert (deployed["model"], deployed["version"]) == ("ranker", 1)
    assert len(deployed["commit"]) == 40
    installed = next(line for line in lines if line["message"] == "installed ranker 1")
    assert {"commit", "model", "version"} <= installed.keys()


def _by_parrot(found: Secrets, parrot: Parrot) -> dict[str, str]:
    return {"RECONCILER_REPO": f"http://{USER}:{found['url']}@{parrot.host}/fleet.git"}


def _by_proxy(found: Secrets, parrot: Parrot) -> dict[str, str]:
    return {
        "RECONCILER_REPO": f"http://{USER}:{found['url']}@127.0.0.1:1/fleet.git",
        "RECONCILER_GIT_PROXY": f"http://{USER}:{found['proxy']}@{parrot.host}",
    }


def _by_dead_proxy(found: Secrets, parrot: Parrot) -> dict[str, str]:
    return {
        "RECONCILER_REPO": f"http://{USER}:{found['url']}@127.0.0.1:1/fleet.git",
        "RECONCILER_GIT_PROXY": f"http://{USER}:{found['proxy']}@127.0.0.1:1",
    }


def _by_wrong_host(found: Secrets, parrot: Parrot) -> dict[str, str]:
    return {"RECONCILER_REPO": f"https://{USER}:{found['url']}@nowhere.invalid/fleet.git"}


@pytest.mark.parametrize(
    ("choose", "status", "used"),
    [
        (_by_parrot, 200, "url"),
        (_by_parrot, 401, "url"),
        (_by_parrot, 500, ""),
        (_by_proxy, 407, "proxy"),
    ],
)
def test_a_git_server_or_proxy_that_quotes_what_it_refuses(
    make_stage: Callable[..., Stage],
    choose: Callable[[Secrets, Parrot], dict[str, str]],
    status: int,
    used: str,
) -> None:
    found = Secrets("url", "proxy")
    with run_parrot(status) as parrot:
        _try_once(make_stage(settings=choose(found, parrot)), found)
    assert parrot.heard
    assert not used or any(_basic(USER, found[used]) in heard for heard in parrot.heard)
    assert found.find() == set()


@pytest.mark.parametrize("choose", [_by_dead_proxy, _by_wrong_host])
def test_a_git_server_that_is_not_there(
    make_stage: Callable[..., Stage], choose: Callable[[Secrets, Any], dict[str, str]]
) -> None:
    found = Secrets("url", "proxy")
    _try_once(make_stage(settings=choose(found, None)), found)
    assert found.find() == set()


def _try_once(stage: Stage, found: Secrets) -> None:
    """Let the node try to come to be as git says, and note all that it says and leaves."""
    stage.settings = {**stage.settings, "NO_PROXY": "", "no_proxy": "", "http_proxy": ""}
    said = stage.run_command("once", "--timeout", "30s", codes=(1,))
    assert "GitReachable" in said
    found.said["output"] = said
    # git reads its proxy from a file, which nobody but the agent may read.
    own = stage.folder / "state" / "git" / ".gitconfig"
    assert own.stat().st_mode & 0o077 == 0
    gather_files(stage, found, str(own.relative_to(stage.folder)))


def test_a_service_account_that_is_refused_and_a_key_that_is_none(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    found = Secrets("key")
    with run_issuer() as issuer:
        key_file = issuer.write_key(tmp_path / "key.json")
        lines = issuer.private_key.splitlines()
        found.plant("key", lines[len(lines) // 2])

        def quote_back(body: str) -> Fault:
            signature = parse_qs(body)["assertion"][0].rpartition(".")[2]
            found.plant(f"signature {signature[:5]}", signature[-60:])
            description = f"bad signature {signature[-60:]} in {body}"
            text = json.dumps({"error": "invalid_grant", "error_description": description})
            return Fault(status=400, body=text.encode(), kind="application/json")

        issuer.fault = quote_back
        stage = make_stage(
            settings={
                "STORAGE_EMULATOR_HOST": "",
                "GOOGLE_APPLICATION_CREDENTIALS": str(key_file),
                "NO_PROXY": "127.0.0.1",
            }
        )
        stage.commit({"groups/g.yaml": GROUP}, deployment("ranker"))
        stage.start_agent()
        wait_until(is_refused(stage, "BucketReachable", "invalid_grant"), "a refusal")
        listen_to(stage, found)
        for content in (json.dumps({"private_key": found["key"]}), f"{found['key']} is no JSON"):
            key_file.write_text(content)
            words = "valid type" if content[0] == "{" else "valid json"
            wait_until(is_refused(stage, "BucketReachable", words), "a key that is none")
            listen_to(stage, found)
        stage.stop_agent()
    gather_files(stage, found, "state/history.jsonl")
    assert found.find() == set()


def test_a_proxy_on_the_way_to_the_bucket_that_quotes_what_it_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = Secrets("proxy")
    with run_issuer() as issuer, run_parrot(407) as parrot:
        key_file = issuer.write_key(tmp_path / "key.json")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://{USER}:{found['proxy']}@{parrot.host}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        access = Access({})
        source = GcsSource("acme", access, retry_seconds=0.1)
        with pytest.raises(SourceError) as raised:
            source.list(Query("gs://acme/ranker"))
        access.close()
        found.plant("token", issuer.issued[0])
        assert any(_basic(USER, found["proxy"]) in heard for heard in parrot.heard)
    found.said = {"error": str(raised.value), "log": caplog.text}
    assert found.find() == set()


@pytest.mark.parametrize(
    "repo",
    [
        "ftp://somebody:SECRET@host/fleet.git",
        "http://somebody:SECRET@[::1/fleet.git",
        "http://somebody:SECRET@/fleet.git",
        "https://SECRET@host:port/fleet.git",
        "ext::sh -c SECRET",
    ],
)
def test_a_repo_that_cannot_be_one_is_not_quoted(repo: str, make_stage: Any) -> None:
    found = Secrets("url")
    stage = make_stage(settings={"RECONCILER_REPO": repo.replace("SECRET", found["url"])})
    found.said["output"] = stage.run_command("once", "--timeout", "5s", codes=(1, 2))
    assert found.said["output"]
    assert found.find() == set()


@pytest.mark.parametrize(
    "text",
    [
        "repo: https://somebody:SECRET@host/fleet.git\n  wrong: indent",
        'git_proxy: "http://somebody:SECRET@host',
        "git_proxy: 'http://somebody:SECRET@host' trailing",
        "- http://somebody:SECRET@host",
        "http://somebody:SECRET@host: 1",
        "SECRET",
        "git_proxy: *SECRET",
    ],
)
def test_a_settings_file_that_cannot_be_read_is_not_quoted(
    text: str, make_stage: Any, tmp_path: Path
) -> None:
    found = Secrets("file")
    file = tmp_path / "settings.yaml"
    file.write_text(text.replace("SECRET", found["file"]))
    settings: Mapping[str, str] = {"RECONCILER_CONFIG": str(file)}
    stage = make_stage(settings=settings)
    said = stage.run_command("once", "--timeout", "5s", codes=(1, 2))
    found.said["output"] = said
    assert str(file) in said
    assert found.find() == set()
