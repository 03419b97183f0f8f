"""What a plan takes over from the one before: it comes to the same, and costs no thought."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model import (
    Ask,
    Condition,
    Deployment,
    LocalVersion,
    Outcome,
    Pause,
    Phase,
    Problem,
    Progress,
    Staged,
    State,
    Unavailable,
)
from reconciler.planning.events import Fetched, FetchFailed, Reloaded, fold
from reconciler.planning.goals import Target
from reconciler.planning.memory import Memory, back_off
from reconciler.planning.outcome import Sight, describe
from reconciler.planning.plan import plan
from reconciler.planning.rest import LONGEST_SECONDS, Rest, find_rest, goes_on, note_look
from reconciler.planning.room import DISK_FULL
from reconciler.planning.steps import Configure, Plan, World
from reconciler.policy import Freeze, Policy
from tests.unit.worlds import (
    LIMITS,
    NOW,
    available,
    deployment,
    desired,
    fetches,
    listing,
    local,
    remembered,
    removals,
    restart_config,
    served,
    snapshot,
)

MODELS = ("a", "b", "c")
UP = State.AVAILABLE


def resting_world() -> tuple[World, Memory]:
    """A node on which a, b and c serve version 1, as git asks."""
    memory = remembered({model: [1] for model in MODELS})
    world = World(
        desired=desired(*(deployment(model, 1) for model in MODELS)),
        available=available(),
        local=local({model: [1] for model in MODELS}),
        served=served({model: {1: UP} for model in MODELS}),
        restart_config=restart_config(memory),
        peers={},
    )
    return world, plan(world, memory, LIMITS, NOW).memory


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that a plan thought about."""
    models: list[str] = []

    def note(target: Target, sight: Sight) -> Outcome:
        models.append(target.deployment.model)
        return describe(target, sight)

    monkeypatch.setattr("reconciler.planning.plan.describe", note)
    return models


def test_of_what_is_at_rest_only_the_first_plan_thinks(described: list[str]) -> None:
    world, memory = resting_world()
    first = plan(world, memory, LIMITS, NOW)
    assert set(first.calm.models) == set(MODELS)
    described.clear()
    second = plan(world, first.memory, LIMITS, NOW + 1, first.calm)
    assert described == []
    assert second == plan(world, first.memory, LIMITS, NOW + 1)


def test_one_change_costs_the_thought_for_one_model(described: list[str]) -> None:
    world, memory = resting_world()
    first = plan(world, memory, LIMITS, NOW)
    described.clear()
    a, b, c = world.desired.deployments
    changed = replace(world, desired=desired(a, replace(b, version=2), c))
    second = plan(changed, first.memory, LIMITS, NOW + 1, first.calm)
    assert described == ["b"]
    assert second == plan(changed, first.memory, LIMITS, NOW + 1)
    assert [outcome.reason for outcome in second.outcomes] == ["Serving", "Listing", "Serving"]


def test_a_new_listing_of_latest_is_taken_up() -> None:
    world, memory = resting_world()
    wanted = desired(deployment("a", None), *world.desired.deployments[1:])
    world = replace(world, desired=wanted, available=available(listing("a", 1)))
    first = plan(world, memory, LIMITS, NOW)
    assert set(first.calm.models) == set(MODELS)
    newer = replace(world, available=available(listing("a", 1, 2)))
    assert fetches(plan(newer, first.memory, LIMITS, NOW, first.calm)) == [("a", 2)]
    assert not fetches(plan(world, first.memory, LIMITS, NOW, first.calm))


def test_a_rule_about_old_versions_is_applied_to_what_rests() -> None:
    world, memory = resting_world()
    memory = memory.with_model("a", replace(memory.of("a"), proven=(3, 1)))
    world = replace(world, local=local({"a": [1, 3], "b": [1], "c": [1]}))
    world = replace(world, desired=replace(world.desired, policy=Policy(keep=1)))
    first = plan(world, memory, LIMITS, NOW)
    assert set(first.calm.models) == set(MODELS)
    none_kept = replace(world, desired=replace(world.desired, policy=Policy(keep=0)))
    assert removals(plan(none_kept, first.memory, LIMITS, NOW, first.calm)) == [("a", 3)]


def test_what_was_just_taken_by_the_server_is_looked_at() -> None:
    world, memory = resting_world()
    first = plan(world, memory, LIMITS, NOW)
    known = replace(first.memory.of("a"), asked=Ask(frozenset({1, 2})))
    other = first.memory.with_model("a", known)
    second = plan(world, other, LIMITS, NOW, first.calm)
    assert set(second.calm.models) == {"b", "c"}
    assert second == plan(world, other, LIMITS, NOW)


