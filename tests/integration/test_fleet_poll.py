"""Asking real servers: each is its own trouble, and what one says never hides another."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from reconciler.fleet import poll
from reconciler.fleet.nodes import Now
from reconciler.fleet.poll import FleetPoller, Sighting, Target
from reconciler.fleet.roll_up import roll_up
from reconciler.fleet.view import FleetView, NodeState
from reconciler.model import Deployment, Outcome, Phase
from reconciler.status.access import Access
from reconciler.status.board import StatusBoard
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.report import NodeReport
from reconciler.status.server import StatusServer
from tests.fleetnodes import (
    NEW,
    WALL_SECONDS,
    Answer,
    body,
    node_saying,
    outcome,
    report,
    saying,
    serving,
)

DEADLINE_SECONDS = 20.0


@pytest.fixture
async def poller() -> AsyncIterator[FleetPoller]:
    made = FleetPoller(wall_clock=lambda: WALL_SECONDS)
    yield made
    await made.stop()


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    monkeypatch.setattr(poll, "DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(poll, "_HANGS_AFTER_SECONDS", 0.6)


def find(poller: FleetPoller, address: str) -> Sighting:
    (found,) = [s for s in poller.sightings if s.target.address == address]
    return found


def view_of(poller: FleetPoller) -> FleetView:
    return roll_up(poller.sightings, None, Now(poller.clock(), WALL_SECONDS), "here")


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b" " * 65536)


def dripping(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b" ")
        request.wfile.flush()
        threading.Event().wait(0.05)


@contextmanager
def dead_address() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def test_no_node_hides_another_however_it_misbehaves(poller: FleetPoller) -> None:
    ranker = outcome("ranker")
    holders = {"ranker": ["search-1"]}
    answers: list[Callable[[str], Answer]] = [
        node_saying(lambda: report("search-1", [ranker], holders)),
        lambda _: endless,
        lambda _: dripping,
        lambda _: saying(b"<html>"),
        lambda _: saying(b'{"error": "There is no report yet."}', 503),
        lambda _: saying(b"[" * 100_000),
    ]
    with serving(answers) as addresses, dead_address() as dead:
        poller.follow(Target(address) for address in [*addresses, dead, "127.0.0.1:1"])
        await asyncio.wait_for(poller.ask_all(), DEADLINE_SECONDS)
        troubles = [find(poller, address).trouble or "" for address in [*addresses, dead]]
        refused = find(poller, "127.0.0.1:1").trouble or ""
    assert troubles[0] == ""
    # How far an endless answer gets within the deadline depends on the machine.
    assert "more than 16 MiB" in troubles[1] or "within 3 s" in troubles[1]
    assert "within 3 s" in troubles[2]
    assert "is not a reconciler's status" in troubles[3]
    assert "answered 503: There is no report yet." in troubles[4]
    assert "is not a reconciler's status" in troubles[5]
    assert "within 3 s" in troubles[6]
    assert "refused" in refused
    view = view_of(poller)
    assert [(item.model, item.available_replicas) for item in view.deployments] == [("ranker", 1)]
    assert view.counts.nodes[NodeState.DEAD] == 7
    assert view.counts.nodes[NodeState.WELL] == 1


async def test_a_node_that_dies_keeps_its_last_word_and_comes_back(poller: FleetPoller) -> None:
    is_dead = threading.Event()
    alive = node_saying(lambda: report("search-1", [outcome("ranker")]))

    def answer(path: str) -> Answer:
        return saying(b"", 500) if is_dead.is_set() else alive(path)

    with serving([answer]) as (address,):
        poller.follow([Target(address)])
        await poller.ask_all()
        first = find(poller, address)
        is_dead.set()
        await poller.ask_all()
        silent = find(poller, address)
        is_dead.clear()
        await poller.ask_all()
        back = find(poller, address)
    assert first.trouble is None
    assert silent.trouble is not None
    assert (silent.answer, silent.answered_at) == (first.answer, first.answered_at)
    assert back.trouble is None
    assert (back.answered_at or 0) > (first.answered_at or 0)
    assert back.restarts == 0


async def test_restarts_are_counted_and_two_agents_behind_one_address_found(
    poller: FleetPoller,
) -> None:
    instance = "first"
    made = node_saying(lambda: report("search-1", instance=instance))
    with serving([made]) as (address,):
        poller.follow([Target(address)])
        seen = []
        for next_instance in ("first", "first", "second", "second", "third"):
            instance = next_instance
            await poller.ask_all()
            seen.append((find(poller, address).restarts, find(poller, address).has_namesake))
        assert seen == [(0, False), (0, False), (1, False), (1, False), (2, False)]
        instance = "second"  # no agent that is gone comes back
        await poller.ask_all()
        assert find(poller, address).has_namesake


async def test_a_clock_that_is_an_hour_ahead_is_measured(poller: FleetPoller) -> None:
    made = report("search-1", generated_at_seconds=WALL_SECONDS + 3600)
    with serving([node_saying(lambda: made)]) as (address,):
        poller.follow([Target(address)])
        await poller.ask_all()
        assert find(poller, address).clock_ahead_seconds == pytest.approx(3600)


async def test_history_is_asked_for_when_something_changed_and_may_fail(
    poller: FleetPoller,
) -> None:
    phase, asked = Phase.DEPLOYING, []
    change = {
        "time": "2026-03-01T09:30:00.000Z",
        "commit": {"id": NEW.id},
        "model": "ranker",
        "to": 42,
        "result": "deployed",
        "reason": "Serving",
        "commit_to_serving_seconds": 4.0,
    }
    history = saying(json.dumps({"changes": [change]}).encode())

    def answer(path: str) -> Answer:
        if path.startswith("/history"):
            asked.append(path)
            return history
        return saying(body(report("search-1", [outcome("ranker", phase)])))

    with serving([answer]) as (address,):
        poller.follow([Target(address)])
        await poller.ask_all()
        await poller.ask_all()
        assert asked == ["/history?limit=20"]
        phase = Phase.DEPLOYED
        await poller.ask_all()
        assert len(asked) == 2
        phase, history = Phase.FAILED, saying(b"no", 500)
        await poller.ask_all()
        sighting = find(poller, address)
    assert [item.model for item in sighting.changes] == ["ranker"]
    assert sighting.trouble is None


@pytest.mark.usefixtures("_short")
async def test_a_thread_that_hangs_gets_no_second_one_beside_it(
    poller: FleetPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, release = [], threading.Event()

    def hang(url: str, deadline_seconds: float, *, access: Access) -> bytes:
        calls.append(url)  # as a name server makes it, beyond every deadline of a socket
        release.wait(DEADLINE_SECONDS)
        return body(report("search-1"))

    monkeypatch.setattr(poll, "fetch_status", hang)
    poller.follow([Target("search-1:8080")])
    try:
        for _ in range(3):
            await poller.ask_all()
        assert calls == ["search-1:8080"]
        assert "has not been found within 0.6 s" in (poller.sightings[0].trouble or "")
    finally:
        release.set()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while poller.sightings[0].trouble is not None:
            await asyncio.sleep(0.01)
    assert poller.sightings[0].answer is not None


async def test_an_answer_that_nobody_thought_of_is_that_nodes_trouble(
    poller: FleetPoller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving([node_saying(lambda: report("a"))]) as (address,):
        poller.follow([Target(address)])
        await poller.ask_all()
        monkeypatch.setattr(poll, "read_answer", lambda body: {}[body])
        await poller.ask_all()
    assert find(poller, address).trouble == f"{address} could not be asked (KeyError)"
    assert "please report it as a bug" in caplog.text


async def test_what_is_known_of_nodes_that_stay_is_kept(poller: FleetPoller) -> None:
    made = [node_saying(lambda: report("a")), node_saying(lambda: report("b"))]
    with serving(made) as (one, other):
        poller.follow([Target(one)])
        await poller.ask_all()
        poller.follow([Target(one), Target(other), Target(None, "c", "search")])
        assert [sighting.answer is None for sighting in poller.sightings] == [False, True, True]
        await poller.ask_all()
        assert [sighting.answer is None for sighting in poller.sightings] == [False, False, True]


async def test_300_nodes_with_1000_deployments_are_asked_at_once(
    poller: FleetPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Client and server of all 300 share the processors of one machine here.
    monkeypatch.setattr(poll, "DEADLINE_SECONDS", 15.0)
    monkeypatch.setattr(poll, "_HANGS_AFTER_SECONDS", 18.0)
    groups = [f"g{number}" for number in range(10)]
    reports = [_big_report(group, number) for group in groups for number in range(30)]
    bodies = {f"/{made.node}/status": body(made) for made in reports}

    def answer(path: str) -> Answer:
        return saying(bodies.get(path, b'{"changes": []}'))

    with serving([answer]) as (address,):
        targets = [Target(f"http://{address}/{made.node}", made.node) for made in reports]
        poller.follow([*targets, Target("127.0.0.1:1", "dead-1")])
        await asyncio.wait_for(poller.ask_all(), DEADLINE_SECONDS)
    view = view_of(poller)
    assert view.counts.nodes == {
        NodeState.WELL: 300,
        NodeState.TROUBLE: 0,
        NodeState.DEAD: 1,
        NodeState.UNASKED: 0,
    }
    assert len(view.deployments) == 1000
    assert {item.available_replicas for item in view.deployments} == {5}


def _big_report(group: str, number: int) -> NodeReport:
    """One of 30 nodes, on which every model of its group that comes to it by turns is served."""
    models = [f"m{index}" for index in range(100)]
    names = [f"{group}-{index}" for index in range(30)]
    holders = {
        model: [names[(index * 5 + turn) % 30] for turn in range(5)]
        for index, model in enumerate(models)
    }
    own = [outcome(m, group=group) for m in models if f"{group}-{number}" in holders[m]]
    return report(f"{group}-{number}", own, holders, group=group)


async def test_what_a_real_node_says_is_read_over_its_real_endpoint(
    poller: FleetPoller, tmp_path: Path
) -> None:
    board = StatusBoard(
        Journal(tmp_path / "history.jsonl"),
        Metrics("0.1.0"),
        lambda: None,
        heartbeat_limit_seconds=30,
    )
    deployment = Deployment("ranker", "search", "deployments/search/ranker.yaml", "gs://b/r", 42)
    served = Outcome(deployment, Phase.DEPLOYED, "Serving", "version 42 serves", 42, (42,))
    await board.publish(report("search-1", [served], {"ranker": ["search-1"]}))
    server = StatusServer(board, "127.0.0.1:0")
    task = asyncio.create_task(server.serve())
    try:
        poller.follow([Target(f"127.0.0.1:{server.port}", "search-1", "search")])
        async with asyncio.timeout(DEADLINE_SECONDS):
            while poller.sightings[0].answer is None:
                await poller.ask_all()
    finally:
        server.stop()
        await asyncio.wait_for(task, DEADLINE_SECONDS)
    view = view_of(poller)
    assert view.deployments[0].sentence == "1 of 1 replicas serve version 42"
    assert [(item.model, item.result, item.nodes) for item in view.changes] == [
        ("ranker", "deployed", ("search-1",))
    ]
