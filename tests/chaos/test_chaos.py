"""A short run of what `make chaos` plays for as long as one likes."""

import time
from pathlib import Path

import pytest

from tests.bucket import run_fake_gcs
from tests.chaos.growth import FAST, grow
from tests.chaos.play import play, set_up
from tests.chaos.script import Dice
from tests.e2e.stage import Stage

SEED = 11
ROUNDS = 14
LAST_BEGIN_SECONDS = 75.0
"""After which no further round begins; on a machine in which that is few, few are played."""


@pytest.mark.timeout(420)
def test_a_node_keeps_every_promise_through_a_short_run(tmp_path: Path) -> None:
    heard: list[str] = []
    with run_fake_gcs() as endpoint, set_up(tmp_path, endpoint, SEED, heard.append) as player:
        figures = play(player, ROUNDS, time.monotonic() + LAST_BEGIN_SECONDS)
        answers = {model: caller.answers for model, caller in player.callers.items()}
    assert figures.rounds >= 2, heard
    assert figures.kills >= 1, heard
    assert player.judge.loaded > figures.rounds, "hardly anything was loaded"
    assert min(answers[model] for model in ("ranker", "speller", "similar")) > 50


def test_a_seed_gives_the_same_script_each_time() -> None:
    def draw(seed: int) -> list[str]:
        rounds = Dice(seed, has_disk=True).throw()
        return [str(next(rounds)) for _ in range(50)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_an_agent_takes_no_more_after_many_ticks(tmp_path: Path) -> None:
    with run_fake_gcs() as endpoint:
        stage = Stage(tmp_path, endpoint, settings=FAST)
        try:
            first, last = grow(stage, ticks=1500, commits=12, say=lambda size: None)
        finally:
            stage.close()
    assert last.ticks >= first.ticks + 1000
    assert last.descriptors <= first.descriptors + 4
    assert last.threads <= first.threads + 6
    assert last.memory_bytes <= first.memory_bytes + 12_000_000
    assert last.models_bytes <= first.models_bytes * 1.5
    assert last.state_bytes <= first.state_bytes + 50_000