# --- with and without the last plan ---------------------------------------------------------


@dataclass
class Play:
    """A node to which anything may happen, planned for with and without the plan before."""

    world: World
    memory: Memory
    now: float = NOW
    made: Plan | None = None
    rested: int = 0
    rest: Rest | None = None
    looks_saved: int = 0

    def look(self) -> None:
        """Plan both ways."""
        last = self.made.calm if self.made else None
        made = plan(self.world, self.memory, LIMITS, self.now, last)
        assert made == plan(self.world, self.memory, LIMITS, self.now)
        if self.rest and goes_on(self.rest, self.world, self.memory, self.now):
            self.looks_saved += 1
            assert not made.steps
            assert self.made is not None
            assert made.outcomes == self.made.outcomes
            assert made.removals == self.made.removals
            assert made.conditions == self.made.conditions
            assert made.memory == note_look(self.rest, self.now).memory
        self.rest = find_rest(self.world, made, self.now)
        self.rested += len(made.calm.models)
        self.made, self.memory = made, made.memory

    def ask_for(self, model: str, version: int | None) -> None:
        """Have git ask for another version; None is `latest`."""
        self._change(model, version=version)

    def label(self, model: str, version: int) -> None:
        """Have git put a label on a version."""
        self._change(model, labels={"stable": version})

    def toggle(self, model: str, name: str) -> None:
        """Switch one of the deployment's switches."""
        self._change(model, **{name: not getattr(self._of(model), name)})

    def drop_or_add(self, model: str, version: int) -> None:
        """Take the deployment out of git, or put it in."""
        now = self.world.desired
        others = tuple(item for item in now.deployments if item.model != model)
        if len(others) == len(now.deployments):
            others = tuple(sorted((*others, deployment(model, version)), key=lambda d: d.model))
        self.world = replace(self.world, desired=replace(now, deployments=others))

    def breaks(self, model: str, _version: int) -> None:
        """Have its file be broken, or good again."""
        broken = dict(self.world.desired.broken)
        if broken.pop(model, None) is None:
            broken[model] = Problem(f"deployments/g/{model}.yaml", 1, 1, "no")
        self.world = replace(self.world, desired=replace(self.world.desired, broken=broken))

    def install(self, model: str, version: int) -> None:
        """Put a version on disk, or take it away."""
        versions = {name: dict(found) for name, found in self.world.local.versions.items()}
        found = versions.setdefault(model, {})
        if found.pop(version, None) is None:
            found[version] = LocalVersion(model, version, 9, snapshot(model, version).digest)
        kept = {
            name: old if (old := self.world.local.versions.get(name)) == new else new
            for name, new in versions.items()
        }
        self.world = replace(self.world, local=replace(self.world.local, versions=kept))

    def say(self, model: str, version: int, state: State) -> None:
        """Have the server say something of a version."""
        if isinstance(self.world.served, Unavailable):
            return
        states = dict(self.world.served.models)
        one = served({model: {version: state}}).models[model]
        states[model] = {**states.get(model, {}), **one}
        self.world = replace(self.world, served=replace(self.world.served, models=states))

    def reconnect(self) -> None:
        """Have the connection made anew."""
        if not isinstance(self.world.served, Unavailable):
            connection = self.world.served.connection + 1
            self.world = replace(
                self.world, served=replace(self.world.served, connection=connection)
            )

    def list_versions(self, model: str, version: int) -> None:
        """Have the bucket listed."""
        query = listing(model, version)
        listings = {**self.world.available.listings, query.query: query}
        self.world = replace(self.world, available=replace(self.world.available, listings=listings))

    def fail_fetch(self, model: str, version: int) -> None:
        """Have a download fail, or end well."""
        digest = snapshot(model, version).digest
        failed = FetchFailed(model, version, digest, "ReadFailed", "no")
        event = failed if version % 2 else Fetched(model, version)
        self.memory = fold(self.memory, event, self.now)

    def take(self) -> None:
        """Have the server take what the newest plan asks."""
        for step in self.made.steps if self.made else ():
            if isinstance(step, Configure):
                self.memory = fold(self.memory, Reloaded(step.request), self.now)

    def keep(self, count: int) -> None:
        """Have fleet.yaml keep another number of versions."""
        policy = replace(self.world.desired.policy, keep=count)
        self.world = replace(self.world, desired=replace(self.world.desired, policy=policy))

    def _of(self, model: str) -> Deployment:
        found = [item for item in self.world.desired.deployments if item.model == model]
        return found[0] if found else deployment(model, 1)

    def _change(self, model: str, **changes: Any) -> None:
        now = self.world.desired
        deployments = tuple(
            replace(item, **changes) if item.model == model else item for item in now.deployments
        )
        self.world = replace(self.world, desired=replace(now, deployments=deployments))


