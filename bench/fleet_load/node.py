"""What one node asks: a real agent, and rclone, on a git server and a bucket that count."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.sync.tools import PEERS_BIN
from reconciler.agent import Agent
from reconciler.demo.services import Services, free_port, start_bucket
from reconciler.settings import load_settings
from reconciler.single_pass import run_once
from tests.bucket import FakeBucket
from tests.gitserver import IDENTITY, ConfigRemote, GitHttpServer, serve_http
from tests.scriptedserver import ScriptedServer, serve_models

BUCKET = "acme"
PREFIX = "models"
BUNDLE = "fleet.bundle"
MODELS = 20
FILES = (
    "saved_model.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    *(f"assets/words-{number}.txt" for number in range(3)),
)
_MODELS = tuple(f"model-{number:02d}" for number in range(MODELS))
_PASS_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Count:
    """Requests of one node."""

    git: int
    bucket: int


@dataclass(frozen=True, slots=True)
class Node:
    """What one node asks: for a look at git, for a look at all its sources, and for a commit."""

    look: Count
    listings: int
    commit: Count
    """With the look that finds it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """What rclone asks each time: where nothing is new, and where one model is."""

    name: str
    at_rest: int
    at_change: int


class Stage:
    """A git server and a bucket that count, and what people do there."""

    def __init__(self, folder: Path, bucket: FakeBucket, log: Path, git: GitHttpServer) -> None:
        self.folder = folder
        self.bucket = bucket
        self.git = git
        self.remote = ConfigRemote(folder)
        self._log = log

    def publish(self, model: str, version: int) -> None:
        """Put a version into the bucket."""
        # Each its own bytes: what a node has under another name it does not bring again.
        files = {path: f"{model} {version} {path}".encode() for path in FILES}
        self.bucket.put_version(str(version), files, under=f"{PREFIX}/{model}")

    def command(self, *arguments: str) -> None:
        """Run a `reconciler` command in the clone."""
        subprocess.run(
            [sys.executable, "-m", "reconciler.cli.main", *arguments],
            cwd=self.remote.work,
            env={**os.environ, **IDENTITY},
            check=True,
            capture_output=True,
            timeout=_PASS_SECONDS,
        )

    def read_counters(self) -> Count:
        """Return how many requests have come so far."""
        asked = sum('msg="' in line for line in self._log.read_text().splitlines())
        return Count(len(self.git.requests), asked)


@contextmanager
def open_stage() -> Iterator[Stage]:
    """Give a git server and a bucket with version 1 of each model."""
    with tempfile.TemporaryDirectory() as name, Services(Path(name)) as services:
        folder = Path(name)
        (folder / "buckets").mkdir()
        endpoint = start_bucket(services, folder / "buckets")
        os.environ["STORAGE_EMULATOR_HOST"] = endpoint
        with serve_http(folder) as git:
            stage = Stage(folder, FakeBucket(endpoint, BUCKET), folder / "bucket.log", git)
            for model in _MODELS:
                stage.publish(model, 1)
            yield stage


def count_node(*, has_locks: bool, has_bundle: bool) -> Node:
    """Return what one real agent asks, at its defaults but for the settle time."""
    port, bundle, changed = free_port(), f"gs://{BUCKET}/{BUNDLE}", _MODELS[0]
    with open_stage() as stage, serve_models(ScriptedServer(), port):
        files = {_path(model): _deployment(model, "latest") for model in _MODELS}
        stage.remote.commit({"groups/g.yaml": "nodes: [node]\n", **files}, "Serve all")
        if has_locks:
            stage.command("lock", "--settle", "0s")
            stage.remote.commit({}, "Lock")
        if has_bundle:
            stage.command("bundle", bundle)

        def change() -> None:
            stage.publish(changed, 2)
            if has_locks:
                stage.command("lock", changed, "--update", "--settle", "0s")
                stage.remote.push()
            else:
                stage.remote.commit({_path(changed): _deployment(changed, 2)}, "Deploy 2")
            if has_bundle:
                stage.command("bundle", bundle)

        environment = {
            "RECONCILER_REPO": bundle if has_bundle else stage.git.url,
            "RECONCILER_NODE": "node",
            "RECONCILER_MODELS_DIR": str(stage.folder / "models"),
            "RECONCILER_STATE_DIR": str(stage.folder / "state"),
            "RECONCILER_SERVING": f"127.0.0.1:{port}",
            "RECONCILER_SETTLE": "0s",
        }
        return asyncio.run(_count(stage, environment, change))


async def _count(stage: Stage, environment: dict[str, str], change: Callable[[], None]) -> Node:
    agent = Agent(load_settings({}, environment))
    if not await run_once(agent, _PASS_SECONDS):
        raise SystemExit("the node did not come to rest")
    before = stage.read_counters()
    await agent.watches.git.poll()
    looked = stage.read_counters()
    agent.watches.buckets.hasten_all()
    await agent.watches.buckets.refresh()
    listed = stage.read_counters()
    await asyncio.to_thread(change)
    changed = stage.read_counters()
    if not await run_once(agent, _PASS_SECONDS):
        raise SystemExit("the commit did not come to be")
    done = stage.read_counters()
    await agent.close()
    return Node(
        look=_between(before, looked),
        listings=listed.bucket - looked.bucket,
        commit=_between(changed, done),
    )


def _between(before: Count, after: Count) -> Count:
    return Count(after.git - before.git, after.bucket - before.bucket)


def _deployment(model: str, version: int | str) -> str:
    return json.dumps({"source": f"gs://{BUCKET}/{PREFIX}/{model}", "version": version})


def _path(model: str) -> str:
    return f"deployments/g/{model}.yaml"


def count_rclone(*flags: str) -> Peer | None:
    """Return what `rclone sync` asks for the same models; None where it is not installed."""
    program = shutil.which("rclone", path=os.pathsep.join([str(PEERS_BIN), os.environ["PATH"]]))
    if program is None:
        return None
    asked = subprocess.run(
        [program, "version"], capture_output=True, text=True, check=True, timeout=_PASS_SECONDS
    )
    with open_stage() as stage:
        endpoint = f"{stage.bucket.endpoint}/storage/v1/"
        command = [program, "sync", f":gcs:{BUCKET}/{PREFIX}", str(stage.folder / "target")]
        command += ["--config", os.devnull, "--gcs-anonymous", "--gcs-endpoint", endpoint, *flags]

        def sync() -> int:
            before = stage.read_counters()
            subprocess.run(command, check=True, timeout=_PASS_SECONDS)
            return _between(before, stage.read_counters()).bucket

        sync()
        at_rest = sync()
        stage.publish(_MODELS[0], 2)
        name = " ".join([asked.stdout.partition("\n")[0], "sync", *flags])
        return Peer(name, at_rest, sync())
