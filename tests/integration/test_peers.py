"""What an agent learns over real sockets of others that are well, ill, or no agents at all."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.model import (
    Commit,
    Deployment,
    Desired,
    Group,
    Member,
    Outcome,
    Phase,
    Unavailable,
)
from reconciler.planning.peers import (
    NO_ADDRESS,
    Peer,
    PeerModel,
    ServerStanding,
    ServerState,
    ask_of,
)
from reconciler.status.board import StatusBoard
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.peers import NAME_TAKEN, WRONG_ADDRESS, Badge, PeerWatch
from reconciler.status.report import NodeReport
from reconciler.status.server import StatusServer

COMMIT = Commit("1a2b3c4d5e6f", "Ada Lovelace", "Roll ranker out", 990.0)
RANKER = Deployment("ranker", "search", "deployments/search/ranker.yaml", "gs://b/ranker", 42)
ME = Badge("search-1", "mine")


def report(node: str, instance: str = "other") -> NodeReport:
    outcome = Outcome(
        RANKER, Phase.DEPLOYED, "Serving", "serves version 42", 42, (42,), deployed_since=2.5
    )
    return NodeReport(
        node,
        "search",
        "0",
        0,
        1,
        True,
        "did",
        outcomes=(outcome,),
        instance=instance,
        clock_seconds=10.0,
    )


@asynccontextmanager
async def running_node(
    tmp_path: Path, node: str, instance: str = "other"
) -> AsyncIterator[tuple[str, StatusBoard]]:
    board = StatusBoard(
        Journal(tmp_path / f"{node}-{instance}"),
        Metrics("0"),
        lambda: None,
        badge=str(Badge(node, instance)),
        heartbeat_limit_seconds=60,
    )
    await board.publish(report(node, instance))
    server = StatusServer(board, "127.0.0.1:0")
    task = asyncio.create_task(server.serve())
    try:
        yield f"127.0.0.1:{server.port}", board
    finally:
        server.stop()
        await asyncio.wait_for(task, 10)


@contextmanager
def answering(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that says to one who asks whatever `talk` says."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(20)


def drip(connection: socket.socket) -> None:
    """Send a body that never ends."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{")
    try:
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)
    except OSError:
        pass


def say(body: bytes) -> Callable[[socket.socket], None]:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    return lambda connection: connection.sendall(head + body)


def ask_for(*members: Member) -> Desired:
    group = Group("search", "groups/search.yaml", members)
    return Desired(COMMIT, "search-1", group, ())


