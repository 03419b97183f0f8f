"""The server's container is restarted and replaced through a real socket, and nothing else is.

No engine runs here: tests/dockerengine.py answers in its stead. The last tests are for a real one
and are skipped where there is none.
"""

import asyncio
import itertools
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import ServerSpec
from reconciler.planning.holds import Hold
from reconciler.planning.peers import NO_ADDRESS, ServerState, ask_of_server
from reconciler.planning.supervision import RestartNeed, ServerSight
from reconciler.supervision.container import Container
from reconciler.supervision.engine import ServerEngine
from reconciler.supervision.errors import EngineError
from tests.dockerengine import DockerEngine, Fault, Image, Refusal, docker_engine
from tests.supervised import CALM, LABEL, QUICK, Node

OLD, NEW = "tensorflow/serving:2.19.0", "tensorflow/serving:2.20.0"
UNSTARTABLE, ENDING = "tensorflow/serving:unstartable", "tensorflow/serving:ending"
SILENT = "tensorflow/serving:silent"
PORT_FLAGS = ["--port=8500", "--model_config_file=/models/models.config"]
BODY: dict[str, Any] = {
    "Cmd": [*PORT_FLAGS, "--enable_batching=true"],
    "Labels": {LABEL: "", "team": "search"},
    "Env": ["MINE=1"],
    "HostConfig": {
        "Binds": ["/srv/models:/models"],
        "PortBindings": {"8500/tcp": [{"HostIp": "", "HostPort": "8500"}]},
        "RestartPolicy": {"Name": "unless-stopped"},
    },
}
IMAGE_CONFIG = {"Env": ["PATH=/bin"], "Labels": {"maintainer": "tf"}, "Entrypoint": ["/serve.sh"]}
POISONED = RestartNeed("ServerPoisoned", None)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DockerEngine]:
    with docker_engine(tmp_path) as engine:
        for reference in (OLD, NEW, SILENT):
            engine.add_image(Image(reference, config=IMAGE_CONFIG))
        engine.add_image(Image(UNSTARTABLE, starts=False))
        engine.add_image(Image(ENDING, ["false"]))
        yield engine


@pytest.fixture
def node(engine: DockerEngine, tmp_path: Path) -> Node:
    engine.run("serving", OLD, BODY)
    engine.run("bystander", OLD, {"Labels": {"team": "ads"}})
    return Node(engine, tmp_path, "follow")


@pytest.fixture(autouse=True)
def nobody_else_is_touched(engine: DockerEngine) -> Iterator[None]:
    yield
    assert all(LABEL in labels for labels in engine.touched)
    assert all(b.status == "running" for b in engine.boxes.values() if b.name == "bystander")


# --- replacing ----------------------------------------------------------------------------


async def test_another_image_takes_the_place_of_the_server(
    node: Node, engine: DockerEngine
) -> None:
    del engine.images[NEW]
    node.wants(NEW)
    async with node.running():
        box = engine.boxes[await node.until_settled(NEW, "AsExpected")]
        assert node.condition.sentence == f"container serving runs {NEW} as git says"
        assert engine.changes == [
            ("pull", NEW),
            ("create", "serving.next"),
            ("stop", "serving"),
            ("start", "serving.next"),
            ("remove", "serving"),
            ("rename", "serving.next"),
        ]
        assert box.body["Cmd"] == BODY["Cmd"]
        assert box.body["Labels"].items() >= BODY["Labels"].items()
        assert {k: v for k, v in box.body["HostConfig"].items() if v is not None}.items() >= BODY[
            "HostConfig"
        ].items()
        assert box.body["Env"] == ["MINE=1"], "the image's own come with the image"
        assert "Entrypoint" not in box.body
        # The next one replaces it as well, and everything stays quiet in between.
        changes = len(engine.changes)
        await asyncio.sleep(0.1)
        assert len(engine.changes) == changes
        node.wants(OLD)
        await node.until_settled(OLD, "AsExpected")


