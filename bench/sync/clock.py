"""How a process that is there before the work begins agrees with the bench on when that is.

It imports nothing of ours, as peers in other virtualenvs use it too.
"""

import sys
import time

READY = "ready"


def wait_for_start() -> None:
    """Say that everything is loaded, and what that cost, and wait to be told to go."""
    print(READY, time.process_time(), flush=True)
    sys.stdin.readline()
