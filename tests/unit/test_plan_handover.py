"""A node that loses a deployment serves it until others do."""

from dataclasses import replace

import pytest

from reconciler.model import (
    Ask,
    Deployment,
    Desired,
    Group,
    Member,
    Phase,
    Problem,
    State,
    Unavailable,
)
from reconciler.planning.memory import Memory
from reconciler.planning.peers import NO_ADDRESS, Peers
from reconciler.planning.steps import Configure, Plan, World
from reconciler.policy import Policy
from tests.unit.worlds import (
    NOW,
    available,
    configured,
    deployment,
    desired,
    local,
    make_plan,
    older,
    peer,
    remembered,
    removals,
    restart_config,
    served,
)

SILENT = Unavailable("NoStatus", "10.0.0.2:8080 did not answer within 3 s")
UNKNOWN = Unavailable(NO_ADDRESS, "no address is known")
MOVED = deployment("a", replicas=2)
STAYS = deployment("b")
POLICY = Policy(handover_timeout_seconds=600, drain_seconds=10)


def ask(moved: Deployment = MOVED, *holders: str) -> Desired:
    asked = desired(STAYS, policy=POLICY)
    return replace(asked, elsewhere=(moved,), holders={"a": holders or ("m", "o"), "b": ("n",)})


def world(peers: Peers | None, asked: Desired | None = None) -> World:
    memory = remembered({"a": [1], "b": [1]})
    return World(
        asked or ask(),
        available(),
        local({"a": [1], "b": [1]}),
        served({"a": {1: State.AVAILABLE}, "b": {1: State.AVAILABLE}}),
        restart_config(memory),
        peers=peers,
    )


def play(*moments: tuple[float, Peers | None], asked: Desired | None = None) -> Plan:
    """Plan at each of these times and return the last plan."""
    memory: Memory = remembered({"a": [1], "b": [1]})
    for after, peers in moments:
        made = make_plan(world(peers, asked), memory, NOW + after)
        memory = made.memory
    return made


def unloads(made: Plan) -> bool:
    config = configured(made)
    return config is not None and config == {"b": Ask(frozenset({1}))}


def test_it_stays_until_all_that_take_it_over_are_deployed() -> None:
    cases: tuple[Peers, ...] = (
        {},
        {"m": peer("m", MOVED)},
        {"m": peer("m", MOVED), "o": SILENT},
        {"m": peer("m", MOVED), "o": peer("o", MOVED, phase=Phase.DEPLOYING)},
        {"m": peer("m", MOVED), "o": peer("o", replace(MOVED, version=2))},
    )
    for peers in cases:
        made = play((0, peers), (500, peers))
        assert made.steps == ()
        (moved,) = made.removals
        assert (moved.phase, moved.reason) == (Phase.STOPPING, "HandingOver")
        assert moved.sentence.startswith("is to be served by m and o instead and waits until")
        assert moved.serving == (1,)
        assert made.ask_peers == ("m", "o")
    assert "o says Deploying: is Deploying there" in play((0, {"o": peer(
        "o", MOVED, phase=Phase.DEPLOYING)})).removals[0].sentence  # fmt: skip


def test_it_drains_and_then_goes() -> None:
    both: Peers = {"m": peer("m", MOVED), "o": peer("o", MOVED)}
    made = play((0, {}), (5, both), (14.9, both))
    assert made.steps == ()
    assert made.removals[0].reason == "Draining"
    assert made.removals[0].retry_in_seconds == pytest.approx(0.1)
    made = play((0, {}), (5, both), (15, both))
    assert unloads(made)
    assert made.removals[0].reason == "Unloading"


def test_one_that_is_lost_again_while_it_drains_is_waited_for() -> None:
    both: Peers = {"m": peer("m", MOVED), "o": peer("o", MOVED)}
    made = play((0, both), (9, {"m": both["m"], "o": SILENT}), (11, both), (20, both))
    assert made.removals[0].reason == "Draining"
    assert unloads(play((0, both), (9, {"o": SILENT}), (11, both), (21, both)))


def test_after_the_timeout_one_that_serves_it_is_enough() -> None:
    one: Peers = {"m": peer("m", MOVED), "o": SILENT}
    assert play((0, one), (599, one), (612, one)).removals[0].reason == "Draining"
    assert unloads(play((0, one), (600, one), (610, one)))


def test_an_agent_of_an_older_release_is_waited_for_and_named() -> None:
    made = play((0, {"m": peer("m", MOVED), "o": older(peer("o", MOVED))}))
    assert made.steps == ()
    assert "(o does not say what is asked of it, as agents of older" in made.removals[0].sentence


def test_the_last_copy_is_never_given_up() -> None:
    none: Peers = {"m": SILENT, "o": peer("o", MOVED, phase=Phase.FAILED)}
    made = play((0, none), (100_000, none), (200_000, none))
    assert made.steps == ()
    assert "none of them is known to serve it yet" in made.removals[0].sentence


def test_where_nobody_can_be_asked_the_timeout_decides() -> None:
    none: Peers = {"m": UNKNOWN, "o": UNKNOWN}
    assert play((0, none), (599, none)).steps == ()
    assert unloads(play((0, none), (600, none), (610, none)))