async def test_other_flags_take_the_place_beside_those_of_the_agent(
    node: Node, engine: DockerEngine
) -> None:
    node.wants(flags=("--rest_api_num_threads=4",))
    async with node.running():
        await node.until(lambda: ("rename", "serving.next") in engine.changes)
        box = engine.boxes[await node.until_settled(OLD, "AsExpected")]
        assert box.body["Cmd"] == [*PORT_FLAGS, "--rest_api_num_threads=4"]


async def test_what_runs_as_git_says_is_not_touched(node: Node, engine: DockerEngine) -> None:
    node.wants(OLD, ("--enable_batching=true",))
    async with node.running():
        await node.until_says("AsExpected")
        node.sight = replace(node.sight, wanted=None)
        await node.until(lambda: node.condition.sentence.endswith(f"runs {OLD}"))
    assert engine.changes == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (UNSTARTABLE, "driver failed programming"),
        (ENDING, "the server ended with code 1"),
        (SILENT, "did not serve what was served in time"),
    ],
)
async def test_a_server_that_does_not_come_up_gives_its_place_back(
    node: Node, engine: DockerEngine, image: str, words: str
) -> None:
    before = engine.labelled(LABEL)[0].id
    if image == SILENT:
        node.pace = replace(QUICK, ready_seconds=0.5)
    node.wants(image)
    async with node.running():
        assert await node.until_settled(OLD, "ServerUpdateFailed") == before
        assert words in node.condition.sentence
        assert not node.condition.holds
    changes = len(engine.changes)
    async with node.running():  # nor does another agent try it again
        await node.until_says("ServerUpdateFailed")
        assert words in node.condition.sentence
        assert len(engine.changes) == changes
    node.pace = QUICK
    async with node.running():
        node.wants(NEW)
        await node.until_settled(NEW, "AsExpected")


async def test_an_image_that_cannot_be_had_is_asked_for_again(
    node: Node, engine: DockerEngine
) -> None:
    node.wants("tensorflow/serving:2.21.0")
    async with node.running():
        condition = await node.until_says("EngineRefused")
        assert "manifest for tensorflow/serving:2.21.0 not found" in condition.sentence
        engine.add_image(Image("tensorflow/serving:2.21.0"), here=False)
        await node.until_settled("tensorflow/serving:2.21.0", "AsExpected")


async def test_what_was_seen_of_the_old_server_says_nothing_of_the_new_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the agent's RECONCILER_SERVING leads to another server than this container."""
    monkeypatch.setattr(node, "look", lambda: node.sight)
    node.pace = replace(QUICK, ready_seconds=0.5)
    node.wants(NEW)
    async with node.running():
        await node.until_settled(OLD, "ServerUpdateFailed")


async def test_a_change_of_mind_puts_the_old_server_back(node: Node, engine: DockerEngine) -> None:
    node.wants(SILENT)
    async with node.running():
        await node.until(lambda: ("start", "serving.next") in engine.changes)
        node.wants(OLD)
        await node.until_settled(OLD, "AsExpected")


@pytest.mark.parametrize(
    ("change", "reason", "holds"),
    [
        ({"hold": "frozen until Monday"}, "UpdateHeld", True),
        ({"obstacle": "ranker 2 is being loaded, which may end"}, "UpdateHeld", False),
    ],
)
async def test_an_update_waits_for_its_time(
    node: Node, engine: DockerEngine, change: dict[str, Any], reason: str, holds: bool
) -> None:
    node.wants(NEW)
    node.sight = replace(node.sight, **change)
    async with node.running():
        condition = await node.until_says(reason)
        assert condition.holds is holds
        assert condition.sentence == f"{NEW} waits: {next(iter(change.values()))}"
        assert engine.changes == []
        node.sight = replace(node.sight, hold=None, obstacle=None)
        await node.until_settled(NEW, "AsExpected")


