"""Which nodes the `fleet` commands are about: those of a clone's groups, or given by address.

A command that finds nobody to ask ends with NOBODY and says how to name nodes.
"""

import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from reconciler.cli.access import access_options
from reconciler.errors import ReconcilerError, SettingsError
from reconciler.status.access import Access

if TYPE_CHECKING:
    from reconciler.fleet.desk import FleetDesk

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

NOBODY = 2
"""The exit code where no node could be asked."""


def nodes_options(command: CommandT) -> CommandT:
    """Give `command` the options that say which nodes there are, and how they are asked."""
    folder = click.option(
        "-C",
        "folder",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Folder of the config repo in a clone: the nodes are those of its current commit."
        "  [default: the current folder]",
    )
    addresses = click.option(
        "--node",
        "addresses",
        metavar="HOST:PORT",
        multiple=True,
        help="Status endpoint of a node, instead of a clone; may be repeated.",
    )
    return folder(addresses(access_options(command)))


@dataclass(frozen=True, slots=True)
class Nodes:
    """Which nodes there are."""

    read: Callable[[], Any]
    """Returns an Expected."""
    has_git: bool


def open_desk(nodes: Nodes, access: Access) -> "FleetDesk":
    """Return what asks the nodes and puts their words together."""
    from reconciler.fleet.desk import FleetDesk
    from reconciler.fleet.poll import FleetPoller

    return FleetDesk(
        nodes.read,
        socket.gethostname(),
        has_git=nodes.has_git,
        always=True,
        poller=FleetPoller(access=access),
    )


def find_nodes(folder: Path | None, addresses: tuple[str, ...]) -> Nodes:
    """Return where the nodes are known from, once it was seen that there are any."""
    if folder is not None and addresses:
        raise click.UsageError("give the nodes by -C or by --node, not by both")
    if addresses:
        from reconciler.fleet.expected import Expected
        from reconciler.fleet.poll import Target

        _check_addresses(addresses)
        given = Expected(tuple(map(Target, dict.fromkeys(addresses))), (), {})
        return Nodes(lambda: given, has_git=False)
    from reconciler.config_repo.checkout import Checkout
    from reconciler.fleet.expected import CheckoutReader

    try:
        reader = CheckoutReader(Checkout(folder or Path()))
        expected = reader.read()
    except ReconcilerError as error:
        end_blind(f"{error}; or name nodes by --node HOST:PORT")
    for group in expected.unlisted_groups:
        click.echo(
            f"reconciler fleet: the nodes of group {group} are left out: only a registry knows"
            " them; name them by --node, or ask one of them by `status --url`",
            err=True,
        )
    if not expected.enabled and not expected.lost_files:
        end_blind(
            f"the current commit of the clone has no group in {folder or Path()}; name the config"
            " repo's folder by -C, or name nodes by --node HOST:PORT"
        )
    if not any(target.address for target in expected.targets):
        end_blind(
            "no node in groups/*.yaml has an address, so none can be asked; write `- {name:"
            ' search-1, address: "search-1:8080"}`, or name nodes by --node HOST:PORT'
        )
    return Nodes(reader.read, has_git=True)


def _check_addresses(addresses: Iterable[str]) -> None:
    """Refuse what is no address before it is shown as a node: it may hold a password."""
    from reconciler.cli.options import quote_address
    from reconciler.status.client import StatusError, check_url

    for address in addresses:
        try:
            check_url(address)
        except StatusError as error:
            raise SettingsError(f"--node {quote_address(address)}: {error}") from None


def end_blind(sentence: str) -> NoReturn:
    """End the command, because no node can be asked."""
    click.echo(f"reconciler fleet: {sentence}", err=True)
    sys.exit(NOBODY)
