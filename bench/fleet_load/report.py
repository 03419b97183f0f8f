"""The figures as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.fleet_load.fleet import Load, Row, Rush
from bench.fleet_load.node import FILES, MODELS, Node, Peer


def render(
    head: str, nodes: Mapping[str, Node], peers: Sequence[Peer], rows: Sequence[Row], count: int
) -> str:
    """Return what was counted on one node, and what comes of it for `count` of them."""
    counted = {
        name: (node.look.git, node.look.bucket, node.listings, node.commit.git, node.commit.bucket)
        for name, node in nodes.items()
    }
    counted |= {peer.name: (0, 0, peer.at_rest, 0, peer.at_change) for peer in peers}
    lines = [
        head,
        "",
        f"### One node, counted: {MODELS} models of {len(FILES)} files",
        "",
        "| | a look: git | a look: bucket | listing all | a commit: git | a commit: bucket |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {name} | " + " | ".join(map(str, found)) + " |" for name, found in counted.items()),
        "",
        f"### {count:,} nodes",
        "",
        "At rest: requests a second, in the mean / in the busiest second. At a commit: requests of"
        " all nodes together / in the busiest second.",
        "",
        "| | git at rest | bucket at rest | git at a commit | bucket at a commit | seen within |",
        "|---|---:|---:|---:|---:|---:|",
        *map(_show_row, rows),
        "",
    ]
    return "\n".join(lines)


def write_report(
    stem: Path, text: str, nodes: Mapping[str, Node], peers: Sequence[Peer], rows: Sequence[Row]
) -> None:
    """Write `stem`.md and .json."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(text)
    report = {
        "head": text.partition("\n")[0],
        "nodes": {name: asdict(node) for name, node in nodes.items()},
        "peers": [asdict(peer) for peer in peers],
        "fleet": [asdict(row) for row in rows],
    }
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def _show_row(row: Row) -> str:
    seen = f"{row.seen_within_seconds:g} s" if row.seen_within_seconds else "at once"
    loads = (row.git_at_rest, row.bucket_at_rest, row.git_at_commit, row.bucket_at_commit)
    return f"| {row.way} | " + " | ".join(_show(load) for load in loads) + f" | {seen} |"


def _show(load: Load | Rush) -> str:
    if not load.busiest:
        return "0"
    first = f"{load.mean:,.1f}" if isinstance(load, Load) else f"{load.total:,}"
    return f"{first} / {load.busiest:,}"
