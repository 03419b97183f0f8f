"""What every benchmark does with what it has found: print the table, and write it for the docs.

`--write docs/performance/NAME` makes NAME.md, the table under a line that says when, where and by
which command it was measured, and NAME.json with the raw figures beside it.
"""

import json
import os
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bench.sync.report import describe_machine


def add_options(parser: ArgumentParser) -> None:
    """Add the options that are the same everywhere, and note how busy the machine is so far."""
    parser.add_argument("--note", default="", help="a sentence about the machine's other load")
    parser.add_argument("--write", type=Path, metavar="STEM")
    parser.set_defaults(load=os.getloadavg()[0])


def tell(name: str, options: Namespace, table: str, figures: object) -> None:
    """Print the table, and write it with the raw figures where that was asked for."""
    print(table)
    if options.write is None:
        return
    measured_at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    machine = describe_machine(Path(tempfile.gettempdir()))
    words = " ".join([f"python -m bench.{name}", *_leave_out_own(sys.argv[1:])])
    head = (
        f"Measured {measured_at} on {machine}, by `{words}`; load {options.load:.1f} when it began."
        f" {options.note}"
    ).strip()
    report = {
        "measured_at": measured_at,
        "machine": machine,
        "command": words,
        "load": options.load,
        "note": options.note,
        "figures": figures,
    }
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.with_suffix(".md").write_text(f"{head}\n\n{table}\n")
    options.write.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def _leave_out_own(words: list[str]) -> list[str]:
    kept, rest = [], iter(words)
    for word in rest:
        if word in ("--note", "--write"):
            next(rest, None)
        else:
            kept.append(word)
    return kept
