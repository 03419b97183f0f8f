"""A node at rest is silent."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from reconciler.agent import Agent
from reconciler.model import ServerConfig
from reconciler.settings import load_settings
from reconciler.single_pass import run_once
from tests.e2e.stage import GROUP, Stage, deployment
from tests.faultproxy import run_proxy

TICKS = 1000
_GRPCS_QUEUE = "PollerCompletionQueue._handle_events"


async def test_a_thousand_ticks_write_nothing_ask_nothing_and_say_nothing(
    make_stage: Callable[..., Stage],
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = make_stage()
    node.publish("ranker", 1)
    node.publish("ranker", 2)
    node.publish("speller", 1)
    node.commit(
        {"groups/g.yaml": GROUP},
        deployment("ranker", 1, labels={"stable": 1, "canary": 2}),
        deployment("speller", "latest"),
    )
    await asyncio.to_thread(node.start)
    await asyncio.to_thread(node.wait_served, "ranker", 1, 2)
    await asyncio.to_thread(node.wait_served, "speller", 1)
    await asyncio.to_thread(node.stop_agent)
    async with run_proxy(endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        environment = {**node.environment(), "RECONCILER_BUCKET_INTERVAL": "1s"}
        agent = Agent(load_settings({}, environment))
        reloads: list[ServerConfig] = []
        reload = agent._client.reload

        async def counted(config: ServerConfig, deadline_seconds: float) -> None:
            reloads.append(config)
            await reload(config, deadline_seconds)

        monkeypatch.setattr(agent._client, "reload", counted)
        assert await run_once(agent, 30)
        assert len(reloads) == 1, "a new connection is told once what it serves"
        before = node.config_file.stat()
        connection = asyncio.create_task(agent.keep_connection())
        with caplog.at_level(logging.INFO):
            for number in range(TICKS):
                if number % 100 == 0:
                    await agent.watches.git.poll()
                    agent.watches.buckets.hasten_all()
                    await agent.watches.buckets.refresh()
                await agent.tick()
                assert agent.plan is not None
                assert agent.plan.converged
        connection.cancel()
        await agent.close()
        # gRPC has one queue for all loops of a process, and complains on this one of an answer to
        # a loop that an earlier test has closed.
        own = [each for each in caplog.records if _GRPCS_QUEUE not in each.getMessage()]
        assert own == []
        assert len(reloads) == 1
        after = node.config_file.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert {request.method for request in proxy.requests} == {"GET"}
        assert not proxy.reads
        assert all("speller" in request.decoded for request in proxy.listings), (
            "an installed pin costs nothing"
        )


async def test_a_locked_version_is_listed_once_and_never_again(
    stage: Stage, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.publish("ranker", 1)
    stage.publish("speller", 1)
    stage.commit({"groups/g.yaml": GROUP}, deployment("speller", "latest"))
    await asyncio.to_thread(stage.run_command, "lock")
    stage.commit({}, subject="Lock")
    await asyncio.to_thread(stage.start)
    await asyncio.to_thread(stage.wait_served, "speller", 1)
    await asyncio.to_thread(stage.stop_agent)
    stage.commit(deployment("ranker", "latest"))
    await asyncio.to_thread(stage.run_command, "lock")
    stage.commit({}, subject="Lock the ranker")
    async with run_proxy(endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        environment = {**stage.environment(), "RECONCILER_BUCKET_INTERVAL": "1ms"}
        agent = Agent(load_settings({}, environment))
        assert await run_once(agent, 30)
        assert [request.is_listing for request in proxy.requests].count(True) == 1
        assert "&prefix=ranker/1&" in proxy.listings[0].decoded
        reads = len(proxy.reads)
        for _ in range(50):
            agent.sync()
            await agent.watches.buckets.refresh()
            await agent.tick()
        await agent.close()
        assert (len(proxy.listings), len(proxy.reads)) == (1, reads)
