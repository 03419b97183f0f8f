"""Nodes on real parts: git, a bucket, a model server and the agent, each a process of its own.

Times are short: the stand-in server polls every 100 ms, so a rollout takes half a second.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import httpx

from reconciler.demo.services import free_port
from tests.bucket import FakeBucket, read_files
from tests.gitserver import IDENTITY, ConfigRemote
from tests.savedmodels import Fault, write_savedmodel

WAIT_SECONDS = 60.0
_NAMES = itertools.count(1)
_MODEL_SERVER = (sys.executable, "-m", "reconciler.cli.main", "dev", "tf-serving")
GROUP = "nodes: [node]\n"


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = WAIT_SECONDS
) -> Any:
    """Wait until `condition` is true and return what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            text = what if isinstance(what, str) else what()
            raise AssertionError(f"{text} did not happen within {seconds:g} s")
        time.sleep(0.02)


def deployment(model: str, version: int | str = 1, **more: Any) -> dict[str, str]:
    """Return the file of a deployment, to be committed; sources are put in by the stage."""
    fields = {"source": f"gs://BUCKET/{model}", "version": version, **more}
    return {f"deployments/g/{model}.yaml": json.dumps(fields)}


@dataclass
class Stage:
    """Everything around one agent; `close` stops what was started, by process id.

    A stage `beside` another is one more node that follows the same repository and bucket.
    """

    folder: Path
    endpoint: str
    predict: bool = False
    serving_flags: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    server_command: tuple[str, ...] = _MODEL_SERVER
    node: str = "node"
    beside: "Stage | None" = None
    host: str = "127.0.0.1"
    """Where the agent's status endpoint listens."""
    bucket: FakeBucket = field(init=False)
    remote: ConfigRemote = field(init=False)
    agent: "Popen[bytes] | None" = None
    server: "Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        if self.beside is None:
            self.bucket = FakeBucket(self.endpoint, f"models-{os.getpid()}-{next(_NAMES)}")
            self.remote = ConfigRemote(self.folder)
        else:
            self.bucket, self.remote = self.beside.bucket, self.beside.remote
            self.folder = self.folder / self.node
            self.folder.mkdir()
        self.port, self.rest_port, self.status_port = free_port(), free_port(), free_port()
        self.models_dir = self.folder / "models"
        self.config_file = self.models_dir / "models.config"

    # --- what people do -------------------------------------------------------------------

    def publish(self, model: str, version: int, fault: Fault | None = None, **more: Any) -> None:
        """Put a version into the bucket."""
        folder = self.folder / "exports" / f"{model}-{version}-{next(_NAMES)}"
        files = read_files(write_savedmodel(folder, version * 10, fault=fault, **more))
        self.bucket.put_version(str(version), files, under=model)

    def commit(self, *files: Mapping[str, str | None], subject: str = "Change") -> str:
        """Commit files to the config repo."""
        merged = {path: text for item in files for path, text in item.items()}
        return self.remote.commit(
            {
                path: None if text is None else text.replace("BUCKET", self.bucket.name)
                for path, text in merged.items()
            },
            subject,
        )

    def run_command(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a `reconciler` command in the checkout and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "reconciler.cli.main", *arguments],
            cwd=self.remote.work,
            env={**self.environment(), **IDENTITY},
            stdin=DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in codes, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    # --- processes ------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """Return the agent's settings."""
        return {
            **os.environ,
            "STORAGE_EMULATOR_HOST": self.endpoint,
            "RECONCILER_REPO": self.remote.url,
            "RECONCILER_NODE": self.node,
            "RECONCILER_MODELS_DIR": str(self.models_dir),
            "RECONCILER_STATE_DIR": str(self.folder / "state"),
            "RECONCILER_SERVING": f"127.0.0.1:{self.port}",
            "RECONCILER_SERVING_POLL": "100ms",
            "RECONCILER_LISTEN": f"{self.host}:{self.status_port}",
            "RECONCILER_GIT_INTERVAL": "200ms",
            "RECONCILER_BUCKET_INTERVAL": "300ms",
            "RECONCILER_SETTLE": "0s",
            "RECONCILER_TICK": "200ms",
            **self.settings,
        }

    def start_agent(self, command: list[str] | None = None, **settings: str) -> None:
        """Start the agent and wait until its status endpoint answers."""
        command = command or [sys.executable, "-m", "reconciler.cli.main", "run"]
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = Popen(
                command, env={**self.environment(), **settings}, stdout=log, stderr=log
            )

    def start_server(self, *flags: str) -> None:
        """Start the model server on the agent's config file."""
        wait_until(self.config_file.exists, "the first models.config")
        command = [
            *self.server_command,
            f"--port={self.port}",
            f"--rest_api_port={self.rest_port}",
            f"--model_config_file={self.config_file}",
            "--standin_listen_host=127.0.0.1",
            "--file_system_poll_wait_seconds=0.1",
            "--standin_tick_seconds=0.01",
            "--standin_load_seconds=0.02",
            "--standin_scripts=true",
            f"--standin_predict={'on' if self.predict else 'off'}",
            "--allow_version_labels_for_unavailable_models=true",
            "--num_load_threads=2",
            "--num_unload_threads=2",
            "--max_num_load_retries=0",
            *self.serving_flags,
            *flags,
        ]
        with (self.folder / "server.log").open("ab") as log:
            self.server = Popen(command, stdin=DEVNULL, stdout=log, stderr=log)

    def start(self) -> None:
        """Start both."""
        self.start_agent()
        self.start_server()

    def stop_agent(self, number: int = signal.SIGTERM) -> int:
        """Stop the agent and return its exit code."""
        assert self.agent is not None
        self.agent.send_signal(number)
        code = self.agent.wait(10)
        self.agent = None
        return code

    def kill_server(self) -> None:
        """Kill the model server."""
        assert self.server is not None
        self.server.kill()
        self.server.wait(10)
        self.server = None

    def close(self) -> None:
        """Stop everything."""
        for process in (self.agent, self.server):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(10)

    # --- what is seen ---------------------------------------------------------------------

    def ask(self, path: str, **options: Any) -> httpx.Response | None:
        """Ask the status endpoint; None while nothing answers."""
        try:
            return httpx.get(
                f"http://{self.host}:{self.status_port}{path}",
                timeout=5,
                trust_env=False,
                **options,
            )
        except httpx.TransportError:
            return None

    def status(self) -> dict[str, Any]:
        """Return /status; empty while nothing answers."""
        assert self.agent is None or self.agent.poll() is None, self.log[-3000:]
        response = self.ask("/status")
        status: dict[str, Any] = response.json() if response and response.is_success else {}
        return status

    def deployment(self, model: str) -> dict[str, Any]:
        """Return what /status says of a model."""
        for item in self.status().get("deployments", []):
            if item["model"] == model:
                found: dict[str, Any] = item
                return found
        return {}

    def condition(self, name: str) -> dict[str, Any]:
        """Return what /status says of a condition."""
        for item in self.status().get("conditions", []):
            if item["name"] == name:
                found: dict[str, Any] = item
                return found
        return {}

    def metric(self, name: str) -> float:
        """Return the value of a metric without labels."""
        response = self.ask("/metrics")
        for line in response.text.splitlines() if response else ():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def served(self, model: str) -> dict[int, str]:
        """Return the versions and states that the model server itself reports."""
        url = f"http://127.0.0.1:{self.rest_port}/v1/models/{model}"
        try:
            response = httpx.get(url, timeout=5, trust_env=False)
        except httpx.TransportError:
            return {}
        statuses = response.json().get("model_version_status", [])
        return {int(item["version"]): str(item["state"]) for item in statuses}

    def serving(self, model: str) -> set[int]:
        """Return the versions that the model server has AVAILABLE."""
        return {version for version, state in self.served(model).items() if state == "AVAILABLE"}

    def wait_served(self, model: str, *versions: int) -> None:
        """Wait until exactly these versions are AVAILABLE and the agent is done with the model."""
        wait_until(
            lambda: (
                self.serving(model) == set(versions)
                and self.deployment(model).get("phase") == "Deployed"
            ),
            lambda: f"serving {model} {versions} ({self.deployment(model)})",
        )

    def wait_phase(self, model: str, phase: str, reason: str) -> dict[str, Any]:
        """Wait until /status says so of the model, and return all it says."""

        def check() -> dict[str, Any]:
            found = self.deployment(model)
            return found if (found.get("phase"), found.get("reason")) == (phase, reason) else {}

        found: dict[str, Any] = wait_until(
            check, lambda: f"{model} {phase}/{reason} ({self.deployment(model)})"
        )
        return found

    @property
    def log(self) -> str:
        """What the agent has logged so far."""
        return (self.folder / "agent.log").read_text()
