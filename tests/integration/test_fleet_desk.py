"""The desk: it asks while somebody looks, rolls up once for all, and takes nothing old for new."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from reconciler.errors import ConfigError
from reconciler.fleet.desk import LOOKS_ON_SECONDS, FleetDesk
from reconciler.fleet.expected import Expected
from reconciler.fleet.poll import FleetPoller, Target
from tests.fleetnodes import Answer, body, outcome, report, saying, serving

DEADLINE_SECONDS = 20.0


class Clock:
    """Time that passes, and can be set ahead."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_seconds


class Node:
    """A node that counts how often it is asked, and answers as told."""

    def __init__(self) -> None:
        self.asked = 0
        self.held_up = threading.Event()
        self.held_up.set()

    def find(self, path: str) -> Answer:
        if not path.startswith("/status"):
            return saying(b'{"changes": []}')
        self.asked += 1
        made = report("search-1", [outcome("ranker")], {"ranker": ["search-1"]})

        def answer(request: BaseHTTPRequestHandler) -> None:
            self.held_up.wait(DEADLINE_SECONDS)
            saying(body(replace(made, generated_at_seconds=time.time())))(request)

        return answer


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not is_so():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(desk: FleetDesk) -> AsyncIterator[None]:
    task = asyncio.create_task(desk.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled(), task.exception()


def expecting(*addresses: str) -> Expected:
    return Expected(tuple(map(Target, addresses)), (), {})


async def look(desk: FleetDesk) -> dict[str, Any]:
    view: dict[str, Any] = json.loads((await desk.read_page()).body)
    return view


async def test_nodes_are_asked_only_while_somebody_looks() -> None:
    node, clock = Node(), Clock()
    with serving([node.find]) as (address,):
        poller = FleetPoller(clock=clock)
        desk = FleetDesk(lambda: expecting(address), "here", has_git=False, poller=poller)
        async with running(desk):
            # One turn of the loop for `run` to come to where it waits for a look.
            await asyncio.sleep(0)
            assert node.asked == 0
            view = await look(desk)
            assert (view["state"], view["seen_from"]) == ("well", "here")
            assert node.asked == 1
            await until(lambda: node.asked >= 2)  # it goes on without a second look

            clock.ahead_seconds = LOOKS_ON_SECONDS + 1
            await until(lambda: not poller.sightings)
            asked = node.asked

            node.held_up.clear()
            again = await look(desk)  # nobody has answered yet: what was so then is not so now
            assert [item["state"] for item in again["nodes"]] == ["unasked"]
            node.held_up.set()
            await until(lambda: bool(poller.sightings) and poller.sightings[0].answer is not None)
            assert node.asked > asked


async def test_the_first_look_does_not_wait_for_a_node_that_is_slow() -> None:
    quick, slow = Node(), Node()
    slow.held_up.clear()
    with serving([quick.find, slow.find]) as addresses:
        desk = FleetDesk(lambda: expecting(*addresses), "here", has_git=False)
        try:
            async with running(desk):
                view = await look(desk)
                assert sorted(node["state"] for node in view["nodes"]) == ["unasked", "well"]
                assert view["state"] == "well"
        finally:
            slow.held_up.set()


async def test_many_lookers_share_one_roll_up() -> None:
    with serving([Node().find]) as (address,):
        desk = FleetDesk(lambda: expecting(address), "here", has_git=False, always=True)
        async with running(desk):
            pages = await asyncio.gather(*(desk.read_page() for _ in range(20)))
    assert all(page is pages[0] for page in pages)


async def test_nodes_known_before_go_on_being_asked_while_git_cannot_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    node, fails = Node(), False

    def read() -> Expected:
        if fails:
            raise ConfigError("groups/ cannot be read")
        return expecting(address)

    with serving([node.find]) as (address,):
        desk = FleetDesk(read, "here", has_git=False)
        await desk.ask()
        fails = True
        await desk.ask()
        await desk.ask()
    assert node.asked == 3
    assert [record.getMessage() for record in caplog.records] == [
        "the fleet's nodes are those known before: groups/ cannot be read"
    ]
