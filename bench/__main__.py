"""Every benchmark behind docs/performance.md, one after the other: `make bench`.

    python -m bench [--only sync,idle] [--note TEXT] [--write docs/performance]

Each is a process of its own, writes its table and its raw figures to the folder, and does not
know of the others. One that fails does not keep the rest from running.
"""

import argparse
import subprocess
import sys
from pathlib import Path

NAMES = ("sync", "idle", "change", "serve", "startup", "fleet_load")
_LONGEST_SECONDS = 3600


def main() -> None:
    """Run them; the exit code is 1 where one has failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(NAMES), metavar="NAMES")
    parser.add_argument("--note", default="", help="a sentence about the machine's other load")
    parser.add_argument("--write", type=Path, default=Path("docs/performance"), metavar="FOLDER")
    options = parser.parse_args()
    options.write.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only.split(","):
        print(f"--- bench.{name}", flush=True)
        command = [sys.executable, "-m", f"bench.{name}", "--note", options.note]
        command += ["--write", str(options.write / name)]
        if subprocess.run(command, timeout=_LONGEST_SECONDS, check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
