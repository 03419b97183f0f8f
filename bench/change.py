"""One of 10,000 deployments changes: from the commit to the plan, without git's own time.

    python -m bench.change [--deployments 10000] [--changes 10] [--write STEM]

The agent runs in this process, at rest. A commit that moves one model to another version is
pushed; then the agent's own look at git and the tick that plans for it are made, and the clock
runs. Git's own time is that of the git commands which the agent runs meanwhile; the repository is
served over http. `cpu` is what this process spends, with the calls to the model server.
"""

import argparse
import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.outcome import add_options, tell
from bench.parts import (
    BUCKET,
    lay_out,
    make_environment,
    name_model,
    serve_models_beside,
    write_deployment,
)
from reconciler.agent import Agent
from reconciler.config_repo import mirror
from reconciler.config_repo.objects import Objects
from reconciler.demo.services import Services, free_port, start_bucket
from reconciler.settings import load_settings
from tests.gitserver import serve_http

_START_SECONDS = 900.0
_GOAL_MS = 300


class GitTime:
    """How long git commands have run."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count all git commands of a block."""
        with (
            patch.object(mirror, "run", self._clocked(mirror.run)),
            patch.object(Objects, "_execute", self._clocked(Objects._execute)),
        ):
            yield

    def _clocked(self, real: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            begun_at = time.perf_counter()
            try:
                return real(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - begun_at

        return run


async def measure(folder: Path, deployments: int, changes: int) -> list[dict[str, float]]:
    """Return what each change took, in milliseconds."""
    remote = lay_out(folder, deployments)
    serving_port = free_port()
    with (
        Services(folder) as services,
        serve_http(folder) as git,
        serve_models_beside(serving_port),
    ):
        bucket = start_bucket(services, folder / "buckets")
        environment = make_environment(folder, git.url, serving_port, free_port(), bucket)
        os.environ["STORAGE_EMULATOR_HOST"] = bucket
        agent = Agent(load_settings({}, {**os.environ, **environment}))
        connection = asyncio.create_task(agent.keep_connection())
        await agent.start()
        await agent.watches.fetch_git()
        deadline = time.monotonic() + _START_SECONDS
        while agent.plan is None or not agent.plan.converged:
            await agent.tick()
            if time.monotonic() > deadline:
                raise SystemExit("the node did not converge")
            await asyncio.sleep(0.1)
        gc.freeze()  # as the agent does after its start
        results = []
        for number in range(changes):
            await agent.tick()
            await agent.tick()
            version = number + 2
            files = write_deployment(BUCKET, name_model(1), version, has_lock=False)
            commit = await asyncio.to_thread(remote.commit, files, f"Version {version}")
            spent = GitTime()
            with spent.measured():
                begun_at, cpu_begun = time.perf_counter(), time.process_time()
                await agent.watches.fetch_git()
                read_at = time.perf_counter()
                git_seconds = spent.seconds
                await agent.tick()
                ended_at, cpu_ended = time.perf_counter(), time.process_time()
            assert agent.plan is not None
            assert agent.watches.git.desired is not None
            assert agent.watches.git.desired.commit.id == commit
            moving = [o for o in agent.plan.outcomes if o.wanted == version]
            assert len(moving) == 1, "the plan is not about the new version"
            results.append(
                {
                    "git_ms": git_seconds * 1000,
                    "read_ms": (read_at - begun_at - git_seconds) * 1000,
                    "tick_ms": (ended_at - read_at) * 1000,
                    "beyond_git_ms": (ended_at - begun_at - git_seconds) * 1000,
                    "cpu_ms": (cpu_ended - cpu_begun) * 1000,
                }
            )
        connection.cancel()
        with suppress(asyncio.CancelledError):
            await connection
        await agent.close()
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deployments", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=10)
    add_options(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = asyncio.run(measure(Path(name), options.deployments, options.changes))
    beyond = sorted(item["beyond_git_ms"] for item in results)
    middle = {key: statistics.median(item[key] for item in results) for key in results[0]}
    table = (
        "| one of | beyond git, median (spread) | goal | read | tick | CPU | git's own |\n"
        "|---|---|---|---|---|---|---|\n"
        f"| {options.deployments:,} | {middle['beyond_git_ms']:.0f} ms"
        f" ({beyond[0]:.0f} to {beyond[-1]:.0f}) | {_GOAL_MS} ms | {middle['read_ms']:.0f} ms |"
        f" {middle['tick_ms']:.0f} ms | {middle['cpu_ms']:.0f} ms | {middle['git_ms']:.0f} ms |"
    )
    tell("change", options, table, results)


if __name__ == "__main__":
    main()