async def test_each_is_asked_by_itself_and_trouble_is_one_nodes_own(tmp_path: Path) -> None:
    watch = PeerWatch(ME, time.monotonic)
    with answering(drip) as endless, answering(say(b'{"node": 1}')) as garbage:
        async with running_node(tmp_path, "search-2") as (address, board):
            members = (
                Member("search-1"),
                Member("search-2", address),
                Member("search-3", endless),
                Member("search-4", garbage),
                Member("search-5", "127.0.0.1:1"),
                Member("search-6"),
                Member("search-7", address),
                Member("search-8", address),
            )
            names = [member.name for member in members[1:7]]
            assert watch.want(ask_for(*members), names)
            waits = not watch.answered
            assert waits
            assert await watch.refresh()
            was_met = board.has_namesake
    assert not was_met
    assert watch.answered
    assert watch.peers["search-2"] == Peer(
        "search-2",
        {
            "ranker": PeerModel(
                ask_of(RANKER), Phase.DEPLOYED, "Serving", 42, (42,), 7.5, "serves version 42"
            )
        },
    )
    reasons = {
        node: found.reason for node, found in watch.peers.items() if isinstance(found, Unavailable)
    }
    assert reasons == {
        **dict.fromkeys(("search-3", "search-4", "search-5"), "NoStatus"),
        "search-6": NO_ADDRESS,
        "search-7": WRONG_ADDRESS,
    }
    wrong = watch.peers["search-7"]
    assert isinstance(wrong, Unavailable)
    assert f"{address} is to be search-7, but search-2 answers there" in wrong.sentence
    assert watch.namesake is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, ServerStanding("", ServerState.PENDING, "")),
        (b'"server": null', None),
        (
            b'"server": {"ask": "0f", "state": "steady", "sentence": "well"}',
            ServerStanding("0f", ServerState.STEADY, "well"),
        ),
        (b'"server": {"ask": "0f", "state": "new", "sentence": "well"}', "NoStatus"),
        (b'"server": 1', "NoStatus"),
    ],
)
async def test_what_a_node_says_of_its_server(said: bytes | None, expected: object) -> None:
    """An agent of an older release says nothing, which is no word that it is done."""
    report = b'{"node": "search-2", "deployments": []' + (b", " + said if said else b"") + b"}"
    watch = PeerWatch(ME, time.monotonic)
    with answering(say(report)) as address:
        watch.want(ask_for(Member("search-1"), Member("search-2", address)), ["search-2"])
        await watch.refresh()
    found = watch.peers["search-2"]
    assert (found.server if isinstance(found, Peer) else found.reason) == expected


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "-1e999"])
async def test_a_time_that_no_clock_shows_is_no_answer(tmp_path: Path, odd: str) -> None:
    """It would begin a wave too early, or end the agent where it says when the next one begins."""
    board = StatusBoard(
        Journal(tmp_path / "history"), Metrics("0"), lambda: None, heartbeat_limit_seconds=60
    )
    await board.publish(report("search-2"))
    assert board.status is not None
    body = board.status.body
    assert b'"deployed_seconds": 7.5' in body
    watch = PeerWatch(ME, time.monotonic)
    lie = body.replace(b'"deployed_seconds": 7.5', b'"deployed_seconds": ' + odd.encode())
    with answering(say(lie)) as address:
        watch.want(ask_for(Member("search-1"), Member("search-2", address)), ["search-2"])
        await watch.refresh()
    found = watch.peers["search-2"]
    assert isinstance(found, Unavailable)
    assert found.sentence == "what it answers is not a reconciler's status"


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (20, 1), (200, 10)])
async def test_many_are_asked_less_often(count: int, seconds: float) -> None:
    watch = PeerWatch(ME, lambda: 100.0)
    names = [f"search-{number}" for number in range(2, count + 2)]
    watch.want(ask_for(*(Member(name) for name in names)), names)
    assert await watch.refresh()
    assert watch.next_due_seconds() == pytest.approx(seconds)


async def test_who_is_not_wanted_any_more_is_forgotten_and_not_asked(tmp_path: Path) -> None:
    watch = PeerWatch(ME, time.monotonic)
    async with running_node(tmp_path, "search-2") as (address, _):
        asked = ask_for(Member("search-1"), Member("search-2", address))
        watch.want(asked, ["search-2"])
        await watch.refresh()
        assert set(watch.peers) == {"search-2"}
        assert not watch.want(asked, [])
        assert watch.peers == {}
        assert not await watch.refresh()
        assert watch.want(asked, ["search-2"])  # at once, and not what it said before
        assert not watch.answered


async def test_two_agents_of_one_name_both_learn_of_it(tmp_path: Path) -> None:
    watch = PeerWatch(ME, time.monotonic)
    async with running_node(tmp_path, "search-1", "theirs") as (address, board):
        before = board.has_namesake
        assert watch.want(ask_for(Member("search-1", address)), [])
        assert await watch.refresh()
        assert (before, board.has_namesake) == (False, True)
    assert watch.namesake is not None
    assert watch.namesake.reason == NAME_TAKEN
    assert f"calls itself search-1 answers at {address}" in watch.namesake.sentence


async def test_an_agent_is_no_namesake_of_itself(tmp_path: Path) -> None:
    watch = PeerWatch(ME, time.monotonic)
    async with running_node(tmp_path, "search-1", "mine") as (address, board):
        watch.want(ask_for(Member("search-1", address)), [])
        assert not await watch.refresh()
        assert not board.has_namesake
    assert watch.namesake is None


async def test_an_address_that_leads_elsewhere_is_said(tmp_path: Path) -> None:
    watch = PeerWatch(ME, time.monotonic)
    async with running_node(tmp_path, "search-9") as (address, board):
        asked = ask_for(Member("search-1", address))
        watch.want(asked, [])
        await watch.refresh()
        assert not board.has_namesake
    assert watch.namesake is not None
    assert watch.namesake.reason == WRONG_ADDRESS
    watch.want(replace(asked, group=None), [])
    assert watch.namesake is None
