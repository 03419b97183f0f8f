"""`reconciler fleet`: all nodes at a glance, as a table, as a page, and told to sync.

Which nodes there are comes from the groups of a clone, or from addresses; or a node that can be
reached is asked for its own view, where the others cannot be reached from here.

Exit codes of `status`, for scripts: 0 when nothing is wrong and nothing under way, 1 when not, 2
when no node could be asked.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from reconciler.cli.access import certificate_options
from reconciler.cli.fleet_nodes import NOBODY, end_blind, find_nodes, nodes_options, open_desk
from reconciler.errors import ReconcilerError, SettingsError
from reconciler.status.access import Access

SETTLED = 0
NOT_SETTLED = 1

_WORST_ROWS = 40
_WATCH_SECONDS = 2.0
_URL_DEADLINE_SECONDS = 10.0
_EVERY_ADDRESS = ("0.0.0.0", "[::]")  # noqa: S104 - recognised here, not listened on
_Look = Callable[[], Coroutine[Any, Any, dict[str, Any]]]


@click.group()
def fleet() -> None:
    """See what all nodes serve, what is wrong first, and have them sync."""


@fleet.command("status")
@nodes_options
@click.option("--url", metavar="URL", help="Ask this node, or `fleet serve`, for its view.")
@click.option("--watch", is_flag=True, help="Look again every 2 seconds, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the view as JSON.")
@click.option("--all", "show_all", is_flag=True, help="Show every row, not the worst 40 alone.")
def status(
    folder: Path | None,
    addresses: tuple[str, ...],
    url: str | None,
    watch: bool,
    as_json: bool,
    show_all: bool,
    access: Access,
) -> None:
    """Show the whole fleet, what is wrong first.

    A terminal with fewer than 100 columns has no room for the nodes' free disk; --json has all.

    Exit code 0: nothing is wrong and nothing under way. 1: not so. 2: no node could be asked.
    """
    if url is not None and (folder is not None or addresses):
        raise click.UsageError("--url already says whom to ask; leave out -C and --node")
    if watch and as_json:
        raise click.UsageError("--watch redraws a table; it cannot go with --json")
    if url is not None:
        look = _look_at_view(url, access)
    else:
        look = _look_at_nodes(folder, addresses, access)
    try:
        view = asyncio.run(_watch(look, show_all) if watch else look())
    except (KeyboardInterrupt, asyncio.CancelledError):
        if watch:
            return
        raise click.Abort from None  # 0 would say that all is well
    except ReconcilerError as error:
        end_blind(str(error))
    _show(view, as_json=as_json, show_all=show_all)
    sys.exit(_exit_code(view))


def _exit_code(view: dict[str, Any]) -> int:
    if view["state"] == "blind":
        return NOBODY
    phases = view["counts"]["deployments"]
    is_moving = phases["Deploying"] or phases["Stopping"]
    return NOT_SETTLED if view["state"] != "well" or is_moving else SETTLED


def _show(view: dict[str, Any], *, as_json: bool, show_all: bool) -> None:
    if as_json:
        click.echo(json.dumps(view, indent=2))
        return
    from rich.console import Console

    from reconciler.cli.fleet_table import make_table

    console = Console()
    console.print(make_table(view, None if show_all else _WORST_ROWS, console.width))


async def _watch(look: _Look, show_all: bool) -> dict[str, Any]:
    """Redraw the table until Ctrl-C ends the program."""
    from rich.console import Console
    from rich.live import Live

    from reconciler.cli.fleet_table import make_table

    console = Console()
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            begun_at = time.monotonic()
            try:
                view = await look()
                rows = None if show_all else max(5, console.height // 3)
                live.update(make_table(view, rows, console.width), refresh=True)
            except ReconcilerError as error:
                live.update(f"{error}; asked again", refresh=True)
            passed_seconds = time.monotonic() - begun_at
            await asyncio.sleep(max(0.2, _WATCH_SECONDS - passed_seconds))


def _look_at_nodes(folder: Path | None, addresses: tuple[str, ...], access: Access) -> _Look:
    """Return how the nodes are looked at, one after the other time."""
    from reconciler.fleet.view import render

    nodes = find_nodes(folder, addresses)
    desk = open_desk(nodes, access)

    async def look() -> dict[str, Any]:
        await desk.ask()
        view: dict[str, Any] = json.loads(render(desk.view()))
        return view

    return look


def _look_at_view(url: str, access: Access) -> _Look:
    from reconciler.cli.fleet_table import read_view
    from reconciler.status.client import fetch_fleet
    from reconciler.threads import run_beside

    node = url.rstrip("/").removesuffix("/fleet")  # the page's own URL is what people copy

    async def look() -> dict[str, Any]:
        body = await run_beside(
            lambda: fetch_fleet(node, _URL_DEADLINE_SECONDS, access), "fleet view"
        )
        return read_view(body)

    return look


@fleet.command("sync")
@nodes_options
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="File with the bearer token of the nodes' POST /sync.",
)
def sync(folder: Path | None, addresses: tuple[str, ...], token_file: Path, access: Access) -> None:
    """Have every node look at git and the buckets now.

    Exit code 0: all took it. 1: some did not. 2: none did.
    """
    from reconciler.fleet.sync import sync_all
    from reconciler.status.secret import NO_SECRET, read_secret

    token = read_secret(token_file)
    if not token:
        raise SettingsError(f"{token_file} is {NO_SECRET}; it must hold the token")
    targets = find_nodes(folder, addresses).read().targets
    answers = asyncio.run(sync_all(targets, token.decode("utf-8", "replace"), access))
    refusals = {target: why for target, why in answers.items() if why is not None}
    for target, why in refusals.items():
        click.echo(f"{target.name or target.address}: {why}", err=True)
    click.echo(f"{len(answers) - len(refusals)} of {len(answers)} nodes look at git now")
    if refusals:
        sys.exit(NOBODY if len(refusals) == len(answers) else NOT_SETTLED)


@fleet.command("serve")
@nodes_options
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8090",
    show_default=True,
    help="Where the page is served.",
)
@certificate_options
def serve(
    folder: Path | None,
    addresses: tuple[str, ...],
    listen: str,
    tls_cert_file: Path | None,
    tls_key_file: Path | None,
    access: Access,
) -> None:
    """Serve the fleet's page, beside no node: /fleet, and /fleet.json for machines.

    Of a clone the commit that is checked out counts; it is for others to keep it up to date. Where
    the nodes have a read token, this page needs the same.
    """
    from reconciler.cli.options import start_logging
    from reconciler.fleet.server import FleetServer
    from reconciler.ingress.proxy import is_address
    from reconciler.status.certificate import open_certificate

    if not is_address(listen):
        raise SettingsError(f"--listen {listen!r} is not host:port, as 127.0.0.1:8090 is")
    nodes = find_nodes(folder, addresses)
    start_logging("text")
    desk = open_desk(nodes, access)

    async def run() -> None:
        certificate = open_certificate(tls_cert_file, tls_key_file)
        server = FleetServer(desk, listen, access.read_token_file, certificate)
        host = listen.rpartition(":")[0]
        if host in _EVERY_ADDRESS:  # which no browser can open from elsewhere
            host = socket.gethostname()
        click.echo(f"the fleet's page is at {server.scheme}://{host}:{server.port}/fleet", err=True)
        await server.run()

    asyncio.run(run())