def _events() -> st.SearchStrategy[Callable[[Play], None]]:
    models, versions = st.sampled_from(MODELS), st.integers(1, 3)
    states = st.sampled_from([State.START, State.LOADING, UP, State.UNLOADING, State.END])
    on_version = st.sampled_from(
        [
            Play.ask_for,
            Play.label,
            Play.drop_or_add,
            Play.breaks,
            Play.install,
            Play.list_versions,
            Play.fail_fetch,
        ]
    )
    return st.one_of(
        st.builds(
            lambda do, model, version: lambda play: do(play, model, version),
            on_version,
            models,
            versions,
        ),
        st.builds(lambda model: lambda play: play.ask_for(model, None), models),
        st.builds(
            lambda model, name: lambda play: play.toggle(model, name),
            models,
            st.sampled_from(["stop", "suspend"]),
        ),
        st.builds(
            lambda model, version, state: lambda play: play.say(model, version, state),
            models,
            versions,
            states,
        ),
        st.builds(lambda count: lambda play: play.keep(count), st.integers(0, 2)),
        st.just(Play.reconnect),
        st.just(Play.take),
    )


@settings(max_examples=300)
@given(st.lists(st.tuples(_events(), st.sampled_from([0.0, 0.1, 2.0, 70.0])), max_size=12))
def test_the_plan_before_saves_work_and_changes_nothing(
    history: list[tuple[Callable[[Play], None], float]],
) -> None:
    world, memory = resting_world()
    play = Play(replace(world, desired=replace(world.desired, policy=Policy(keep=1))), memory)
    play.look()
    assert play.rested == len(MODELS)
    for event, seconds in history:
        event(play)
        play.now += seconds
        play.look()
        play.now += 0.1
        play.look()


# --- when no plan is made at all ------------------------------------------------------------


def test_a_node_at_rest_needs_no_plan_until_something_or_some_time_has_passed() -> None:
    world, memory = resting_world()
    made = plan(world, memory, LIMITS, NOW)
    rest = find_rest(world, made, NOW)
    assert rest is not None
    assert goes_on(rest, world, made.memory, NOW + 2)
    other_room = replace(world, local=replace(world.local, free_bytes=1), wall_seconds=7.0)
    assert goes_on(rest, other_room, made.memory, NOW + 2)
    assert not goes_on(rest, world, made.memory, NOW + LONGEST_SECONDS)
    seen = note_look(rest, NOW + 2)
    assert goes_on(seen, world, seen.memory, NOW + 4)
    assert seen.memory.seen_at == NOW + 2


