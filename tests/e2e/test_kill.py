"""kill -9 between any two steps: nothing half-done is visible, and the next start goes on."""

import random
import sys
import time

import pytest

from reconciler.serving.config_file import read_own
from tests.bucket import read_files
from tests.e2e.stage import GROUP, WAIT_SECONDS, Stage, deployment

ROUNDS = 24
LAST_STEP = 80
AFTERWARDS_SECONDS = 2.0
"""In which an agent that has got there still removes and notes things."""


@pytest.mark.timeout(600)
def test_a_kill_between_any_two_steps_leaves_nothing_half_done(stage: Stage) -> None:
    for version in (1, 2, 3):
        stage.publish("ranker", version)
        stage.publish("speller", version)
    stage.commit({"groups/g.yaml": GROUP}, deployment("ranker", 1), deployment("speller", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.wait_served("speller", 1)
    stage.stop_agent()
    steps = random.Random(7).sample(range(1, LAST_STEP), ROUNDS)
    killed = 0
    for number, step in enumerate(steps):
        version = number % 3 + 1
        labels = {"labels": {"stable": version}} if number % 2 else {}
        stage.commit(deployment("ranker", version, **labels), deployment("speller", version))
        killed += run_until_killed(stage, step, version)
        check_that_nothing_is_half_done(stage)
    assert killed > ROUNDS / 2, "hardly a kill came in the middle of anything"
    stage.start_agent()
    stage.wait_served("ranker", version)
    stage.wait_served("speller", version)


def run_until_killed(stage: Stage, step: int, version: int) -> bool:
    """Run the agent until its `step`-th change of the disk, or until it has served `version`."""
    stage.start_agent(
        [sys.executable, "-m", "tests.e2e.crashing_agent", "run"],
        CRASH_AT=str(step),
        CRASH_FOLDER=str(stage.folder),
    )
    assert stage.agent is not None
    deadline = time.monotonic() + WAIT_SECONDS
    while stage.agent.poll() is None and time.monotonic() < deadline:
        assert stage.serving("ranker"), "the model went away"
        assert stage.serving("speller"), "the model went away"
        time.sleep(0.02)
        if all(stage.serving(model) == {version} for model in ("ranker", "speller")):
            deadline = min(deadline, time.monotonic() + AFTERWARDS_SECONDS)
    if stage.agent.poll() is None:
        stage.stop_agent()
        return False
    stage.agent = None
    return True


def check_that_nothing_is_half_done(stage: Stage) -> None:
    for model in ("ranker", "speller"):
        for folder in (stage.models_dir / model).iterdir():
            if folder.name.isdecimal():
                for name, content in read_files(folder).items():
                    assert stage.bucket.read(f"{model}/{folder.name}/{name}") == content
                wanted = {
                    n for n in stage.bucket.names() if n.startswith(f"{model}/{folder.name}/")
                }
                assert len(read_files(folder)) == len(wanted)
    config = read_own(stage.config_file, str(stage.models_dir))
    assert config is not None
    for model, ask in config.items():
        for version in ask.versions:
            assert (stage.models_dir / model / str(version)).is_dir(), "a restart would hang"
