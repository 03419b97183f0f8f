"""The figures as JSON, as a Markdown table and as a plot."""

import json
import os
import platform
import statistics
import subprocess
from html import escape
from pathlib import Path
from typing import Any

from bench.sync.tools import OURS, RCLONE, SINGLE_STREAM

FASTER_GOAL = 1.5
"""Times the throughput of the fastest peer."""
STREAMS_GOAL = 6.0
"""Times the throughput of one stream, where each connection is limited."""
PEAK_GOAL_MIB = 150
_HOW = """\
Each tool syncs in turn into an empty folder, from a server that holds everything in memory and runs
on the same cores. `s to durable` ends when all is on the disk: the agent syncs its files itself; no
peer does, so for them the file system is told to, within their time. `s to exit` is without that.
Processor seconds are those of the tool from there on; a process that is there before its work
begins, as an agent or a library in a service is, has its start beside it. "The server alone" is how
long the same bytes take when nothing at all is done with them: nobody can be faster on this
machine.
"""

_BAR_HEIGHT = 22
_GAP = 34
_NAME_WIDTH = 290
_PLOT_WIDTH = 420
_WIDTH = 800


def describe_machine(folder: Path) -> str:
    """Return a line about processor, memory, kernel and the file system of a folder."""
    model = "processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    found = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(folder)],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return (
        f"{os.cpu_count()} cores of {model}, {memory_gib:.0f} GiB, Linux {platform.release()},"
        f" {found.stdout.partition(chr(10))[0].strip() or 'unknown'} file system"
    )


def summarize(tool: dict[str, Any]) -> dict[str, float]:
    """Return medians and spread over a tool's runs that succeeded; nothing where none did."""
    runs = [run for run in tool["runs"] if not run["failure"]]
    if not runs:
        return {}
    durable = [run["durable_seconds"] for run in runs]
    return {
        "count": len(runs),
        "seconds": statistics.median(run["seconds"] for run in runs),
        "durable_seconds": statistics.median(durable),
        "least_seconds": min(durable),
        "most_seconds": max(durable),
        "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs),
        "start_cpu_seconds": statistics.median(run["start_cpu_seconds"] for run in runs),
        "server_cpu_seconds": statistics.median(run["server_cpu_seconds"] for run in runs),
        "peak_bytes": max(run["peak_bytes"] for run in runs),
    }


