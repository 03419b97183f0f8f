"""`python -m reconciler.standin --port=8500 --model_config_file=...`."""

import os
import signal
import sys

from reconciler.standin.program import run


def main() -> None:
    """Serve until a signal ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = run(sys.argv[1:])
    # At once: loads that are still sleeping between two tries are not waited for.
    os._exit(code)


if __name__ == "__main__":
    main()
