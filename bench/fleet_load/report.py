"""The figures as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.fleet_load.fleet import Load, Row, Rush
from bench.fleet_load.long_past import LongPast
from bench.fleet_load.node import FILES, MODELS, Node, Peer


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found out."""

    head: str
    """When and how."""
    nodes: Mapping[str, Node]
    peers: Sequence[Peer]
    count: int
    """How many nodes the fleet has."""
    fleet: Sequence[Row]
    long_past: LongPast


def render(report: Report) -> str:
    """Return what was counted on one node, and what comes of it for many."""
    counted = {
        name: (node.look.git, node.look.bucket, node.listings, node.commit.git, node.commit.bucket)
        for name, node in report.nodes.items()
    }
    counted |= {peer.name: (0, 0, peer.at_rest, 0, peer.at_change) for peer in report.peers}
    lines = [
        report.head,
        "",
        f"### One node, counted: {MODELS} models of {len(FILES)} files",
        "",
        "| | a look: git | a look: bucket | listing all | a commit: git | a commit: bucket |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {name} | " + " | ".join(map(str, found)) + " |" for name, found in counted.items()),
        "",
        f"### {report.count:,} nodes",
        "",
        "At rest: requests a second, in the mean / in the busiest second. At a commit: requests of"
        " all nodes together / in the busiest second.",
        "",
        "| | git at rest | bucket at rest | git at a commit | bucket at a commit | seen within |",
        "|---|---:|---:|---:|---:|---:|",
        *map(_show_row, report.fleet),
        "",
        _show_long_past(report.long_past),
        "",
    ]
    return "\n".join(lines)


def write_report(stem: Path, report: Report) -> None:
    """Write `stem`.md and .json."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(render(report))
    stem.with_suffix(".json").write_text(json.dumps(asdict(report), indent=1) + "\n")


def _show_long_past(past: LongPast) -> str:
    return (
        f"A bundle of {past.commits:,} commits to 200 models has {past.size_bytes / 1e6:.1f} MB."
        f" One more commit takes {past.publish_cpu_seconds:.2f} CPU s to write there, and"
        f" {past.bundle_cpu_seconds:.2f} CPU s on each node, which keeps"
        f" {past.mirror_bytes / 1e6:.0f} MB at most; from a git server it takes a node"
        f" {past.git_cpu_seconds:.2f} CPU s."
    )


def _show_row(row: Row) -> str:
    seen = f"{row.seen_within_seconds:g} s" if row.seen_within_seconds else "at once"
    loads = (row.git_at_rest, row.bucket_at_rest, row.git_at_commit, row.bucket_at_commit)
    return f"| {row.way} | " + " | ".join(_show(load) for load in loads) + f" | {seen} |"


def _show(load: Load | Rush) -> str:
    if not load.busiest:
        return "0"
    first = f"{load.mean:,.1f}" if isinstance(load, Load) else f"{load.total:,}"
    return f"{first} / {load.busiest:,}"