async def test_a_server_that_ends_again_and_again_may_be_cured_by_an_update(
    node: Node, engine: DockerEngine
) -> None:
    engine.labelled(LABEL)[0].status = "restarting"
    node.wants(NEW)
    node.sight = replace(node.sight, obstacle="what the server serves is not known")
    async with node.running():
        await node.until_settled(NEW, "AsExpected")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"HostConfig": {"AutoRemove": True}}, "no way back"),
        ({"Labels": {LABEL: "", "com.docker.swarm.task.id": "x"}}, "Docker Swarm made it"),
        ({"Cmd": ["sh", "-c", "exec serve"]}, "its command is not a list of flags only"),
    ],
)
async def test_what_cannot_be_replaced_is_left_and_told(
    engine: DockerEngine, tmp_path: Path, body: dict[str, Any], words: str
) -> None:
    engine.run("serving", OLD, {**BODY, **body})
    node = Node(engine, tmp_path, "follow")
    node.wants(NEW, ())
    async with node.running():
        assert words in (await node.until_says("NotReplaceable")).sentence
    assert engine.changes == []


# --- one node after the other -------------------------------------------------------------

WAITS = Hold("WaitsForTurn", "the group's servers are replaced one after the other, and a waits")


def stands(node: Node) -> tuple[str, ServerState]:
    assert node.supervisor is not None
    standing = node.supervisor.standing
    assert standing is not None
    return standing.ask, standing.state


def asks(node: Node) -> bool:
    assert node.supervisor is not None
    return node.supervisor.awaits_turn


async def test_an_update_waits_for_its_turn_and_has_the_others_asked_meanwhile(
    node: Node, engine: DockerEngine
) -> None:
    node.wants(NEW)
    node.sight = replace(node.sight, turn=WAITS)
    async with node.running():
        condition = await node.until_says("WaitsForTurn")
        assert condition.holds
        assert condition.sentence == f"{NEW} waits: {WAITS.sentence}"
        assert asks(node)
        assert stands(node) == (ask_of_server(ServerSpec(NEW)), ServerState.PENDING)
        assert engine.changes == []
        node.sight = replace(node.sight, turn=None)
        await node.until_settled(NEW, "AsExpected")
        assert not asks(node)
        assert stands(node) == (ask_of_server(ServerSpec(NEW)), ServerState.STEADY)


@pytest.mark.parametrize(
    "turn",
    [
        Hold("UpdateHalted", "a failed it"),
        Hold(NO_ADDRESS, "a cannot be asked: the group gives no address for a"),
    ],
)
async def test_what_does_not_end_by_waiting_is_a_trouble(node: Node, turn: Hold) -> None:
    node.wants(NEW)
    node.sight = replace(node.sight, turn=turn)
    async with node.running():
        condition = await node.until_says(turn.reason)
        assert (condition.holds, condition.sentence) == (False, f"{NEW} waits: {turn.sentence}")


async def test_a_successor_that_is_not_started_yet_waits_for_its_turn_too(
    node: Node, engine: DockerEngine
) -> None:
    """As where an agent ended between the two, and another commit came meanwhile."""
    engine.plan_faults({1: "refused"})
    node.wants(NEW)
    async with node.running():
        await node.until(lambda: ("create", "serving.next") in engine.changes)
    node.sight = replace(node.sight, turn=WAITS)
    async with node.running():
        await node.until_says("WaitsForTurn")
        assert stands(node)[1] is ServerState.PENDING
        assert engine.changes[-1] == ("create", "serving.next")
        node.sight = replace(node.sight, turn=None)
        await node.until_settled(NEW, "AsExpected")


async def test_what_has_begun_is_brought_to_its_end_out_of_turn(
    node: Node, engine: DockerEngine
) -> None:
    node.wants(NEW)
    async with node.running():
        await node.until(lambda: ("stop", "serving") in engine.changes)
        node.sight = replace(node.sight, turn=WAITS)
        await node.until_settled(NEW, "AsExpected")


async def test_a_restart_and_a_server_that_keeps_ending_need_no_turn(
    node: Node, engine: DockerEngine
) -> None:
    node.sight = replace(CALM, need=POISONED, turn=WAITS)
    async with node.running():
        await node.until_says("ServerRestarted")
        assert stands(node)[1] is ServerState.PENDING
        await node.until(lambda: engine.labelled(LABEL)[0].status == "running")
        engine.labelled(LABEL)[0].status = "restarting"
        node.sight = replace(CALM, wanted=ServerSpec(NEW), turn=WAITS)
        await node.until_settled(NEW, "AsExpected")


