"""The servers of a group are replaced one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Desired, Group, Member, ServerSpec, State, Unavailable
from reconciler.planning.memory import Memory
from reconciler.planning.peers import (
    NO_ADDRESS,
    Peer,
    Peers,
    ServerStanding,
    ServerState,
    ask_of_server,
)
from reconciler.planning.server_turns import find_others, find_turn_hold
from reconciler.planning.steps import World
from reconciler.planning.supervision import sight_server
from tests.unit.worlds import (
    COMMIT,
    LIMITS,
    NOW,
    available,
    deployment,
    desired,
    local,
    make_plan,
    served,
)

OLD, NEW = ServerSpec("serving:1"), ServerSpec("serving:2")
NAMES = ("a", "b", "c")
STEADY, PENDING = ServerState.STEADY, ServerState.PENDING
REPLACING, FAILED = ServerState.REPLACING, ServerState.FAILED


def asked(node: str, serving: ServerSpec | None = NEW, names: tuple[str, ...] = NAMES) -> Desired:
    # The order in the file is not the order of the turns.
    members = tuple(Member(name) for name in reversed(names))
    return Desired(COMMIT, node, Group("g", "groups/g.yaml", members, serving=serving), ())


def peer(node: str, state: ServerState, spec: ServerSpec | None = NEW) -> Peer:
    standing = ServerStanding(ask_of_server(spec), state, f"{state} there")
    return Peer(node, server=standing)


def peers(**words: Peer | Unavailable) -> Peers:
    return words


def others_of(node: str, state: ServerState = STEADY) -> Peers:
    return {name: peer(name, state) for name in NAMES if name != node}


# --- whose turn it is ---------------------------------------------------------------------------


def test_the_first_by_name_goes_first_once_the_others_were_asked() -> None:
    assert find_others(asked("b")) == ("a", "c")
    assert find_turn_hold(asked("a"), others_of("a", PENDING)) is None
    hold = find_turn_hold(asked("a"), {})
    assert hold is not None
    assert hold.sentence.endswith("b was not asked yet")


@pytest.mark.parametrize(
    ("word", "reason", "why"),
    [
        (None, "WaitsForTurn", "a was not asked yet"),
        (Unavailable("NoStatus", "no route"), "WaitsForTurn", "a cannot be asked: no route"),
        (Unavailable(NO_ADDRESS, "no address"), NO_ADDRESS, "a cannot be asked: no address"),
        (peer("a", STEADY, OLD), "WaitsForTurn", "a is not at the same commit yet"),
        (peer("a", STEADY, None), "WaitsForTurn", "a is not at the same commit yet"),
        (
            Peer("a", server=ServerStanding("", PENDING, "")),
            "WaitsForTurn",
            "a does not say what is asked of it, as agents of older releases do not",
        ),
        (peer("a", PENDING), "WaitsForTurn", "a does not run it yet (pending there)"),
        (peer("a", REPLACING), "WaitsForTurn", "a does not run it yet (replacing there)"),
    ],
)
def test_a_later_one_waits(word: Peer | Unavailable | None, reason: str, why: str) -> None:
    known = {"a": word, "c": peer("c", STEADY)}
    hold = find_turn_hold(asked("b"), {name: it for name, it in known.items() if it})
    assert hold is not None
    assert hold.reason == reason
    assert hold.sentence == f"the group's servers are replaced one after the other, and {why}"


def test_its_turn_comes_when_all_before_it_run_what_is_asked() -> None:
    assert find_turn_hold(asked("c"), others_of("c")) is None
    assert find_turn_hold(asked("c"), {**others_of("c"), "b": peer("b", PENDING)}) is not None


def test_a_node_whose_server_is_left_to_others_is_not_waited_for() -> None:
    assert find_turn_hold(asked("b"), peers(a=Peer("a"), c=Peer("c"))) is None


@pytest.mark.parametrize("node", ["a", "c"])
def test_a_failure_halts_all_others(node: str) -> None:
    hold = find_turn_hold(asked(node), {**others_of(node), "b": peer("b", FAILED)})
    assert hold is not None
    assert hold.reason == "UpdateHalted"
    assert hold.sentence.endswith("is halted, because b failed it: failed there")


def test_what_failed_before_is_no_matter_of_another_commit() -> None:
    word = peer("c", FAILED, OLD)
    assert find_turn_hold(asked("b"), peers(a=peer("a", STEADY), c=word)) is None


def test_a_later_one_that_is_still_busy_is_let_come_to_its_end() -> None:
    known = {**others_of("a"), "c": peer("c", REPLACING, OLD)}
    hold = find_turn_hold(asked("a"), known)
    assert hold is not None
    assert hold.sentence.endswith("c is not done with an earlier commit (replacing there)")
    assert find_turn_hold(asked("a"), {**known, "c": Unavailable("NoStatus", "gone")}) is None


def test_alone_and_without_a_wish_nobody_waits() -> None:
    assert find_turn_hold(asked("a", names=("a",)), {}) is None
    assert find_turn_hold(asked("b", serving=None), {}) is None
    assert find_turn_hold(Desired(COMMIT, "a", None, ()), {}) is None


def test_the_same_server_is_asked_where_git_says_the_same() -> None:
    specs = [None, OLD, NEW, ServerSpec(None, ()), ServerSpec(None, ("--a",)), ServerSpec("--a")]
    assert len({ask_of_server(spec) for spec in specs}) == len(specs)
    assert ask_of_server(ServerSpec("serving:1")) == ask_of_server(OLD)


# --- what a tick makes of it --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "waits"),
    [
        ({"ranker": {1: State.AVAILABLE}}, True),
        ({"ranker": {1: State.LOADING}}, False),
        ({}, False),
    ],
)
def test_a_server_that_serves_nothing_needs_no_turn(
    states: Mapping[str, Mapping[int, State]], waits: bool
) -> None:
    wish = replace(desired(deployment("ranker")), node="b", group=asked("b").group)
    world = World(wish, available(), local({}), served(states), {}, peers={})
    sight = sight_server(world, make_plan(world, Memory()), LIMITS, NOW)
    assert (sight.turn is not None) is waits


def test_a_server_that_cannot_be_seen_has_no_turn_yet() -> None:
    unknown = Unavailable("ServerSilent", "it is silent")
    world = World(asked("b"), available(), local({}), unknown, {}, peers={})
    assert sight_server(world, make_plan(world, Memory()), LIMITS, NOW).turn is not None


# --- at most one at a time, whatever is late ----------------------------------------------------


@dataclass
class Machine:
    """A node: the commit that it sees, what its server is, and what it last heard of the others."""

    wanted: ServerSpec = OLD
    running: ServerSpec = OLD
    state: ServerState = STEADY
    said: list[Peer] = field(default_factory=list)
    heard: dict[str, int] = field(default_factory=dict)
    """Node -> how many of its words have arrived here."""


class Fleet:
    """Nodes of which each sees the commit and the words of the others when it may."""

    def __init__(self, size: int, failing: int | None) -> None:
        self.names = tuple(f"n{number}" for number in range(size))
        self.failing = None if failing is None else f"n{failing}"
        self.nodes = {name: Machine() for name in self.names}
        self.begun: list[str] = []
        for name in self.names:
            self._say(name)

    def _say(self, name: str) -> None:
        node = self.nodes[name]
        node.said.append(peer(name, node.state, node.wanted))

    @property
    def replacing(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.state is REPLACING]

    def see_commit(self, name: str) -> None:
        node = self.nodes[name]
        if node.wanted is OLD:
            node.wanted, node.state = NEW, PENDING
            self._say(name)

    def hear(self, name: str, other: str, words: int) -> None:
        """Let some more of what `other` has said arrive; it never arrives backwards."""
        node = self.nodes[name]
        newest = len(self.nodes[other].said)
        node.heard[other] = min(newest, node.heard.get(other, 0) + words)

    def act(self, name: str) -> None:
        node = self.nodes[name]
        if node.state is REPLACING:
            node.running = OLD if name == self.failing else NEW
            node.state = FAILED if name == self.failing else STEADY
        elif node.state is PENDING:
            known = {
                other: self.nodes[other].said[count - 1]
                for other, count in node.heard.items()
                if count
            }
            if find_turn_hold(asked(name, node.wanted, self.names), known) is not None:
                return
            node.state = REPLACING
            self.begun.append(name)
        self._say(name)

    def settle(self) -> None:
        """Let everything arrive, again and again, until nobody has anything to do."""
        for _ in range(3 * len(self.names)):
            for name in self.names:
                self.see_commit(name)
                for other in self.names:
                    if other != name:
                        self.hear(name, other, 10**6)
                self.act(name)
                assert len(self.replacing) <= 1


@given(data=st.data(), size=st.integers(1, 5))
def test_at_most_one_replaces_at_any_time_in_order_and_a_failure_halts_the_rest(
    data: st.DataObject, size: int
) -> None:
    failing = data.draw(st.none() | st.integers(0, size - 1))
    fleet = Fleet(size, failing)
    number = st.integers(0, size - 1)
    for _ in range(data.draw(st.integers(0, 60))):
        name = fleet.names[data.draw(number)]
        match data.draw(st.sampled_from(["commit", "hear", "hear", "act", "act"])):
            case "commit":
                fleet.see_commit(name)
            case "hear":
                other = fleet.names[data.draw(number)]
                if other != name:
                    fleet.hear(name, other, data.draw(st.integers(1, 3)))
            case "act":
                fleet.act(name)
        assert len(fleet.replacing) <= 1
        assert fleet.begun == list(fleet.names[: len(fleet.begun)])
    fleet.settle()
    reached = size if failing is None else failing + 1
    assert fleet.begun == list(fleet.names[:reached])
    running = [node.running for node in fleet.nodes.values()]
    done = size if failing is None else failing
    assert running == [NEW] * done + [OLD] * (size - done)
