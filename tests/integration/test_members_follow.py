"""Commits and registries come in any order; a node follows as soon as both are known."""

import asyncio
import json
from pathlib import Path

import pytest

from reconciler.config_repo.desired import ConfigRepo
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from reconciler.follow.trust import Trust
from reconciler.follow.watch import GitWatch
from reconciler.model import Member, Unavailable
from reconciler.settings import Settings
from tests.gitserver import ConfigRemote

BY_GIT = json.dumps({"nodes": ["n"]})
BY_DNS = json.dumps({"nodes": {"dns": "tasks.agents", "port": 8080}})
MEMBERS = (Member("n", "10.0.0.1:8080"), Member("o", "10.0.0.2:8080"))
RANKER = "source: gs://models/ranker\nversion: 1\n"


@pytest.fixture
def remote(tmp_path: Path) -> ConfigRemote:
    return ConfigRemote(tmp_path)


def make_watch(remote: ConfigRemote, folder: Path) -> GitWatch:
    settings = Settings(repo=remote.url, node="n", state_dir=folder / "state")
    mirror = Mirror(MirrorSettings.of(settings))
    repo = ConfigRepo(mirror, "n", settings.state_dir)
    return GitWatch(mirror, repo, Trust(mirror, repo, settings))


def find_groups(watch: GitWatch) -> dict[str, bool]:
    """Return each group that members are kept for, and whether a registry has them."""
    return {group.name: group.membership is not None for group in watch.groups}


def test_a_group_that_goes_over_to_a_registry_is_followed_once_its_members_are_known(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    async def play() -> None:
        watch = make_watch(remote, tmp_path)
        first = remote.commit({"groups/g.yaml": BY_GIT, "deployments/g/ranker.yaml": RANKER})
        await watch.poll()
        second = remote.commit({"groups/g.yaml": BY_DNS})
        await watch.poll()
        assert watch.desired is not None
        assert watch.desired.commit.id == first
        assert watch.trouble is not None
        assert "whether node n is in group g cannot be told" in watch.trouble.sentence
        assert find_groups(watch) == {"g": True}

        assert await watch.set_members({"g": MEMBERS}, {})
        assert find_groups(watch) == {"g": True}
        assert watch.desired.commit.id == second
        assert watch.desired.group is not None
        assert watch.desired.group.nodes == MEMBERS
        assert watch.trouble is None  # nobody has to push again where nobody polls

    asyncio.run(play())


def test_a_node_that_starts_away_from_git_says_so_once_its_group_is_known(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    async def play() -> None:
        remote.commit({"groups/g.yaml": BY_DNS, "deployments/g/ranker.yaml": RANKER})
        await make_watch(remote, tmp_path).poll()  # it brings the mirror here
        remote.bare.rename(tmp_path / "away")
        watch = make_watch(remote, tmp_path)
        await watch.restore()
        assert find_groups(watch) == {"g": True}
        assert await watch.set_members({"g": MEMBERS}, {})
        assert watch.desired is not None
        assert watch.trouble is not None
        assert watch.trouble.reason == "Stale"
        await watch.poll()
        fetched = watch.trouble
        assert await watch.set_members({"g": MEMBERS[:1]}, {})
        assert (watch.trouble, watch.trouble.reason) == (fetched, "RepositoryNotFound")

    asyncio.run(play())


def test_a_commit_of_an_unknown_group_that_is_taken_back_is_forgotten(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    async def play() -> None:
        watch = make_watch(remote, tmp_path)
        remote.commit({"groups/g.yaml": BY_GIT, "deployments/g/ranker.yaml": RANKER})
        await watch.poll()
        remote.commit({"groups/g.yaml": BY_DNS})
        await watch.poll()
        third = remote.commit({"groups/g.yaml": BY_GIT})
        await watch.poll()
        await watch.set_members({"g": MEMBERS}, {})
        assert watch.desired is not None
        assert (watch.desired.commit.id, watch.trouble) == (third, None)
        assert find_groups(watch) == {"g": False}

    asyncio.run(play())


def test_a_bug_in_placing_nodes_leaves_the_node_as_it_is(
    remote: ConfigRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        watch = make_watch(remote, tmp_path)
        remote.commit({"groups/g.yaml": BY_GIT, "deployments/g/ranker.yaml": RANKER})
        await watch.poll()
        before = watch.desired

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a weight nobody thought of")

        monkeypatch.setattr("reconciler.config_repo.desired.choose_desired", fail)
        assert await watch.set_members({}, {"h": Unavailable("RegistryEmpty", "it lists no node")})
        assert watch.desired is before
        assert watch.members_trouble is not None
        assert watch.members_trouble.reason == "Bug"

    asyncio.run(play())
