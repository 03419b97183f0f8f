"""What is kept fresh beside the tick."""

import asyncio
import contextlib
import json
import time
from pathlib import Path

from reconciler.model import Member, Query
from reconciler.settings import Settings
from reconciler.sources.registry import Sources
from reconciler.status.peers import Badge
from reconciler.watches import Watches
from tests.bucket import write_files


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
