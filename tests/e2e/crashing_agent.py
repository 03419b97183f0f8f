"""Runs the agent until its n-th change of the file system, and kills it right before that.

Python tells an audit hook of every file that is opened to be written, renamed, removed or made.
Counting those that touch the test's folder gives a kill -9 between any two steps, without a line
of the agent being other than in production.

    CRASH_AT=7 CRASH_FOLDER=/tmp/x python -m tests.e2e.crashing_agent run
"""

import os
import signal
import sys
from typing import Any

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR


def main() -> None:
    left = int(os.environ["CRASH_AT"])
    folder = os.environ["CRASH_FOLDER"]

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
        if event not in _CHANGES and not is_write:
            return
        if folder not in str(arguments[0]) or str(arguments[0]).endswith(".log"):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    from reconciler.cli.main import main as run_command

    run_command()


if __name__ == "__main__":
    main()
