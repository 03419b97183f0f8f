"""How long from the end of a `git push` until a node has planned for the commit.

A bare repository is served over http, an agent runs as a process of its own and polls once an
hour; each push is followed by the webhook, signed as GitHub does. The clock runs from the moment
the push is done until /status names the new commit, which it does at the end of the tick that
planned for it.

    python -m bench.push_to_plan [--pushes 50] [--pause 1.1]

With a pause under a second the figures include the agent's own rest between two fetches.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import httpx

from reconciler.demo.services import free_port
from tests.forges import SECRET, github
from tests.gitserver import ConfigRemote, serve_http

_DEADLINE_SECONDS = 30.0
_POLL_SECONDS = 0.005


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pushes", type=int, default=50)
    parser.add_argument("--deployments", type=int, default=20)
    parser.add_argument("--pause", type=float, default=1.1, metavar="SECONDS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), options.pushes, options.deployments, options.pause)
    seconds.sort()
    at_95 = seconds[max(0, -(-len(seconds) * 95 // 100) - 1)]
    print(
        f"push to plan, {len(seconds)} pushes, {options.deployments} deployments,"
        f" {options.pause:g} s apart: median {statistics.median(seconds):.3f} s,"
        f" p95 {at_95:.3f} s, max {seconds[-1]:.3f} s"
    )


def measure(folder: Path, pushes: int, deployments: int, pause_seconds: float) -> list[float]:
    """Return the seconds of each push."""
    remote = ConfigRemote(folder)
    names = [f"model{number}" for number in range(deployments)]
    remote.commit(
        {
            "groups/g.yaml": "nodes: [node]\n",
            **{path: text for name in names for path, text in _deployment(folder, name, 1)},
        }
    )
    (folder / "secret").write_bytes(SECRET)
    port = free_port()
    with serve_http(folder) as server, (folder / "log").open("wb") as log:
        environment = {
            **os.environ,
            "RECONCILER_REPO": server.url,
            "RECONCILER_NODE": "node",
            "RECONCILER_MODELS_DIR": str(folder / "models"),
            "RECONCILER_STATE_DIR": str(folder / "state"),
            "RECONCILER_SERVING": f"127.0.0.1:{free_port()}",
            "RECONCILER_LISTEN": f"127.0.0.1:{port}",
            "RECONCILER_GIT_INTERVAL": "1h",
            "RECONCILER_WEBHOOK_SECRET_FILE": str(folder / "secret"),
        }
        command = [sys.executable, "-m", "reconciler.cli.main", "run"]
        agent = Popen(command, env=environment, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                _wait_observed(client, "")
                return [
                    _push_once(remote, client, names[number % deployments], number + 2, folder)
                    for number in _paced(pushes, pause_seconds)
                ]
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(_DEADLINE_SECONDS)


def _paced(count: int, pause_seconds: float) -> Iterator[int]:
    for number in range(count):
        time.sleep(pause_seconds)
        yield number


def _push_once(
    remote: ConfigRemote, client: httpx.Client, model: str, version: int, folder: Path
) -> float:
    commit = remote.commit(dict(_deployment(folder, model, version)), f"{model} {version}")
    begun_at = time.monotonic()
    delivery = github("refs/heads/main")
    headers = {**delivery.headers, "content-type": "application/json"}
    answer = client.post("/hooks/git", content=delivery.body, headers=headers)
    assert answer.status_code == 202, answer.text
    _wait_observed(client, commit)
    return time.monotonic() - begun_at


def _deployment(folder: Path, model: str, version: int) -> list[tuple[str, str]]:
    source = f"file://{folder}/sources/{model}"
    return [(f"deployments/g/{model}.yaml", json.dumps({"source": source, "version": version}))]


def _wait_observed(client: httpx.Client, commit: str) -> None:
    end = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < end:
        try:
            observed = client.get("/status").json().get("observed") or {}
        except httpx.TransportError:
            observed = {}
        if observed and observed["id"] == (commit or observed["id"]):
            return
        time.sleep(_POLL_SECONDS)
    raise SystemExit(f"the agent did not plan for {commit or 'any commit'} in time")


if __name__ == "__main__":
    main()
