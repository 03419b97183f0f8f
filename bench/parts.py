"""What the benchmarks of one node stand on: a node full of models, a server that says so, a meter.

The models are laid out on disk as an agent leaves them, so that no benchmark waits for 10,000
downloads. The model server is scripted: it takes every config and says that all of it is AVAILABLE
at once, and it counts what it is asked, so that a figure holds this program's work and no one
else's.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import google_crc32c
import httpx

from reconciler.model import Snapshot, StoredFile
from reconciler.planning.locks import lock_snapshot
from reconciler.store.layout import manifest_file, version_folder
from reconciler.store.manifest import Manifest
from tests.gitserver import ConfigRemote
from tests.scriptedserver import ScriptedServer, serve_models

BUCKET = "models"
GROUP = {"groups/g.yaml": "nodes: [node]\n"}
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_AVAILABLE = 30
_CONTENT = b"a graph"
_GRACE_SECONDS = 20.0


def name_model(number: int) -> str:
    """Return the name of one of the models."""
    return f"model-{number:05d}"


def make_snapshot(bucket: str, model: str, version: int) -> Snapshot:
    """Return a version of one small file as its bucket would list it."""
    file = StoredFile(
        "saved_model.pb", len(_CONTENT), version, int(google_crc32c.value(_CONTENT)), 0.0
    )
    return Snapshot(f"gs://{bucket}/{model}", version, str(version), (file,))


def write_deployment(
    bucket: str, model: str, version: int, *, has_lock: bool, has_pin: bool = True
) -> dict[str, str]:
    """Return the file of a deployment, and that of its lock where it has one."""
    path = f"deployments/g/{model}"
    source = f"gs://{bucket}/{model}"
    pin = {"version": version} if has_pin else {}
    files = {f"{path}.yaml": json.dumps({"source": source, **pin, "description": "A model"})}
    if has_lock:
        locked = lock_snapshot(make_snapshot(bucket, model, version), {})
        entry = {
            "version": version,
            "files": locked.files,
            "bytes": locked.size_bytes,
            "digest": f"sha256:{locked.digest}",
        }
        lock = {"model": model, "source": source, "version": version, "locked": [entry]}
        files[f"{path}.lock.yaml"] = json.dumps(lock)
    return files


def install(models_dir: Path, snapshot: Snapshot, model: str) -> None:
    """Put a version of one small file where an agent would have put it."""
    folder = version_folder(models_dir, model, snapshot.version)
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(_CONTENT)
    manifest = Manifest(snapshot.source, snapshot.digest, time.time(), snapshot.files)
    path = manifest_file(models_dir, model, snapshot.version)
    path.parent.mkdir(exist_ok=True)
    files = [{name: getattr(file, name) for name in file.__slots__} for file in manifest.files]
    path.write_text(
        json.dumps(
            {
                "source": manifest.source,
                "digest": manifest.digest,
                "installed_at_seconds": manifest.installed_at_seconds,
                "files": files,
            }
        )
    )


def lay_out(folder: Path, deployments: int) -> ConfigRemote:
    """Make the repository, the models and the bucket's folder of a node that serves version 1.

    Half of the deployments are locked, half are pinned.
    """
    remote = ConfigRemote(folder)
    files = dict(GROUP)
    for number in range(deployments):
        model = name_model(number)
        files |= write_deployment(BUCKET, model, 1, has_lock=number % 2 == 0)
        install(folder / "models", make_snapshot(BUCKET, model, 1), model)
    remote.commit(files, "Serve everything")
    (folder / "buckets" / BUCKET).mkdir(parents=True)
    return remote


def make_environment(
    folder: Path, repo: str, serving_port: int, status_port: int, bucket: str
) -> dict[str, str]:
    """Return the settings of that node's agent; all others are the defaults."""
    return {
        "STORAGE_EMULATOR_HOST": bucket,
        "RECONCILER_REPO": repo,
        "RECONCILER_NODE": "node",
        "RECONCILER_MODELS_DIR": str(folder / "models"),
        "RECONCILER_STATE_DIR": str(folder / "state"),
        "RECONCILER_SERVING": f"127.0.0.1:{serving_port}",
        "RECONCILER_LISTEN": f"127.0.0.1:{status_port}",
    }


@contextmanager
def serve_models_beside(port: int) -> Iterator[None]:
    """Let a scripted server answer in a process of its own, which is not in this one's way."""
    spawned = multiprocessing.get_context("spawn")
    process = spawned.Process(target=_serve_for_ever, args=(port,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join(_GRACE_SECONDS)


def _serve_for_ever(port: int) -> None:
    with serve_models(ScriptedServer(), port):
        threading.Event().wait()


@contextmanager
def run_agent(
    folder: Path, environment: Mapping[str, str], *command: str
) -> Iterator["Popen[bytes]"]:
    """Run the agent as a process of its own for a block."""
    words = command or (sys.executable, "-m", "reconciler.cli.main", "run")
    with (folder / "agent.log").open("ab") as log:
        agent = Popen(
            words, env={**os.environ, **environment}, stdin=DEVNULL, stdout=log, stderr=log
        )
    try:
        yield agent
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(_GRACE_SECONDS)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has taken since its start."""

    own_seconds: float
    """CPU of the process itself."""
    children_seconds: float
    """CPU of the commands it ran and that have ended."""
    resident_bytes: int


def read_usage(pid: int) -> Usage:
    """Return what a process has taken so far, by the kernel's books."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(text) for text in fields[11:15])
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return Usage(
        own_seconds=(user + system) / _TICKS_PER_SECOND,
        children_seconds=(children_user + children_system) / _TICKS_PER_SECOND,
        resident_bytes=int(resident.split()[1]) * 1024,
    )


def wait_until(condition: Callable[[], Any], what: str, seconds: float) -> Any:
    """Return what `condition` gives once that is true; ends the program when it takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.02)


def ask(port: int, path: str, **options: Any) -> httpx.Response | None:
    """Ask the agent's status endpoint; None while nothing answers."""
    try:
        url = f"http://127.0.0.1:{port}{path}"
        # No certificate is met here, and to load those that could be takes 20 ms of each question.
        return httpx.get(url, timeout=30, trust_env=False, verify=False, **options)
    except httpx.TransportError:
        return None


def read_metric(port: int, name: str) -> float:
    """Return the value of a metric without labels."""
    response = ask(port, "/metrics")
    for line in response.text.splitlines() if response else ():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return 0.0
