"""When a restart is needed or would do harm; which move comes next; what a successor is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Ask, Pause, ServerSpec, State, Unavailable
from reconciler.planning.events import ReloadFailed, fold
from reconciler.planning.memory import Memory
from reconciler.planning.rollout import Request
from reconciler.planning.steps import World
from reconciler.planning.supervision import STUCK_SECONDS, ServerSight, sight_server
from reconciler.supervision.container import (
    REPLACES,
    Container,
    build_successor,
    follows,
    without_defaults,
)
from reconciler.supervision.moves import (
    MAX_RESTARTS,
    Move,
    Verdict,
    find_pair,
    judge,
    next_move,
)
from tests.unit.histories import History
from tests.unit.worlds import (
    LIMITS,
    NOW,
    available,
    deployment,
    desired,
    listing,
    local,
    make_plan,
    remembered,
    restart_config,
    served,
)

UP = {"ranker": {1: State.AVAILABLE}}
POISON = "Illegal setting neither model_type nor model_platform set"


def world(states: Mapping[str, Mapping[int, State]] = UP, **changes: Any) -> World:
    base = World(
        desired=desired(deployment("ranker")),
        available=available(listing("ranker", 1, pin=1)),
        local=local({"ranker": [1, 2]}),
        served=served(states),
        restart_config={"ranker": Ask(frozenset({1}))},
    )
    return replace(base, **changes)


def poisoned(memory: Memory | None = None) -> Memory:
    event = ReloadFailed(Request({}, frozenset()), "INVALID_ARGUMENT", POISON)
    return fold(memory or remembered({"ranker": [1]}), event, NOW - 1)


def stuck(seconds: float) -> Memory:
    return replace(remembered({"ranker": [1]}), reload_started_at=NOW - seconds)


def sight(seen: World, memory: Memory) -> ServerSight:
    return sight_server(seen, make_plan(seen, memory), LIMITS, NOW)


# --- whether a restart is needed -------------------------------------------------------------


def test_a_server_that_is_well_needs_nothing() -> None:
    found = sight(world(), remembered({"ranker": [1]}))
    assert (found.need, found.obstacle, found.hold, found.serves_proven) == (None, None, None, True)
    assert found.connection == 1


def test_a_poisoned_server_needs_a_restart() -> None:
    need = sight(world(), poisoned()).need
    assert need is not None
    assert (need.reason, need.obstacle) == ("ServerPoisoned", None)


def test_a_reload_is_given_its_time() -> None:
    assert sight(world(), stuck(STUCK_SECONDS - 1)).need is None
    need = sight(world(), stuck(STUCK_SECONDS)).need
    assert need is not None
    assert (need.reason, need.obstacle) == ("ReloadStuck", None)


def test_any_other_refusal_is_not_cured_by_a_restart() -> None:
    event = ReloadFailed(Request({}, frozenset()), "INTERNAL", "out of memory")
    found = sight(world(), fold(remembered({"ranker": [1]}), event, NOW - 1))
    assert found.need is None


@pytest.mark.parametrize("state", [State.START, State.LOADING])
def test_a_load_that_may_end_is_not_broken_off(state: State) -> None:
    memory = poisoned(remembered({"ranker": [1, 2]}))
    seen = world({"ranker": {1: State.AVAILABLE, 2: state}})
    found = sight(seen, memory)
    assert found.need is not None
    assert found.need.obstacle == "ranker 2 is being loaded, which may end"
    assert found.obstacle == found.need.obstacle


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"restart_config": None}, id="no file"),
        pytest.param({"restart_config": {}}, id="not in the file"),
        pytest.param({"restart_config": {"ranker": Ask(frozenset({2}))}}, id="another version"),
        pytest.param({"local": local({"ranker": [2]})}, id="not on disk"),
    ],
)
def test_a_restart_never_loses_what_is_served(changes: dict[str, Any]) -> None:
    need = sight(world(**changes), poisoned()).need
    assert need is not None
    assert need.obstacle is not None
    assert need.obstacle.startswith("ranker 1 would not come back")


def test_each_version_that_is_still_asked_for_is_to_come_back() -> None:
    seen = world({"ranker": {1: State.AVAILABLE, 2: State.AVAILABLE}})
    need = sight(seen, poisoned(remembered({"ranker": [1, 2]}))).need
    assert need is not None
    assert need.obstacle is not None
    assert need.obstacle.startswith("ranker 2 would not come back")


def test_a_version_on_its_way_out_may_be_lost() -> None:
    seen = world({"ranker": {1: State.AVAILABLE, 2: State.AVAILABLE}})
    need = sight(seen, poisoned()).need
    assert need is not None
    assert need.obstacle is None


def test_what_a_silent_server_serves_is_not_known() -> None:
    seen = world(served=Unavailable("ServerSilent", "it is silent"))
    found = sight(seen, poisoned())
    assert found.obstacle == "what the server serves is not known: it is silent"
    assert not found.serves_proven
    assert found.connection is None


def test_a_hang_is_no_reason_where_the_folder_may_be_another() -> None:
    """All was loaded by an earlier agent, maybe from where the server does not look now."""
    memory = stuck(STUCK_SECONDS)
    known = replace(memory.of("ranker"), adopted=frozenset({1}))
    need = sight(world(), memory.with_model("ranker", known)).need
    assert need is not None
    assert need.obstacle is not None
    assert "restart it by hand" in need.obstacle


def test_a_pause_and_suspend_hold_a_restart_and_a_freeze_does_not() -> None:
    pause = Pause("ada works here", 2000.0)
    need = sight(world(pause=pause, wall_seconds=1000.0), poisoned()).need
    assert need is not None
    assert need.obstacle is not None
    assert "ada works here" in need.obstacle
    group = desired().group
    assert group is not None
    held = replace(desired(deployment("ranker")), group=replace(group, suspend=True))
    found = sight(world(desired=held), poisoned())
    assert found.hold == "suspend: true in groups/g.yaml"
    assert found.need is not None
    assert found.need.obstacle == found.hold


def test_a_server_is_back_when_all_that_its_file_holds_answers() -> None:
    memory = remembered({"ranker": [1]})
    config = {**restart_config(memory), "suggest": Ask(frozenset({7}))}
    both = {**UP, "suggest": {7: State.AVAILABLE}}
    assert not sight(world(restart_config=config), memory).serves_proven
    assert sight(world(both, restart_config=config), memory).serves_proven
    loading = {**UP, "suggest": {7: State.LOADING}}
    assert not sight(world(loading, restart_config=config), memory).serves_proven


# --- what git may say ---------------------------------------------------------------------------


def problems(serving: str) -> list[str]:
    fleet = History().commit({"groups/g.yaml": f"nodes: [n]\nserving: {serving}\n"})
    return [str(problem) for problem in fleet.problems]


def test_git_says_which_server_a_group_runs() -> None:
    text = "nodes: [n]\nserving: {image: 'tensorflow/serving:2.20.0', flags: [--enable_batching]}"
    fleet = History().commit({"groups/g.yaml": text, "groups/h.yaml": "nodes: [m]"})
    assert not fleet.problems
    wanted = ServerSpec("tensorflow/serving:2.20.0", ("--enable_batching",))
    assert fleet.groups["g"].serving == wanted
    assert fleet.groups["h"].serving is None


@pytest.mark.parametrize(
    ("serving", "words"),
    [
        ("{flags: [--port=1]}", "g.yaml:2:19: the agent relies on --port, which is set where"),
        ("{flags: [--model_config_file=/x]}", "the agent relies on --model_config_file"),
        ("{flags: [--a=1, --a=2]}", "--a is there twice; remove one"),
        ("{flags: ['--a 1']}", "must be one flag with its value, such as --enable_batching=true"),
        ("{flags: [-a]}", "must be one flag with its value"),
        ("{image: tensorflow/serving}", "must be an image with its tag or digest"),
        ("{image: 'host:5000/serving'}", "must be an image with its tag or digest"),
        ("{}", "must be image, flags or both"),
        ("{ports: [1]}", "ports"),
    ],
)
def test_what_no_node_could_run_is_refused_where_it_stands(serving: str, words: str) -> None:
    (problem,) = problems(serving)
    assert words in problem


# --- moves --------------------------------------------------------------------------------------


def description(**changes: Any) -> dict[str, Any]:
    return {
        "Id": "a" * 64,
        "Name": "/serving",
        "Image": "sha256:1",
        "RestartCount": 0,
        "State": {"Status": "running", "ExitCode": 0, "StartedAt": "2026-01-01T00:00:00.5Z"},
        "Config": {
            "Hostname": "a" * 12,
            "Image": "serving:1",
            "Cmd": ["--port=8500", "--enable_batching"],
            "Labels": {"reconciler.serving": ""},
        },
        "HostConfig": {"NetworkMode": "front", "Binds": ["/srv:/models"]},
        "NetworkSettings": {
            "Networks": {
                "back": {"Aliases": ["a" * 12, "tfs"], "IPAddress": "10.0.0.9"},
                "front": {"Aliases": None, "IPAMConfig": {"IPv4Address": "10.1.0.5"}},
            }
        },
        "Mounts": [
            {"Type": "volume", "Name": "f00", "Destination": "/cache", "RW": True},
            {"Type": "bind", "Source": "/srv", "Destination": "/models"},
        ],
        **changes,
    }


def container(identity: str, state: str, replaces: str | None = None) -> Container:
    labels = {} if replaces is None else {REPLACES: replaces}
    found = Container.of(description(Id=identity, Name=f"/{identity}"))
    return replace(found, state=state, labels=labels)


STATES = st.sampled_from(["created", "running", "restarting", "exited"])


@given(old=STATES, new=STATES, verdict=st.sampled_from(Verdict))
def test_moves_come_to_an_end_and_never_leave_without_a_server(
    old: str, new: str, verdict: Verdict
) -> None:
    """Whatever the two are found as, a verdict that stays leads to one that runs, or waits."""
    first: Container | None = container("old", old)
    second: Container | None = container("new", new, "old")
    if verdict is Verdict.GOOD:
        second = container("new", "running", "old")  # no other one is ever called good
    for _ in range(5):
        assert first is not None
        assert second is not None
        match next_move(first, second, verdict):
            case Move.WAIT:
                assert second.is_running
                return
            case Move.STOP_OLD:
                first = replace(first, state="exited")
            case Move.START_OLD:
                first = replace(first, state="running")
            case Move.STOP_NEW:
                second = replace(second, state="exited")
            case Move.START_NEW:
                second = replace(second, state="running")
            case Move.REMOVE_OLD:
                assert second.is_running
                assert not first.is_running
                return
            case Move.REMOVE_NEW:
                assert first.is_running
                assert not second.is_running
                return
    raise AssertionError("the moves do not end")


def test_a_pair_is_told_by_the_successors_label_alone() -> None:
    old, new = container("old", "running"), container("new", "created", "old")
    assert find_pair((new, old)) == (old, new)
    assert find_pair((old, new)) == (old, new)
    assert find_pair((old, container("other", "running"))) is None
    assert find_pair((old, container("other", "running", "gone"))) is None
    assert find_pair((old, new, container("third", "running"))) is None
    assert find_pair((old,)) is None


WANTED = ServerSpec("serving:1")


@pytest.mark.parametrize(
    ("old", "new", "changes", "expected"),
    [
        ("running", "created", {}, (Verdict.OPEN, "")),
        ("exited", "running", {}, (Verdict.OPEN, "")),
        ("exited", "running", {"serves": True, "wanted": None}, (Verdict.GOOD, "")),
        ("running", "running", {"serves": True}, (Verdict.OPEN, "")),
        ("exited", "running", {"wanted": None}, (Verdict.BAD, "")),
        ("exited", "running", {"wanted": ServerSpec("serving:2")}, (Verdict.BAD, "")),
        ("exited", "exited", {}, (Verdict.BAD, "the server ended with code 0")),
        ("running", "exited", {}, (Verdict.BAD, "")),
        (
            *("exited", "running", {"is_overdue": True}),
            (Verdict.BAD, "it did not serve what was served in time"),
        ),
    ],
)
def test_a_successor_is_judged_by_what_is_seen(
    old: str, new: str, changes: dict[str, Any], expected: tuple[Verdict, str]
) -> None:
    seen = {"wanted": WANTED, "serves": False, "is_overdue": False, **changes}
    found = judge(container("old", old), container("new", new, "old"), **seen)
    assert found == expected


def test_a_successor_that_is_not_in_every_network_is_made_again() -> None:
    networks: dict[str, Any] = {"Networks": {"front": {}}}
    new = Container.of(description(NetworkSettings=networks))
    new = replace(new, state="created", labels={REPLACES: "old"})
    seen: dict[str, Any] = {"wanted": WANTED, "serves": False, "is_overdue": False}
    assert judge(container("old", "running"), new, **seen) == (Verdict.BAD, "")


def test_a_successor_that_keeps_ending_is_given_up() -> None:
    new = replace(container("new", "restarting", "old"), restarts=MAX_RESTARTS)
    seen: dict[str, Any] = {"wanted": WANTED, "serves": False, "is_overdue": False}
    found = judge(container("old", "exited"), new, **seen)
    assert found == (Verdict.BAD, "the server ended 3 times in a row")


# --- the successor ------------------------------------------------------------------------------


def test_a_successor_has_what_was_given_and_not_what_the_image_brought() -> None:
    old = Container.of(description())
    body = build_successor(old, ServerSpec("serving:2", ("--x=1",)), {})
    assert body["Image"] == "serving:2"
    assert body["Cmd"] == ["--port=8500", "--x=1"]
    assert body["Labels"] == {"reconciler.serving": "", REPLACES: old.id}
    assert "Hostname" not in body
    assert body["HostConfig"]["Binds"] == ["/srv:/models", "f00:/cache"]
    front = {"IPAMConfig": {"IPv4Address": "10.1.0.5"}, "Aliases": []}
    endpoints = body["NetworkingConfig"]["EndpointsConfig"]
    assert list(endpoints) == ["front"]
    assert endpoints["front"].items() >= front.items()
    assert build_successor(old, ServerSpec("serving:2"), {})["Cmd"] == list(old.command)


def test_the_defaults_of_an_image_are_left_out() -> None:
    config: dict[str, Any] = {
        "Env": ["PATH=/bin", "MINE=1"],
        "Labels": {"maintainer": "tf", "team": "search"},
        "Entrypoint": ["/serve.sh"],
        "WorkingDir": "/mine",
        "User": None,
        "ExposedPorts": {"8500/tcp": {}, "9000/tcp": {}},
    }
    defaults: dict[str, Any] = {
        "Env": ["PATH=/bin"],
        "Labels": {"maintainer": "tf"},
        "Entrypoint": ["/serve.sh"],
        "WorkingDir": "/",
        "ExposedPorts": {"8500/tcp": {}},
    }
    assert without_defaults(config, defaults) == {
        "Env": ["MINE=1"],
        "Labels": {"team": "search"},
        "WorkingDir": "/mine",
        "ExposedPorts": {"9000/tcp": {}},
    }


@pytest.mark.parametrize(
    ("spec", "image_id", "does"),
    [
        (ServerSpec("serving:1"), None, True),
        (ServerSpec("serving:2"), None, False),
        (ServerSpec("docker.io/serving:1"), "sha256:1", True),
        (ServerSpec("serving:2"), "sha256:2", False),
        (ServerSpec(None, ("--enable_batching",)), None, True),
        (ServerSpec(None, ()), None, False),
        (ServerSpec("serving:1", ("--enable_batching", "--x")), None, False),
    ],
)
def test_a_container_follows_git_by_image_and_by_flags(
    spec: ServerSpec, image_id: str | None, does: bool
) -> None:
    assert follows(Container.of(description()), spec, image_id) is does
