"""Agents as processes: one alone on a folder, and what it lets other users read."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen

import httpx
import pytest

from reconciler.demo.services import free_port
from tests.gitserver import ConfigRemote
from tests.savedmodels import write_savedmodel

_COMMAND = [sys.executable, "-m", "reconciler.cli.main", "run"]
_WAIT_SECONDS = 30.0
_FOR_OTHERS = 0o077


@dataclass
class Agents:
    """Agents of one config repo; those that still run at the end are stopped by process id."""

    folder: Path
    remote: ConfigRemote
    _started: "list[Popen[bytes]]" = field(default_factory=list)

    def environment(self, **settings: str) -> dict[str, str]:
        return {
            **os.environ,
            "RECONCILER_REPO": self.remote.url,
            "RECONCILER_NODE": "a",
            "RECONCILER_MODELS_DIR": str(self.folder / "data" / "models"),
            "RECONCILER_STATE_DIR": str(self.folder / "data" / "state"),
            "RECONCILER_SERVING": f"127.0.0.1:{free_port()}",
            "RECONCILER_SETTLE": "0s",
            **settings,
        }

    def start(self, **settings: str) -> "Popen[bytes]":
        """Start an agent and wait until it answers."""
        port = free_port()
        environment = self.environment(RECONCILER_LISTEN=f"127.0.0.1:{port}", **settings)
        with (self.folder / "agent.log").open("ab") as log:
            process = Popen(_COMMAND, env=environment, stdin=DEVNULL, stdout=log, stderr=log)
        self._started.append(process)

        def answers() -> bool:
            assert process.poll() is None, (self.folder / "agent.log").read_text()
            try:
                url = f"http://127.0.0.1:{port}/livez"
                return httpx.get(url, timeout=5, trust_env=False).is_success
            except httpx.TransportError:
                return False

        wait_until(answers, "the agent's answer")
        return process

    def refuse(self, **settings: str) -> str:
        """Start an agent that is to end at once with exit code 1, and return its last words."""
        done = subprocess.run(
            _COMMAND,
            env=self.environment(RECONCILER_LISTEN="127.0.0.1:0", **settings),
            stdin=DEVNULL,
            capture_output=True,
            text=True,
            timeout=_WAIT_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        return done.stderr

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait(10)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    remote = ConfigRemote(tmp_path)
    remote.commit({"groups/g.yaml": "nodes: [a]\n"})
    started = Agents(tmp_path, remote)
    yield started
    started.close()


@pytest.mark.parametrize(
    ("own", "shared"),
    [
        pytest.param("RECONCILER_STATE_DIR", "models", id="models"),
        pytest.param("RECONCILER_MODELS_DIR", "state", id="state"),
    ],
)
def test_a_second_agent_on_one_folder_says_who_has_it_and_ends(
    agents: Agents, own: str, shared: str
) -> None:
    first = agents.start()
    words = agents.refuse(**{own: str(agents.folder / "other")})
    assert words == (
        f"reconciler: {agents.folder}/data/{shared} is in use by another reconciler (process"
        f" {first.pid} on {socket.gethostname()}); stop that one or give this one a folder of its"
        " own\n"
    )
    assert first.poll() is None


def test_a_killed_agent_leaves_no_lock_behind(agents: Agents) -> None:
    first = agents.start()
    first.kill()
    first.wait(10)
    lock = agents.folder / "data/models/.lock"
    assert lock.read_text() == f"process {first.pid} on {socket.gethostname()}\n"
    second = agents.start()
    assert lock.read_text() == f"process {second.pid} on {socket.gethostname()}\n"
    second.send_signal(signal.SIGTERM)
    assert second.wait(10) == 0


def test_others_may_read_what_is_served_and_nothing_else(agents: Agents) -> None:
    write_savedmodel(agents.folder / "bucket/ranker/1", 1.0)
    agents.remote.commit(
        {"deployments/g/ranker.yaml": f"source: file://{agents.folder}/bucket/ranker\nversion: 1\n"}
    )
    agent = agents.start()
    data = agents.folder / "data"
    version = data / "models/ranker/1"
    wait_until(version.exists, "version 1")
    wait_until((data / "state/memory.json").exists, "the memory")
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(10) == 0
    served = {data, data / "models", data / "models/models.config", version.parent, version}
    served.update(version.rglob("*"))
    modes = {
        path: path.lstat().st_mode & _FOR_OTHERS
        for path in (data, *data.rglob("*"))
        if not path.is_symlink()
    }
    assert {path for path, mode in modes.items() if mode} == served
    assert all(modes[path] == (0o055 if path.is_dir() else 0o044) for path in served)
    kept = {path.name for path in modes.keys() - served}
    assert {"state", "memory.json", ".lock", ".manifests", "1.json"} <= kept


def test_a_state_folder_around_the_models_lets_the_server_through(agents: Agents) -> None:
    data = agents.folder / "data"
    agents.start(RECONCILER_STATE_DIR=str(data))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (data, data / "models")}
    assert modes == {"data": 0o711, "models": 0o755}
