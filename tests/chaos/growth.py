"""Whether an agent that runs for long takes ever more: descriptors, threads, memory, disk.

The agent looks at everything as fast as it can, while every so often a commit moves a model to
another version, so that downloads, reloads and deletions are part of it.

    python -m tests.chaos.growth --ticks 10000
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bucket import run_fake_gcs
from tests.e2e.stage import GROUP, Stage, deployment, wait_until

VERSIONS = (1, 2, 3, 4)
FAST = {"RECONCILER_TICK": "1ms", "RECONCILER_BUCKET_INTERVAL": "100ms"}
_PATIENCE_SECONDS = 900.0
_SAMPLES = 8
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Size:
    """What an agent takes at one moment."""

    ticks: int
    descriptors: int
    threads: int
    memory_bytes: int
    models_bytes: int
    state_bytes: int
    """Without the mirror of the repository, which grows with its history."""
    mirror_bytes: int


def measure(stage: Stage) -> Size:
    """Return what the stage's agent takes now."""
    assert stage.agent is not None
    process = Path("/proc", str(stage.agent.pid))
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    state = stage.folder / "state"
    mirror_bytes = _weigh(state / "mirror")
    descriptors = []
    for _ in range(_SAMPLES):  # the fewest count: a git that runs for a moment has some too
        descriptors.append(len(list((process / "fd").iterdir())))
        time.sleep(_SAMPLE_SECONDS)
    return Size(
        count_ticks(stage),
        min(descriptors),
        int(status["Threads"]),
        int(status["VmRSS"].split()[0]) * 1024,
        _weigh(stage.models_dir),
        _weigh(state) - mirror_bytes,
        mirror_bytes,
    )


def count_ticks(stage: Stage) -> int:
    """Return how often the agent has looked."""
    return int(stage.metric("reconciler_tick_duration_seconds_count"))


def grow(stage: Stage, ticks: int, commits: int, say: Callable[[Size], None]) -> tuple[Size, Size]:
    """Let a node tick so often, through so many commits; return its size near the start and last.

    The first tenth is for warming up, in which caches fill. Both sizes are of a node at rest.
    """
    for version in VERSIONS:
        stage.publish("ranker", version)
        stage.publish("speller", version)
    stage.commit({"groups/g.yaml": GROUP}, deployment("ranker", 1), deployment("speller", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    first = None
    for number in range(1, commits + 1):
        version = VERSIONS[number % len(VERSIONS)]
        stage.commit(deployment("ranker", version), deployment("speller", version))
        stage.wait_served("ranker", version)
        stage.wait_served("speller", version)
        due = ticks * number // commits
        _wait_for_ticks(stage, due)
        size = measure(stage)
        say(size)
        if first is None and number >= max(2, commits // 10):
            first = size
    assert first is not None, "too few commits to say anything"
    return first, size


def _wait_for_ticks(stage: Stage, ticks: int) -> None:
    wait_until(lambda: count_ticks(stage) >= ticks, f"{ticks} ticks", _PATIENCE_SECONDS)


def _weigh(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ticks", type=int, default=10_000)
    parser.add_argument("--commits", type=int, default=100)
    options = parser.parse_args()
    began_at = time.monotonic()

    def say(size: Size) -> None:
        sys.stdout.write(f"{time.monotonic() - began_at:7.1f} s {size}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as folder, run_fake_gcs() as endpoint:
        stage = Stage(Path(folder), endpoint, settings=FAST)
        try:
            first, last = grow(stage, options.ticks, options.commits, say)
        finally:
            stage.close()
    sys.stdout.write(f"first {first}\nlast  {last}\n")


if __name__ == "__main__":
    main()
