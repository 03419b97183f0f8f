"""The view of a fleet as tables for a terminal, what is wrong first.

What is shown is the JSON of the view, whoever made it: this machine, or a node that was asked.
"""

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from reconciler.planning.wording import format_bytes, format_seconds
from reconciler.status.client import StatusError, printable
from reconciler.status.report import Json, name_version

_COLOURS = {
    "Failed": "bold red",
    "Unknown": "bold magenta",
    "Deploying": "blue",
    "Stopping": "yellow",
    "Deployed": "green",
    "Stopped": "dim",
    "dead": "bold red",
    "trouble": "yellow",
    "unasked": "magenta",
    "well": "green",
    "critical": "bold red",
    "serious": "red",
    "warning": "yellow",
}
_STATES = ("dead", "trouble", "unasked", "well")
_WORST_FIRST = (*_STATES, "Failed", "Unknown", "Deploying", "Stopping", "Deployed", "Stopped")
_MAX_WRONG_ROWS = 20
_LEFT_OUT_BELOW = {"disk free": 100, "group": 70, "commit": 70}
"""Columns of the nodes' table that narrower terminals have no room for beside the sentence."""


def read_view(body: bytes) -> Json:
    """Return the view in the body of a /fleet.json; raises StatusError where it is none."""
    try:
        view: Json = json.loads(body)
        make_table(view, None, 100)  # what can be shown is a view
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StatusError("the answer is not a reconciler's view of a fleet") from None
    return view


def make_table(view: Json, rows: int | None, width: int) -> Group:
    """Return the view for people, with at most so many rows of each kind.

    `width` is the terminal's, in characters: what a narrow one has no room for is left out.
    """
    parts: list[Any] = [_headline(view), *_wrong(view, rows)]
    parts += _limited(_groups(view), view["groups"], rows, "groups")
    parts += _limited(_nodes(view, rows, width), view["nodes"], rows, "nodes")
    parts += _limited(_deployments(view, rows), view["deployments"], rows, "deployments")
    return Group(*parts)


def _headline(view: Json) -> Text:
    counts, newest = view["counts"], view["newest"]
    line = _plain("fleet", "bold")
    line += _plain(f" as {view['seen_from']} sees it at {view['generated_at'][11:19]} UTC: ")
    line += _plain(_count(counts["nodes"], "node")) + _plain("; ")
    line += _plain(_count(counts["deployments"], "deployment"))
    if newest is not None:
        line += _plain(f"\nnewest commit {newest['id'][:7]} {newest['subject']}")
        line += _plain(f" ({newest['author']})")
    if view["state"] == "blind":
        line += _plain("\nno node answers, so what is served is not known: ", "bold magenta")
        line += _plain("the nodes may be down, or out of reach from here")
    return line


def _count(counts: Json, noun: str) -> str:
    total = sum(counts.values())
    named = ", ".join(f"{counts[name]} {name}" for name in _WORST_FIRST if counts.get(name))
    return f"{total} {noun}{'s'[: total != 1]}" + (f" ({named})" if named else "")


def _wrong(view: Json, rows: int | None) -> Iterable[Text]:
    limit = view["wrong_count"] if rows is None else min(rows, _MAX_WRONG_ROWS)
    for trouble in view["wrong"][:limit]:
        heading = _plain(f"{trouble['severity']}: ", _COLOURS.get(trouble["severity"], ""))
        yield heading + _plain(trouble["sentence"])
    left = view["wrong_count"] - min(limit, len(view["wrong"]))
    if left > 0:
        yield _plain(f"… and {left} more that {'is' if left == 1 else 'are'} no worse", "dim")


def _limited(table: Table, items: list[Json], rows: int | None, noun: str) -> list[Any]:
    """Return the table with a blank line before it, and how many rows it leaves out."""
    parts: list[Any] = [Text(), table]
    if rows is not None and len(items) > rows:
        parts.append(_plain(f"… and {len(items) - rows} more {noun}; --all shows them", "dim"))
    return parts if items else []


def _groups(view: Json) -> Table:
    table = _table("group", "worst phase", "nodes", "deployments")
    for group in view["groups"]:
        table.add_row(
            _plain(group["name"] + (" (disabled)" if group["enabled"] is False else "")),
            _coloured(group["phase"]),
            _plain(_count(group["nodes"], "node")),
            _plain(_count(group["deployments"], "deployment")),
        )
    return table


def _nodes(view: Json, rows: int | None, width: int) -> Table:
    columns = ("node", "group", "state", "commit", "behind", "disk free", "what is going on")
    shown = [name for name in columns if width >= _LEFT_OUT_BELOW.get(name, 0)]
    table = _table(*shown)
    worst = sorted(view["nodes"], key=lambda node: _STATES.index(node["state"]))
    for node in worst[:rows]:
        applied = node["applied"]
        cells = {
            "node": _plain(node["name"]),
            "group": _plain(node["group"] or "-"),
            "state": _coloured(node["state"]),
            "commit": _plain(applied["id"][:7] if applied else "-"),
            "behind": _plain(_lag(node["lag"])),
            "disk free": _plain(_disk(node["disk"])),
            "what is going on": _plain(node["sentence"]),
        }
        table.add_row(*(cells[name] for name in shown))
    return table


def _lag(lag: Json | None) -> str:
    if lag is None:
        return "?"
    if lag["commits"] == 0:
        return "-"
    time = format_seconds(lag["seconds"])
    return time if lag["commits"] is None else f"{lag['commits']} ({time})"


def _disk(disk: Json | None) -> str:
    if disk is None:
        return "?"
    share = f" ({100 * disk['free_bytes'] // disk['total_bytes']} %)" if disk["total_bytes"] else ""
    return format_bytes(disk["free_bytes"]) + share


def _deployments(view: Json, rows: int | None) -> Table:
    table = _table("deployment", "phase", "version", "replicas", "what is going on")
    for deployment in view["deployments"][:rows]:
        wanted = deployment["wanted_versions"]
        versions = ", ".join(name_version(deployment, each) for each in wanted) or "?"
        table.add_row(
            _plain(f"{deployment['group']}/{deployment['model']}"),
            _coloured(deployment["phase"]),
            _plain("-" if deployment["stop"] else versions),
            _plain(f"{deployment['available_replicas']} of {deployment['wanted_replicas']}"),
            _plain(deployment["sentence"]),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    *narrow, last = columns
    for column in narrow:
        table.add_column(column, overflow="fold")
    table.add_column(last, overflow="fold", ratio=1)
    return table


def _coloured(word: str) -> Text:
    return _plain(word, _COLOURS.get(word, ""))


def _plain(text: Any, style: str = "") -> Text:
    return Text(printable(str(text)), style)
