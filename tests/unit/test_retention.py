"""What may be deleted, rule by rule: each of these once kept something that was needed."""

from dataclasses import replace

from reconciler.model import Ask, Lock, Problem, Staged, State
from reconciler.planning.locks import lock_snapshot
from reconciler.planning.memory import Memory, ModelMemory, back_off
from reconciler.planning.retention import removable_versions
from reconciler.planning.rollout import Goal
from reconciler.planning.steps import Plan, RemoveStaging, RemoveVersion, World
from reconciler.policy import Policy
from tests.unit.worlds import (
    NOW,
    available,
    deployment,
    desired,
    fetches,
    listing,
    local,
    make_plan,
    remembered,
    removals,
    restart_config,
    served,
    snapshot,
    source,
)

UP, END = State.AVAILABLE, State.END


def gone_world(known: ModelMemory, *states: State, installed: int = 2) -> tuple[World, Memory]:
    """A node that serves b, and from which a was taken in git; its versions say these states."""
    memory = remembered({"b": [1]}, a=known)
    world = World(
        desired=desired(deployment("b", 1)),
        available=available(),
        local=local({"a": range(1, installed + 1), "b": [1]}),
        served=served({"a": dict(enumerate(states, 1)), "b": {1: UP}}),
        restart_config=restart_config(memory),
    )
    return world, memory


def last_of(made: Plan) -> list[tuple[int, bool]]:
    return [(step.version, step.is_last) for step in made.steps if isinstance(step, RemoveVersion)]


def unstaged(made: Plan) -> list[tuple[str, int]]:
    return [(step.model, step.version) for step in made.steps if isinstance(step, RemoveStaging)]


# --- models that left git -------------------------------------------------------------------


def test_of_a_model_that_left_all_goes_and_its_folder_with_the_last() -> None:
    world, memory = gone_world(ModelMemory(proven=(1, 2)), END, END)
    assert last_of(make_plan(world, memory)) == [(1, False), (2, True)]


def test_the_folder_of_a_model_whose_name_the_server_has_is_left() -> None:
    # It would look for no version of any model while the folder of one is missing.
    world, memory = gone_world(ModelMemory(asked=Ask(frozenset()), proven=(1, 2)), END, END)
    assert removals(make_plan(world, memory)) == []


def test_nothing_of_a_model_goes_while_the_server_still_holds_a_version() -> None:
    world, memory = gone_world(ModelMemory(proven=(1, 2)), END, State.UNLOADING)
    assert removals(make_plan(world, memory)) == []


def test_what_must_stay_stays_also_where_the_server_does_not_have_it() -> None:
    world, memory = gone_world(ModelMemory(proven=(1, 2)), END, END)
    broken = {"a": Problem("deployments/g/a.yaml", 1, 1, "no YAML")}
    for held in (
        desired(deployment("b", 1), policy=Policy(max_removals=0)),
        replace(world.desired, broken=broken),
    ):
        assert removals(make_plan(replace(world, desired=held), memory)) == []


def test_the_only_model_may_leave_for_another() -> None:
    memory = remembered({}, a=ModelMemory(proven=(1,)))
    world = World(
        desired=desired(deployment("b", 1)),
        available=available(listing("b", 1, pin=1)),
        local=local({"a": [1]}),
        served=served({"a": {1: END}, "b": {}}),
        restart_config={},
    )
    assert removals(make_plan(world, memory)) == [("a", 1)]


# --- versions that nothing needs ------------------------------------------------------------


def test_until_the_successor_answers_what_served_last_stays_whatever_is_to_be_kept() -> None:
    found = local({"a": [1, 2, 3]}).versions["a"]
    known = ModelMemory(asked=Ask(frozenset({3})), proven=(1, 2))
    goal = Goal(3)
    assert removable_versions(found, known, {}, goal, keep=0) == (1,)
    answers = replace(known, available=frozenset({3}), proven=(1, 2, 3))
    assert removable_versions(found, answers, {}, goal, keep=0) == (1, 2)


