"""What is kept fresh beside the tick."""

import asyncio
import contextlib
import json
import time
from pathlib import Path

import pytest

from reconciler.model import Member, Query
from reconciler.settings import Settings
from reconciler.sources.registry import Sources
from reconciler.status.peers import Badge
from reconciler.watches import Watches
from tests.bucket import write_files
from tests.gitserver import ConfigRemote


def test_members_are_remembered_until_a_commit_says_whether_they_are_asked_for(
    tmp_path: Path,
) -> None:
    """A node may start with a damaged mirror while the registry is away."""
    remembered = {"groups": {"g": [{"name": "n", "address": "10.0.0.1:8080"}]}}
    (tmp_path / "members.json").write_text(json.dumps(remembered))
    watches = Watches(
        Settings(repo=f"file://{tmp_path}/none.git", node="n", state_dir=tmp_path),
        Sources(),
        Badge("n", "1"),
        clock=time.monotonic,
        wake=lambda: None,
        note_fetch=lambda _: None,
    )
    watches.want_members(None)
    assert watches.members.members == {"g": (Member("n", "10.0.0.1:8080"),)}


async def test_a_source_that_is_woken_is_listed_at_once(tmp_path: Path) -> None:
    write_files(tmp_path / "ranker" / "1")
    query = Query(f"file://{tmp_path}/ranker")
    news = asyncio.Event()
    watches = Watches(
        Settings(repo="none", node="n", state_dir=tmp_path, bucket_interval=3600),
        Sources(),
        Badge("n", "1"),
        clock=time.monotonic,
        wake=news.set,
        note_fetch=lambda _: None,
    )
    watches.want_listings({query: False})
    tasks = watches.follow()
    following = asyncio.create_task(tasks.pop("buckets"))
    for task in tasks.values():
        task.close()
    async with asyncio.timeout(20):
        await news.wait()
        news.clear()
        write_files(tmp_path / "ranker" / "2")
        watches.wake_sources(watches.buckets.find_sources(f"{query.source}/2/saved_model.pb"))
        await news.wait()
    assert set(watches.buckets.available.listings[query].snapshots) == {1, 2}
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


@pytest.mark.parametrize("interval_seconds", [0.0, 3600.0])
async def test_a_fetch_that_failed_is_tried_again_soon_however_rarely_git_is_polled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval_seconds: float
) -> None:
    monkeypatch.setattr("reconciler.watches._LAST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr("reconciler.watches._MIN_FETCH_GAP_SECONDS", 0.0)
    news = asyncio.Event()
    url = f"file://{tmp_path}/fleet.git"
    watches = Watches(
        Settings(repo=url, node="n", state_dir=tmp_path / "s", git_interval=interval_seconds),
        Sources(),
        Badge("n", "1"),
        clock=time.monotonic,
        wake=news.set,
        note_fetch=lambda _: None,
    )
    tasks = watches.follow()
    following = asyncio.create_task(tasks.pop("git"))
    for task in tasks.values():
        task.close()
    async with asyncio.timeout(20):
        await news.wait()
        assert watches.git.trouble is not None
        news.clear()
        remote = ConfigRemote(tmp_path)
        remote.commit({"groups/g.yaml": "nodes: [n]\n"})
        while watches.git.desired is None:
            await news.wait()
            news.clear()
    assert watches.git.fetch_trouble is None
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
