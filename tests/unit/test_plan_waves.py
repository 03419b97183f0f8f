"""A node takes a new version when it is its turn."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Condition, Deployment, Lock, Phase, Rollout, State, Unavailable, Wave
from reconciler.planning.goals import fingerprint
from reconciler.planning.locks import lock_snapshot
from reconciler.planning.peers import Peers
from reconciler.planning.steps import Plan, World
from reconciler.planning.waves import find_turn
from tests.unit.worlds import (
    available,
    configured,
    deployment,
    desired,
    fetches,
    listing,
    local,
    make_plan,
    older,
    peer,
    remembered,
    removals,
    restart_config,
    served,
)

ALL = Wave(100, is_percent=True)
WAVES = (Wave(1), Wave(50, is_percent=True), ALL)
ORDER = ("p", "q", "n", "r", "s")
"""One, two and two nodes; `n` is the node that plans."""
NEW = deployment("a", 2, rollout=Rollout(waves=WAVES, pause_seconds=60))


def play(
    peers: Peers | None,
    asked: Deployment = NEW,
    order: Sequence[str] = ORDER,
    on_disk: tuple[int, ...] = (1,),
    *,
    admitted: str = "",
) -> Plan:
    memory = remembered({"a": [1]})
    memory = memory.with_model("a", replace(memory.of("a"), admitted=admitted))
    world = World(
        replace(desired(asked), holders={"a": tuple(order)}),
        available(listing("a", 1, 2, pin=asked.version)),
        local({"a": on_disk}),
        served({"a": {1: State.AVAILABLE}}),
        restart_config(memory),
        peers=peers,
    )
    return make_plan(world, memory)


def test_the_first_wave_waits_for_nobody() -> None:
    made = play({}, order=("n", "p", "q"))
    assert fetches(made) == [("a", 2)]
    assert made.ask_peers == ()


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (None, "p was not asked yet"),
        (Unavailable("NoStatus", "no route"), "p cannot be asked: no route"),
        (peer("p"), "p is not at the same commit yet"),
        (peer("p", replace(NEW, version=1)), "p is not at the same commit yet"),
        (
            older(peer("p", NEW, seconds=60)),
            "p does not say what is asked of it, as agents of older",
        ),
        (peer("p", NEW, phase=Phase.DEPLOYING), "p does not serve it yet (is Deploying there)"),
        (peer("p", NEW, seconds=60, wanted=1), "p does not serve it yet"),
        (peer("p", NEW, seconds=59), "begins when the one before has served it for 1 min 0 s"),
    ],
)
def test_a_later_wave_waits(first: object, why: str) -> None:
    made = play({"p": first} if first else {})  # type: ignore[dict-item]
    assert made.steps == ()
    (outcome,) = made.outcomes
    assert (outcome.phase, outcome.reason) == (Phase.DEPLOYING, "WaitsForWave")
    assert why in outcome.sentence
    assert outcome.sentence.startswith("wave 2 of 3 ")
    assert outcome.sentence.endswith("version 2 waits; version 1 goes on serving")
    assert made.ask_peers == ("p",)
    waits = {condition.name: condition for condition in made.conditions}["ChangesAllowed"]
    assert waits == Condition("ChangesAllowed", True, "AsExpected", waits.sentence)


def test_it_goes_when_all_before_it_have_served_for_the_pause() -> None:
    made = play({"p": peer("p", NEW, seconds=60)})
    assert fetches(made) == [("a", 2)]
    assert made.ask_peers == ()
    last = ("p", "q", "r", "n", "s")
    good = {node: peer(node, NEW, seconds=60) for node in "pqr"}
    assert fetches(play(good, order=last)) == [("a", 2)]
    assert fetches(play({**good, "r": peer("r", NEW)}, order=last)) == []


def test_a_failure_halts_the_rest() -> None:
    good = peer("p", NEW, seconds=60)
    made = play({"p": good, "q": peer("q", NEW, phase=Phase.FAILED)}, order=("p", "q", "r", "n"))
    assert made.steps == ()
    assert made.outcomes[0].reason == "RolloutHalted"
    assert "version 2 is halted, because q failed it: is Failed there" in made.outcomes[0].sentence
    assert made.outcomes[0].serving == (1,)


def test_the_way_back_waits_for_nobody() -> None:
    back = replace(NEW, version=1)
    made = play({}, back, admitted=fingerprint(NEW))
    assert made.outcomes[0].phase is Phase.DEPLOYED
    assert made.ask_peers == ()


def test_other_bytes_of_a_version_that_served_are_not_the_way_back() -> None:
    """They have served nowhere, and no node may take them before its turn."""
    other = listing("a", 2, pin=2, generation=2)
    lock = Lock("a.lock.yaml", "a", NEW.source, 2, {2: lock_snapshot(other.snapshots[2], {})})
    asked = replace(NEW, version=None, lock=lock)
    memory = remembered({"a": [3]})
    memory = memory.with_model("a", replace(memory.of("a"), proven=(1, 2, 3)))
    world = World(
        replace(desired(asked), holders={"a": ORDER}),
        available(other),
        local({"a": [2, 3]}),
        served({"a": {3: State.AVAILABLE}}),
        restart_config(memory),
        peers={},
    )
    made = make_plan(world, memory)
    assert (made.outcomes[0].reason, made.steps) == ("WaitsForWave", ())
    assert made.memory.of("a").proven == (1, 3)
    made = make_plan(replace(world, peers={"p": peer("p", asked, seconds=60)}), memory)
    assert removals(made) == [("a", 2)]  # to make room for the others


def test_what_had_begun_goes_on() -> None:
    made = play({}, admitted=fingerprint(NEW), on_disk=(1, 2))
    assert configured(made) is not None


def test_an_unlocked_latest_goes_in_waves_too() -> None:
    newest = replace(NEW, version=None)
    made = play(
        {"p": peer("p", newest, seconds=60, wanted=1)}, newest, admitted=fingerprint(newest)
    )
    assert made.steps == ()
    assert made.outcomes[0].reason == "WaitsForWave"
    assert made.memory.of("a").resolved == {}
    made = play(
        {"p": peer("p", newest, seconds=60, wanted=2)}, newest, admitted=fingerprint(newest)
    )
    assert fetches(made) == [("a", 2)]


def test_to_stop_waits_for_nobody() -> None:
    assert play({}, replace(NEW, stop=True)).ask_peers == ()


def test_alone_a_node_waits_for_nobody() -> None:
    assert fetches(play(None)) == [("a", 2)]


@given(
    waves=st.lists(
        st.builds(Wave, st.integers(1, 100), st.booleans()), max_size=6
    ),
    nodes=st.integers(1, 300),
)  # fmt: skip
def test_every_node_has_its_turn_and_only_waits_for_those_before_it(
    waves: list[Wave], nodes: int
) -> None:
    order = [f"n{number}" for number in range(nodes)]
    turns = [find_turn((*waves, ALL), order, node) for node in order]
    assert [turn.wave for turn in turns] == sorted(turn.wave for turn in turns)
    assert turns[0].before == ()
    for node, turn in zip(order, turns, strict=True):
        assert node not in turn.before
        assert set(turn.before) == {
            other for other, its in zip(order, turns, strict=True) if its.wave < turn.wave
        }
