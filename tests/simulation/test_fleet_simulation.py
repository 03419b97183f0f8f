"""Whatever happens to a fleet, what is promised holds; and where not, the simulation sees it."""

import dataclasses
from collections.abc import Callable, Mapping

import pytest

from reconciler.model import Ask, ServerConfig
from reconciler.planning import handover, room, waves
from reconciler.planning import plan as planning
from reconciler.planning.rollout import Request, next_request
from reconciler.policy import Policy
from tests.simulation.events import Add, Commit, Kill, SetWeight, Start
from tests.simulation.fleet import Simulation
from tests.simulation.invariants import BrokenError, Promise
from tests.simulation.large import make_large
from tests.simulation.node import Traits
from tests.simulation.schedules import find_broken, make_schedule, run, shrink
from tests.simulation.setup import Model, Schedule, Setup

BLOCK = 100
BLOCKS = 4
"""`python -m bench.fleet_simulation` plays as many schedules as anybody has patience for."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_whatever_happens_every_promise_is_kept(block: int) -> None:
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        schedule = make_schedule(seed)
        try:
            result = run(schedule)
        except BrokenError as error:
            small = shrink(schedule, error.promise)
            pytest.fail(f"schedule {seed}: {error}\n{small}")
        assert result.plans > 0


def test_a_schedule_goes_the_same_way_each_time() -> None:
    assert run(make_schedule(7)) == run(make_schedule(7))


def test_sixty_nodes_with_two_hundred_deployments_keep_every_promise() -> None:
    result = run(make_large(1, nodes=60, deployments=200))
    assert result.settle_seconds < 120


# --- what the simulation can see ------------------------------------------------------------


def give_up_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handover, "_find_words", lambda *_: ())


def give_up_the_last_copy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handover, "_is_served", lambda *_: True)


def give_up_without_a_drain(patch: pytest.MonkeyPatch) -> None:
    real = handover.hand_over

    def hasty(*arguments: object) -> object:
        *others, policy, now = arguments
        assert isinstance(policy, Policy)
        policy = dataclasses.replace(policy, drain_seconds=0.0)
        return real(*others, policy, now)  # type: ignore[arg-type, call-arg]

    patch.setattr(handover, "hand_over", hasty)


def wait_for_no_pause(patch: pytest.MonkeyPatch) -> None:
    real = waves._judge

    def hasty(*arguments: object) -> object:
        verdict = real(*arguments)  # type: ignore[arg-type]
        return None if isinstance(verdict, float) else verdict

    patch.setattr(waves, "_judge", hasty)


def know_no_quota(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(room, "_check_quota", lambda *_: {})


def say_everything_again(patch: pytest.MonkeyPatch) -> None:
    def chatty(*arguments: object, **options: object) -> object:
        request = next_request(*arguments, **options)  # type: ignore[arg-type]
        memory = arguments[1]
        config: ServerConfig = getattr(memory, "asked_config", {})
        again: Mapping[str, Ask] = {model: ask for model, ask in config.items() if ask.versions}
        return request or (Request(again) if again else None)

    patch.setattr(planning, "next_request", chatty)


@pytest.mark.parametrize(
    ("make_wrong", "promise", "first"),
    [
        (give_up_at_once, Promise.FLOOR, 0),
        (give_up_the_last_copy, Promise.FLOOR, 750),
        (give_up_without_a_drain, Promise.FLOOR, 0),
        (wait_for_no_pause, Promise.WAVES, 0),
        (know_no_quota, Promise.QUOTA, 100),
        (say_everything_again, Promise.REST, 0),
    ],
)
def test_a_plan_that_breaks_a_promise_is_found_out(
    make_wrong: Callable[[pytest.MonkeyPatch], None],
    promise: Promise,
    first: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`first` is a number shortly before a schedule that shows it, to save time."""
    make_wrong(monkeypatch)
    broken = (find_broken(make_schedule(seed)) for seed in range(first, first + 300))
    assert promise in broken


def test_a_schedule_that_fails_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    give_up_at_once(monkeypatch)
    schedule = next(
        found for found in map(make_schedule, range(BLOCK)) if find_broken(found) is Promise.FLOOR
    )
    small = shrink(schedule, Promise.FLOOR)
    assert find_broken(small) is Promise.FLOOR
    assert len(small.events) <= len(schedule.events)
    for index in range(len(small.events)):
        fewer = small.events[:index] + small.events[index + 1 :]
        assert find_broken(dataclasses.replace(small, events=fewer)) is not Promise.FLOOR


# --- single stories -------------------------------------------------------------------------


def setup(*edits: Add | SetWeight, by_registry: bool = False, groups: str = "g") -> Setup:
    return Setup(
        seed=1,
        machines=tuple((f"n{number}", Traits()) for number in range(4)),
        models=tuple(Model(f"m{number}", 100, 3) for number in range(6)),
        first=edits,
        policy=Policy(max_removals=1000, allow_empty=True, member_timeout_seconds=20.0),
        groups=tuple(groups),
        by_registry=by_registry,
    )


MODELS = tuple(Add(f"m{number}", "g", 1, 2) for number in range(6))


def play(setting: Setup, *events: tuple[float, Commit | Kill | Start]) -> Simulation:
    simulation = Simulation(setting)
    simulation.run(events)
    return simulation


def serving(simulation: Simulation) -> dict[str, set[str]]:
    return {
        name: {model for model, versions in node.server.serving.items() if versions}
        for name, node in simulation.alive.items()
    }


def test_a_member_that_is_back_in_time_moves_no_model() -> None:
    setting = setup(*MODELS, by_registry=True)
    undisturbed = play(setting)
    flapped = play(setting, (60.0, Kill("n1")), (72.0, Start("n1")))
    assert serving(flapped) == serving(undisturbed)
    moved = {name: list(node.disk) for name, node in flapped.alive.items()}
    assert moved == {name: list(node.disk) for name, node in undisturbed.alive.items()}


def test_what_a_member_held_is_served_by_others_once_it_is_gone_for_long() -> None:
    gone = serving(play(setup(*MODELS, by_registry=True), (60.0, Kill("n1"))))
    assert gone.keys() == {"n0", "n2", "n3"}
    replicas = {add.model: sum(add.model in held for held in gone.values()) for add in MODELS}
    assert replicas == dict.fromkeys(replicas, 2)


def test_a_node_that_changes_its_group_hands_over_what_it_held() -> None:
    members = (SetWeight("n0", "g", 1.0), SetWeight("n1", "g", 0.0))
    moves = (SetWeight("n1", "g", 1.0), SetWeight("n0", "h", 1.0))
    schedule = Schedule(setup(*members, Add("m0", "g"), groups="gh"), ((60.0, Commit(moves)),))
    assert find_broken(schedule) is None
