"""A short run of what `make chaos` plays for as long as one likes."""

import time
from pathlib import Path

import pytest

from tests.bucket import run_fake_gcs
from tests.chaos.growth import FAST, grow
from tests.chaos.play import play, set_up
from tests.chaos.points import SET_BACK_LEADS
from tests.chaos.script import BadDisk, Dice, FullDisk, Kill, KillServer, Weather
from tests.e2e.stage import Stage

SEED = 743
"""In its first rounds the agent is killed, and what git and the bucket say is spoilt, bits too."""
ROUNDS = 12
LEAST_ROUNDS = 3
LAST_BEGIN_SECONDS = 50.0
"""After which no further round begins: the slower the machine, the fewer are played."""


def test_a_node_keeps_every_promise_through_a_short_run(tmp_path: Path) -> None:
    heard: list[str] = []
    with run_fake_gcs() as endpoint, set_up(tmp_path, endpoint, SEED, heard.append) as player:
        until = time.monotonic() + LAST_BEGIN_SECONDS
        figures = play(player, ROUNDS, until, least_rounds=LEAST_ROUNDS)
        answers = {model: caller.answers for model, caller in player.callers.items()}
    assert figures.rounds >= LEAST_ROUNDS, heard
    assert figures.kills >= 1, heard
    assert player.judge.loaded > figures.rounds, "hardly anything was loaded"
    assert min(answers[model] for model in ("ranker", "speller", "similar")) > 50


def test_what_is_found_damaged_is_exchanged_for_what_is_whole_after_a_kill_before_that(
    tmp_path: Path,
) -> None:
    """The player is at rest only once the version is mended and the new mirror was read."""
    exchange = "renameat2 models/M/.removing-V -> models/M/V"
    kills = [Kill(SET_BACK_LEADS[0], exchange)]
    heard: list[str] = []
    with run_fake_gcs() as endpoint, set_up(tmp_path, endpoint, SEED, heard.append) as player:
        play(player, 1, draw=lambda dice: dice.set_back(kills))
    assert player.judge.deaths.keys() >= {SET_BACK_LEADS[0], exchange}, heard
    assert "renameat2 state/mirror.new -> state/mirror" in player.judge.points, heard


def test_a_seed_gives_the_same_script_each_time() -> None:
    def draw(seed: int) -> list[str]:
        rounds = Dice(seed, has_disk=True).throw()
        return [str(next(rounds)) for _ in range(50)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


@pytest.mark.parametrize("has_disk", [False, True])
def test_the_short_run_has_something_of_everything_in_its_first_rounds(has_disk: bool) -> None:
    dice = Dice(SEED, has_disk=has_disk)
    dice.first_kill()
    rounds = dice.throw()
    actions = [action for _ in range(LEAST_ROUNDS) for _, action in next(rounds).actions]
    assert Kill() in actions
    assert {"bucket", "git"} <= {item.place for item in actions if isinstance(item, Weather)}
    assert any(isinstance(action, BadDisk | FullDisk | KillServer) for action in actions)


def test_an_agent_takes_no_more_after_many_ticks(tmp_path: Path) -> None:
    with run_fake_gcs() as endpoint:
        stage = Stage(tmp_path, endpoint, settings=FAST)
        try:
            first, last = grow(stage, ticks=600, commits=6, say=lambda size: None)
        finally:
            stage.close()
    assert last.ticks >= first.ticks + 350
    assert last.descriptors <= first.descriptors + 4
    assert last.threads <= first.threads + 6
    assert last.memory_bytes <= first.memory_bytes + 12_000_000
    assert last.models_bytes <= first.models_bytes * 1.5
    assert last.state_bytes <= first.state_bytes + 50_000
