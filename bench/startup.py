"""How long the command takes to start: its help, and an agent until its first plan.

    python -m bench.startup [--runs 7] [--deployments 1000] [--write STEM]

The agent has been running on this node before: its mirror, its memory and its models are there.
The clock runs from the start of the process until /readyz, asked every 20 ms, says that the agent
has planned for a commit. It is measured with everything in reach, and with git, bucket and model
server gone. The model server answers in a process of its own, as it does on a node. The CPU seconds
beside it are those of the agent's process: on a machine that does other things they tell more.
Python may keep what it has compiled, as on every node where the package is installed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.outcome import add_options, tell
from bench.parts import (
    ask,
    lay_out,
    make_environment,
    read_usage,
    run_agent,
    serve_models_beside,
    wait_until,
)
from reconciler.demo.services import Services, free_port, start_bucket
from tests.gitserver import serve_http

_START_SECONDS = 300.0
_GOALS_SECONDS = {"--help": 0.15, "first plan": 1.0, "first plan, all else gone": 1.0}
_COMMAND = (sys.executable, "-m", "reconciler.cli.main")
_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}


@dataclass(frozen=True, slots=True)
class Start:
    """One start."""

    seconds: float
    cpu_seconds: float


def measure_help(runs: int) -> list[Start]:
    """Return what each `reconciler --help` takes."""
    found = []
    environment = os.environ | _COMPILED
    for _ in range(runs):
        begun_at, before = time.perf_counter(), os.times()
        subprocess.run(
            [*_COMMAND, "--help"], env=environment, check=True, capture_output=True, timeout=60
        )
        after = os.times()
        cpu = after.children_user + after.children_system
        cpu -= before.children_user + before.children_system
        found.append(Start(time.perf_counter() - begun_at, cpu))
    return found


def measure_run(folder: Path, environment: Mapping[str, str], port: int) -> Start:
    """Return what it takes until an agent has made its first plan."""
    begun_at = time.perf_counter()
    with run_agent(folder, environment) as agent:
        wait_until(lambda: has_planned(port), "the first plan", _START_SECONDS)
        return Start(time.perf_counter() - begun_at, read_usage(agent.pid).own_seconds)


def has_planned(port: int) -> bool:
    """Tell whether the agent has planned for a commit."""
    response = ask(port, "/readyz")
    return response is not None and response.is_success


def measure(folder: Path, deployments: int, runs: int) -> dict[str, list[Start]]:
    """Return all starts."""
    lay_out(folder, deployments)
    serving_port, port = free_port(), free_port()
    found: dict[str, list[Start]] = {"--help": measure_help(runs)}
    with (
        Services(folder) as services,
        serve_http(folder) as git,
        serve_models_beside(serving_port),
    ):
        bucket = start_bucket(services, folder / "buckets")
        environment = _COMPILED | make_environment(folder, git.url, serving_port, port, bucket)
        with run_agent(folder, environment):
            wait_until(lambda: _is_settled(port), "convergence", _START_SECONDS)
        found["first plan"] = [measure_run(folder, environment, port) for _ in range(runs)]
    found["first plan, all else gone"] = [
        measure_run(folder, environment, port) for _ in range(runs)
    ]
    return found


def _is_settled(port: int) -> bool:
    response = ask(port, "/status")
    status = response.json() if response and response.is_success else {}
    return bool(status.get("applied"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--deployments", type=int, default=1000)
    add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(Path(name), options.deployments, options.runs)
    lines = [
        f"| start, {options.deployments:,} deployments | median (spread) | goal | CPU |",
        "|---|---|---|---|",
    ]
    for what, starts in found.items():
        seconds = [start.seconds for start in starts]
        cpu = statistics.median(start.cpu_seconds for start in starts)
        lines.append(
            f"| {what} | {statistics.median(seconds):.2f} s"
            f" ({min(seconds):.2f} to {max(seconds):.2f}) | {_GOALS_SECONDS[what]:g} s |"
            f" {cpu:.2f} s |"
        )
    rows = {what: [asdict(start) for start in starts] for what, starts in found.items()}
    tell("startup", options, "\n".join(lines), rows)


if __name__ == "__main__":
    main()
