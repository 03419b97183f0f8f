"""From a git commit to a served version, and back."""

import json
import subprocess
import sys
import time

import httpx

from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.gitserver import git

GROUPS = {"groups/g.yaml": GROUP}


def test_a_commit_deploys_a_revert_goes_back_without_a_download(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.publish("ranker", 2)
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.commit(deployment("ranker", 2), subject="Serve ranker 2")
    stage.wait_served("ranker", 2)
    downloaded = stage.metric("reconciler_downloaded_bytes_total")
    assert downloaded > 0
    git("revert", "--no-edit", "HEAD", cwd=stage.remote.work)
    stage.remote.push()
    stage.wait_served("ranker", 1)
    assert stage.metric("reconciler_downloaded_bytes_total") == downloaded
    history = stage.ask("/history")
    assert history is not None
    changes = [(c["from"], c["to"], c["result"]) for c in history.json()["changes"]]
    assert changes == [(2, 1, "deployed"), (1, 2, "deployed"), (None, 1, "deployed")]
    assert stage.stop_agent() == 0
    assert stage.serving("ranker") == {1}, "what is served outlives the agent"


def test_latest_follows_the_bucket_without_a_commit(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.commit(GROUPS, deployment("ranker", "latest"))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.publish("ranker", 2)
    stage.wait_served("ranker", 2)


def test_labels_move_and_a_canary_stands_beside_the_stable_version(stage: Stage) -> None:
    for version in (1, 2, 3):
        stage.publish("ranker", version)
    stage.commit(GROUPS, deployment("ranker", 1, labels={"stable": 1, "canary": 2}))
    stage.start()
    stage.wait_served("ranker", 1, 2)
    found = stage.deployment("ranker")
    assert found["labels"] == {"stable": 1, "canary": 2}
    assert "requests without version or label go to 2" in found["sentence"]
    stage.commit(deployment("ranker", 2, labels={"stable": 2, "canary": 3}))
    stage.wait_served("ranker", 2, 3)
    assert stage.deployment("ranker")["labels"] == {"stable": 2, "canary": 3}


def test_stop_unloads_and_start_needs_no_download(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.publish("speller", 1)
    stage.commit(GROUPS, deployment("ranker"), deployment("speller"))
    stage.start()
    stage.wait_served("speller", 1)
    stage.commit(deployment("speller", stop=True))
    stage.wait_phase("speller", "Stopped", "Stopped")
    assert stage.serving("speller") == set()
    downloaded = stage.metric("reconciler_downloaded_bytes_total")
    stage.commit(deployment("speller"))
    stage.wait_served("speller", 1)
    assert stage.metric("reconciler_downloaded_bytes_total") == downloaded


def test_a_model_that_leaves_git_is_unloaded_and_deleted(stage: Stage) -> None:
    for model in ("ranker", "speller"):
        stage.publish(model, 1)
    stage.commit(GROUPS, deployment("ranker"), deployment("speller"))
    stage.start()
    stage.wait_served("speller", 1)
    stage.wait_served("ranker", 1)
    stage.commit({"deployments/g/speller.yaml": None})
    wait_until(lambda: not (stage.models_dir / "speller").exists(), "the removal")
    assert "speller" not in stage.config_file.read_text()
    assert stage.serving("ranker") == {1}
    assert stage.serving("speller") == set()


def test_an_emptied_repo_removes_nothing_until_a_person_says_so(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.commit(GROUPS, deployment("ranker"))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.commit({"deployments/g/ranker.yaml": None})
    found = wait_until(
        lambda: (c := stage.condition("RemovalsAllowed")) and not c["holds"] and c, "the refusal"
    )
    assert "allow_empty" in found["sentence"]
    assert stage.serving("ranker") == {1}
    stage.commit({"fleet.yaml": "allow_empty: true\n"})
    wait_until(lambda: not (stage.models_dir / "ranker").exists(), "the removal")
    assert stage.serving("ranker") == set()


def test_recreate_never_holds_two_versions(stage: Stage) -> None:
    for version in (1, 2):
        stage.publish("ranker", version)
    recreate = {"rollout": {"strategy": "recreate"}}
    stage.commit(GROUPS, deployment("ranker", 1, **recreate))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.commit(deployment("ranker", 2, **recreate))
    deadline = time.monotonic() + 30
    while stage.serving("ranker") != {2}:
        assert len(stage.serving("ranker")) < 2
        assert time.monotonic() < deadline
    stage.wait_served("ranker", 2)


def test_old_versions_are_collected_and_the_previous_one_stays(stage: Stage) -> None:
    for version in (1, 2, 3):
        stage.publish("ranker", version)
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.start()
    for version in (1, 2, 3):
        stage.commit(deployment("ranker", version))
        stage.wait_served("ranker", version)
    wait_until(lambda: not (stage.models_dir / "ranker" / "1").exists(), "the collection of 1")
    assert (stage.models_dir / "ranker" / "2" / "saved_model.pb").exists()


def test_a_newer_commit_cancels_what_an_older_one_began(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.publish("ranker", 2, load_seconds=20)
    stage.publish("ranker", 3)
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.commit(deployment("ranker", 2))
    stage.wait_phase("ranker", "Deploying", "Loading")
    stage.commit(deployment("ranker", 3))
    stage.wait_served("ranker", 3)


def test_once_makes_one_pass_and_says_whether_it_converged(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.commit(GROUPS, deployment("ranker"))
    stage.start()
    stage.wait_served("ranker", 1)
    assert stage.stop_agent() == 0
    once = ["reconciler.cli.main", "once", "--timeout", "20s"]
    command = [sys.executable, "-m", *once]
    stage.start_agent(command)
    assert stage.agent is not None
    assert stage.agent.wait(30) == 0
    stage.commit(deployment("ranker", 7))
    stage.start_agent(command)
    assert stage.agent.wait(30) == 1
    assert "version 7 is not in" in stage.log
    stage.start_agent(command, RECONCILER_GIT_INTERVAL="soon")
    assert stage.agent.wait(30) == 2
    assert "RECONCILER_GIT_INTERVAL: 'soon' is not a duration" in stage.log


def test_sync_with_the_token_wakes_the_agent(stage: Stage) -> None:
    token = stage.folder / "token"
    token.write_text("s3cret\n")
    stage.publish("ranker", 1)
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.settings = {
        "RECONCILER_GIT_INTERVAL": "1h",
        "RECONCILER_SYNC_TOKEN_FILE": str(token),
    }
    stage.start()
    stage.wait_served("ranker", 1)
    stage.publish("ranker", 2)
    stage.commit(deployment("ranker", 2))
    url = f"http://127.0.0.1:{stage.status_port}/sync"
    assert httpx.post(url, trust_env=False).status_code == 401
    headers = {"authorization": "Bearer s3cret"}
    assert httpx.post(url, headers=headers, trust_env=False).status_code == 202
    stage.wait_served("ranker", 2)
    assert "s3cret" not in stage.log + json.dumps(stage.status())


def test_two_agents_on_one_folder_are_refused(stage: Stage) -> None:
    stage.commit(GROUPS)
    stage.start_agent()
    wait_until(stage.status, "the first agent")
    command = [sys.executable, "-m", "reconciler.cli.main", "run"]
    second = subprocess.run(command, env=stage.environment(), capture_output=True, timeout=20)
    assert second.returncode == 1
    assert b"is in use by another reconciler" in second.stderr
    assert stage.stop_agent() == 0