def render_table(case: dict[str, Any]) -> str:
    """Return one case as Markdown."""
    lines = [
        f"## ({case['key']}) {case['title']}",
        "",
        "| tool | setting | s to durable | min–max | runs | s to exit | MB/s | CPU s"
        " | CPU s before | server's CPU s | peak MiB |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for tool in case["tools"]:
        title = f"{tool['name']} {tool['version']}"
        figures = summarize(tool)
        if not figures:
            lines.append(f"| {title} | {tool['setting']} | {tool['runs'][-1]['failure']} |||||||||")
            continue
        lines.append(
            f"| {title} | {tool['setting']} | {figures['durable_seconds']:.2f}"
            f" | {figures['least_seconds']:.2f}–{figures['most_seconds']:.2f}"
            f" | {figures['count']} | {figures['seconds']:.2f}"
            f" | {case['total_bytes'] / 1e6 / figures['durable_seconds']:.0f}"
            f" | {figures['cpu_seconds']:.2f} | {figures['start_cpu_seconds']:.2f}"
            f" | {figures['server_cpu_seconds']:.2f} | {figures['peak_bytes'] / 2**20:.0f} |"
        )
    rates = case["line_bytes_per_second"]
    if rates:
        told = ", ".join(f"{rate / 1e6:.0f} MB/s over {count}" for count, rate in rates.items())
        lines += ["", f"The line alone, nothing done with the bytes: {told} connections."]
    if case["floor_seconds"]:
        lines += [
            "",
            f"The server alone, nothing done with the bytes: {case['floor_seconds']:.2f} s.",
        ]
    lines += ["", judge(case)]
    return "\n".join([*lines, ""])


def judge(case: dict[str, Any]) -> str:
    """Return a sentence that holds our figures of a case against what was set as the goal."""
    figures = {tool["name"]: summarize(tool) for tool in case["tools"]}
    ours = figures.pop(OURS, {})
    peers = {
        name: figure for name, figure in figures.items() if figure and not name.startswith(OURS)
    }
    if not ours or not peers:
        return ""
    goal, name = FASTER_GOAL, min(peers, key=lambda peer: peers[peer]["durable_seconds"])
    if case["is_slow_line"]:
        goal, name = STREAMS_GOAL, SINGLE_STREAM
    if name not in peers:
        return ""
    times = peers[name]["durable_seconds"] / ours["durable_seconds"]
    verdict = "met" if times >= goal else "missed"
    text = f"{times:.1f} times as fast as {name}; the goal of {goal:g} is {verdict}."
    if RCLONE in peers:
        most = peers[RCLONE]["cpu_seconds"]
        verdict = "no more than" if ours["cpu_seconds"] <= most else "more than"
        text += f" {ours['cpu_seconds']:.2f} CPU seconds, {verdict} rclone's {most:.2f}."
    peak_mib = ours["peak_bytes"] / 2**20
    verdict = "under" if peak_mib < PEAK_GOAL_MIB else "over"
    return f"{text} {peak_mib:.0f} MiB at most, {verdict} {PEAK_GOAL_MIB}."


def write_report(stem: Path, report: dict[str, Any]) -> None:
    """Write `stem`.json, .md and .svg."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    head = f"Measured {report['measured_at']} on {report['machine']}. {report['note']}".strip()
    if report["scale"] != 1:
        head += f" Scaled by {report['scale']:g}: smaller, or fewer, files than the titles say."
    absent = [f"{name} took no part: {why}." for name, why in report["absent"].items()]
    head = " ".join([head, *absent])
    parts = [f"# Cold sync\n\n{head}\n\n{_HOW}", *map(render_table, report["cases"])]
    parts.append(f"![Seconds of each tool]({stem.name}.svg)\n")
    stem.with_suffix(".md").write_text("\n".join(parts))
    stem.with_suffix(".svg").write_text(_draw(report["cases"]))


def _draw(cases: list[dict[str, Any]]) -> str:
    """Return bars of seconds until durable, shorter is better, with their spread."""
    parts: list[str] = []
    y = 8
    for case in cases:
        figures = {tool["name"]: summarize(tool) for tool in case["tools"]}
        longest = max(all_["most_seconds"] for all_ in figures.values() if all_)
        scale = _PLOT_WIDTH / longest
        y += 20
        parts.append(
            f'<text x="8" y="{y}" class="t">({case["key"]}) {escape(case["title"])}</text>'
        )
        y += 8
        for name, figure in figures.items():
            middle = y + _BAR_HEIGHT / 2
            parts.append(f'<text x="8" y="{middle + 4}">{escape(name)}</text>')
            if figure:
                kind = "us" if name.startswith(OURS) else "peer"
                width = figure["durable_seconds"] * scale
                ends = [
                    _NAME_WIDTH + figure[key] * scale for key in ("least_seconds", "most_seconds")
                ]
                parts.append(
                    f'<rect x="{_NAME_WIDTH}" y="{y + 3}" width="{width:.1f}"'
                    f' height="{_BAR_HEIGHT - 6}" class="{kind}"/>'
                    f'<path d="M{ends[0]:.1f} {middle}H{ends[1]:.1f}"/>'
                    f'<text x="{ends[1] + 6:.1f}" y="{middle + 4}">'
                    f"{figure['durable_seconds']:.2f} s</text>"
                )
            y += _BAR_HEIGHT
        y += _GAP - 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}"'
        ' role="img" aria-label="Seconds of a cold sync until all is on the disk">'
        "<style>text{font:13px system-ui,sans-serif;fill:#57606a}.t{font-weight:600;fill:#24292f}"
        ".us{fill:#1a7f37}.peer{fill:#8c959f}path{stroke:#24292f;stroke-width:1.5}"
        "@media(prefers-color-scheme:dark){text{fill:#8b949e}.t{fill:#e6edf3}path{stroke:#e6edf3}}"
        f"</style>{''.join(parts)}</svg>\n"
    )