async def test_others_are_told_of_a_server_that_changes_comes_up_or_fails(
    node: Node, engine: DockerEngine
) -> None:
    wish, broken = ServerSpec(OLD), ServerSpec(SILENT)
    node.wants(OLD)
    async with node.running():
        assert stands(node) == (ask_of_server(None), ServerState.PENDING)
        await node.until(lambda: stands(node) == (ask_of_server(wish), ServerState.STEADY))
        # A server that does not serve what it is to serve is not there yet.
        node.sight = replace(node.sight, serves_proven=False)
        await node.until(lambda: stands(node)[1] is ServerState.PENDING)
        node.sight = replace(node.sight, serves_proven=True)
        await node.until(lambda: stands(node)[1] is ServerState.STEADY)
        # What is said of one wish is no answer to another.
        assert node.supervisor is not None
        engine.refuse_all = Refusal(500, "busy")
        await node.until_says("EngineRefused")
        node.supervisor.note(replace(node.look(), wanted=broken))
        assert stands(node) == (ask_of_server(broken), ServerState.PENDING)
        engine.refuse_all = None
        node.wants(SILENT)
        await node.until(lambda: ("start", "serving.next") in engine.changes)
        assert stands(node) == (ask_of_server(broken), ServerState.REPLACING)
        node.wants(OLD)
        await node.until(lambda: stands(node) == (ask_of_server(wish), ServerState.STEADY))


