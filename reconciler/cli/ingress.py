"""`reconciler ingress`: the config of a proxy in front of the fleet, once or kept up to date."""

import asyncio
import logging
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from reconciler.cli.access import access_options
from reconciler.cli.options import quote_address, start_logging
from reconciler.errors import SettingsError
from reconciler.fleet.poll import FleetPoller
from reconciler.ingress.envoy import render_envoy
from reconciler.ingress.haproxy import render_haproxy
from reconciler.ingress.keep import Commands, Keeper, parse_command
from reconciler.ingress.nginx import render_nginx
from reconciler.ingress.nodes import CloneNodes, GivenNodes, Nodes
from reconciler.ingress.proxy import DEFAULT_GRPC, DEFAULT_REST, Frontend, is_address, read_head
from reconciler.ingress.routes import Routes
from reconciler.ingress.sidecar import Sidecar
from reconciler.model.group import HTTPS
from reconciler.settings import parse_duration
from reconciler.status.access import Access

_log = logging.getLogger(__name__)

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_RENDERERS = {"nginx": render_nginx, "haproxy": render_haproxy, "envoy": render_envoy}
_ONE_LOOK_SECONDS = 4.0
_DOMAIN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@click.group()
def ingress() -> None:
    """Send callers to the nodes that serve their model, by nginx, HAProxy or Envoy.

    `/v1/models/<model>` over HTTP goes by its path; gRPC by a `model` header, or with --domain by
    the host `<model>.<domain>`. Where each model is served is what the nodes say themselves.
    """


def _options(command: CommandT) -> CommandT:
    """Give `command` the options that both commands have."""
    options = (
        click.option(
            "--for", "kind", type=click.Choice(list(_RENDERERS)), required=True, help="The proxy."
        ),
        click.option(
            "-C",
            "folder",
            metavar="DIR",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder of the config repo in a clone: the nodes are those of its newest commit."
            "  [default: the current folder]",
        ),
        click.option(
            "--node",
            "addresses",
            metavar="HOST:PORT",
            multiple=True,
            help="Status endpoint of a node, instead of a clone; may be repeated.",
        ),
        click.option(
            "--grpc-port",
            type=click.IntRange(1, 65535),
            default=8500,
            show_default=True,
            help="TensorFlow Serving's gRPC port on the nodes for which groups/ says no `grpc`.",
        ),
        click.option(
            "--rest-port",
            type=click.IntRange(1, 65535),
            default=8501,
            show_default=True,
            help="The same for REST.",
        ),
        click.option(
            "--listen-grpc",
            metavar="HOST:PORT",
            default=DEFAULT_GRPC,
            show_default=True,
            help="Where the proxy listens for gRPC.",
        ),
        click.option(
            "--listen-rest",
            metavar="HOST:PORT",
            default=DEFAULT_REST,
            show_default=True,
            help="The same for REST.",
        ),
        click.option(
            "--domain", help="Take <model>.DOMAIN as a gRPC request's host for its model, too."
        ),
        click.option(
            "--timeout",
            metavar="DURATION",
            default="60s",
            show_default=True,
            help="How long a node may take to answer a request.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return access_options(command)


@ingress.command()
@_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file, where it would change.  [default: standard output]",
)
def render(out: Path | None, **values: Any) -> None:
    """Ask the nodes once and write the proxy's config.

    A node that cannot be asked keeps the models that the file at --out gives to it, where no other
    node serves them.

    Exit code: 0 written, 1 no node could be asked (nothing is written then), 2 wrong usage.
    """
    choice = _read(values)
    asyncio.run(_render(choice, Keeper(out, Commands()) if out else None))


@ingress.command("run")
@_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The proxy's file; its folder must be this command's to write to.",
)
@click.option(
    "--reload",
    "reload_command",
    required=True,
    metavar="COMMAND",
    help="Makes the proxy take the file: 'nginx -s reload'. Words, not a shell's line.",
)
@click.option(
    "--check",
    "check_command",
    metavar="COMMAND",
    help="Ends with 0 where the proxy would take {file}: 'haproxy -c -f {file}'. A file that it"
    " refuses is not put in place.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Log lines for people or for machines.",
)
def run(
    out: Path, reload_command: str, check_command: str | None, log_format: str, **values: Any
) -> None:
    """Keep the proxy's config up to date until SIGTERM or SIGINT.

    The nodes are asked every second. The file is written only where it would change, and the proxy
    is reloaded at most every two seconds. While no node can be asked all stays as it is.

    Exit code: 0 stopped by a signal, 1 ended by an error, 2 wrong usage.
    """
    choice = _read(values)
    check = parse_command(check_command, "--check") if check_command is not None else ()
    commands = Commands(check, parse_command(reload_command, "--reload"))
    if not out.parent.is_dir():
        raise SettingsError(f"--out {out}: there is no folder {out.parent}")
    start_logging(log_format)
    asyncio.run(_run(choice, Keeper(out, commands)))