def test_the_last_entry_that_worked_stays() -> None:
    found = local({"a": [1, 2, 3]}).versions["a"]
    known = ModelMemory(good=Ask(frozenset({1})), proven=(2, 3), available=frozenset({3}))
    assert removable_versions(found, known, {}, Goal(3), keep=0) == (2,)


def test_a_stopped_model_keeps_the_version_that_it_would_start_with() -> None:
    memory = remembered({}, a=ModelMemory(proven=(2, 0, 1)))
    world = World(
        desired=desired(deployment("a", 0, stop=True), policy=Policy(keep=0)),
        available=available(),
        local=local({"a": [0, 1, 2]}),
        served=served({"a": dict.fromkeys((0, 1, 2), END)}),
        restart_config={},
    )
    # As it does not answer, what served last stays as well.
    assert removals(make_plan(world, memory)) == [("a", 2)]


# --- other bytes of the same version --------------------------------------------------------


def test_bytes_are_replaced_only_when_the_server_does_not_have_them() -> None:
    failed = back_off("no such op", None, NOW, digest=snapshot("a", 2).digest)
    known = ModelMemory(
        asked=Ask(frozenset({1})),
        good=Ask(frozenset({1})),
        available=frozenset({1}),
        proven=(1,),
        load_failures={2: failed},
    )
    world = World(
        desired=desired(deployment("a", 2)),
        available=available(listing("a", 2, pin=2, generation=9)),
        local=local({"a": [1, 2]}),
        served=served({"a": {1: UP, 2: END}}),
        restart_config={"a": Ask(frozenset({1}))},
    )
    first = make_plan(world, remembered({}, a=known)).memory
    known = replace(first.of("a"), load_failures={2: failed})
    memory = first.with_model("a", known)
    assert last_of(make_plan(world, memory)) == [(2, False)]
    loading = replace(world, served=served({"a": {1: UP, 2: State.LOADING}}))
    assert removals(make_plan(loading, memory)) == []
    asked = memory.with_model("a", replace(known, asked=Ask(frozenset({1, 2}))))
    assert removals(make_plan(world, asked)) == []


def test_the_folder_of_a_model_stays_for_the_bytes_to_come() -> None:
    wanted = lock_snapshot(snapshot("a", 1, generation=9), {})
    lock = Lock("deployments/g/a.lock.yaml", "a", source("a"), 1, {1: wanted})
    world = World(
        desired=desired(deployment("a", 1, lock=lock)),
        available=available(listing("a", 1, pin=1, generation=9)),
        local=local({"a": [1]}),
        served=served({"a": {}}),
        restart_config={},
    )
    assert last_of(make_plan(world, remembered({}))) == [(1, False)]


# --- downloads ------------------------------------------------------------------------------


def test_a_download_stays_while_it_is_wanted_and_goes_when_it_is_not() -> None:
    begun = tuple(Staged("a", v, snapshot("a", v).digest, 5) for v in (2, 3))
    memory = remembered({"a": [1]})
    world = World(
        desired=desired(deployment("a", 2)),
        available=available(listing("a", 2, pin=2)),
        local=replace(local({"a": [1]}), staged=begun),
        served=served({"a": {1: UP}}),
        restart_config=restart_config(memory),
    )
    made = make_plan(world, memory)
    assert fetches(made) == [("a", 2)]
    assert unstaged(made) == [("a", 3)]


def test_a_download_of_latest_stays_while_nobody_can_say_what_that_is() -> None:
    memory = remembered({"a": [1]})
    known = replace(memory.of("a"), resolved={source("a"): 1})
    begun = (Staged("a", 2, snapshot("a", 2).digest, 5),)
    world = World(
        desired=desired(deployment("a", None)),
        available=available(),
        local=replace(local({"a": [1]}), staged=begun),
        served=served({"a": {1: UP}}),
        restart_config=restart_config(memory),
    )
    assert unstaged(make_plan(world, memory.with_model("a", known))) == []
    listed = replace(world, available=available(listing("a", 1)))
    assert unstaged(make_plan(listed, memory.with_model("a", known))) == [("a", 2)]