async def test_what_was_seen_of_a_successor_says_nothing_of_the_server_before_it(
    node: Node, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick that has not heard of the server since would let another node begin too early."""
    node.wants(SILENT)
    async with node.running():
        await node.until(lambda: ("start", "serving.next") in engine.changes)
        node.sight = replace(node.sight, wanted=ServerSpec(OLD), connection=5, serves_proven=False)
        monkeypatch.setattr(node, "look", lambda: node.sight)
        await node.until(lambda: stands(node)[1] is ServerState.PENDING)
        node.sight = replace(node.sight, serves_proven=True)
        await asyncio.sleep(0.1)
        assert stands(node)[1] is ServerState.PENDING
        node.sight = replace(node.sight, connection=6)
        await node.until(lambda: stands(node)[1] is ServerState.STEADY)


async def test_others_are_told_of_an_update_that_failed(node: Node) -> None:
    node.wants(ENDING)
    async with node.running():
        await node.until_says("ServerUpdateFailed")
        assert stands(node) == (ask_of_server(ServerSpec(ENDING)), ServerState.FAILED)
        assert node.supervisor is not None
        assert node.supervisor.standing is not None
        assert "the server ended with code 1" in node.supervisor.standing.sentence
        node.sight = replace(node.sight, wanted=None)
        await node.until(lambda: stands(node) == (ask_of_server(None), ServerState.STEADY))


async def test_an_agent_that_only_restarts_says_that_the_server_is_left_to_others(
    engine: DockerEngine, tmp_path: Path
) -> None:
    engine.run("serving", OLD, BODY)
    node = Node(engine, tmp_path, "restart")
    node.wants(NEW)
    async with node.running():
        await node.until_says("AsExpected")
        assert node.supervisor is not None
        assert node.supervisor.standing is None
        assert not asks(node)


async def test_a_server_that_would_not_stop_is_steady_again_once_git_leaves_it(
    node: Node, engine: DockerEngine
) -> None:
    engine.plan_faults(dict.fromkeys(range(1, 200), "refused"))
    node.wants(NEW)
    async with node.running():
        await node.until_says("EngineRefused")
        node.wants(OLD)
        await node.until(lambda: stands(node)[0] == ask_of_server(ServerSpec(OLD)))
        engine.plan_faults({})
        await node.until(lambda: stands(node)[1] is ServerState.STEADY)


# --- restarting ---------------------------------------------------------------------------


async def test_a_server_that_only_a_restart_helps_is_restarted_once(
    node: Node, engine: DockerEngine
) -> None:
    node.pace = replace(QUICK, restart_gap_seconds=600.0)
    engine.labelled(LABEL)[0].started_at = "2020-01-01T00:00:00.123456789Z"
    node.sight = replace(CALM, need=POISONED)
    async with node.running():
        condition = await node.until_says("RestartHeld")
    assert "restarted in 10 min 0 s if that is still so" in condition.sentence or (
        "restarted in 9 min" in condition.sentence
    )
    assert engine.changes == [("restart", "serving")]


async def test_a_server_that_is_back_before_the_engine_has_answered_is_the_new_one(
    node: Node, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.pace = replace(QUICK, restart_gap_seconds=600.0)
    engine.labelled(LABEL)[0].started_at = "2020-01-01T00:00:00.123456789Z"
    node.sight = replace(CALM, need=POISONED)
    before, is_back = node.look().connection, threading.Event()

    def look() -> ServerSight:
        sight = Node.look(node)
        if sight.connection not in (None, before):
            is_back.set()
        return sight

    monkeypatch.setattr(node, "look", look)
    engine.before_answer = lambda path: path.endswith("/restart") and is_back.wait(20)
    async with node.running():
        await node.until_says("RestartHeld")
    assert engine.changes == [("restart", "serving")]


async def test_what_a_server_needed_before_its_restart_is_not_held_against_it(
    node: Node, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick that has not heard of the server since still says what it said before."""
    node.sight = replace(CALM, need=POISONED)
    monkeypatch.setattr(node, "look", lambda: node.sight)
    async with node.running():
        await node.until_says("ServerRestarted")
        node.sight = replace(node.sight, connection=None, serves_proven=False)
        await asyncio.sleep(0.2)
        assert node.condition.reason == "ServerRestarted"
        assert engine.changes == [("restart", "serving")]
        node.sight = replace(node.sight, connection=2)
        await node.until(lambda: len(engine.changes) == 2)
    assert engine.changes == [("restart", "serving")] * 2


async def test_a_server_that_has_just_started_is_not_restarted_by_another_agent(
    node: Node, engine: DockerEngine
) -> None:
    node.pace = replace(QUICK, restart_gap_seconds=600.0)
    node.sight = replace(CALM, need=POISONED)
    async with node.running():
        await node.until_says("RestartHeld")
    assert engine.changes == []


async def test_a_restart_that_would_do_harm_is_not_made(node: Node, engine: DockerEngine) -> None:
    node.sight = replace(CALM, need=replace(POISONED, obstacle="ranker 2 would not come back"))
    async with node.running():
        condition = await node.until_says("RestartHeld")
        assert condition.sentence == (
            "only a restart of container serving helps (ServerPoisoned), but not now:"
            " ranker 2 would not come back"
        )
    assert engine.changes == []


async def test_what_an_orchestrator_owns_is_stopped_for_it_to_start(
    engine: DockerEngine, tmp_path: Path
) -> None:
    labels = {LABEL: "", "com.hashicorp.nomad.alloc_id": "x"}
    engine.run("serving", OLD, {**BODY, "Labels": labels})
    node = Node(engine, tmp_path, "restart", replace(QUICK, restart_gap_seconds=0.0))
    node.sight = replace(CALM, need=POISONED)
    async with node.running():
        await node.until(lambda: ("stop", "serving") in engine.changes)
        await node.until_says("ServerRestarted")
        node.sight = CALM
        await node.until_says("AsExpected")
    assert set(engine.changes) == {("stop", "serving")}


async def test_restart_alone_follows_nothing(engine: DockerEngine, tmp_path: Path) -> None:
    engine.run("serving", OLD, BODY)
    node = Node(engine, tmp_path, "restart")
    node.wants(NEW)
    async with node.running():
        await node.until_says("AsExpected")
    assert engine.changes == []


# --- what cannot be made sense of -----------------------------------------------------------


async def test_two_containers_with_the_label_are_both_left(
    node: Node, engine: DockerEngine
) -> None:
    engine.run("other", OLD, BODY)
    node.wants(NEW)
    node.sight = replace(node.sight, need=POISONED)
    async with node.running():
        condition = await node.until_says("ContainerAmbiguous")
        assert "2 containers carry the label reconciler.serving: other and serving" in (
            condition.sentence
        )
        await asyncio.sleep(0.1)
    assert engine.changes == []


async def test_no_container_is_told(engine: DockerEngine, tmp_path: Path) -> None:
    node = Node(engine, tmp_path, "restart")
    async with node.running():
        assert "docker run --label" in (await node.until_says("ContainerMissing")).sentence
        engine.run("serving", OLD, BODY)
        await node.until_says("AsExpected")


async def test_an_engine_that_refuses_or_is_away_is_told(node: Node, engine: DockerEngine) -> None:
    engine.refuse_all = Refusal(403, "authorization denied by plugin")
    async with node.running():
        condition = await node.until_says("EngineRefused")
        assert "Docker would not list its containers: 403: authorization denied" in (
            condition.sentence
        )
        engine.refuse_all = None
        await node.until_says("AsExpected")
    node.settings = replace(node.settings, docker_host=f"unix://{engine.folder}/away.sock")
    async with node.running():
        condition = await node.until_says("EngineUnreachable")
        assert "No such file or directory; is its socket mounted" in condition.sentence


async def test_a_label_with_a_value_is_another_than_one_without(
    engine: DockerEngine, tmp_path: Path
) -> None:
    engine.run("serving", OLD, BODY)
    node = Node(engine, tmp_path, "follow")
    node.settings = replace(node.settings, supervise_label=f"{LABEL}=b")
    node.wants(NEW)
    async with node.running():
        await node.until_says("ContainerMissing")
    assert engine.changes == []


async def test_the_label_is_asked_for_again_before_every_change(engine: DockerEngine) -> None:
    stranger = Container.of(engine.run("stranger", OLD, {"Labels": {}}).describe())
    server = ServerEngine(engine.host, LABEL)
    for change in (
        server.start,
        server.stop,
        server.restart,
        server.remove,
        lambda found: server.rename(found, "mine"),
        lambda found: server.create_successor(found, ServerSpec(NEW)),
    ):
        with pytest.raises(EngineError, match="stranger does not carry the label"):
            await asyncio.to_thread(change, stranger)
    assert engine.changes == []


async def test_an_engine_that_lists_more_than_it_was_asked_for_is_not_believed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.dockerengine._has_labels", lambda *_: True)
    node.wants(NEW)
    async with node.running():
        await node.until_settled(NEW, "AsExpected")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"failed": 3}', "\x00"])
