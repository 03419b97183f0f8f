"""Real git repositories for tests: made, changed, and served by file, http and ssh."""

import base64
import getpass
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

_DEADLINE_SECONDS = 30
IDENTITY = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def git(*arguments: str, cwd: Path | None = None, stdin: bytes = b"") -> str:
    """Run a git command untouched by the host's configuration and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, **IDENTITY}
    result = subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        timeout=_DEADLINE_SECONDS,
        check=False,
    )
    assert result.returncode == 0, (arguments, result.stderr)
    return result.stdout.decode().strip()


class ConfigRemote:
    """A bare repository `fleet.git` and a checkout from which commits are pushed to it."""

    def __init__(self, folder: Path, branch: str = "main") -> None:
        self.bare = folder / "fleet.git"
        self.work = folder / "work"
        git("init", "--quiet", "--bare", f"--initial-branch={branch}", str(self.bare))
        git("init", "--quiet", f"--initial-branch={branch}", str(self.work))
        git("remote", "add", "origin", str(self.bare), cwd=self.work)

    @property
    def url(self) -> str:
        return f"file://{self.bare}"

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write files into the checkout; None deletes one."""
        for path, content in files.items():
            file = self.work / path
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(
        self,
        files: Mapping[str, str | bytes | None],
        subject: str = "Change",
        *,
        amend: bool = False,
    ) -> str:
        """Commit the files, push, and return the commit's id; `amend` rewrites and forces."""
        self.write(files)
        git("add", "--all", cwd=self.work)
        options = ["--amend"] if amend else []
        git("commit", "--quiet", "--allow-empty", "-m", subject, *options, cwd=self.work)
        self.push("--force") if amend else self.push()
        return git("rev-parse", "HEAD", cwd=self.work)

    def push(self, *options: str) -> None:
        """Push the current branch."""
        git("push", "--quiet", *options, "origin", "HEAD", cwd=self.work)


class _GitHandler(BaseHTTPRequestHandler):
    """One request to git's own http-backend, by the CGI protocol."""

    server: "GitHttpServer"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self._answer(self._read_chunks())
        else:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> None:
        authorization = self.headers.get("Authorization", "")
        self.server.requests.append((self.path, authorization))
        if self.server.failure is not None:
            self.send_error(self.server.failure)
            return
        if self.server.token is not None:
            expected = base64.b64encode(f"x-access-token:{self.server.token}".encode()).decode()
            if authorization != f"Basic {expected}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_ADDR": "127.0.0.1",
        }
        result = subprocess.run(
            ["git", "http-backend"],
            env=environment,
            input=body,
            capture_output=True,
            timeout=_DEADLINE_SECONDS,
            check=False,
        )
        head, _, content = result.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if line)
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        with suppress(ConnectionError):  # a git that was killed meanwhile does not listen any more
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


class GitHttpServer(ThreadingHTTPServer):
    """Serves the bare repositories below a folder over http, with a token if one is set."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _GitHandler)
        self.root = root
        self.token: str | None = None
        self.failure: int | None = None
        """A status to answer everything with, such as 503."""
        self.requests: list[tuple[str, str]] = []
        """Path and Authorization header of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/fleet.git"


@contextmanager
def serve_http(root: Path) -> Iterator[GitHttpServer]:
    """Serve the repositories below `root` for a block."""
    with GitHttpServer(root) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(_DEADLINE_SECONDS)


class SshServer:
    """A real sshd on a free port that lets one key run git."""

    def __init__(self, folder: Path, port: int, host: str = "127.0.0.1") -> None:
        self.key = folder / "client_key"
        self.host_key = folder / "host_key"
        self.port = port
        self.host = host

    @property
    def host_line(self) -> str:
        """The line for a known_hosts file."""
        public = self.host_key.with_suffix(".pub").read_text()
        return f"[{self.host}]:{self.port} {public}"

    def url(self, repository: Path) -> str:
        """Return the ssh URL of a repository on this host."""
        return f"ssh://{getpass.getuser()}@{self.host}:{self.port}{repository}"


@contextmanager
def serve_ssh(folder: Path, sshd: str, host: str = "127.0.0.1") -> Iterator[SshServer]:
    """Run `sshd` for a block."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind((host, 0))
        server = SshServer(folder, probe.getsockname()[1], host)
    for key in (server.key, server.host_key):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True, timeout=_DEADLINE_SECONDS)
    (folder / "authorized_keys").write_bytes(server.key.with_suffix(".pub").read_bytes())
    (folder / "config").write_text(
        f"ListenAddress {host}\nPort {server.port}\nHostKey {server.host_key}\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\n"
    )
    command = [sshd, "-D", "-e", "-f", str(folder / "config")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            _wait_for_port(server, process, folder / "log")
            yield server
        finally:
            process.terminate()
            process.wait(_DEADLINE_SECONDS)


def _wait_for_port(server: SshServer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with suppress(OSError), socket.create_connection((server.host, server.port), timeout=1):
            return
        time.sleep(0.01)
    raise AssertionError(f"nothing listens on port {server.port}: {log.read_text()}")
