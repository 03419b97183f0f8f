"""Cold syncs from a bucket, the agent beside its peers, in turns.

    python -m bench.sync [--cases abcd] [--scale 1.0] [--rounds 5] [--minutes 11] [--write STEM]

Each case has a fake-gcs-server of its own, which holds everything in memory and runs on the same
machine: its processor time is not counted, but it takes turns on the cores with those who are
measured. In each round everybody syncs once, into an empty folder on the same file system, and each
round begins with another one. A run before all others is not counted. Rounds end with the time:
whoever is slow has fewer of them.

`--write docs/performance/sync` makes sync.json, sync.md and sync.svg there.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.sync.cases import Case, Server, free_port, make_cases, serve, wait_for_port
from bench.sync.floor import measure_floor
from bench.sync.line import measure_line
from bench.sync.measure import Run, run_once
from bench.sync.report import describe_machine, render_table, write_report
from bench.sync.tools import OURS, SINGLE_STREAM, Setting, Tool, find_tools

LINE_BYTES_PER_SECOND = 50e6
LINE_DELAY_SECONDS = 0.020
_LINE_CONNECTIONS = (1, 16)
_LINE_SECONDS = 2.0
_FLOORS = 3
_RUN_SECONDS = 180.0


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", default="abcd")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20.0, help="for all cases together")
    parser.add_argument("--only", default="", metavar="WORDS", help="tools with one of these words")
    parser.add_argument("--target", type=Path, help="a folder on the file system to sync to")
    parser.add_argument("--note", default="", help="a sentence about the machine's other load")
    parser.add_argument("--write", type=Path, metavar="STEM")
    options = parser.parse_args()
    words = options.only.split(",")
    tools = [tool for tool in find_tools() if any(word in tool.name for word in words)]
    cases = [make_cases(options.scale)[key] for key in options.cases]
    deadline = time.monotonic() + 60 * options.minutes
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=options.target) as folder:
        report = {
            "measured_at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "machine": describe_machine(Path(folder)),
            "note": options.note,
            "scale": options.scale,
            "absent": {tool.name: tool.absent for tool in tools if tool.absent},
            "cases": results,
        }
        for number, case in enumerate(cases):
            now = time.monotonic()
            share = (deadline - now) / (len(cases) - number)
            results.append(_measure(case, tools, options.rounds, now + share, Path(folder)))
            print(render_table(results[-1]), flush=True)
            if options.write:
                write_report(options.write, report)
    print(report["machine"], options.note)


def _measure(
    case: Case, tools: list[Tool], rounds: int, deadline: float, home: Path
) -> dict[str, object]:
    _say(f"({case.key}) {case.title}: filling the server")
    with contextlib.ExitStack() as stack:
        server_port = free_port()
        port = stack.enter_context(_slow_line(server_port)) if case.is_slow_line else server_port
        endpoint = f"http://127.0.0.1:{port}"
        server = stack.enter_context(serve(case, server_port, endpoint))
        line = _measure_line(case, port) if case.is_slow_line else {}
        floor = [] if case.is_slow_line else [measure_floor(case, port) for _ in range(_FLOORS)]
        if floor:
            _say(f"the server alone: {min(floor):.2f} s")
        if not case.is_slow_line:
            # Whoever is first on a case pays for memory and disk that nobody has used for long.
            first = tools[0].settings[0]
            run_once(first, case, endpoint, home, _RUN_SECONDS, server, is_first=False)
        chosen: dict[str, Setting] = {}
        runs: dict[str, list[Run]] = {}
        for tool in tools:
            settings = _suit(tool, case)
            if settings:
                chosen[tool.name], run = _choose(
                    tool, settings, case, endpoint, home, server, deadline
                )
                runs[tool.name] = [run]
        for number in range(1, rounds):
            # Whoever comes first meets the machine as the round before left it.
            for name in _rotate(list(chosen), number):
                setting = chosen[name]
                left_seconds = deadline - time.monotonic()
                done = runs[name]
                is_known = case.is_slow_line and setting.is_one_stream  # by the line's speed alone
                if is_known or done[-1].failure or done[-1].durable_seconds > left_seconds:
                    continue
                again = run_once(
                    setting, case, endpoint, home, _RUN_SECONDS, server, is_first=False
                )
                done.append(again)
                _tell(name, setting, done[-1])
    versions = {tool.name: tool.version for tool in tools}
    return {
        "key": case.key,
        "title": case.title,
        "total_bytes": case.total_bytes,
        "is_slow_line": case.is_slow_line,
        "line_bytes_per_second": line,
        "floor_seconds": min(floor, default=0.0),
        "tools": [
            {
                "name": name,
                "version": versions[name],
                "setting": chosen[name].label,
                "runs": [vars(run) for run in done],
            }
            for name, done in runs.items()
        ],
    }


def _rotate(names: list[str], by: int) -> list[str]:
    """Return the names in their order, beginning with another one each time."""
    first = by % len(names)
    return names[first:] + names[:first]


def _suit(tool: Tool, case: Case) -> tuple[Setting, ...]:
    """Return the settings to try; on the slow line one tool stands for all with one stream."""
    if not case.is_slow_line or tool.name == SINGLE_STREAM:
        return tool.settings
    return tuple(setting for setting in tool.settings if not setting.is_one_stream)


def _choose(
    tool: Tool,
    settings: tuple[Setting, ...],
    case: Case,
    endpoint: str,
    home: Path,
    server: Server,
    deadline: float,
) -> tuple[Setting, Run]:
    """Try settings while there is time, compare every byte, return the fastest with its run."""
    tried: list[tuple[Setting, Run]] = []
    for setting in settings:
        if tried and time.monotonic() > deadline:
            break
        run = run_once(setting, case, endpoint, home, _RUN_SECONDS, server, is_first=True)
        _tell(tool.name, setting, run)
        tried.append((setting, run))
    if tool.name == OURS and tried[0][1].failure:
        sys.exit("the agent's own sync failed")
    return min(tried, key=lambda both: (bool(both[1].failure), both[1].durable_seconds))


@contextlib.contextmanager
def _slow_line(server_port: int) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "bench.sync.line", str(port), str(server_port)]
    command += [str(LINE_BYTES_PER_SECOND), str(LINE_DELAY_SECONDS)]
    with subprocess.Popen(command) as line:
        try:
            wait_for_port(port)
            yield port
        finally:
            line.kill()


def _measure_line(case: Case, port: int) -> dict[str, float]:
    """Return what the line alone carries, so that it can be seen not to be the limit."""
    from bench.sync.cases import BUCKET, PREFIX

    path, _ = max(case.list_files(), key=lambda file: file[1])
    quoted = f"{PREFIX}/{path}".replace("/", "%2F")
    target = f"/download/storage/v1/b/{BUCKET}/o/{quoted}?alt=media"
    line = {
        str(count): measure_line(port, target, count, _LINE_SECONDS) for count in _LINE_CONNECTIONS
    }
    for count, rate in line.items():
        _say(f"the line alone, {count} connections: {rate / 1e6:.0f} MB/s")
    return line


def _tell(name: str, setting: Setting, run: Run) -> None:
    _say(
        f"{name} ({setting.label}): {run.seconds:.2f} s, durable {run.durable_seconds:.2f} s,"
        f" {run.cpu_seconds:.2f} CPU s, the server {run.server_cpu_seconds:.2f},"
        f" {run.peak_bytes / 2**20:.0f} MiB {run.failure}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