async def test_notes_that_cannot_be_read_are_left(node: Node, tmp_path: Path, text: str) -> None:
    (tmp_path / "supervision.json").write_text(text)
    node.wants(NEW)
    async with node.running():
        await node.until_settled(NEW, "AsExpected")


async def test_without_the_docker_package_it_is_said(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "reconciler.supervision.engine", None)
    async with node.running():
        condition = await node.until_says("DockerMissing")
    assert 'install "tfserving-reconciler[docker]"' in condition.sentence


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([{"Id": "x"}] * 51, "51 containers carry the label"),
        ([{"Name": "x"}], "Docker's answer makes no sense, asked to list its containers"),
        ({"a": 1}, "Docker's answer makes no sense"),
        (b"<html>Sign in</html>", "Docker's answer makes no sense"),
    ],
)
async def test_an_answer_that_makes_no_sense_changes_nothing(
    node: Node, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch, answer: object, words: str
) -> None:
    monkeypatch.setattr(engine, "answer", lambda *_: answer)
    node.wants(NEW)
    async with node.running():
        await node.until(lambda: words in node.condition.sentence)
        assert not node.condition.holds
    assert engine.changes == []


# --- faults -------------------------------------------------------------------------------

_CHANGES_OF_A_REPLACEMENT = 7
_FAULTS: tuple[Fault, ...] = ("refused", "lost", "died")


