"""What a node at rest costs: 1,000 and 10,000 deployments, nothing changes.

    python -m bench.idle [--deployments 1000 10000] [--runs 3] [--seconds 60] [--write STEM]

A tick is everything that the agent's own process does from one look at the node to the next, at
the default settings (a look every 2 s): the look itself, its share of the status requests, of the
looks at the disk, of the rarer full plan, and of what the process does with an unchanged git
repository. The git command itself is a process of its own and is shown beside it, for each poll
(every 15 s by default). Half of the deployments are pinned, half are locked. Everything has been
served for a while when the clock starts.

The repository is served over http by git itself, the bucket is fake-gcs-server; both and the
model server count what they are asked. A run begins when the node has converged and its start-up
checks are over.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.outcome import add_options, tell
from bench.parts import (
    ask,
    lay_out,
    make_environment,
    read_metric,
    read_usage,
    run_agent,
    wait_until,
)
from reconciler.demo.services import Services, free_port, start_bucket
from tests.gitserver import serve_http
from tests.scriptedserver import ScriptedServer, serve_models

_START_SECONDS = 600.0
_CALM_SECONDS = 10.0
_GOALS = {1000: (20.0, 100), 10_000: (100.0, 200)}
_TICKS = "reconciler_tick_duration_seconds_count"


@dataclass(frozen=True, slots=True)
class Run:
    """One stretch of rest."""

    deployments: int
    seconds: float
    ticks: int
    cpu_ms_per_tick: float
    git_polls: float
    git_cpu_ms_per_poll: float
    """Of the git commands."""
    git_requests: int
    bucket_requests: int
    status_calls_per_tick: float
    reloads: int
    resident_mib: float


def measure(folder: Path, deployments: int, runs: int, seconds: float) -> list[Run]:
    """Return the stretches of one node."""
    lay_out(folder, deployments)
    server, serving_port, port = ScriptedServer(), free_port(), free_port()
    with (
        Services(folder) as services,
        serve_http(folder) as git,
        serve_models(server, serving_port),
    ):
        bucket = start_bucket(services, folder / "buckets")
        environment = make_environment(folder, git.url, serving_port, port, bucket)
        with run_agent(folder, environment) as agent:

            def is_at_rest() -> bool:
                response = ask(port, "/status")
                status = response.json() if response and response.is_success else {}
                phases = [item["phase"] for item in status.get("deployments", [])]
                return phases == ["Deployed"] * deployments and bool(status["applied"])

            wait_until(is_at_rest, "convergence", _START_SECONDS)
            log = folder / "bucket.log"
            found = []
            for _ in range(runs):
                time.sleep(_CALM_SECONDS)
                ticks = read_metric(port, _TICKS)
                before, begun_at = read_usage(agent.pid), time.monotonic()
                calls, reloads = server.status_calls, server.reloads
                requests, listings = len(git.requests), _count_lines(log)
                time.sleep(seconds)
                after, passed = read_usage(agent.pid), time.monotonic() - begun_at
                asked = server.status_calls - calls
                polls = sum("info/refs" in path for path, _ in git.requests[requests:])
                ticks = read_metric(port, _TICKS) - ticks
                git_seconds = after.children_seconds - before.children_seconds
                found.append(
                    Run(
                        deployments=deployments,
                        seconds=round(passed, 1),
                        ticks=int(ticks),
                        cpu_ms_per_tick=round(
                            (after.own_seconds - before.own_seconds) * 1000 / ticks, 1
                        ),
                        git_polls=polls,
                        git_cpu_ms_per_poll=round(git_seconds * 1000 / max(polls, 1), 1),
                        git_requests=len(git.requests) - requests,
                        bucket_requests=_count_lines(log) - listings,
                        status_calls_per_tick=round(asked / ticks, 1),
                        reloads=server.reloads - reloads,
                        resident_mib=round(after.resident_bytes / 2**20, 1),
                    )
                )
    return found


def _count_lines(log: Path) -> int:
    return sum("method=" in line or "HTTP/" in line for line in log.read_text().splitlines())


def render_table(results: dict[int, list[Run]]) -> str:
    """Return a Markdown table."""
    lines = [
        "| deployments | CPU ms a tick, median (spread) | goal | RSS MiB | goal |"
        " status calls a tick | git polls, requests | git's CPU ms a poll | bucket requests |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for deployments, runs in results.items():
        cpu = sorted(run.cpu_ms_per_tick for run in runs)
        goal_ms, goal_mib = _GOALS.get(deployments, ("", ""))
        lines.append(
            f"| {deployments:,} | {statistics.median(cpu):.1f} ({cpu[0]:.1f} to {cpu[-1]:.1f}) |"
            f" {goal_ms} | {max(run.resident_mib for run in runs):.0f} | {goal_mib} |"
            f" {statistics.median(run.status_calls_per_tick for run in runs):.0f} |"
            f" {sum(run.git_polls for run in runs)}, {sum(run.git_requests for run in runs)} |"
            f" {statistics.median(run.git_cpu_ms_per_poll for run in runs):.0f} |"
            f" {sum(run.bucket_requests for run in runs)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deployments", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    add_options(parser)
    options = parser.parse_args()
    results = {}
    for deployments in options.deployments:
        with tempfile.TemporaryDirectory() as name:
            results[deployments] = measure(Path(name), deployments, options.runs, options.seconds)
    rows = [asdict(run) for runs in results.values() for run in runs]
    tell("idle", options, render_table(results), rows)


if __name__ == "__main__":
    main()
