"""`reconciler status URL`: asks a node's agent how it is and says it as a table.

Exit codes, for scripts and probes: 0 when every deployment is Deployed or Stopped and every
condition holds, 1 when not, 2 when no status could be had.
"""

import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reconciler.cli.access import access_options
from reconciler.model import Phase
from reconciler.status.access import Access
from reconciler.status.client import StatusError, fetch_status, parse_status, printable
from reconciler.status.report import Json, name_version, worst_first

CONVERGED = 0
NOT_CONVERGED = 1
NO_STATUS = 2

_AT_REST = (Phase.DEPLOYED, Phase.STOPPED)
_COLOURS = {
    Phase.FAILED: "bold red",
    Phase.DEPLOYING: "blue",
    Phase.STOPPING: "yellow",
    Phase.DEPLOYED: "green",
    Phase.STOPPED: "dim",
}


@click.command("status")
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON, unchanged.")
@click.option(
    "--deadline",
    "deadline_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the whole answer.",
)
@access_options
def status(url: str, as_json: bool, deadline_seconds: float, access: Access) -> None:
    """Show how the node at URL is (https://host:port, http://host:port, or host:port).

    Exit code 0: every deployment is Deployed or Stopped and every condition holds.
    1: not so. 2: no status could be had.
    """
    try:
        body = fetch_status(url, deadline_seconds, access=access)
        report = parse_status(body)
    except StatusError as error:
        click.echo(f"reconciler status: {error}", err=True)
        sys.exit(NO_STATUS)
    if as_json:
        click.echo(body.decode())
    else:
        show(report, Console())
    sys.exit(CONVERGED if is_converged(report) else NOT_CONVERGED)


def is_converged(report: Json) -> bool:
    """Tell whether nothing is under way, nothing failed and every condition holds."""
    return all(
        item["phase"] in _AT_REST for item in (*report["deployments"], *report["removals"])
    ) and all(condition["holds"] for condition in report["conditions"])


def show(report: Json, console: Console) -> None:
    """Print the report for people, what needs attention first."""
    console.print(_headline(report))
    console.print(_plain(report["summary"]))
    for condition in report["conditions"]:
        if not condition["holds"]:
            heading = f"{condition['name']} does not hold ({condition['reason']}): "
            console.print(_plain(heading, "bold yellow") + _plain(condition["sentence"]))
    for problem in report["problems"]:
        place = f"{problem['path']}:{problem['line']}:{problem['column']}: "
        console.print(_plain(place, "bold") + _plain(problem["message"]))
    deployments = worst_first([*report["deployments"], *report["removals"]])
    if not deployments:
        console.print("This node has nothing to serve.")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("phase", no_wrap=True)
    table.add_column("model", overflow="fold")
    table.add_column("version", overflow="fold")
    table.add_column("what is going on", overflow="fold", ratio=1)
    for item in deployments:
        table.add_row(
            _plain(item["phase"], _COLOURS[Phase(item["phase"])]),
            _plain(item["model"]),
            _plain(_versions(item)),
            _plain(_doing(item)),
        )
    console.print(table)


def _headline(report: Json) -> Text:
    group = f"group {report['group']}" if report["group"] is not None else "in no group"
    line = _plain(report["node"], "bold") + _plain(f", {group}")
    observed: Json | None = report["observed"]
    if observed is None:
        return line + _plain(", no commit read yet")
    line += _plain(f", commit {observed['id'][:7]} {observed['subject']} ({observed['author']})")
    applied: Json | None = report["applied"]
    if applied is None or applied["id"] != observed["id"]:
        name = "none" if applied is None else applied["id"][:7]
        line += _plain(f", not fully applied yet (last applied: {name})")
    return line


def _versions(item: Json) -> str:
    serving = ", ".join(name_version(item, each) for each in item["serving_versions"]) or "none"
    if item["phase"] == Phase.DEPLOYED:
        return serving
    version = item["wanted_version"]
    wanted = "?" if version is None else name_version(item, version)
    target = "none" if item["phase"] in (Phase.STOPPING, Phase.STOPPED) else wanted
    return serving if serving == target else f"{serving} → {target}"


def _doing(item: Json) -> str:
    words: list[str] = [item["sentence"]]
    progress: Json | None = item["progress"]
    if progress is not None and progress["total_bytes"]:
        words.append(f"{100 * progress['done_bytes'] // progress['total_bytes']} % downloaded.")
    error: str | None = item["last_error"]
    if error is not None and error not in item["sentence"]:
        words.append(error)
    if item["retry_in_seconds"] is not None:
        words.append(f"Next try in {item['retry_in_seconds']:.0f} s.")
    return " ".join(words)


def _plain(text: Any, style: str = "") -> Text:
    return Text(printable(str(text)), style)
