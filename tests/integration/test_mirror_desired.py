"""From real commits to what a node is asked, across restarts and damage."""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from reconciler.config_repo import last_good
from reconciler.config_repo.desired import ConfigRepo
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from reconciler.config_repo.tree import Blob
from reconciler.errors import GitError
from reconciler.model import Desired
from reconciler.resources import data_folder
from tests.gitserver import ConfigRemote


class CountingMirror(Mirror):
    """A mirror that remembers which blobs were read."""

    read_ids: list[str]

    def read_blobs(self, blobs: Iterable[Blob]) -> Iterator[tuple[Blob, bytes]]:
        for blob, data in super().read_blobs(blobs):
            self.read_ids.append(blob.id)
            yield blob, data


@pytest.fixture
def remote(tmp_path: Path) -> ConfigRemote:
    remote = ConfigRemote(tmp_path / "remote")
    shutil.copytree(data_folder("example-config-repo"), remote.work / "fleet")
    remote.commit({}, "Begin")
    return remote


@pytest.fixture
def mirror(remote: ConfigRemote, tmp_path: Path) -> CountingMirror:
    mirror = CountingMirror(MirrorSettings(remote.url, "main", tmp_path / "state", folder="fleet"))
    mirror.read_ids = []
    return mirror


def deployment(version: int | str) -> str:
    return f"source: gs://demo-models/ranker\nversion: {version}\n"


def test_a_commit_becomes_what_each_node_serves(mirror: Mirror, tmp_path: Path) -> None:
    commit = mirror.fetch()
    nodes = {
        node: ConfigRepo(mirror, node, tmp_path / node).read(commit)
        for node in ("search-1", "search-2", "vision-1")
    }
    assert not nodes["search-1"].problems
    models = {node: {item.model for item in desired.deployments} for node, desired in nodes.items()}
    assert models["search-1"] | models["search-2"] == {"ranker", "suggest", "speller", "similar"}
    assert models["search-1"] & models["search-2"] == {"ranker", "suggest", "speller"}
    assert models["vision-1"] == {"detector", "captions"}
    by_model = {item.model: item for item in nodes["search-1"].deployments}
    assert by_model["ranker"].version == 1
    assert by_model["suggest"].version is None
    assert by_model["speller"].stop


