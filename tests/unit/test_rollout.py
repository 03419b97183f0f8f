"""The rollout against a stepwise server: every interleaving keeps what serves serving."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model import Ask, Served, State, Strategy, VersionStatus
from reconciler.planning.events import Reloaded, ReloadFailed, ReloadStarted, fold
from reconciler.planning.memory import SERVER_STOPPED, Memory, back_off, observe
from reconciler.planning.restart import find_restart_config
from reconciler.planning.rollout import Goal, Request, next_request
from tests.unit.serversim import RefusedError, ServerSim
from tests.unit.worlds import local

POLL_SECONDS = 1.0
ALL = frozenset(range(1, 10))


@dataclass
class Driver:
    """The agent's side: looks, asks, remembers."""

    server: ServerSim
    goals: dict[str, Goal] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    now: float = 100.0
    steps: int = 0
    connection: int = 1
    outstanding: Request | None = None
    requests: list[Request] = field(default_factory=list)

    def look(self) -> None:
        if self.outstanding is not None and not self.server.is_blocked:
            self._answer(self.outstanding)
        models: Mapping[str, Mapping[int, VersionStatus]] = {
            model: self.server.seen.get(model, {})
            for model in self.goals.keys() | self.memory.models.keys()
        }
        self.memory = observe(self.memory, Served(self.connection, models), self.now, POLL_SECONDS)
        if self.outstanding is not None:
            return
        request = next_request(self.goals, self.memory, models, self.now, POLL_SECONDS)
        if request is None:
            return
        self.requests.append(request)
        self.memory = fold(self.memory, ReloadStarted(), self.now)
        try:
            self.server.reload(request.config)
        except RefusedError as error:
            message = f"Request to assign label to version 1 of model {error}, which is not"
            failed = ReloadFailed(request, "FAILED_PRECONDITION", message)
            self.memory = fold(self.memory, failed, self.now)
            return
        self.outstanding = request
        if not self.server.is_blocked:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        self.outstanding = None
        self.memory = fold(self.memory, Reloaded(request), self.now)

    def run(self, seconds: float) -> None:
        """Let time pass: ten ticks and looks a second, one poll."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.steps += 1
            if self.steps % 10 == 5:
                self.server.poll()
            self.server.tick()
            self.look()


def make(on_disk: dict[str, set[int]], bad: set[tuple[str, int]] | None = None) -> Driver:
    return Driver(ServerSim(bad=bad or set(), on_disk=on_disk))


def goal(main: int | None, **labels: int) -> Goal:
    return Goal(main, labels, ready=ALL)


def test_adds_a_model_then_moves_to_the_next_version_without_a_gap() -> None:
    driver = make({"a": {1, 2}})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    assert driver.server.available("a") == {1}
    driver.goals = {"a": goal(2)}
    for _ in range(60):
        driver.run(0.1)
        assert driver.server.available("a")
    assert driver.server.available("a") == {2}
    versions = [sorted(request.config["a"].versions) for request in driver.requests]
    assert versions == [[1], [1, 2], [2]]


def test_a_bad_version_leaves_the_old_one_serving_and_is_tried_again_later() -> None:
    driver = make({"a": {1, 2}}, bad={("a", 2)})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    driver.goals = {"a": goal(2)}
    driver.run(5)
    assert driver.server.available("a") == {1}
    assert "junk" in driver.memory.of("a").load_failures[2].message
    driver.server.bad.clear()
    driver.run(60)
    assert driver.server.available("a") == {2}


def test_a_version_that_goes_on_failing_is_tried_ever_more_rarely() -> None:
    driver = make({"a": {1, 2}}, bad={("a", 2)})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    driver.goals = {"a": goal(2)}
    driver.run(600)
    tries = [request for request in driver.requests if 2 in request.config["a"].versions]
    assert 8 <= len(tries) <= 11, "1 s doubling to 5 min"


def test_a_model_none_of_whose_versions_loads_keeps_its_name_and_blocks_nothing() -> None:
    driver = make({"a": {1}, "b": {1, 2}}, bad={("a", 1)})
    driver.goals = {"a": goal(1), "b": goal(1)}
    driver.run(5)
    asked = [request.config.get("a") for request in driver.requests]
    assert Ask(frozenset()) in asked
    assert None not in asked, "a name that is dropped must be added again, which blocks"
    assert driver.memory.of("a").good is None
    driver.server.bad.clear()
    driver.run(20)
    assert driver.server.available("a") == {1}


def test_going_back_from_a_bad_version_does_not_wedge_the_next_one() -> None:
    driver = make({"a": {1, 2, 3}}, bad={("a", 2)})
    for main in (1, 2, 1, 3):
        driver.goals = {"a": goal(main)}
        driver.run(5)
        assert driver.server.available("a"), main
    assert driver.server.available("a") == {3}


def test_labels_move_after_the_new_version_answers_and_before_the_old_one_goes() -> None:
    driver = make({"a": {1, 2}})
    driver.goals = {"a": goal(1, stable=1)}
    driver.run(3)
    driver.goals = {"a": goal(2, stable=2)}
    driver.run(6)
    asked = [
        (sorted(request.config["a"].versions), dict(request.config["a"].labels))
        for request in driver.requests
    ]
    assert asked == [
        ([1], {}),
        ([1], {"stable": 1}),
        ([1, 2], {"stable": 1}),
        ([1, 2], {"stable": 2}),
        ([2], {"stable": 2}),
    ]


def test_a_label_whose_version_fails_stays_where_it_was() -> None:
    driver = make({"a": {1, 2, 3}}, bad={("a", 3)})
    driver.goals = {"a": goal(1, canary=2)}
    driver.run(4)
    driver.goals = {"a": goal(1, canary=3)}
    driver.run(6)
    asked = driver.memory.of("a").asked
    assert asked is not None
    assert dict(asked.labels) == {"canary": 2}
    assert driver.server.available("a") == {1, 2}


def test_recreate_unloads_the_old_version_before_the_new_one_is_loaded() -> None:
    driver = make({"a": {1, 2}})
    driver.goals = {"a": Goal(1, {}, Strategy.RECREATE, ALL)}
    driver.run(3)
    driver.goals = {"a": Goal(2, {}, Strategy.RECREATE, ALL)}
    for _ in range(60):
        driver.run(0.1)
        assert len(driver.server.available("a")) <= 1
    assert driver.server.available("a") == {2}
    assert Ask(frozenset()) in [request.config["a"] for request in driver.requests]


def test_recreate_with_a_bad_version_comes_back_to_the_old_one_and_stays_there() -> None:
    driver = make({"a": {1, 2}}, bad={("a", 2)})
    driver.goals = {"a": Goal(1, {}, Strategy.RECREATE, ALL)}
    driver.run(3)
    driver.goals = {"a": Goal(2, {}, Strategy.RECREATE, ALL)}
    driver.run(10)
    assert driver.server.available("a") == {1}
    asked_before = len(driver.requests)
    driver.run(400)
    assert len(driver.requests) == asked_before


def test_recreate_takes_nothing_down_for_a_label_while_its_version_cannot_be_had() -> None:
    driver = make({"a": {1, 2}})
    driver.goals = {"a": Goal(1, {}, Strategy.RECREATE, ALL)}
    driver.run(3)
    driver.goals = {"a": Goal(4, {"canary": 2}, Strategy.RECREATE, ALL - {4})}
    for _ in range(60):
        driver.run(0.1)
        assert 1 in driver.server.available("a")
    assert driver.server.available("a") == {1, 2}


def test_a_bad_new_model_costs_the_others_nothing() -> None:
    driver = make({"a": {1}, "b": {1}, "c": {1}}, bad={("b", 1)})
    driver.goals = {"a": goal(1), "b": goal(1), "c": goal(1)}
    driver.run(5)
    assert driver.server.available("a") == {1}
    assert driver.server.available("c") == {1}
    assert "b" in driver.memory.models
    assert driver.memory.of("b").load_failures


def test_new_names_are_added_only_when_nothing_else_is_to_change() -> None:
    driver = make({"a": {1, 2}, "b": {1}})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    driver.goals = {"a": goal(2), "b": goal(1)}
    driver.look()
    driver.look()
    first, second = driver.requests[-2:]
    assert first.config.keys() == {"a"}
    assert second.config.keys() == {"a", "b"}


def test_a_dropped_model_is_added_again_only_after_its_end_and_a_poll() -> None:
    driver = make({"a": {1}, "b": {1}})
    driver.goals = {"a": goal(1), "b": goal(1)}
    driver.run(3)
    driver.goals = {"a": goal(1)}
    driver.look()
    assert driver.requests[-1].config.keys() == {"a"}
    driver.goals = {"a": goal(1), "b": goal(1)}
    driver.look()
    assert driver.requests[-1].config.keys() == {"a"}, "b has not ended yet"
    driver.run(4)
    assert driver.server.available("b") == {1}


def test_a_wedge_left_by_another_client_is_healed_without_a_gap() -> None:
    driver = make({"a": {1, 2, 3}}, bad={("a", 2)})
    server = driver.server
    server.reload({"a": Ask(frozenset({1}))})
    server.poll()
    server.tick()
    server.reload({"a": Ask(frozenset({2}))})
    server.poll()
    server.tick()
    server.tick()
    assert server.available("a") == {1}
    driver.goals = {"a": goal(3)}
    driver.memory = Memory().with_model("a", driver.memory.of("a"))
    for _ in range(800):
        driver.run(0.1)
        assert server.available("a")
    assert server.available("a") == {3}


def test_a_version_the_server_does_not_see_yet_does_not_cost_the_one_that_serves() -> None:
    driver = make({"a": {1}})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    driver.goals = {"a": goal(2)}
    for _ in range(1000):
        driver.run(0.1)
        assert driver.server.available("a") == {1}
    driver.server.on_disk["a"].add(2)
    driver.run(5)
    assert driver.server.available("a") == {2}


def test_a_served_version_whose_folder_is_gone_gives_way_to_the_one_before() -> None:
    driver = make({"a": {1, 2}})
    for main in (1, 2):
        driver.goals = {"a": goal(main)}
        driver.run(4)
    driver.server.on_disk["a"].remove(2)
    driver.goals = {"a": replace(goal(2), ready=frozenset({1}))}
    driver.run(5)
    assert driver.server.available("a") == {1}


def test_a_model_that_another_client_adds_is_taken_back() -> None:
    driver = make({"a": {1}, "b": {1}})
    driver.goals = {"a": goal(1), "b": goal(1)}
    driver.run(4)
    driver.goals = {"a": goal(1)}
    driver.run(4)
    driver.server.reload({"a": Ask(frozenset({1})), "b": Ask(frozenset({1}))})
    driver.run(10)
    assert driver.server.available("b") == set()


def test_recreate_tries_again_what_may_not_have_been_its_fault() -> None:
    driver = make({"a": {1, 2}})
    driver.goals = {"a": Goal(1, {}, Strategy.RECREATE, ALL)}
    driver.run(3)
    failure = back_off("the server stopped", None, driver.now, reason=SERVER_STOPPED)
    known = replace(driver.memory.of("a"), load_failures={2: failure})
    driver.memory = driver.memory.with_model("a", known)
    driver.goals = {"a": Goal(2, {}, Strategy.RECREATE, ALL)}
    driver.run(10)
    assert driver.server.available("a") == {2}


def test_a_config_changed_behind_our_back_is_put_right() -> None:
    driver = make({"a": {1}})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    driver.server.reload({"a": Ask(frozenset({7}))})
    driver.run(10)
    assert driver.server.available("a") == {1}


def test_after_a_restart_the_server_is_told_again() -> None:
    driver = make({"a": {1, 2}})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    driver.goals = {"a": goal(2)}
    driver.run(0.2)
    config = find_restart_config(driver.memory, local({"a": ALL}).versions)
    driver.server.restart(config)
    driver.connection += 1
    driver.outstanding = None
    assert driver.server.available("a") == {1}
    driver.run(6)
    assert driver.server.available("a") == {2}


def test_a_server_that_comes_up_empty_gets_the_proven_version_beside_an_unproven_one() -> None:
    driver = make({"a": {1, 2}}, bad={("a", 2)})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    driver.goals = {"a": goal(2)}
    driver.server.restart({})
    driver.connection += 1
    driver.outstanding = None
    driver.run(5)
    assert driver.server.available("a") == {1}


def test_a_version_that_answers_before_its_reload_does_has_served_all_the_same() -> None:
    up = {"a": {1: VersionStatus(State.AVAILABLE)}}
    memory = observe(Memory(), Served(1, {"a": {}}), 0.0, POLL_SECONDS)
    memory = observe(memory, Served(1, up), 1.0, POLL_SECONDS)
    memory = fold(memory, Reloaded(Request({"a": Ask(frozenset({1}))})), 1.1)
    memory = observe(memory, Served(1, up), 1.2, POLL_SECONDS)
    assert memory.of("a").proven == (1,)
    assert memory.of("a").good == Ask(frozenset({1}))


def test_at_rest_nothing_is_asked() -> None:
    driver = make({"a": {1, 2}})
    driver.goals = {"a": goal(2, stable=2, canary=1)}
    driver.run(6)
    before = len(driver.requests)
    driver.run(100)
    assert len(driver.requests) == before


@dataclass(frozen=True)
class Wish:
    main: int
    label: int | None


wishes = st.builds(Wish, st.integers(1, 5), st.none() | st.integers(1, 5))


@settings(max_examples=150)
@given(
    bad=st.sets(st.integers(2, 5), max_size=3),
    history=st.lists(st.tuples(wishes, st.integers(1, 40)), min_size=1, max_size=8),
)
def test_whatever_is_wished_in_whatever_rhythm_something_good_serves_and_all_settles(
    bad: set[int], history: list[tuple[Wish, int]]
) -> None:
    driver = make({"a": set(ALL)}, bad={("a", version) for version in bad})
    driver.goals = {"a": goal(1)}
    driver.run(3)
    for wish, tenths in [*history, (Wish(1, None), 1), (history[-1][0], 1)]:
        labels = {} if wish.label is None else {"stable": wish.label}
        driver.goals = {"a": goal(wish.main, **labels)}
        for _ in range(tenths):
            driver.run(0.1)
            assert driver.server.available("a"), "a moment without a version"
    driver.run(15)
    last = history[-1][0]
    serving = driver.server.available("a")
    if last.main not in bad:
        assert last.main in serving
        wanted = {last.main} | ({last.label} if last.label else set())
        assert serving == wanted - bad
        asked = driver.memory.of("a").asked
        assert asked is not None
        if last.label is not None and last.label not in bad:
            assert dict(asked.labels) == {"stable": last.label}
    else:
        assert serving


@pytest.mark.parametrize("state", [State.START, State.LOADING, State.UNLOADING])
def test_a_version_the_server_is_busy_with_is_not_asked_again(state: State) -> None:
    memory = Memory()
    served = {"a": {1: VersionStatus(State.AVAILABLE), 2: VersionStatus(state)}}
    memory = observe(memory, Served(1, {"a": {1: served["a"][1]}}), 0.0, POLL_SECONDS)
    request = next_request({"a": goal(2)}, memory, served, 5.0, POLL_SECONDS)
    assert request is not None
    assert 2 not in request.config["a"].versions


def test_models_that_are_in_the_same_state_share_what_is_kept_of_it() -> None:
    seen = {1: VersionStatus(State.AVAILABLE)}
    memory = Memory()
    for connection in (1, 1):
        memory = observe(memory, Served(connection, {"a": seen, "b": seen}), 0.0, 1.0)
    a, b = memory.of("a"), memory.of("b")
    assert a.available == a.progressed == {1}
    assert a.available is a.progressed is b.available is b.progressed
    assert a.good is not None and b.good is not None
    assert a.good.versions is b.good.versions is Ask(frozenset([2, 1]) - {2}).versions
