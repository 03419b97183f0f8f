"""How long `reconciler plan` takes: 1,000 deployments with locks, 10 changed, 3 groups of 3 nodes.

    python -m bench.plan [all|mixed]

The whole command is measured, from its start to its last line, five times. The sources are local
folders, so that no bucket's answer is in the figure.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from reconciler.model import Query
from reconciler.planning.locks import lock_snapshot
from reconciler.sources.file import FileSource

DEPLOYMENTS = 1000
CHANGED = 10
GROUPS = 3
NODES = 3
RUNS = 5


def make_config(folder: Path, models: Path, replicas: str) -> None:
    """Write the fleet at version 1, commit it, move ten models to version 2 and commit that."""
    _git(folder, "init", "--quiet", "--initial-branch=main")
    for group in range(GROUPS):
        nodes = ", ".join(f"node-{group}-{number}" for number in range(NODES))
        _write(folder / f"groups/g{group}.yaml", f"nodes: [{nodes}]\nquota: {{disk: 10TB}}\n")
    for number in range(DEPLOYMENTS):
        for version in (1, 2):
            file = models / f"m{number}" / str(version) / "saved_model.pb"
            file.parent.mkdir(parents=True)
            file.write_bytes(b"a graph")
        write_deployment(folder, models, number, 1, replicas)
    _commit(folder, "Serve everything")
    for number in range(0, DEPLOYMENTS, DEPLOYMENTS // CHANGED):
        write_deployment(folder, models, number, 2, replicas)
    _commit(folder, "Move ten models")


def write_deployment(folder: Path, models: Path, number: int, version: int, replicas: str) -> None:
    """Write one deployment and its lock."""
    source = f"file://{models}/m{number}"
    count = ("all", "2", "1")[number // GROUPS % 3] if replicas == "mixed" else "all"
    place = folder / f"deployments/g{number % GROUPS}"
    _write(
        place / f"m{number}.yaml",
        f"source: {source}\nversion: {version}\nreplicas: {count}\ndescription: model {number}\n",
    )
    snapshot = FileSource().list(Query(source, version)).snapshots[version]
    locked = lock_snapshot(snapshot, {})
    entry = {
        "version": version,
        "files": locked.files,
        "bytes": locked.size_bytes,
        "digest": f"sha256:{locked.digest}",
    }
    lock = {"model": f"m{number}", "source": source, "version": version, "locked": [entry]}
    _write(place / f"m{number}.lock.yaml", json.dumps(lock))


def measure(folder: Path) -> Iterator[float]:
    """Yield the seconds that each run of the command takes."""
    command = [sys.executable, "-m", "reconciler.cli.main", "plan", "-C", str(folder)]
    for _ in range(RUNS):
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        yield time.perf_counter() - begun
        assert f"{CHANGED} models change" in done.stdout, done.stdout


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, timeout=60, capture_output=True)


def _commit(folder: Path, subject: str) -> None:
    _git(folder, "add", "--all")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    _git(folder, *who, "commit", "--quiet", "-m", subject)


def main() -> None:
    """Measure and print."""
    for replicas in sys.argv[1:] or ("all", "mixed"):
        with tempfile.TemporaryDirectory() as name:
            folder, models = Path(name, "config"), Path(name, "models")
            folder.mkdir()
            make_config(folder, models, replicas)
            seconds = list(measure(folder))
        print(
            f"reconciler plan, {DEPLOYMENTS} deployments ({replicas} replicas), {CHANGED} changed,"
            f" {GROUPS * NODES} nodes: {statistics.median(seconds):.2f} s"
            f" (of {RUNS} runs, {min(seconds):.2f} to {max(seconds):.2f} s)"
        )


if __name__ == "__main__":
    main()
