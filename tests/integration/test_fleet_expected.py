"""What a real clone and what an agent's mirror expect of the fleet."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.fleets import read_folder
from reconciler.errors import ConfigError
from reconciler.fleet.expected import CheckoutReader, FollowedReader
from reconciler.fleet.poll import Target
from reconciler.model import Commit, Desired
from reconciler.planning.placement import holders
from tests.gitserver import ConfigRemote

FILES: dict[str, str] = {
    "groups/search.yaml": "nodes:\n- {name: search-1, address: 'search-1:8080'}\n- search-2\n",
    "groups/ads.yaml": "nodes: {dns: tasks.ads, port: 8080}\n",
    "groups/off.yaml": "nodes: [off-1]\nenabled: false\n",
    "groups/broken.yaml": "nodes: [\n",
    "deployments/search/ranker.yaml": "source: gs://acme/ranker\nversion: 42\nreplicas: 1\n",
    "deployments/search/speller.yaml": "source: gs://acme/speller\nversion: latest\n",
    "deployments/ads/ctr.yaml": "source: gs://acme/ctr\nversion: 7\n",
    "deployments/off/old.yaml": "source: gs://acme/old\nversion: 1\n",
}


def whole(files: dict[str, str]) -> dict[str, str | bytes | None]:
    """The files with the model's name in them, which is that of the file."""
    return {
        path: f"model: {Path(path).stem}\n{text}" if path.startswith("deployments/") else text
        for path, text in files.items()
    }


def test_a_clone_says_which_nodes_there_are_and_who_is_to_serve_what(tmp_path: Path) -> None:
    remote = ConfigRemote(tmp_path)
    first = remote.commit(whole(FILES))
    expected = CheckoutReader(Checkout(remote.work)).read()
    assert expected.targets == (
        Target(None, "off-1", "off"),
        Target("search-1:8080", "search-1", "search"),
        Target(None, "search-2", "search"),
    )
    by_model = {item.model: item for item in expected.deployments}
    even = {"search-1": 1.0, "search-2": 1.0}
    assert by_model["ranker"].holders == holders("search/ranker", even, 1)
    assert set(by_model["speller"].holders or ()) == {"search-1", "search-2"}
    assert by_model["ctr"].holders is None
    assert (by_model["ranker"].version, by_model["speller"].version) == (42, None)
    assert (by_model["old"].stop, by_model["ranker"].stop) == (True, False)
    assert expected.enabled == {"ads": True, "off": False, "search": True}
    assert expected.unlisted_groups == ("ads",)
    assert expected.lost_files == ("groups/broken.yaml",)
    assert expected.positions == {first: 0}


def test_a_clone_that_is_at_another_commit_is_read_anew_and_only_then(tmp_path: Path) -> None:
    remote = ConfigRemote(tmp_path)
    first = remote.commit(whole(FILES))
    reader = CheckoutReader(Checkout(remote.work))
    before = reader.read()
    assert reader.read() is before
    second = remote.commit({"deployments/search/speller.yaml": None})
    after = reader.read()
    assert "speller" not in {item.model for item in after.deployments}
    assert after.positions == {second: 0, first: 1}


@dataclass
class Watch:
    """What an agent follows."""

    fleet: Fleet | None = None
    desired: Desired | None = None


def test_an_agent_expects_what_it_follows_and_nothing_before_that(tmp_path: Path) -> None:
    watch = Watch()
    reader = FollowedReader(watch)
    with pytest.raises(ConfigError, match="has not read a commit"):
        reader.read()

    for path, text in whole(FILES).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(str(text))
    watch.fleet = read_folder(tmp_path)
    watch.desired = Desired(Commit("a" * 40, "Ada", "Roll", 0.0), "search-1", None, ())
    expected = reader.read()
    assert {item.model for item in expected.deployments} == {"ranker", "speller", "ctr", "old"}
    assert expected.positions == {"a" * 40: 0}
    assert reader.read() is expected
    watch.desired = Desired(Commit("b" * 40, "Ada", "Roll", 0.0), "search-1", None, ())
    assert reader.read().positions == {"b" * 40: 0}
