"""One bucket emulator for all, one stage a test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bucket import run_fake_gcs
from tests.e2e.stage import Stage


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    yield from run_fake_gcs.__wrapped__()  # type: ignore[attr-defined]


@pytest.fixture
def make_stage(tmp_path: Path, endpoint: str) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(**options: Any) -> Stage:
        stages.append(Stage(tmp_path, options.pop("endpoint", endpoint), **options))
        return stages[-1]

    yield make
    for stage in reversed(stages):
        stage.close()


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    return make_stage()
