"""A running node follows signed commits only, and serves on whatever else is pushed."""

import json
import subprocess
import sys

from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.gitserver import git
from tests.keys import SshKey, make_ssh_key, stop_signing

GROUPS = {"groups/g.yaml": GROUP}


def signers(*keys: SshKey) -> dict[str, str]:
    rules = {"mode": "head", "ssh": [key.allow() for key in keys]}
    return {"fleet.yaml": json.dumps({"signatures": rules})}


def test_an_unsigned_commit_is_not_followed_and_the_old_version_serves_on(stage: Stage) -> None:
    for version in (1, 2, 3):
        stage.publish("ranker", version)
    key, other = make_ssh_key(stage.folder, "ada"), make_ssh_key(stage.folder, "eve")
    key.sign_in(stage.remote.work)
    first = stage.commit(GROUPS, signers(key), deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    assert stage.condition("SourceVerified")["reason"] == "Verified"

    # Neither an unsigned commit nor one that lets its own key in.
    stop_signing(stage.remote.work)
    unsigned = stage.commit(deployment("ranker", 2))
    wait_until(lambda: stage.condition("SourceVerified").get("holds") is False, "the refusal")
    condition = stage.condition("SourceVerified")
    assert condition["reason"] == "CommitUnsigned"
    assert unsigned[:8] in condition["sentence"]
    other.sign_in(stage.remote.work)
    stage.commit(signers(key, other))
    wait_until(lambda: stage.condition("SourceVerified")["reason"] == "KeyNotAllowed", "the key")
    assert stage.serving("ranker") == {1}
    assert stage.status()["observed"]["id"] == first

    # A restart trusts no more than before.
    stage.stop_agent()
    stage.start_agent()
    wait_until(lambda: stage.condition("SourceVerified").get("holds") is False, "the refusal")
    assert stage.status()["observed"]["id"] == first
    assert stage.condition("ServingReachable")["holds"]

    # Signed by an allowed key, the newest commit is followed with all that came before it.
    key.sign_in(stage.remote.work)
    stage.commit(deployment("ranker", 3))
    stage.wait_served("ranker", 3)
    assert stage.condition("SourceVerified")["holds"]


def test_a_single_pass_on_an_unsigned_repository_says_why_it_does_nothing(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.commit(GROUPS, deployment("ranker", 1))
    key = make_ssh_key(stage.folder, "ada")
    allowed = stage.folder / "allowed"
    allowed.write_text(key.allow() + "\n")
    command = [sys.executable, "-m", "reconciler.cli.main", "once"]
    command += ["--signature-mode", "head", "--allowed-signers-file", str(allowed)]
    done = subprocess.run(
        command, env=stage.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "SourceVerified: " in done.stdout
    assert git("rev-parse", "HEAD", cwd=stage.remote.work)[:8] in done.stdout
    assert not (stage.models_dir / "ranker").exists()
