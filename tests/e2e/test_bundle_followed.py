"""A node that follows a bundle in a bucket, and never asks the git server."""

import asyncio
from collections.abc import Callable

from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.gitserver import git
from tests.pubsub import SUBSCRIPTION, run_local, written

NAME = "fleet.bundle"


def follow_bundle(stage: Stage, **settings: str) -> str:
    """Have the stage's agent follow a bundle in the stage's bucket, and return its URL."""
    url = f"gs://{stage.bucket.name}/{NAME}"
    stage.settings = {**stage.settings, "RECONCILER_REPO": url, **settings}
    return url


def test_a_node_follows_merges_and_reverts_while_the_git_server_is_away(stage: Stage) -> None:
    url = follow_bundle(stage)
    stage.publish("ranker", 1)
    stage.publish("ranker", 2)
    stage.commit({"groups/g.yaml": GROUP}, deployment("ranker", 1))
    stage.run_command("bundle", url)
    stage.start()
    stage.wait_served("ranker", 1)
    second = stage.commit(deployment("ranker", 2))
    stage.run_command("bundle", url)
    stage.wait_served("ranker", 2)
    git("revert", "--no-edit", "HEAD", cwd=stage.remote.work)
    stage.remote.push()
    stage.run_command("bundle", url)
    away = stage.remote.bare.rename(stage.remote.bare.with_name("away.git"))
    stage.wait_served("ranker", 1)
    assert stage.stop_agent() == 0
    stage.start_agent()
    wait_until(lambda: stage.condition("GitReachable").get("holds"), "a look at the bundle")
    stage.wait_served("ranker", 1)
    away.rename(stage.remote.bare)
    assert second not in str(stage.status()["applied"])


def test_a_bundle_that_cannot_be_followed_leaves_all_as_it_is(stage: Stage) -> None:
    url = follow_bundle(stage)
    stage.publish("ranker", 1)
    stage.publish("ranker", 2)
    stage.commit({"groups/g.yaml": GROUP}, deployment("ranker", 1))
    stage.run_command("bundle", url)
    stage.start()
    stage.wait_served("ranker", 1)
    stage.bucket.put(NAME, b"<html>Sign in</html>")
    wait_until(
        lambda: stage.condition("GitReachable").get("reason") == "BundleDamaged",
        "the trouble in /status",
    )
    assert "is no git bundle" in stage.condition("GitReachable")["sentence"]
    assert stage.serving("ranker") == {1}
    stage.commit(deployment("ranker", 2))
    stage.bucket.delete(NAME)
    stage.run_command("bundle", url)
    stage.wait_served("ranker", 2)
    wait_until(lambda: stage.condition("GitReachable").get("holds"), "the end of the trouble")


async def test_a_notification_wakes_the_look_at_the_bundle(
    make_stage: Callable[..., Stage],
) -> None:
    async with run_local() as local:
        stage = make_stage(
            settings={
                "RECONCILER_GIT_INTERVAL": "1h",
                "RECONCILER_PUBSUB_SUBSCRIPTION": SUBSCRIPTION,
                "PUBSUB_EMULATOR_HOST": local.host,
            }
        )
        url = follow_bundle(stage)
        stage.publish("ranker", 1)
        stage.publish("ranker", 2)
        stage.commit({"groups/g.yaml": GROUP}, deployment("ranker", 1))
        await asyncio.to_thread(stage.run_command, "bundle", url)
        await asyncio.to_thread(stage.start)
        await asyncio.to_thread(stage.wait_served, "ranker", 1)
        stage.commit(deployment("ranker", 2))
        await asyncio.to_thread(stage.run_command, "bundle", url)
        await local.publish([written(f"{url}.old"), written(url)])
        await asyncio.to_thread(stage.wait_served, "ranker", 2)
        assert await asyncio.to_thread(stage.stop_agent) == 0
