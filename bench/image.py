"""How large the agent's image is, how soon it answers, and what it takes of a node at rest.

It needs an engine on this machine (DOCKER_HOST, or the usual socket) that has the image. The
container runs as deploy/ runs it: read-only, without capabilities, as its own user, with two
volumes, on the node's network. It follows a config repo of one group without deployments.

    python -m bench.image reconciler:0.1.0 [--base python:3.11-slim-bookworm] [--starts 5]
"""

import argparse
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from reconciler.demo.services import free_port
from tests.gitserver import ConfigRemote

_DEADLINE_SECONDS = 60.0
_REST_SECONDS = 10.0
_POLL_SECONDS = 0.005
_LAYERS = {
    "git, ssh, gpg": "only-what-is-used",
    "Python packages": "COPY dir.* /opt/reconciler",
    "the agent": "COPY dir.* /opt/reconciler",
}
"""What the history of the image calls the large ones, oldest first."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("image")
    parser.add_argument("--base", help="the image that it was built on")
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    rows = list(measure_sizes(options.image, options.base))
    rows += measure_runs(options.image, options.starts)
    width = max(len(what) for what, _ in rows)
    for what, figure in rows:
        print(f"{what:{width}}  {figure:>9}")


def measure_sizes(image: str, base: str | None) -> Iterator[tuple[str, str]]:
    """Yield the sizes of the image and its large layers."""
    size_bytes = _image_bytes(image)
    yield "size of the image", _megabytes(size_bytes)
    if base:
        yield "  beyond its base", _megabytes(size_bytes - _image_bytes(base))
    arguments = ("--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image)
    history = _docker("history", *arguments).splitlines()[::-1]
    for what, pattern in _LAYERS.items():
        line = next(line for line in history if re.search(pattern, line))
        history.remove(line)
        yield f"  {what}", _megabytes(int(line.split()[0]))


def measure_runs(image: str, starts: int) -> Iterator[tuple[str, str]]:
    """Yield how fast it starts and stops, and its memory after some rest."""
    started, stopped, memory = [], [], ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        ConfigRemote(folder).commit({"groups/g.yaml": "nodes: [node]\n"})
        for number in range(starts):
            begun_at = time.monotonic()
            with _run_agent(image, folder) as (container, port):
                _wait_live(port)
                started.append(time.monotonic() - begun_at)
                if number == starts - 1:
                    time.sleep(_REST_SECONDS)
                    memory = _docker(
                        "stats", "--no-stream", "--format", "{{.MemUsage}}", container
                    ).split()[0]
                begun_at = time.monotonic()
                _docker("stop", container)
                stopped.append(time.monotonic() - begun_at)
    yield f"docker run to /livez, median of {starts}", f"{statistics.median(started):.2f} s"
    yield "docker stop to ended, median", f"{statistics.median(stopped):.2f} s"
    yield f"memory after {_REST_SECONDS:.0f} s at rest", memory


@contextmanager
def _run_agent(image: str, folder: Path) -> Iterator[tuple[str, int]]:
    port = free_port()
    environment = {
        "RECONCILER_REPO": "file:///fleet/fleet.git",
        "RECONCILER_NODE": "node",
        "RECONCILER_LISTEN": f"127.0.0.1:{port}",
        "RECONCILER_SERVING": f"127.0.0.1:{free_port()}",
    }
    options = [f"--env={name}={value}" for name, value in environment.items()]
    options += ["--read-only", "--cap-drop=ALL", "--network=host"]
    container = _docker("run", "--detach", *options, f"--volume={folder}:/fleet:ro", image)
    try:
        yield container, port
    finally:
        _docker("rm", "--force", "--volumes", container)


def _wait_live(port: int) -> None:
    end = time.monotonic() + _DEADLINE_SECONDS
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < end:
            try:
                if client.get(f"http://127.0.0.1:{port}/livez").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_POLL_SECONDS)
    raise SystemExit("the agent did not come up in time")


def _image_bytes(image: str) -> int:
    return int(_docker("image", "inspect", "--format", "{{.Size}}", image))


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def _docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, timeout=_DEADLINE_SECONDS, check=True
    )
    return done.stdout.decode().strip()


if __name__ == "__main__":
    main()
