"""Asking a real server about many models, a share at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import grpc
import pytest

from reconciler.demo.services import free_port
from reconciler.errors import ServingError
from reconciler.model import State
from reconciler.rotation import ROUND_SECONDS
from reconciler.serving.client import ServingClient
from reconciler.serving.sweep import Sweep
from tests.scriptedserver import ScriptedServer, serve_models

MODELS = frozenset(f"model-{number:03d}" for number in range(200))
DEADLINE_SECONDS = 20


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(port: int) -> Iterator[ScriptedServer]:
    server = ScriptedServer(configured={model: [1] for model in MODELS})
    with serve_models(server, port):
        yield server


@pytest.fixture
async def client(port: int) -> AsyncIterator[ServingClient]:
    client = ServingClient(f"127.0.0.1:{port}", "/models")
    task = asyncio.create_task(client.watch_connection())
    yield client
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await client.close()


async def connect(client: ServingClient, connection: int = 1) -> None:
    """Wait until the client has made its n-th connection."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            with suppress(ServingError):
                await client.read(["model-000"])
                if client.connection >= connection:
                    return
            await asyncio.sleep(0.01)


async def test_the_first_look_asks_for_all_and_later_ones_for_a_share(
    server: ScriptedServer, client: ServingClient
) -> None:
    clock = Clock()
    sweep = Sweep(client, clock)
    await connect(client)
    server.status_calls = 0
    first = await sweep.look(MODELS, ())
    assert first.models.keys() == MODELS
    assert server.status_calls == len(MODELS)
    clock.now += ROUND_SECONDS / 100
    second = await sweep.look(MODELS, ())
    assert server.status_calls == len(MODELS) + 2
    assert second.models is first.models
    assert second.fresh is not None
    assert len(second.fresh) == 2


async def test_what_changes_is_seen_at_once_where_it_is_urgent_and_within_a_round_else(
    server: ScriptedServer, client: ServingClient
) -> None:
    clock = Clock()
    sweep = Sweep(client, clock)
    await connect(client)
    first = await sweep.look(MODELS, ())
    server.configured |= {"model-007": [1, 2], "model-008": [2]}
    clock.now += 0.001
    second = await sweep.look(MODELS, ["model-007"])
    assert second.models["model-007"].keys() == {1, 2}
    assert second.is_fresh("model-007")
    others = MODELS - {"model-007", "model-008"}
    assert all(second.models[model] is first.models[model] for model in others)
    for _ in range(101):
        clock.now += ROUND_SECONDS / 100
        last = await sweep.look(MODELS, ())
    assert last.models["model-008"].keys() == {2}


async def test_half_a_picture_is_none(server: ScriptedServer, client: ServingClient) -> None:
    sweep = Sweep(client, Clock())
    await connect(client)
    server.is_broken = True
    with pytest.raises(ServingError):
        await sweep.look(MODELS, ())
    server.is_broken = False
    found = await sweep.look(MODELS, ())
    assert found.models.keys() == MODELS
    assert found.fresh == MODELS


async def test_what_a_look_that_failed_has_asked_comes_first_in_the_next(
    server: ScriptedServer, client: ServingClient
) -> None:
    clock = Clock()
    sweep = Sweep(client, clock)
    await connect(client)
    await sweep.look(MODELS, ())
    server.is_broken = True
    clock.now += ROUND_SECONDS / 20
    with pytest.raises(ServingError):
        await sweep.look(MODELS, ())
    server.is_broken = False
    clock.now += 0.001
    found = await sweep.look(MODELS, ())
    assert found.fresh is not None
    assert len(found.fresh) == len(MODELS) / 20 + 1


async def test_of_a_look_that_failed_no_question_stays_open(
    server: ScriptedServer, client: ServingClient
) -> None:
    await connect(client)
    server.is_broken = True
    before = asyncio.all_tasks()
    with pytest.raises(ServingError):
        await client.read(MODELS)
    assert asyncio.all_tasks() == before


async def test_a_model_that_nobody_asks_about_any_more_is_forgotten(
    server: ScriptedServer, client: ServingClient
) -> None:
    sweep = Sweep(client, Clock())
    await connect(client)
    await sweep.look(MODELS, ())
    fewer = await sweep.look(MODELS - {"model-007"}, ())
    assert fewer.models.keys() == MODELS - {"model-007"}
    again = await sweep.look(MODELS, ())
    assert again.is_fresh("model-007")
    assert again.models["model-007"][1].state is State.AVAILABLE


async def test_a_server_that_was_restarted_is_asked_for_all(port: int) -> None:
    client = ServingClient(f"127.0.0.1:{port}", "/models")
    task = asyncio.create_task(client.watch_connection())
    clock = Clock()
    sweep = Sweep(client, clock)
    with serve_models(ScriptedServer(configured={model: [1] for model in MODELS}), port):
        await connect(client)
        await sweep.look(MODELS, ())
    with pytest.raises(ServingError):
        await sweep.look(MODELS, ["model-000"])
    with serve_models(ScriptedServer(configured={model: [2] for model in MODELS}), port):
        await connect(client, connection=2)
        clock.now += 0.001
        after = await sweep.look(MODELS, ())
    assert all(after.models[model].keys() == {2} for model in MODELS)
    assert after.fresh == MODELS
    task.cancel()
    await client.close()


async def test_a_server_that_was_restarted_while_nobody_looked_is_another_one(port: int) -> None:
    client = ServingClient(f"127.0.0.1:{port}", "/models")
    task = asyncio.create_task(client.watch_connection())
    with serve_models(ScriptedServer(configured={"model-000": [1]}), port):
        await connect(client)
        before = client.connection
    # The event loop stands still meanwhile, as while a plan is made for thousands of models.
    with serve_models(ScriptedServer(configured={"model-000": [2]}), port):
        wait_for_state(client, grpc.ChannelConnectivity.READY)
        await connect(client, connection=before + 1)
        assert client.connection == before + 1
    task.cancel()
    await client.close()


def wait_for_state(client: ServingClient, state: grpc.ChannelConnectivity) -> None:
    """Wait without letting the event loop go on."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while client._channel.get_state(try_to_connect=True) is not state:
        assert time.monotonic() < deadline
        time.sleep(0.01)
