"""Versions that come as archives: taken, served, locked, reverted and refused as any other."""

import json
import shutil

from tests.archives import Packing, pack
from tests.bucket import read_files
from tests.e2e.stage import GROUP, Stage, deployment
from tests.savedmodels import write_savedmodel

GROUPS = {"groups/g.yaml": GROUP}


def publish(stage: Stage, name: str, packing: Packing, within: str = "") -> dict[str, bytes]:
    """Put an archive into the bucket; return the files in it."""
    value = float(len(stage.bucket.names()))
    folder = write_savedmodel(stage.folder / "export", value)
    files = {**read_files(folder), "assets/made-for": name.encode()}
    shutil.rmtree(folder)
    stage.bucket.put(f"ranker/{name}", pack(files, packing, within))
    return files


def installed(stage: Stage, version: int) -> dict[str, bytes]:
    return read_files(stage.models_dir / "ranker" / str(version))


def test_packed_versions_are_served_and_reverted(stage: Stage) -> None:
    stage.publish("ranker", 1)
    second = publish(stage, "2/export.tar.gz", "tar.gz", "./")
    third = publish(stage, "3.zip", "zip", "export/")
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    for version, files in ((2, second), (3, third)):
        stage.commit(deployment("ranker", version))
        stage.wait_served("ranker", version)
        assert installed(stage, version) == files
    stage.commit(deployment("ranker", 2), subject="Revert")
    stage.wait_served("ranker", 2)
    assert installed(stage, 2) == second
    fourth = publish(stage, "4.tgz", "tgz")
    stage.commit(deployment("ranker", "latest"))
    stage.wait_served("ranker", 4)
    assert installed(stage, 4) == fourth
    assert list((stage.models_dir / ".staging").rglob("*")) == []


def test_a_packed_version_is_planned_and_locked_by_its_archive(stage: Stage) -> None:
    publish(stage, "1.zip", "zip")
    second = publish(stage, "2/export.tar.gz", "tar.gz")
    size_bytes = len(stage.bucket.read("ranker/2/export.tar.gz"))
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.commit(deployment("ranker", 2))
    planned = stage.run_command("plan", "HEAD~1", "HEAD", "--format", "json")
    assert f'"bytes": {size_bytes}' in planned
    (locked,) = json.loads(stage.run_command("lock", "--json"))["changed"]
    assert (locked["files"], locked["bytes"]) == (1, size_bytes)
    stage.commit({}, subject="Lock it")
    stage.wait_served("ranker", 2)
    assert installed(stage, 2) == second


def test_a_bad_archive_is_refused_and_a_good_one_taken_at_once(stage: Stage) -> None:
    publish(stage, "1.zip", "zip")
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    whole = publish(stage, "2.zip", "zip")
    stage.bucket.put("ranker/2.zip", stage.bucket.read("ranker/2.zip")[:-100])
    stage.commit(deployment("ranker", 2))
    found = stage.wait_phase("ranker", "Failed", "BadArchive")
    assert "/ranker/2.zip is refused, it is cut off or damaged" in found["sentence"]
    assert "version 1 goes on serving" in found["sentence"]
    assert stage.serving("ranker") == {1}
    stage.bucket.put("ranker/2.zip", pack(whole, "zip"))
    stage.wait_served("ranker", 2)
    assert installed(stage, 2) == whole


def test_a_folder_beside_its_archive_is_refused_until_one_is_gone(stage: Stage) -> None:
    publish(stage, "1.zip", "zip")
    stage.commit(GROUPS, deployment("ranker", 1))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.publish("ranker", 2)
    publish(stage, "2.zip", "zip")
    stage.commit(deployment("ranker", 2))
    found = stage.wait_phase("ranker", "Failed", "BadObjectName")
    assert "more than once ('2/', '2.zip')" in found["sentence"]
    stage.bucket.delete("ranker/2.zip")
    stage.wait_served("ranker", 2)
