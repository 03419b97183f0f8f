"""`reconciler demo`: the main job on this machine, on real parts."""

import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--once", is_flag=True, help="End after the scenes: exit 0 if all came out, else 1.")
@click.option("--keep", is_flag=True, help="Keep the folder with logs and models.")
def demo(once: bool, keep: bool) -> None:
    """Play the main job on this machine: git, bucket, three nodes with their model servers.

    Starts a bare git repository made from example-config-repo, the real fake-gcs-server with small
    SavedModels, and three agents in two groups, each with a stand-in model server (or
    tensorflow_model_server where that is on PATH). Then a commit pins another version, a git revert
    takes it back, and a version that fails to load leaves the old one serving.
    """
    from reconciler.demo.services import Services

    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="reconciler-demo-"))
    try:
        with Services(folder) as services:
            failed = _play(services, folder, once)
    except KeyboardInterrupt:
        click.echo("\nstopped")
        failed = False
    finally:
        if keep:
            click.echo(f"logs and models are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if failed:
        raise SystemExit(1)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _play(services: Any, folder: Path, once: bool) -> bool:
    from reconciler.demo.fleet import NODES, Node, start_node, write_bucket
    from reconciler.demo.repository import ConfigRepository
    from reconciler.demo.scenes import Stage
    from reconciler.demo.services import start_bucket

    begun_at = time.monotonic()
    (folder / "bucket").mkdir()
    write_bucket(folder / "bucket")
    bucket = start_bucket(services, folder / "bucket")
    nodes = [Node(name) for name in NODES]
    repository = ConfigRepository(folder, {node.name: node.places for node in nodes})
    click.echo(f"config repo  {repository.url}\nbucket       {bucket}")
    for node in nodes:
        start_node(services, node, folder, repository.url, bucket)
    click.echo(f"the fleet    {nodes[0].page}fleet")
    for node in nodes:
        click.echo(f"{node.name:12} {node.page}  (model server on port {node.serving_port})")
    results = list(Stage(services, repository, nodes, click.echo).play())
    click.echo(f"\n{'seconds':>8}  scene")
    for result in results:
        verdict = f"  FAILED: {result.error}" if result.error else ""
        click.echo(f"{result.seconds:8.1f}  {result.title}{verdict}")
    click.echo(f"{time.monotonic() - begun_at:8.1f}  all of it")
    failed = any(result.error for result in results)
    if not once:
        _stay(services, repository)
    return failed


def _stay(services: Any, repository: Any) -> None:
    click.echo(
        f"\nThe fleet goes on: open the pages above, or clone {repository.url}, change a version,"
        "\npush, and watch. Ctrl-C ends it."
    )
    known: dict[str, int] = {}
    while True:
        time.sleep(1)
        # Somebody may kill a node to see what the others make of it.
        ended = services.ended
        for name in ended.keys() - known.keys():
            click.echo(f"{name} ended with code {ended[name]}; the rest goes on")
        known = ended