def test_with_nobody_left_to_take_it_it_stays() -> None:
    asked = replace(ask(), holders={"a": (), "b": ("n",)})
    made = play((0, {}), (100_000, {}), asked=asked)
    assert made.steps == ()
    assert "no node of the group is left" in made.removals[0].sentence


def test_what_is_stopped_needs_no_successor() -> None:
    made = play((0, {}), asked=ask(replace(MOVED, stop=True)))
    assert unloads(made)
    assert "is served by" not in made.removals[0].sentence


def test_what_is_suspended_stays_where_it_is() -> None:
    asked = ask(replace(MOVED, suspend=True))
    both: Peers = {"m": peer("m", MOVED), "o": peer("o", MOVED)}
    made = play((0, both), (100_000, both), asked=asked)
    assert made.steps == ()
    assert "suspend: true in deployments/g/a.yaml" in made.removals[0].sentence


def test_no_time_runs_out_while_nothing_may_change() -> None:
    """The others are held too, so that one of them alone would be left with it right after."""
    one: Peers = {"m": peer("m", MOVED), "o": peer("o", MOVED, phase=Phase.DEPLOYING)}
    asked = ask()
    assert asked.group is not None
    held_group = replace(asked, group=replace(asked.group, suspend=True))
    for held in (ask(replace(MOVED, suspend=True)), held_group):
        memory: Memory = remembered({"a": [1], "b": [1]})
        for after in (0, 3600):
            memory = make_plan(world(one, held), memory, NOW + after).memory
        for after, reason in ((3601, "HandingOver"), (4200, "HandingOver"), (4201, "Draining")):
            made = make_plan(world(one), memory, NOW + after)
            memory = made.memory
            assert made.steps == ()
            assert made.removals[0].reason == reason
        assert unloads(make_plan(world(one), memory, NOW + 4211))


@pytest.mark.parametrize("reason", ["WaitsForWave", "RolloutHalted"])
def test_no_time_runs_out_while_one_of_them_waits_for_its_wave(reason: str) -> None:
    """A rollout that is halted would else cost a replica with each node that is replaced."""
    good = peer("m", MOVED)
    waits: Peers = {"m": good, "o": peer("o", MOVED, phase=Phase.DEPLOYING, reason=reason)}
    loads: Peers = {"m": good, "o": peer("o", MOVED, phase=Phase.DEPLOYING)}
    made = play((0, waits), (100_000, waits), (100_001, loads), (100_599, loads))
    assert made.steps == ()
    assert made.removals[0].reason == "HandingOver"
    late = (100_600, loads), (100_610, loads)
    assert unloads(play((0, waits), (100_000, waits), (100_001, loads), *late))


def test_another_node_that_is_to_take_it_over_has_the_whole_time() -> None:
    one: Peers = {"m": peer("m", MOVED), "o": SILENT, "p": SILENT}
    memory = play((0, one), (599, one)).memory
    for after in (601, 700, 1200):
        made = make_plan(world(one, ask(MOVED, "m", "p")), memory, NOW + after)
        memory = made.memory
        assert made.removals[0].reason == "HandingOver"
    fewer = ask(MOVED, "m")
    made = make_plan(world({"m": SILENT}, fewer), memory, NOW + 1201)
    assert "none of them is known to serve it yet" in made.removals[0].sentence


def test_one_that_was_no_hand_over_for_a_while_begins_anew() -> None:
    one: Peers = {"m": peer("m", MOVED), "o": SILENT}
    memory = play((0, one)).memory
    unlisted = replace(desired(), group=None)
    memory = make_plan(world(one, unlisted), memory, NOW + 10).memory
    made = make_plan(world(one), memory, NOW + 5000)
    assert made.removals[0].reason == "HandingOver"
    assert made.memory.of("a").moved_at == NOW + 5000


def test_one_that_comes_back_is_forgotten_as_moved() -> None:
    both: Peers = {"m": peer("m", MOVED), "o": peer("o", MOVED)}
    made = play((0, both))
    assert made.memory.of("a").moved_at == NOW
    back = replace(desired(MOVED, STAYS, policy=POLICY), holders={"a": ("n",), "b": ("n",)})
    made = make_plan(world(both, back), made.memory, NOW + 5)
    assert made.memory.of("a").moved_at is None
    assert made.removals == ()


def test_its_files_go_only_once_the_server_let_it_go() -> None:
    both: Peers = {"m": peer("m", MOVED), "o": peer("o", MOVED)}
    made = play((0, both), (10, both))
    assert removals(made) == []
    assert [type(step) for step in made.steps] == [Configure]
    memory = remembered({"b": [1]})
    gone = replace(
        world(both),
        served=served({"b": {1: State.AVAILABLE}}),
        restart_config=restart_config(memory),
    )
    relieved = replace(made.memory.of("a"), asked=None, good=None)
    made = make_plan(gone, memory.with_model("a", relieved), NOW + 10)
    assert removals(made) == [("a", 1)]


