"""The program: command line in, one line when ready, an exit code if it could not start."""

import logging
import sys
from collections.abc import Sequence

from reconciler.standin.errors import StatusError
from reconciler.standin.flags import describe_flags, parse_flags
from reconciler.standin.server import start_server

FAILED = 255


def run(arguments: Sequence[str]) -> int:
    """Serve until a signal ends the process; return the exit code where nothing is served."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname).1s %(message)s")
    if "--help" in arguments:
        _say(describe_flags())
        return 0
    try:
        flags, unknown = parse_flags(arguments)
        if unknown:
            _say(f"unknown argument: {unknown[0]}\n{describe_flags()}")
        running = start_server(flags)
    except StatusError as error:
        _say(f"Failed to start server. Error: {error}")
        return FAILED
    _say(running.where)
    running.grpc_server.wait_for_termination()
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
