"""Starts the server that the tests of this folder look at, one per test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.harness import STANDIN, Pace, Server


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    command = request.config.getoption("--server")
    if command:
        pace = Pace(poll_seconds=1, patience_seconds=60, blocked_seconds=3.5)
    else:
        pace = Pace(poll_seconds=0.05, patience_seconds=60, blocked_seconds=0.3)
    server = Server(command or STANDIN, tmp_path, pace, is_standin=not command)
    yield server
    server.stop()
