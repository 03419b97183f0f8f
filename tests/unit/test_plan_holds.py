"""Freezes, suspensions and pauses: what is left as it is, and what goes through all the same."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reconciler.model import (
    Ask,
    Condition,
    Deployment,
    Group,
    Lock,
    Member,
    Pause,
    Phase,
    Quota,
    State,
    Unavailable,
)
from reconciler.planning.conditions import CHANGES_ALLOWED, REMOVALS_ALLOWED
from reconciler.planning.goals import fingerprint
from reconciler.planning.locks import lock_snapshot
from reconciler.planning.memory import Memory, ModelMemory
from reconciler.planning.outcome import SERVER_UNREACHABLE
from reconciler.planning.steps import Plan, World
from reconciler.policy import Freeze, Policy
from tests.unit.worlds import (
    SIZE,
    available,
    configured,
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

UP = State.AVAILABLE
SATURDAY = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
TUESDAY = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
WEEKEND = Freeze("0 18 * * fri", 62 * 3600.0, "Europe/Berlin", "no changes at weekends")


def frozen(*wanted: Deployment, at: float = SATURDAY, freeze: Freeze = WEEKEND) -> World:
    """A node that serves version 2 of a and has served 1; both are on disk."""
    memory = serving()
    return World(
        desired=desired(*wanted, policy=Policy(freezes=(freeze,), keep=0)),
        available=available(listing("a", 3, pin=3), listing("b", 1, pin=1)),
        local=local({"a": [1, 2]}),
        served=served({"a": {2: UP}}),
        restart_config=restart_config(memory),
        wall_seconds=at,
    )


def serving() -> Memory:
    memory = remembered({"a": [2]})
    known = replace(memory.of("a"), proven=(1, 2), admitted=fingerprint(deployment("a", 2)))
    return memory.with_model("a", known)


def change_condition(made: Plan) -> Condition:
    return next(c for c in made.conditions if c.name == CHANGES_ALLOWED)


def test_a_freeze_holds_a_new_version_back_and_says_until_when() -> None:
    made = make_plan(frozen(deployment("a", 3)), serving())
    assert made.steps == ()
    (outcome,) = made.outcomes
    assert (outcome.phase, outcome.reason, outcome.wanted) == (Phase.DEPLOYING, "Frozen", 3)
    assert "frozen until Mon 2026-11-23 08:00 Europe/Berlin" in outcome.sentence
    assert "no changes at weekends" in outcome.sentence
    assert outcome.retry_in_seconds == 43 * 3600
    assert "version 2 goes on serving" in outcome.sentence
    condition = change_condition(made)
    assert (condition.holds, condition.reason) == (False, "Frozen")
    assert not made.in_motion


def test_outside_of_it_the_same_commit_is_carried_out() -> None:
    made = make_plan(frozen(deployment("a", 3), at=TUESDAY), serving())
    assert fetches(made) == [("a", 3)]
    assert change_condition(made).holds


def test_a_freeze_of_other_groups_is_none() -> None:
    other = replace(WEEKEND, groups=frozenset({"other"}))
    assert fetches(make_plan(frozen(deployment("a", 3), freeze=other), serving())) == [("a", 3)]


def test_a_freeze_lets_a_version_back_that_served_before() -> None:
    made = make_plan(frozen(deployment("a", 1)), serving())
    assert configured(made) == {"a": Ask(frozenset({1, 2}))}


def test_a_freeze_holds_other_bytes_under_a_number_that_served_before() -> None:
    bytes_of_1 = lock_snapshot(snapshot("a", 1, generation=9), {})
    lock = Lock("deployments/g/a.lock.yaml", "a", source("a"), 1, {1: bytes_of_1})
    listed = available(listing("a", 1, pin=1, generation=9))
    made = make_plan(replace(frozen(deployment("a", 1, lock=lock)), available=listed), serving())
    assert made.steps == ()
    assert made.outcomes[0].reason == "Frozen"
    assert "version 1 waits" in made.outcomes[0].sentence
    tuesday = replace(
        frozen(deployment("a", 1, lock=lock), at=TUESDAY), available=listed, restart_config={}
    )
    assert ("a", 1) in removals(make_plan(tuesday, serving()))
    # The bytes that served are no others.
    own = replace(lock, versions={1: lock_snapshot(snapshot("a", 1), {})})
    made = make_plan(frozen(deployment("a", 1, lock=own)), serving())
    assert configured(made) == {"a": Ask(frozenset({1, 2}))}


def test_a_held_model_says_what_it_is_that_waits() -> None:
    def sentence(world: World) -> str:
        return make_plan(world, serving()).outcomes[0].sentence

    canary = sentence(frozen(deployment("a", 2, labels={"canary": 3})))
    assert "; version 3 waits; version 2 goes on serving" in canary
    stable = deployment("a", 2, labels={"stable": 2}, suspend=True)
    assert "; the rest of the change waits; version 2 goes on serving" in sentence(frozen(stable))
    away = Unavailable(SERVER_UNREACHABLE, "it is gone")
    unreachable = sentence(replace(frozen(stable), served=away))
    assert "suspend: true in deployments/g/a.yaml; waits for TensorFlow Serving" in unreachable


def test_a_freeze_without_anything_that_waits_is_no_alarm() -> None:
    made = make_plan(frozen(deployment("a", 2)), serving())
    assert made.outcomes[0].phase is Phase.DEPLOYED
    assert change_condition(made).holds
    assert change_condition(made).reason == "Frozen"


def test_a_freeze_holds_new_models_stops_removals_and_deletions() -> None:
    new = make_plan(frozen(deployment("a", 2), deployment("b", 1)), serving())
    assert new.steps == ()
    assert [o.reason for o in new.outcomes] == ["Serving", "Frozen"]
    stop = make_plan(frozen(deployment("a", 2, stop=True)), serving())
    assert stop.steps == ()
    assert (stop.outcomes[0].phase, stop.outcomes[0].reason) == (Phase.STOPPING, "Frozen")
    gone = make_plan(frozen(deployment("c", 1)), serving())
    assert removals(gone) == []
    assert configured(gone) is None
    assert "but goes on serving: frozen until" in gone.removals[0].sentence
    (removals_allowed,) = (c for c in gone.conditions if c.name == REMOVALS_ALLOWED)
    assert "a left git and stays here: frozen until" in removals_allowed.sentence
    assert change_condition(gone).sentence.endswith("; a, c wait")
    away = Unavailable(SERVER_UNREACHABLE, "it is gone")
    unseen = make_plan(replace(frozen(deployment("c", 1)), served=away), serving())
    assert "but stays on this node: frozen until" in unseen.removals[0].sentence


def test_a_freeze_holds_labels_of_versions_that_never_served() -> None:
    made = make_plan(frozen(deployment("a", 2, labels={"canary": 3})), serving())
    assert made.steps == ()


def test_what_had_begun_before_the_freeze_goes_on() -> None:
    known = replace(serving().of("a"), admitted=fingerprint(deployment("a", 3)))
    made = make_plan(frozen(deployment("a", 3)), serving().with_model("a", known))
    assert fetches(made) == [("a", 3)]


def test_latest_does_not_move_on_in_a_freeze() -> None:
    latest = deployment("a", None)
    known = replace(serving().of("a"), admitted=fingerprint(latest), resolved={latest.source: 2})
    world = replace(frozen(latest), available=available(listing("a", 1, 2, 3)))
    made = make_plan(world, serving().with_model("a", known))
    assert made.steps == ()
    assert made.outcomes[0].reason == "Frozen"


def test_a_node_without_a_past_takes_up_what_git_says_and_stays_with_it() -> None:
    world = replace(
        frozen(deployment("a", 3)), local=local({}), served=served({}), restart_config={}
    )
    made = make_plan(world, Memory())
    assert fetches(made) == [("a", 3)]
    again = make_plan(world, made.memory)
    assert fetches(again) == [("a", 3)]
    other = replace(world, desired=desired(deployment("b", 1), policy=world.desired.policy))
    assert fetches(make_plan(other, made.memory)) == []


def test_a_suspended_deployment_is_left_as_it_is_and_the_others_go_on() -> None:
    world = frozen(deployment("a", 1, suspend=True), deployment("b", 1), at=TUESDAY)
    made = make_plan(world, serving())
    assert configured(made) is None
    assert fetches(made) == [("b", 1)]
    assert made.outcomes[0].reason == "Suspended"
    assert "deployments/g/a.yaml" in made.outcomes[0].sentence
    assert not change_condition(made).holds


@pytest.mark.parametrize(
    "suspended", [deployment("a", 3, suspend=True), deployment("a", 2, suspend=True, stop=True)]
)
def test_what_a_suspended_model_uses_is_not_promised_to_another(suspended: Deployment) -> None:
    world = frozen(suspended, deployment("b", 1), at=TUESDAY)
    quota = Quota(disk_bytes=SIZE * 3 // 2)
    tight = replace(world, desired=desired(suspended, deployment("b", 1), quota=quota))
    made = make_plan(tight, serving())
    assert fetches(made) == []
    assert made.outcomes[1].reason == "GroupQuotaExceeded"


def test_a_suspended_group_is_left_as_it_is() -> None:
    group = Group("g", "groups/g.yaml", (Member("n"),), suspend=True)
    world = frozen(deployment("a", 1), deployment("b", 1), at=TUESDAY)
    made = make_plan(replace(world, desired=replace(world.desired, group=group)), serving())
    assert made.steps == ()
    assert {o.reason for o in made.outcomes} == {"Suspended"}


@pytest.mark.parametrize("is_asked", [True, False])
def test_what_was_stopped_is_not_loaded_again_where_it_is_to_be_left_as_it_is(
    is_asked: bool,
) -> None:
    stopped = ModelMemory(proven=(2,), dropped={2: 0.0})
    group = Group("g", "groups/g.yaml", (Member("n"),), suspend=True)
    suspended = frozen(deployment("a", 2, stop=is_asked), at=TUESDAY)
    suspended = replace(suspended, desired=replace(suspended.desired, group=group))
    gone = replace(frozen(at=TUESDAY), git_trouble=Unavailable("Timeout", "no answer"))
    for world in (suspended, gone):
        world = replace(world, served=served({"a": {2: State.END}}), restart_config={})
        made = make_plan(world, remembered({}, a=stopped))
        assert made.steps == ()
    assert not next(c for c in made.conditions if c.name == REMOVALS_ALLOWED).holds


@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_a_paused_node_is_not_touched_until_the_pause_is_over(wanted: int) -> None:
    pause = Pause("disk is being replaced", TUESDAY + 3600)
    world = replace(
        frozen(deployment("a", wanted), at=TUESDAY),
        pause=pause,
        restart_config={"x": Ask(frozenset({1}))},
    )
    made = make_plan(world, serving())
    assert made.steps == ()
    condition = change_condition(made)
    assert (condition.holds, condition.reason) == (False, "Paused")
    assert "until Tue 2026-11-24 13:00 UTC: disk is being replaced" in condition.sentence
    over = replace(world, wall_seconds=TUESDAY + 3601)
    assert make_plan(over, serving()).steps