@pytest.mark.parametrize(
    "change",
    [
        {"desired": desired(deployment("a", 2))},
        {"available": available(listing("a", 1))},
        {"local": local({"a": [1]})},
        {"served": served({"a": {1: UP}})},
        {"served": Unavailable("ServerSilent", "has not answered yet")},
        {"restart_config": {}},
        {"git_trouble": Unavailable("Timeout", "no answer")},
        {"fetching": {("a", 2): Progress(0, 9)}},
        {"pause": Pause("by hand", 1e12)},
        {"peers": {"other": Unavailable("NoAddress", "nobody knows")}},
        {"namesake": Unavailable("NameTaken", "another agent")},
        {"supervised": Condition("ServerSupervised", False, "Gone", "no container")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_is_other_than_before_is_planned_for(change: dict[str, Any]) -> None:
    world, memory = resting_world()
    made = plan(world, memory, LIMITS, NOW)
    rest = find_rest(world, made, NOW)
    assert rest is not None
    assert not goes_on(rest, replace(world, **change), made.memory, NOW + 1)


@pytest.mark.parametrize(
    "name",
    [item.name for item in fields(World) if item.name not in ("local", "wall_seconds")],
)
def test_no_part_of_the_world_is_left_out(name: str) -> None:
    world, memory = resting_world()
    made = plan(world, memory, LIMITS, NOW)
    rest = find_rest(world, made, NOW)
    assert rest is not None
    other: dict[str, Any] = {name: object()}
    assert not goes_on(rest, replace(world, **other), made.memory, NOW + 1)


@pytest.mark.parametrize(
    "change", [{"staged": (Staged("a", 2, "d", 5),)}, {"strays": ("a/02",)}, {"versions": {}}]
)
def test_whatever_is_other_on_the_disk_is_planned_for(change: dict[str, Any]) -> None:
    world, memory = resting_world()
    made = plan(world, memory, LIMITS, NOW)
    rest = find_rest(world, made, NOW)
    assert rest is not None
    other = replace(world, local=replace(world.local, **change))
    assert not goes_on(rest, other, made.memory, NOW + 1)


def test_what_waits_for_others_is_no_rest() -> None:
    world, memory = resting_world()
    made = plan(world, memory, LIMITS, NOW)
    assert find_rest(world, made, NOW) is not None
    refused = back_off("no", None, NOW)
    full = replace(made.outcomes[0], phase=Phase.FAILED, reason=DISK_FULL)
    for waiting in (
        replace(made, relist={listing("a", 1).query: 3.0}),
        replace(made, ask_peers=("other",)),
        replace(made, memory=replace(made.memory, reload_failure=refused)),
        replace(made, outcomes=(full, *made.outcomes[1:])),
        replace(made, in_motion=True),
    ):
        assert find_rest(world, waiting, NOW) is None


def test_an_event_ends_the_rest() -> None:
    world, memory = resting_world()
    made = plan(world, memory, LIMITS, NOW)
    rest = find_rest(world, made, NOW)
    assert rest is not None
    failed = FetchFailed("a", 2, "d", "ReadFailed", "no")
    assert not goes_on(rest, world, fold(made.memory, failed, NOW), NOW + 1)


def test_a_beginning_freeze_ends_the_rest() -> None:
    world, memory = resting_world()
    freeze = Freeze("0 18 * * fri", 3600.0, "UTC", "Weekend")
    frozen = replace(world.desired, policy=Policy(freezes=(freeze,)))
    friday = datetime(2026, 11, 20, 17, 59, tzinfo=UTC).timestamp()
    world = replace(world, desired=frozen, wall_seconds=friday)
    made = plan(world, memory, LIMITS, NOW)
    rest = find_rest(world, made, NOW)
    assert rest is not None
    assert goes_on(rest, world, made.memory, NOW + 1)
    later = replace(world, wall_seconds=friday + 90)
    assert not goes_on(rest, later, made.memory, NOW + 1)


def test_what_is_to_be_tried_again_ends_the_rest_in_time() -> None:
    world, memory = resting_world()
    failure = back_off("no", None, NOW, reason="ReadFailed", digest=snapshot("a", 2).digest)
    known = replace(memory.of("a"), fetch_failures={2: failure})
    wanted = desired(deployment("a", 2), *world.desired.deployments[1:])
    world = replace(world, desired=wanted, available=available(listing("a", 2, pin=2)))
    first = plan(world, memory, LIMITS, NOW)
    known = replace(first.memory.of("a"), fetch_failures={2: failure})
    made = plan(world, first.memory.with_model("a", known), LIMITS, NOW)
    rest = find_rest(world, made, NOW)
    assert rest is not None
    assert rest.until == failure.retry_at
    assert goes_on(rest, world, made.memory, failure.retry_at - 0.1)
    assert not goes_on(rest, world, made.memory, failure.retry_at)


def test_what_leaves_is_looked_at_again_when_it_said_so() -> None:
    world, memory = resting_world()
    made = plan(world, memory, LIMITS, NOW)
    waiting = replace(made.outcomes[0], retry_in_seconds=3.0)
    rest = find_rest(world, replace(made, removals=(waiting,)), NOW)
    assert rest is not None
    assert rest.until == NOW + 3.0


def test_a_node_in_motion_does_not_rest() -> None:
    world, memory = resting_world()
    asked = replace(world, desired=desired(deployment("a", 2), *world.desired.deployments[1:]))
    for unsettled in (
        asked,
        replace(asked, available=available(listing("a", 2, pin=2))),
        replace(world, served=Unavailable("ServerSilent", "has not answered yet")),
        replace(world, served=served({"a": {}, "b": {1: UP}, "c": {1: UP}})),
    ):
        assert find_rest(unsettled, plan(unsettled, memory, LIMITS, NOW), NOW) is None