@dataclass(frozen=True, slots=True)
class _Choice:
    """What the options come to."""

    kind: str
    nodes: Nodes
    frontend: Frontend
    access: Access


def _read(values: dict[str, Any]) -> _Choice:
    for name in ("listen_grpc", "listen_rest"):
        if not is_address(values[name]):
            option = f"--{name.replace('_', '-')}"
            raise SettingsError(f"{option} {values[name]!r} is not host:port, as 0.0.0.0:8500 is")
    domain: str | None = values["domain"]
    if domain is not None and not _DOMAIN.fullmatch(domain):
        raise SettingsError(f"--domain {domain!r} is not a domain such as models.example.com")
    answer_seconds = parse_duration(values["timeout"])
    if not 0.001 <= answer_seconds <= 86400:
        raise SettingsError("--timeout must be from 1ms to 24h")
    frontend = Frontend(values["listen_rest"], values["listen_grpc"], domain, answer_seconds)
    return _Choice(values["kind"], _find_nodes(values), frontend, values["access"])


def _find_nodes(values: dict[str, Any]) -> Nodes:
    addresses: tuple[str, ...] = values["addresses"]
    ports = values["grpc_port"], values["rest_port"]
    if not addresses:
        return CloneNodes(values["folder"] or Path(), *ports)
    if values["folder"] is not None:
        raise click.UsageError("the nodes come from a clone (-C) or are given (--node), not both")
    for address in addresses:
        if not is_address(address.removeprefix(HTTPS)):
            raise SettingsError(
                f"--node {quote_address(address)} is not host:port, as 10.0.0.7:8080 is, nor"
                " https://host:port"
            )
    return GivenNodes(addresses, *ports)


def _make_sidecar(choice: _Choice, before: Routes) -> Sidecar:
    poller = FleetPoller(access=choice.access)
    return Sidecar(choice.nodes, _RENDERERS[choice.kind], choice.frontend, before, poller)


async def _render(choice: _Choice, keeper: Keeper | None) -> None:
    before = read_head(keeper.read()) if keeper else {}
    sidecar = _make_sidecar(choice, before)
    text, notes = await sidecar.look(_ONE_LOOK_SECONDS)
    await sidecar.close()
    for note in notes:
        click.echo(note, err=True)
    if keeper is None:
        click.echo(text, nl=False)
    else:
        keeper.place(text)


async def _run(choice: _Choice, keeper: Keeper) -> None:
    before = read_head(keeper.read())
    sidecar = _make_sidecar(choice, before)
    work = asyncio.create_task(sidecar.run(keeper))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    _log.info("keeping %s for %s", keeper.file, choice.kind)
    try:
        with suppress(asyncio.CancelledError):
            await work
        _log.info("stopped; the proxy goes on with what it has")
    finally:
        await sidecar.close()
