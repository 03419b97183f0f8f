"""Freezes, suspensions and pauses on a running node."""

import time
from datetime import UTC, datetime, timedelta

from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.gitserver import git

GROUPS = {"groups/g.yaml": GROUP}


def freeze(start: datetime) -> str:
    """A fleet.yaml that is frozen for three hours from `start` on."""
    cron = f"{start.minute} {start.hour} {start.day} {start.month} *"
    return f'freezes: [{{start: "{cron}", duration: 3h, timezone: UTC, reason: the great sale}}]\n'


def test_a_freeze_holds_a_new_version_back_but_not_a_rollback(stage: Stage) -> None:
    for version in (1, 2, 3):
        stage.publish("ranker", version)
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.commit(deployment("ranker", 2))
    stage.wait_served("ranker", 2)
    begin = datetime.now(UTC) - timedelta(hours=1)
    stage.commit({"fleet.yaml": freeze(begin)}, deployment("ranker", 3))
    found = stage.wait_phase("ranker", "Deploying", "Frozen")
    end = (begin + timedelta(hours=3)).strftime("%Y-%m-%d %H:%M")
    assert f"{end} UTC: the great sale" in found["sentence"]
    assert "version 2 goes on serving" in found["sentence"]
    assert not stage.condition("ChangesAllowed")["holds"]
    # A restart in the middle of it changes nothing.
    stage.stop_agent()
    stage.start_agent()
    stage.wait_phase("ranker", "Deploying", "Frozen")
    assert stage.serving("ranker") == {2}
    downloaded = stage.metric("reconciler_downloaded_bytes_total")
    stage.commit(deployment("ranker", 1))
    stage.wait_served("ranker", 1)
    assert stage.metric("reconciler_downloaded_bytes_total") == downloaded
    stage.commit({"fleet.yaml": None}, deployment("ranker", 3))
    stage.wait_served("ranker", 3)
    assert stage.condition("ChangesAllowed")["holds"]


def test_a_new_node_takes_up_its_models_in_a_freeze(stage: Stage) -> None:
    stage.publish("ranker", 1)
    fleet = freeze(datetime.now(UTC) - timedelta(hours=1))
    stage.commit(GROUPS, {"fleet.yaml": fleet}, deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)


def test_a_suspended_deployment_stays_and_its_neighbour_moves(stage: Stage) -> None:
    for model in ("ranker", "speller"):
        stage.publish(model, 1)
        stage.publish(model, 2)
    stage.commit(GROUPS, deployment("ranker"), deployment("speller"))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.wait_served("speller", 1)
    stage.commit(deployment("ranker", 2, suspend=True), deployment("speller", 2))
    stage.wait_served("speller", 2)
    assert stage.wait_phase("ranker", "Deploying", "Suspended")["serving_versions"] == [1]
    stage.commit(deployment("ranker", 2))
    stage.wait_served("ranker", 2)


def test_a_paused_node_is_left_alone_until_it_resumes(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.publish("ranker", 2)
    stage.commit(GROUPS, deployment("ranker"))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.run_command("pause", "--reason", "disk is being replaced", "--for", "1h")
    wait_until(lambda: not stage.condition("ChangesAllowed")["holds"], "the pause")
    commit = stage.commit(deployment("ranker", 2))
    wait_until(lambda: stage.status().get("observed", {}).get("id") == commit, "the commit")
    found = stage.wait_phase("ranker", "Deploying", "Paused")
    assert "disk is being replaced" in found["sentence"]
    assert stage.metric("reconciler_downloaded_bytes_total") > 0
    assert not (stage.models_dir / "ranker" / "2").exists()
    stage.run_command("resume")
    stage.wait_served("ranker", 2)


def test_a_pause_ends_by_itself(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.publish("ranker", 2)
    stage.commit(GROUPS, deployment("ranker"))
    stage.start()
    stage.wait_served("ranker", 1)
    paused_at = time.monotonic()
    stage.run_command("pause", "--reason", "not yet", "--for", "4s")
    stage.commit(deployment("ranker", 2))
    stage.wait_served("ranker", 2)
    assert time.monotonic() - paused_at > 4
    assert git("rev-parse", "HEAD", cwd=stage.remote.work) == stage.status()["applied"]["id"]
