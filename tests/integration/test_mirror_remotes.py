"""The mirror over http and ssh: credentials, refusals, and what must never be shown."""

import base64
import logging
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reconciler.config_repo import private_git
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from reconciler.errors import GitError
from tests.gitserver import ConfigRemote, GitHttpServer, SshServer, git, serve_http, serve_ssh

TOKEN = "s3cret-token-%41"


@pytest.fixture
def remote(tmp_path: Path) -> ConfigRemote:
    remote = ConfigRemote(tmp_path / "remote")
    remote.commit({"a.yaml": "one\n"}, "First")
    return remote


@pytest.fixture
def server(remote: ConfigRemote) -> Iterator[GitHttpServer]:
    with serve_http(remote.bare.parent) as server:
        yield server


def fetch_error(settings: MirrorSettings) -> GitError:
    with pytest.raises(GitError) as caught:
        Mirror(settings).fetch()
    return caught.value


def assert_nowhere(secret: str, folder: Path) -> None:
    for file in folder.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file


def test_fetch_over_http(remote: ConfigRemote, server: GitHttpServer, tmp_path: Path) -> None:
    mirror = Mirror(MirrorSettings(server.url, "main", tmp_path / "state"))
    assert mirror.fetch().subject == "First"
    remote.commit({"a.yaml": "two\n"}, "Second")
    assert mirror.fetch().subject == "Second"
    uploads = [path for path, _ in server.requests if path.endswith("/git-upload-pack")]
    mirror.fetch()
    polled = [path for path, _ in server.requests if path.endswith("/git-upload-pack")]
    assert len(polled) == len(uploads) + 1, "a poll that finds nothing new lists one ref, no more"