@pytest.mark.parametrize("fault", _FAULTS)
@pytest.mark.parametrize("image", [NEW, ENDING])
async def test_after_a_fault_at_any_call_of_a_replacement_a_server_runs(
    engine: DockerEngine, tmp_path: Path, image: str, fault: Fault
) -> None:
    for number in range(_CHANGES_OF_A_REPLACEMENT):
        engine.boxes.clear()
        (tmp_path / "supervision.json").unlink(missing_ok=True)
        engine.run("serving", OLD, BODY)
        engine.plan_faults({number: fault})
        node = Node(engine, tmp_path, "follow")
        node.wants(image)
        async with node.running():
            # A refusal to start the new one is a failed update; all else is tried again.
            await node.until(node.has_settled)
            running = engine.labelled(LABEL)[0].reference
            assert running == (NEW if node.condition.holds else OLD), (number, engine.changes)
            assert node.condition.holds or image == ENDING or fault == "refused"


@pytest.mark.parametrize("image", [NEW, ENDING, SILENT])
async def test_an_agent_that_ends_between_any_two_calls_takes_up_where_it_was(
    engine: DockerEngine, tmp_path: Path, image: str
) -> None:
    for number in range(1, _CHANGES_OF_A_REPLACEMENT):
        engine.boxes.clear()
        (tmp_path / "supervision.json").unlink(missing_ok=True)
        engine.run("serving", OLD, BODY)
        engine.changes.clear()
        node = Node(engine, tmp_path, "follow")
        if image == SILENT:
            node.pace = replace(QUICK, ready_seconds=0.2)
        node.wants(image)
        for count in itertools.count(number, number):
            async with node.running():
                await node.until(
                    lambda node=node, count=count: (  # type: ignore[misc]
                        len(engine.changes) >= count or node.has_settled()
                    )
                )
                if node.has_settled():
                    break
        (box,) = engine.labelled(LABEL)
        assert (box.name, box.status) == ("serving", "running")
        assert box.reference == (NEW if image == NEW else OLD)


@pytest.mark.parametrize("fault", _FAULTS)
async def test_after_a_fault_in_a_restart_a_server_runs(
    node: Node, engine: DockerEngine, fault: Fault
) -> None:
    engine.plan_faults({0: fault, 1: fault})
    node.sight = replace(CALM, need=POISONED)
    async with node.running():
        await node.until(lambda: ("restart", "serving") in engine.changes)
        node.sight = CALM
        await node.until_settled(OLD, "AsExpected")


async def test_a_restart_that_only_stopped_the_server_is_finished(
    node: Node, engine: DockerEngine
) -> None:
    engine.plan_faults({0: "halved"})
    node.pace = replace(QUICK, restart_gap_seconds=600.0)
    engine.labelled(LABEL)[0].started_at = "2020-01-01T00:00:00Z"
    node.sight = replace(CALM, need=POISONED)
    async with node.running():
        await node.until(lambda: ("start", "serving") in engine.changes)
        node.sight = CALM
        await node.until_settled(OLD, "AsExpected")
    assert engine.changes == [("stop", "serving"), ("start", "serving")]


async def test_a_restart_that_stopped_half_way_is_finished_by_the_next_agent(
    node: Node, engine: DockerEngine, tmp_path: Path
) -> None:
    box = engine.labelled(LABEL)[0]
    box.stop()
    (tmp_path / "supervision.json").write_text(
        f'{{"failed": null, "failure": "", "restarting": "{box.id}"}}'
    )
    async with node.running():
        await node.until_settled(OLD, "AsExpected")
    assert engine.changes == [("start", "serving")]


async def test_a_server_that_a_person_stopped_stays_stopped(
    node: Node, engine: DockerEngine
) -> None:
    engine.labelled(LABEL)[0].stop()
    node.wants(NEW)
    async with node.running():
        assert "stopped on purpose" in (await node.until_says("NotReplaceable")).sentence
    assert engine.changes == []
