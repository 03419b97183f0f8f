"""`reconciler history [MODEL]`: who changed what when and why, and when each node served it.

The trail comes out of the clone alone, so it can be read where no node can be reached; what the
nodes remember is put beside it where they answer.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from reconciler.cli.access import access_options
from reconciler.cli.history_nodes import Node, fetch_all, find_nodes, join
from reconciler.cli.history_text import Told, render, show
from reconciler.cli.options import folder_option
from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.names import UnknownModelError
from reconciler.errors import ConfigError, SettingsError
from reconciler.history.fleet import read_fleet
from reconciler.history.read import Entry, read_history
from reconciler.history.signatures import read_signatures
from reconciler.settings import parse_duration
from reconciler.status.access import Access
from reconciler.status.client import printable

_DEFAULT_LIMIT = 50


class _Moment(click.ParamType[float]):
    """A date, a date with time (UTC unless it says another zone), or how long ago."""

    name = "when"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        text = str(value)
        try:
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            pass
        try:
            return datetime.now(UTC).timestamp() - parse_duration(text)
        except SettingsError:
            self.fail(f"{text!r} is no time; write one such as 2026-03-01 or 14d", param, ctx)


@click.command("history")
@click.argument("model", required=False)
@folder_option
@click.option("--revision", default="HEAD", show_default=True, help="Where to look back from.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"How many changes to show.  [default: {_DEFAULT_LIMIT}]",
)
@click.option("--all", "show_all", is_flag=True, help="Show all changes.")
@click.option(
    "--since",
    "since_seconds",
    type=_Moment(),
    metavar="WHEN",
    help="Show what took effect since then: 2026-03-01, or 14d for two weeks ago.",
)
@click.option(
    "--node",
    "addresses",
    metavar="HOST:PORT",
    multiple=True,
    help="Ask this node, too, when it served each change; may be given again.",
)
@click.option(
    "--no-nodes", is_flag=True, help="Ask no node, not even those whose address is known."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@access_options
def history(
    model: str | None,
    folder: Path,
    revision: str,
    limit: int | None,
    show_all: bool,
    since_seconds: float | None,
    addresses: tuple[str, ...],
    no_nodes: bool,
    as_json: bool,
    access: Access,
) -> None:
    """Show who changed which model when and why, newest first.

    MODEL is a model's name, or group/model; without it all are shown. Renames and moves between
    groups are followed. Nodes whose address stands in groups/*.yaml are asked when they served
    each change.

    Exit code: 0 shown, 1 the repository cannot be read, 2 wrong usage or no such model.
    """
    if show_all and limit is not None:
        raise click.UsageError("--limit and --all contradict each other; leave one out")
    if no_nodes and addresses:
        raise click.UsageError("--node and --no-nodes contradict each other; leave one out")
    checkout = Checkout(folder)
    commit = checkout.resolve(revision)
    bound = None if show_all else limit or _DEFAULT_LIMIT
    try:
        # One more than is shown tells whether there are more.
        wanted = None if bound is None else bound + 1
        found = read_history(checkout, commit.id, model, wanted, since_seconds)
    except UnknownModelError as error:
        raise click.UsageError(str(error)) from None
    entries = found[:bound]
    notes = _find_notes(checkout, len(found) > len(entries))
    if not found and since_seconds is None:
        notes.append(
            f"there was never a deployment in {checkout.folder}; name the config's folder by -C"
        )
    fleet = _read_fleet(checkout, commit.id, notes)
    nodes = [] if no_nodes else find_nodes(fleet.groups, entries)
    nodes += [Node(address, address) for address in addresses]
    told = _tell(checkout, commit.id, entries, fleet, nodes, access, notes)
    if as_json:
        answer = {
            "revision": commit.id,
            "model": model,
            "entries": [render(item) for item in told],
            "notes": notes,
        }
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo("\n\n".join(map(show, told)) or "nothing has changed")
        for note in notes:
            click.echo(f"note: {printable(note)}", err=True)


def _find_notes(checkout: Checkout, has_more: bool) -> list[str]:
    notes = []
    if has_more:
        notes.append("older changes are not shown; give --all or a larger --limit")
    if checkout.is_shallow:
        notes.append(
            "this clone is shallow, so what it begins with looks as if it were created there;"
            " `git fetch --unshallow` brings the rest"
        )
    return notes


def _read_fleet(checkout: Checkout, commit_id: str, notes: list[str]) -> Fleet:
    try:
        return read_fleet(checkout, commit_id)
    except ConfigError as error:
        notes.append(f"allowed signers and nodes are not known: {error}")
        return Fleet()


def _tell(
    checkout: Checkout,
    commit_id: str,
    entries: Sequence[Entry],
    fleet: Fleet,
    nodes: Sequence[Node],
    access: Access,
    notes: list[str],
) -> list[Told]:
    """Put signatures and nodes to the entries; what nodes cannot say goes into `notes`."""
    ids = (item.id for entry in entries for item in (entry.commit, entry.merged_by) if item)
    signatures = read_signatures(checkout, ids, fleet.policy.signatures)
    unchecked = sum(not signature.is_checked for signature in signatures.values())
    if unchecked:
        notes.append(
            f"the signatures of {unchecked:,} older commits were not verified, because that takes"
            " long; name a model, or look at fewer by --limit or --since"
        )
    joined = {}
    if nodes and entries:
        histories, silent = fetch_all(nodes, access)
        notes += silent
        joined = join(checkout, commit_id, entries, histories)
    return [
        Told(
            entry,
            signatures[entry.commit.id],
            signatures[entry.merged_by.id] if entry.merged_by else None,
            joined.get(number, ()),
        )
        for number, entry in enumerate(entries)
    ]