def test_the_token_is_read_again_for_every_fetch(
    server: GitHttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token_file = tmp_path / "token"
    token_file.write_text(f"{TOKEN} \r\n")
    server.token = TOKEN
    settings = MirrorSettings(server.url, "main", tmp_path / "state", token_file=token_file)
    mirror = Mirror(settings)
    assert mirror.fetch().subject == "First"
    server.token = "another"
    with pytest.raises(GitError, match="git_token_file") as caught:
        mirror.fetch()
    assert caught.value.reason == "AuthenticationFailed"
    token_file.write_text("another")
    assert mirror.fetch().subject == "First"
    assert TOKEN not in str(caught.value) + caplog.text
    assert_nowhere(TOKEN, tmp_path / "state")
    assert all(TOKEN not in path for path, _ in server.requests)


def test_a_token_in_the_url_works_and_is_shown_nowhere(
    server: GitHttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.token = "in-the-url%"
    url = server.url.replace("://", "://x-access-token:in-the-url%25@")
    mirror = Mirror(MirrorSettings(url, "main", tmp_path / "state"))
    assert mirror.fetch().subject == "First"
    assert_nowhere("in-the-url", tmp_path / "state")
    assert "in-the-url" not in mirror.origin
    server.token = "changed"
    with pytest.raises(GitError) as caught:
        mirror.fetch()
    assert "in-the-url" not in str(caught.value) + caplog.text


def test_a_page_in_gits_place_is_called_one(server: GitHttpServer, tmp_path: Path) -> None:
    mirror = Mirror(MirrorSettings(server.url, "main", tmp_path / "state"))
    before = mirror.fetch()
    server.failure = 200
    with pytest.raises(GitError, match="such as a proxy's login page"):
        mirror.fetch()
    assert mirror.head() == before


class _QuotingHandler(BaseHTTPRequestHandler):
    """Refuses whoever asks, in git's own protocol, with what they sent to be let in."""

    def do_GET(self) -> None:
        sent = self.headers.get("Authorization", "")
        error = f"ERR refused: {sent}"
        body = f"001e# service=git-upload-pack\n0000{len(error) + 4:04x}{error}".encode()
        self.send_response(200 if sent else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


def test_a_server_that_quotes_the_header_does_not_bring_the_token_into_a_message(
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with ThreadingHTTPServer(("127.0.0.1", 0), _QuotingHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/config.git"
        settings = MirrorSettings(url, "main", tmp_path / "s", token_file=tmp_path / "token")
        error = fetch_error(settings)
        server.shutdown()
    header = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    assert "refused: Basic ***" in str(error)
    assert header not in str(error)


def test_no_token_where_one_is_asked_for(server: GitHttpServer, tmp_path: Path) -> None:
    server.token = TOKEN
    error = fetch_error(MirrorSettings(server.url, "main", tmp_path / "state"))
    assert error.reason == "AuthenticationFailed"
    missing = tmp_path / "missing"
    error = fetch_error(MirrorSettings(server.url, "main", tmp_path / "state", token_file=missing))
    assert error.reason == "CredentialsUnreadable"
    assert str(missing) in str(error)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "AuthenticationFailed"),
        (403, "AuthenticationFailed"),
        (404, "RepositoryNotFound"),
        (429, "GitUnreachable"),
        (500, "GitUnreachable"),
        (503, "GitUnreachable"),
    ],
)
def test_what_the_server_answers_is_told_apart(
    server: GitHttpServer, tmp_path: Path, status: int, reason: str
) -> None:
    settings = MirrorSettings(server.url, "main", tmp_path / "state")
    mirror = Mirror(settings)
    before = mirror.fetch()
    server.failure = status
    error = fetch_error(settings)
    assert error.reason == reason
    assert "stays in force" in str(error)
    assert mirror.head() == before


def test_a_server_that_is_gone(server: GitHttpServer, tmp_path: Path) -> None:
    mirror = Mirror(MirrorSettings(server.url, "main", tmp_path / "state"))
    before = mirror.fetch()
    server.shutdown()
    server.server_close()
    with pytest.raises(GitError) as caught:
        mirror.fetch()
    assert caught.value.reason == "GitUnreachable"
    assert mirror.head() == before


def test_a_server_that_falls_silent_is_given_up_before_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_git, "_SILENT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/fleet.git"
        settings = MirrorSettings(url, "main", tmp_path / "state", deadline_seconds=240)
        assert fetch_error(settings).reason == "GitUnreachable"


def test_a_query_in_the_url_stays_out_of_messages(server: GitHttpServer, tmp_path: Path) -> None:
    server.failure = 403
    url = f"{server.url}?private_token={TOKEN}"
    error = fetch_error(MirrorSettings(url, "main", tmp_path / "state"))
    assert TOKEN not in str(error)


def test_the_proxy_is_used(
    server: GitHttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.failure = 404
    settings = MirrorSettings(
        "http://config.example/fleet.git",
        "main",
        tmp_path / "state",
        proxy=f"http://127.0.0.1:{server.server_port}",
    )
    error = fetch_error(settings)
    assert server.requests[0][0].startswith("http://config.example/fleet.git/info/refs")
    assert error.reason == "RepositoryNotFound"


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None or (os.geteuid() == 0 and not Path("/run/sshd").is_dir()):
        pytest.skip(
            "NO SSHD: fetching over ssh is not tested here; install openssh-server and, to run as"
            " root, make the folder /run/sshd"
        )
    with serve_ssh(tmp_path / "ssh", sshd) as server:
        yield server


def test_fetch_over_ssh_with_deploy_key_and_known_host(
    remote: ConfigRemote, ssh: SshServer, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known hosts"
    known_hosts.write_text(ssh.host_line)
    settings = MirrorSettings(
        ssh.url(remote.bare),
        "main",
        tmp_path / "state",
        ssh_key=ssh.key,
        known_hosts=known_hosts,
    )
    assert Mirror(settings).fetch().subject == "First"


def test_an_unknown_or_changed_host_key_is_refused(
    remote: ConfigRemote, ssh: SshServer, tmp_path: Path
) -> None:
    url = ssh.url(remote.bare)
    settings = MirrorSettings(url, "main", tmp_path / "state", ssh_key=ssh.key)
    assert fetch_error(settings).reason == "HostKeyRefused"
    known_hosts = tmp_path / "known_hosts"
    other = ssh.key.with_suffix(".pub").read_text()
    known_hosts.write_text(f"[127.0.0.1]:{ssh.port} {other}")
    settings = MirrorSettings(
        url, "main", tmp_path / "state", ssh_key=ssh.key, known_hosts=known_hosts
    )
    error = fetch_error(settings)
    assert error.reason == "HostKeyRefused"
    assert "git_known_hosts" in str(error)


def test_a_wrong_deploy_key_and_a_missing_repository(
    remote: ConfigRemote, ssh: SshServer, tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(ssh.host_line)
    settings = MirrorSettings(
        ssh.url(remote.bare),
        "main",
        tmp_path / "state",
        ssh_key=ssh.host_key,
        known_hosts=known_hosts,
    )
    assert fetch_error(settings).reason == "AuthenticationFailed"
    settings = MirrorSettings(
        ssh.url(tmp_path / "none.git"),
        "main",
        tmp_path / "state",
        ssh_key=ssh.key,
        known_hosts=known_hosts,
    )
    assert fetch_error(settings).reason == "RepositoryNotFound"


def test_an_unknown_ssh_host_is_refused_without_asking(tmp_path: Path) -> None:
    """Needs no sshd: with nothing listening the answer must come at once, and be told apart."""
    settings = MirrorSettings("ssh://git@127.0.0.1:1/fleet.git", "main", tmp_path / "state")
    assert fetch_error(settings).reason == "GitUnreachable"


def test_a_local_path_is_taken_from_the_agents_folder(
    remote: ConfigRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(remote.bare.parent)
    assert Mirror(MirrorSettings("fleet.git", "main", tmp_path / "state")).fetch()
    assert Mirror(MirrorSettings("./work", "main", tmp_path / "state2")).fetch()
    git("branch", "-m", "main", "away", cwd=remote.work)
    assert fetch_error(MirrorSettings("./work", "main", tmp_path / "state2")).reason == (
        "BranchMissing"
    )