def test_what_other_groups_take_over_is_known_and_nothing_else_of_them(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    remote.commit(
        {
            "fleet/deployments/vision/ranker.yaml": deployment(1),
            "fleet/deployments/vision/old.yaml": deployment(1) + "stop: true\n",
        },
        "Serve ranker in vision as well",
    )
    repo = ConfigRepo(mirror, "search-1", tmp_path)
    assert repo.read(mirror.fetch()).abroad.keys() == {"detector", "captions"}

    remote.commit({"fleet/deployments/search/ranker.yaml": None}, "Serve it there only")
    desired = repo.read(mirror.fetch())
    assert [(item.group, item.model) for item in desired.abroad["ranker"]] == [("vision", "ranker")]
    assert [member.name for member in desired.groups["vision"].nodes] == ["vision-1"]

    vision = (remote.work / "fleet/groups/vision.yaml").read_text()
    off = vision.replace("enabled: true", "enabled: false")
    remote.commit({"fleet/groups/vision.yaml": off}, "Switch vision off")
    assert repo.read(mirror.fetch()).abroad == {}


def test_each_blob_is_read_once(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    repo = ConfigRepo(mirror, "search-1", tmp_path / "state")
    first = mirror.fetch()
    desired = repo.read(first)
    assert len(mirror.read_ids) == 9
    assert repo.read(first) is desired
    remote.commit({"fleet/deployments/search/ranker.yaml": deployment(2)})
    repo.read(mirror.fetch())
    assert len(mirror.read_ids) == 10
    repo.read(first)
    assert len(mirror.read_ids) == 10


def test_the_last_good_text_survives_a_restart(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    path = "fleet/deployments/search/ranker.yaml"
    remote.commit({path: deployment(7)})
    ConfigRepo(mirror, "search-1", tmp_path / "state").read(mirror.fetch())
    remote.commit({path: "<<<<<<< HEAD\nversion: 8\n"})
    commit = mirror.fetch()
    desired = ConfigRepo(mirror, "search-1", tmp_path / "state").read(commit)
    assert {item.version for item in desired.deployments if item.model == "ranker"} == {7}
    assert "merge conflict" in desired.broken["ranker"].message
    again = ConfigRepo(mirror, "search-1", tmp_path / "state").read(commit)
    assert again.deployments == desired.deployments


def test_the_memory_is_written_only_when_it_changes(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    file = tmp_path / "state" / "last_good.json"
    repo = ConfigRepo(mirror, "search-1", tmp_path / "state")
    repo.read(mirror.fetch())
    before = file.stat().st_ino
    remote.commit({"README.md": "nothing of ours\n"})
    repo.read(mirror.fetch())
    assert file.stat().st_ino == before
    remote.commit({"fleet/deployments/search/ranker.yaml": deployment(2)})
    repo.read(mirror.fetch())
    assert file.stat().st_ino != before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"origin": 1}', '{"good": {"a": 1}}', "\x00"])
def test_a_memory_that_makes_no_sense_is_an_empty_one(
    mirror: CountingMirror, tmp_path: Path, content: str
) -> None:
    commit = mirror.fetch()
    (tmp_path / "state" / "last_good.json").write_text(content)
    assert ConfigRepo(mirror, "search-1", tmp_path / "state").read(commit).deployments


def test_a_memory_that_cannot_be_written_holds_nothing_up(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    repo = ConfigRepo(mirror, "search-1", blocked)
    assert repo.read(mirror.fetch()).deployments
    blocked.unlink()
    remote.commit({"README.md": "nothing of ours\n"})
    repo.read(mirror.fetch())
    assert (blocked / "last_good.json").is_file()


RANKER = "fleet/deployments/search/ranker.yaml"
MISSPELT = f"{deployment(7)}descripton: Ranks\n"


def read_anew(mirror: Mirror, folder: Path) -> Desired:
    """Return what an agent reads that starts in `folder`."""
    return ConfigRepo(mirror, "search-1", folder).read(mirror.fetch())


def remember_as_good(remote: ConfigRemote, mirror: Mirror, state: Path) -> None:
    """Commit a text with a mistake, and write down that it was good."""
    read_anew(mirror, state)
    remote.commit({RANKER: MISSPELT})
    blob_id = mirror.read_tree(mirror.fetch().id)[RANKER.removeprefix("fleet/")].id
    content = json.loads((state / "last_good.json").read_bytes())
    content["good"][RANKER.removeprefix("fleet/")] = blob_id
    (state / "last_good.json").write_text(json.dumps(content))


def test_a_text_that_was_good_is_not_held_against_its_schema_again(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    remember_as_good(remote, mirror, tmp_path / "state")
    assert not read_anew(mirror, tmp_path / "state").problems
    (tmp_path / "state" / "last_good.json").unlink()
    assert "descripton" in read_anew(mirror, tmp_path / "state").broken["ranker"].message


def test_a_text_is_held_against_a_schema_that_is_new(
    remote: ConfigRemote,
    mirror: CountingMirror,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember_as_good(remote, mirror, tmp_path / "state")
    monkeypatch.setattr(last_good, "read_schema", lambda name: f"another {name}".encode())
    assert set(read_anew(mirror, tmp_path / "state").broken) == {"ranker"}


def test_a_memory_that_does_not_say_by_which_schemas_spares_no_check(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    remember_as_good(remote, mirror, tmp_path / "state")
    content = json.loads((tmp_path / "state" / "last_good.json").read_bytes())
    del content["edition"]
    (tmp_path / "state" / "last_good.json").write_text(json.dumps(content))
    assert set(read_anew(mirror, tmp_path / "state").broken) == {"ranker"}


def test_a_text_that_is_good_no_more_is_not_taken_for_good_when_it_returns(
    remote: ConfigRemote,
    mirror: CountingMirror,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was good by a former schema, was carried over while its file was broken, and is back."""
    remember_as_good(remote, mirror, tmp_path / "state")
    remote.commit({RANKER: "broken\n"})
    monkeypatch.setattr(last_good, "read_schema", lambda name: f"another {name}".encode())
    assert set(read_anew(mirror, tmp_path / "state").broken) == {"ranker"}
    remote.commit({RANKER: MISSPELT})
    assert set(read_anew(mirror, tmp_path / "state").broken) == {"ranker"}


def test_the_rules_between_files_are_asked_about_texts_that_were_good(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    remote.commit({RANKER: f"{deployment(7)}replicas: 2\n"})
    assert not read_anew(mirror, tmp_path / "state").problems
    remote.commit({"fleet/groups/search.yaml": "nodes: [search-1]\n"})
    assert "replicas is 2" in read_anew(mirror, tmp_path / "state").broken["ranker"].message


def test_the_memory_of_another_folder_is_not_used(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    ConfigRepo(mirror, "search-1", tmp_path / "state").read(mirror.fetch())
    remote.commit(
        {
            "other/groups/search.yaml": "nodes: [search-1]\n",
            "other/deployments/search/ranker.yaml": "broken\n",
        }
    )
    other = Mirror(MirrorSettings(remote.url, "main", tmp_path / "state", folder="other"))
    desired = ConfigRepo(other, "search-1", tmp_path / "state").read(other.fetch())
    assert desired.deployments == ()
    assert set(desired.broken) == {"ranker"}


def test_a_lost_last_good_text_is_no_reason_to_stop(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    """The history was rewritten and the mirror built anew: the text is nowhere any more."""
    path = "fleet/deployments/search/ranker.yaml"
    ConfigRepo(mirror, "search-1", tmp_path / "state").read(mirror.fetch())
    remote.commit({path: "broken\n"}, amend=True)
    shutil.rmtree(tmp_path / "state" / "mirror")
    desired = ConfigRepo(mirror, "search-1", tmp_path / "state").read(mirror.fetch())
    assert set(desired.broken) == {"ranker"}
    assert "suggest" in {item.model for item in desired.deployments}


def test_damage_found_while_reading_is_repaired_by_the_next_fetch(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    commit = mirror.fetch()
    shutil.rmtree(tmp_path / "state" / "mirror" / "objects")
    repo = ConfigRepo(mirror, "search-1", tmp_path / "state")
    with pytest.raises(GitError) as caught:
        repo.read(commit)
    assert caught.value.reason == "MirrorCorrupt"
    assert repo.read(mirror.fetch()).deployments


def test_an_emptied_repo_asks_for_nothing_and_forgets_nothing_else(
    remote: ConfigRemote, mirror: CountingMirror, tmp_path: Path
) -> None:
    repo = ConfigRepo(mirror, "search-1", tmp_path / "state")
    repo.read(mirror.fetch())
    shutil.rmtree(remote.work / "fleet")
    remote.commit({"fleet/README.md": "empty\n"}, "Remove all")
    desired = repo.read(mirror.fetch())
    assert desired.group is None
    assert desired.deployments == ()
    assert not desired.policy.allow_empty
