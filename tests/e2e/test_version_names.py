"""Versions that are named by semver, by date or by a list: served by number, told by name."""

import json
from typing import Any

import pytest

from tests.archives import pack
from tests.bucket import read_files
from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.savedmodels import write_savedmodel

GROUPS = {"groups/g.yaml": GROUP}
_MAJOR, _MINOR = 10**12, 10**6


def publish(stage: Stage, name: str, *, packed: bool = False) -> dict[str, bytes]:
    """Put a version into the bucket by its name; return its files."""
    folder = write_savedmodel(stage.folder / "exports" / name, float(len(stage.bucket.names())))
    files = {**read_files(folder), "assets/made-for": name.encode()}
    if packed:
        stage.bucket.put(f"ranker/{name}.zip", pack(files, "zip"))
    else:
        stage.bucket.put_version(name, files, under="ranker")
    return files


def semver(version: str) -> dict[str, str]:
    return deployment("ranker", version, version_scheme="semver")


def named(version: str, **names: int) -> dict[str, str]:
    return deployment("ranker", version, version_scheme={"names": names})


def installed(stage: Stage, number: int) -> dict[str, bytes]:
    return read_files(stage.models_dir / "ranker" / str(number))


def changes(stage: Stage) -> list[dict[str, Any]]:
    response = stage.ask("/history")
    assert response is not None
    found: list[dict[str, Any]] = response.json()["changes"]
    return found


def test_releases_are_followed_pinned_and_reverted_by_name(stage: Stage) -> None:
    nine, ten = _MAJOR + 9 * _MINOR, _MAJOR + 10 * _MINOR
    old = publish(stage, "1.9.0")
    publish(stage, "2.0.0-rc1")  # no release: as little a version as a folder named `backup`
    stage.commit(GROUPS, semver("latest"))
    stage.start()
    stage.wait_served("ranker", nine)
    assert installed(stage, nine) == old
    new = publish(stage, "1.10.0", packed=True)
    stage.wait_served("ranker", ten)
    assert installed(stage, ten) == new
    wait_until(lambda: stage.deployment("ranker")["serving_versions"] == [ten], "the end of 1.9.0")
    told = stage.deployment("ranker")
    assert (told["sentence"], told["wanted_version"]) == ("serves version 1.10.0", ten)
    node = f"127.0.0.1:{stage.status_port}"
    assert "1.10.0" in _find_row(stage.run_command("status", node), "ranker")
    fleet = stage.run_command("fleet", "status", "--node", node)
    assert "1.10.0" in _find_row(fleet, "g/ranker")
    assert told["version_names"] == {str(nine): "1.9.0", str(ten): "1.10.0"}
    stage.run_command("pin", "ranker", "1.9.0", "--yes")
    assert "version: 1.9.0" in _plain(stage)
    stage.remote.push()
    stage.wait_served("ranker", nine)
    assert installed(stage, nine) == old
    newest, *_ = changes(stage)
    assert (newest["from_name"], newest["to_name"]) == ("1.10.0", "1.9.0")
    assert "deployed ranker 1.9.0 (was 1.10.0) for commit" in stage.log
    stage.run_command("rollback", "ranker", "--to", "1.10.0", "--yes")
    stage.remote.push()
    stage.wait_served("ranker", ten)
    assert "ranker 1.9.0 -> 1.10.0 in g" in stage.run_command("history", "ranker", "--no-nodes")


def _find_row(table: str, name: str) -> list[str]:
    (row,) = (words for line in table.splitlines() if name in (words := line.split()))
    return row


def _plain(stage: Stage) -> str:
    return (stage.remote.work / "deployments/g/ranker.yaml").read_text().replace('"', "")


def test_a_lock_has_names_and_fits_no_other_scheme(stage: Stage) -> None:
    publish(stage, "1.9.0")
    publish(stage, "1.10.0")
    stage.commit(GROUPS, semver("latest"))
    (change,) = json.loads(stage.run_command("lock", "--json"))["changed"]
    assert (change["to_version"], change["to_name"]) == (_MAJOR + 10 * _MINOR, "1.10.0")
    stage.commit({}, subject="Lock it")
    stage.start()
    stage.wait_served("ranker", _MAJOR + 10 * _MINOR)
    publish(stage, "1.11.0")
    stage.commit(semver("1.11.0"))
    stage.run_command("lock")
    planned = stage.run_command("plan", "HEAD", "--worktree")
    assert "ranker 1.10.0 -> 1.11.0 on node" in planned
    assert "  download 1.11.0 (" in planned
    stage.commit(deployment("ranker", "latest"))
    (problem,) = stage.run_command("validate", ".", codes=(1,)).splitlines()[:1]
    assert "version 1.11.0 is locked as number 1000011000000, which version_scheme" in problem
    wait_until(lambda: stage.status()["problems"], "the mistake in /status")
    assert stage.serving("ranker") == {_MAJOR + 10 * _MINOR}


def test_a_date_is_followed_and_a_name_that_is_no_date_ignored(stage: Stage) -> None:
    publish(stage, "2026-11-20")
    new = publish(stage, "2026-11-21", packed=True)
    publish(stage, "2026-11-31")
    stage.commit(GROUPS, deployment("ranker", "latest", version_scheme={"dates": "%Y-%m-%d"}))
    stage.start()
    stage.wait_served("ranker", 20261121000000)
    assert installed(stage, 20261121000000) == new
    assert stage.deployment("ranker")["sentence"] == "serves version 2026-11-21"


def test_numbers_that_change_their_meaning_never_serve_the_wrong_bytes(stage: Stage) -> None:
    first, second = publish(stage, "9f3c2ab"), publish(stage, "77ab01d")
    names = {"9f3c2ab": 1, "77ab01d": 2}
    stage.commit(GROUPS, named("9f3c2ab", **names))
    stage.start()
    stage.wait_served("ranker", 1)
    assert installed(stage, 1) == first
    # The two change their numbers: 1 is on disk and served, but it is not what git means by it.
    stage.commit(named("77ab01d", **{"9f3c2ab": 2, "77ab01d": 1}))
    told = stage.wait_phase("ranker", "Failed", "Renumbered")
    assert "number 1 on this node is version 9f3c2ab" in told["sentence"]
    assert "means 77ab01d by it now" in told["sentence"]
    assert "version 9f3c2ab goes on serving" in told["sentence"]
    assert told["version_names"] == {}  # 1 stands for two of them
    assert installed(stage, 1) == first
    # Another number is a way out, and from there the first one can be had anew.
    stage.commit(named("9f3c2ab", **{"9f3c2ab": 2, "77ab01d": 1}))
    stage.wait_served("ranker", 2)
    assert installed(stage, 2) == first
    stage.commit(named("77ab01d", **{"9f3c2ab": 2, "77ab01d": 1}))
    stage.wait_served("ranker", 1)
    assert installed(stage, 1) == second


@pytest.mark.parametrize("version", ["0.0.5", "latest"])
def test_a_number_is_not_taken_for_the_release_with_that_number(stage: Stage, version: str) -> None:
    stage.publish("ranker", 5)
    publish(stage, "0.0.5")
    stage.commit(GROUPS, deployment("ranker", 5))
    stage.start()
    stage.wait_served("ranker", 5)
    before = installed(stage, 5)
    stage.commit(semver(version))
    told = stage.wait_phase("ranker", "Failed", "Renumbered")
    assert "number 5 on this node is version 5, and" in told["sentence"]
    assert installed(stage, 5) == before
    publish(stage, "0.0.6")
    stage.commit(semver("0.0.6"))
    stage.wait_served("ranker", 6)