def test_a_move_is_no_removal_from_git() -> None:
    """Neither the cap on removals nor the guard against an emptied repo is about moves."""
    asked = replace(
        desired(policy=replace(POLICY, max_removals=1)),
        elsewhere=(MOVED, STAYS),
        holders={"a": ("m",), "b": ("m",)},
    )
    peers = {"m": peer("m", MOVED, STAYS)}
    made = play((0, peers), (10, peers), asked=asked)
    assert configured(made) == {}
    assert all(condition.holds for condition in made.conditions)


def test_one_that_left_git_goes_also_where_all_others_are_elsewhere() -> None:
    """The node is empty then, but the repo is not."""
    asked = replace(
        desired(policy=replace(POLICY, max_removals=2)),
        elsewhere=(MOVED,),
        holders={"a": ("m",)},
    )
    peers = {"m": peer("m", MOVED)}
    made = play((0, peers), (10, peers), asked=asked)
    assert configured(made) == {}
    emptied = replace(asked, elsewhere=(), holders={})
    made = play((0, peers), (10, peers), asked=emptied)
    assert made.steps == ()
    assert "leaves this node with no model at all" in made.removals[0].sentence


def test_in_doubt_about_git_nothing_is_handed_over() -> None:
    both: Peers = {"m": peer("m", MOVED), "o": peer("o", MOVED)}
    memory = remembered({"a": [1], "b": [1]})
    for after in (0, 10, 20):
        doubtful = replace(world(both), git_trouble=Unavailable("Offline", "no route"))
        made = make_plan(doubtful, memory, NOW + after)
        memory = made.memory
        assert made.steps == ()
    assert "the newest commit is not known" in made.removals[0].sentence


def test_alone_a_node_takes_the_others_for_done() -> None:
    assert unloads(play((0, None)))


# --- to another group -----------------------------------------------------------------------

ABROAD = replace(MOVED, group="h", path="deployments/h/a.yaml", replicas=None)
H = Group("h", "groups/h.yaml", (Member("p"), Member("q")))


def go_abroad(*items: Deployment, groups: tuple[Group, ...] = (H,)) -> Desired:
    return replace(
        desired(STAYS, policy=POLICY),
        abroad={"a": items},
        groups={group.name: group for group in groups},
        holders={"b": ("n",)},
    )


def test_what_goes_to_another_group_stays_until_that_group_serves_it() -> None:
    asked = go_abroad(ABROAD)
    one = {"p": peer("p", ABROAD)}
    made = play((0, one), (500, one), asked=asked)
    assert made.steps == ()
    (moved,) = made.removals
    assert (moved.deployment.group, moved.reason) == ("g", "HandingOver")
    assert "served by p and q of group h instead and waits until all of them do (q was not" in (
        moved.sentence
    )
    assert made.ask_peers == ("p", "q")
    both = one | {"q": peer("q", ABROAD)}
    assert play((0, both), (9, both), asked=asked).removals[0].reason == "Draining"
    assert unloads(play((0, both), (10, both), asked=asked))


def test_all_groups_that_deploy_it_are_waited_for_and_after_the_timeout_any() -> None:
    further = replace(ABROAD, group="i", path="deployments/i/a.yaml")
    asked = go_abroad(ABROAD, further, groups=(H, Group("i", "groups/i.yaml", (Member("r"),))))
    some: Peers = {"p": peer("p", ABROAD), "q": peer("q", ABROAD), "r": SILENT}
    made = play((0, some), (599, some), (612, some), asked=asked)
    assert made.removals[0].reason == "Draining"
    assert unloads(play((0, some), (600, some), (610, some), asked=asked))


def test_it_stays_while_the_other_group_has_no_node_known() -> None:
    asked = go_abroad(ABROAD, groups=(replace(H, nodes=()),))
    made = play((0, {}), (100_000, {}), asked=asked)
    assert made.steps == ()
    assert "no node of group h is left to take it over" in made.removals[0].sentence


def test_one_that_is_suspended_in_the_other_group_is_only_waited_for() -> None:
    asked = go_abroad(replace(ABROAD, suspend=True))
    both: Peers = {"p": peer("p", ABROAD), "q": peer("q", ABROAD)}
    assert unloads(play((0, both), (10, both), asked=asked))


def test_a_broken_file_keeps_the_model_here_whatever_other_groups_do() -> None:
    problem = Problem("deployments/g/a.yaml", 1, 1, "is no YAML")
    asked = replace(go_abroad(ABROAD), broken={"a": problem})
    both: Peers = {"p": peer("p", ABROAD), "q": peer("q", ABROAD)}
    made = play((0, both), (10, both), (100, both), asked=asked)
    assert made.steps == ()
    assert made.removals == ()


def test_the_guard_against_an_emptied_node_is_not_about_other_groups() -> None:
    asked = replace(go_abroad(ABROAD), deployments=(), holders={})
    both: Peers = {"p": peer("p", ABROAD), "q": peer("q", ABROAD)}
    made = play((0, both), (10, both), asked=asked)
    assert configured(made) == {"b": Ask(frozenset({1}))}
    assert {item.deployment.model: item.reason for item in made.removals} == {
        "a": "Unloading",
        "b": "RemovalsHeld",
    }
