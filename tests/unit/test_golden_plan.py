"""Trials against a stepwise server: nobody reaches a version that has not passed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model import (
    Ask,
    Deployment,
    Golden,
    Outcome,
    Phase,
    Rollout,
    Served,
    ServerConfig,
    State,
    Unavailable,
)
from reconciler.planning.events import (
    Reloaded,
    ReloadFailed,
    ReloadStarted,
    TrialFailed,
    Tried,
    fold,
)
from reconciler.planning.goals import fingerprint
from reconciler.planning.golden import TRYING, note_trial_failures
from reconciler.planning.memory import GOLDEN_FAILED, LOAD_FAILED, SERVER_STOPPED, Memory
from reconciler.planning.plan import plan
from reconciler.planning.rollout import Request
from reconciler.planning.steps import Configure, Plan, RemoveVersion, Try, World, WriteConfig
from reconciler.planning.trial_names import is_trial, model_of, trial_name
from tests.unit.serversim import ServerSim
from tests.unit.test_preview import bucket, fleet, preview
from tests.unit.worlds import (
    LIMITS,
    available,
    deployment,
    desired,
    listing,
    local,
    remembered,
    restart_config,
    served,
    snapshot,
)

GOLDEN = Golden("assets.extra/golden_requests", 1.0)
UP = State.AVAILABLE
REASON = 'request 1 of 1 (predict) was answered with FAILED_PRECONDITION: Serving signature key "x"'


def golden(model: str, version: int, within_seconds: float = 1.0, **changes: object) -> Deployment:
    rollout = Rollout(golden=replace(GOLDEN, within_seconds=within_seconds))
    return deployment(model, version, rollout=rollout, **changes)


@dataclass
class Node:
    """The agent's side, played with the plan; all versions are on disk."""

    server: ServerSim
    wanted: tuple[Deployment, ...] = ()
    failing: set[tuple[str, int]] = field(default_factory=set)
    """Those that do not answer their golden requests."""
    memory: Memory = field(default_factory=Memory)
    restart_config: ServerConfig = field(default_factory=dict)
    connection: int = 1
    now: float = 100.0
    looks: int = 0
    outstanding: Request | None = None
    trying: Try | None = None
    try_looks: int = 2
    """How long it takes to ask them."""
    requests: list[ServerConfig] = field(default_factory=list)
    tried: list[tuple[str, int]] = field(default_factory=list)
    passed: set[tuple[str, int]] = field(default_factory=set)
    most_copies: int = 2
    """Of one model at any time."""
    made: Plan | None = None
    is_silent: bool = False

    def look(self) -> Plan:
        """Fold in what has ended, look at the server, plan, carry out."""
        self.now += 0.1
        self._end_what_ended()
        installed = {m: v for m, v in self.server.on_disk.items() if not is_trial(m)}
        world = World(
            desired=desired(*self.wanted),
            available=available(*(listing(m, *versions) for m, versions in installed.items())),
            local=local(installed),
            served=Unavailable("ServerSilent", "it is silent")
            if self.is_silent
            else Served(self.connection, self.server.seen),
            restart_config=self.restart_config,
        )
        made = self.made = plan(world, self.memory, LIMITS, self.now)
        self.memory = made.memory
        wanted = None
        for step in made.steps:
            match step:
                case Configure(request):
                    self._reload(request)
                case WriteConfig(config):
                    self.restart_config = config
                case Try():
                    wanted = step
        if wanted != self.trying:
            self.trying, self._left = wanted, self.try_looks
        self.check()
        return made

    _left: int = 0

    def _end_what_ended(self) -> None:
        if self.outstanding is not None and not self.server.is_blocked:
            self.memory = fold(self.memory, Reloaded(self.outstanding), self.now)
            self.outstanding = None
        if self.trying is None:
            return
        self._left -= 1
        if self._left <= 0:
            step, self.trying = self.trying, None
            self.tried.append((step.model, step.version))
            if (step.model, step.version) in self.failing:
                failed = TrialFailed(step.model, step.version, step.digest, REASON)
                self.memory = fold(self.memory, failed, self.now)
            else:
                self.passed.add((step.model, step.version))
                event = Tried(step.model, step.version, step.digest, 1)
                self.memory = fold(self.memory, event, self.now)

    def _reload(self, request: Request) -> None:
        assert self.outstanding is None
        self.requests.append(request.config)
        self.memory = fold(self.memory, ReloadStarted(), self.now)
        self.server.reload(request.config)
        self.outstanding = request

    def check(self) -> None:
        """Hold what must be so at every moment."""
        for item in self.wanted:
            passed = {v for m, v in self.passed if m == item.model}
            entry = self.server.config.get(item.model, Ask(frozenset()))
            assert entry.versions <= passed | {1}, "a version is loaded that has not passed"
            own = self.server.available(item.model)
            tried = self.server.available(trial_name(item.model))
            assert not own & tried, "a version is loaded twice"
            assert len(own) + len(tried) <= self.most_copies
        trials = [m for m in self.server.models if is_trial(m) and self.server.available(m)]
        assert len(trials) <= 1, "two versions are tried at once"
        assert not any(is_trial(m) for m in self.restart_config), "a restart would load a trial"

    def run(self, seconds: float) -> None:
        """Let time pass: ten ticks and looks a second, one poll."""
        for _ in range(round(seconds * 10)):
            self.looks += 1
            if self.looks % 10 == 5:
                self.server.poll()
            self.server.tick()
            self.look()

    def run_until(self, reason: str, model: str = "a") -> Outcome:
        for _ in range(300):
            self.run(0.1)
            if self.outcome(model).reason == reason:
                return self.outcome(model)
        raise AssertionError(f"{model} never came to {reason}: {self.outcome(model)}")

    def run_until_asked(self) -> None:
        for _ in range(300):
            self.run(0.1)
            if self.trying is not None:
                return
        raise AssertionError("no golden request was ever asked")

    def outcome(self, model: str = "a") -> Outcome:
        assert self.made is not None
        return next(o for o in self.made.outcomes if o.deployment.model == model)

    def restart_agent(self) -> None:
        """A new process: it knows what the memory file holds, here nothing."""
        self.memory, self.outstanding, self.trying = Memory(), None, None

    def restart_server(self) -> None:
        if self.outstanding is not None:
            failed = ReloadFailed(self.outstanding, "UNAVAILABLE", "Socket closed")
            self.memory = fold(self.memory, failed, self.now)
            self.outstanding = None
        self.connection += 1
        self.server.restart(self.restart_config)


def make(*wanted: Deployment, **options: set[tuple[str, int]]) -> Node:
    """A node that serves version 1 of each model and has others on disk."""
    models = [item.model for item in wanted]
    on_disk = {name: {1, 2, 3, 4} for m in models for name in (m, trial_name(m))}
    server = ServerSim(bad=options.get("bad", set()), on_disk=on_disk)
    node = Node(server, failing=options.get("failing", set()))
    node.wanted = tuple(deployment(model, 1) for model in models)
    node.run(4)
    assert all(server.available(model) == {1} for model in models)
    node.requests.clear()
    node.wanted = wanted
    return node


def shown(configs: list[ServerConfig]) -> list[dict[str, list[int]]]:
    return [{m: sorted(ask.versions) for m, ask in config.items()} for config in configs]


def test_a_good_version_is_tried_under_its_own_name_and_then_deployed() -> None:
    node = make(golden("a", 2))

    node.run(10)

    assert shown(node.requests) == [
        {"a": [1], "a@golden": [2]},
        {"a": [1]},
        {"a": [1, 2]},
        {"a": [2]},
    ]
    assert node.tried == [("a", 2)]
    assert node.outcome().phase is Phase.DEPLOYED
    assert node.made is not None
    assert all(isinstance(step, RemoveVersion) for step in node.made.steps)


def test_each_stage_of_a_trial_is_said() -> None:
    node = make(golden("a", 2))
    said = []
    for _ in range(80):
        node.run(0.1)
        outcome = node.outcome()
        if outcome.reason == TRYING and outcome.sentence not in said:
            assert outcome.phase is Phase.DEPLOYING
            said.append(outcome.sentence)

    assert said == [
        "loads version 2 as a@golden, to ask it its golden requests before any other request can"
        " reach it; version 1 goes on serving",
        "tries version 2 as a@golden: its golden requests are asked one by one; version 1 goes on"
        " serving",
        "version 2 answered its golden requests and is unloaded as a@golden, to be loaded as a;"
        " version 1 goes on serving",
    ]


def test_a_version_that_fails_is_never_asked_for_and_says_why() -> None:
    node = make(golden("a", 2), failing={("a", 2)})

    node.run(600)

    outcome = node.outcome()
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, GOLDEN_FAILED)
    assert outcome.sentence == (
        f"version 2 failed its golden requests: {REASON}; version 1 goes on serving"
    )
    assert outcome.last_error == REASON
    assert node.server.available("a") == {1}
    assert all(config["a"].versions == {1} for config in node.requests)
    assert 8 <= len(node.tried) <= 11, "1 s doubling to 5 min"
    assert not node.server.available("a@golden")


def test_a_version_that_passes_at_a_later_try_is_deployed() -> None:
    node = make(golden("a", 2), failing={("a", 2)})
    node.run_until(GOLDEN_FAILED)
    node.failing.clear()
    node.tried.clear()

    node.run(60)

    assert node.outcome().phase is Phase.DEPLOYED
    assert node.server.available("a") == {2}


def test_other_golden_requests_are_asked_at_once() -> None:
    node = make(golden("a", 2), failing={("a", 2)})
    node.run(200)
    assert (node.outcome().retry_in_seconds or 0) > 20
    node.failing.clear()
    node.tried.clear()
    node.wanted = (golden("a", 2, within_seconds=5.0),)

    node.run(10)

    assert node.server.available("a") == {2}


def test_a_version_that_does_not_load_for_its_trial_has_failed_to_load() -> None:
    node = make(golden("a", 2), bad={("a@golden", 2)})

    outcome = node.run_until(LOAD_FAILED)
    node.run(600)

    assert outcome.phase is Phase.FAILED
    assert "version 2 failed to load: OUT_OF_RANGE: junk" in outcome.sentence
    assert node.tried == []
    tries = [config for config in node.requests if "a@golden" in config]
    assert 8 <= len(tries) <= 11, "1 s doubling to 5 min"


def test_a_version_that_takes_the_server_down_in_its_trial_waits_its_back_off() -> None:
    node = make(golden("a", 2))
    node.run(0.2)
    assert "a@golden" in node.requests[-1]
    node.is_silent = True
    node.restart_server()
    node.run(0.3)
    node.is_silent = False

    outcome = node.run_until(SERVER_STOPPED)

    assert outcome.phase is Phase.FAILED
    assert node.memory.of("a").load_failures[2].attempts == 1
    node.run(30)
    assert node.server.available("a") == {2}


def test_a_server_that_goes_down_in_a_later_trial_counts_too() -> None:
    node = make(golden("a", 2), failing={("a", 2)})
    node.run_until(GOLDEN_FAILED)
    node.requests.clear()
    while not any("a@golden" in config for config in node.requests):
        node.run(0.1)
    node.restart_server()

    outcome = node.run_until(SERVER_STOPPED)

    assert outcome.phase is Phase.FAILED
    assert node.memory.of("a").load_failures[2].attempts == 2


def test_a_trial_whose_server_went_away_is_not_asked_again_while_it_is_away() -> None:
    node = make(golden("a", 2), failing={("a", 2)})
    node.run_until_asked()
    node.is_silent = True

    node.run(60)

    assert node.tried == [("a", 2)]
    assert node.memory.of("a").load_failures[2].attempts == 1


def test_a_trial_that_is_being_unloaded_keeps_the_next_one_waiting() -> None:
    memory = remembered({"a": [1], "b": [1]})

    def configure(leftover: State) -> dict[str, list[int]] | None:
        world = World(
            desired=desired(golden("a", 1), golden("b", 2)),
            available=available(listing("a", 1), listing("b", 1, 2)),
            local=local({"a": [1], "b": [1, 2]}),
            served=served({"a": {1: UP}, "b": {1: UP}, "a@golden": {3: leftover}}),
            restart_config=restart_config(memory),
        )
        return _configured(plan(world, memory, LIMITS, 500.0))

    assert configure(State.UNLOADING) is None
    assert configure(State.END) == {"a": [1], "b": [1], "b@golden": [2]}


def test_the_way_back_is_not_tried() -> None:
    node = make(golden("a", 2))
    node.run(10)
    node.tried.clear()
    node.wanted = (golden("a", 1),)

    node.run(10)

    assert node.server.available("a") == {1}
    assert node.tried == []


def test_a_first_version_is_tried_too() -> None:
    node = Node(ServerSim(on_disk={"a": {2}, "a@golden": {2}}), (golden("a", 2),))

    node.run(10)

    assert node.tried == [("a", 2)]
    assert node.server.available("a") == {2}


def test_versions_under_labels_are_tried_one_after_the_other() -> None:
    node = make(golden("a", 3, labels={"canary": 2}))
    node.most_copies = 3

    node.run(20)

    assert node.tried == [("a", 2), ("a", 3)]
    assert node.server.available("a") == {2, 3}


def test_models_are_tried_one_at_a_time() -> None:
    node = make(golden("a", 2), golden("b", 2))

    node.look()
    waiting = node.outcome("b")
    node.run(20)

    assert waiting.reason == TRYING
    assert waiting.sentence == (
        "version 2 is on disk and waits for its turn to be tried with its golden requests; version"
        " 1 goes on serving"
    )
    assert node.tried == [("a", 2), ("b", 2)]
    assert node.server.available("a") == node.server.available("b") == {2}


def test_a_failing_model_does_not_keep_another_from_being_tried() -> None:
    node = make(golden("a", 2), golden("b", 2), failing={("a", 2)})

    node.run(20)

    assert node.outcome("a").reason == GOLDEN_FAILED
    assert node.server.available("b") == {2}


def test_a_newer_commit_gives_up_the_trial_and_begins_its_own() -> None:
    node = make(golden("a", 2))
    node.run_until(TRYING)
    node.try_looks = 50
    node.run_until_asked()
    node.wanted = (golden("a", 3),)

    node.run(15)

    assert node.tried == [("a", 3)]
    assert node.server.available("a") == {3}
    names = shown(node.requests)
    dropped = names.index({"a": [1]})
    assert names.index({"a": [1], "a@golden": [3]}) > dropped, "the first one has ended before"


@pytest.mark.parametrize("change", [{"stop": True}, {"suspend": True}])
def test_a_deployment_that_is_stopped_or_suspended_is_not_tried(change: dict[str, bool]) -> None:
    node = make(golden("a", 2))
    node.try_looks = 50
    node.run_until_asked()
    node.wanted = (golden("a", 2, **change),)

    node.run(5)

    assert node.trying is None
    assert "a@golden" not in node.server.config
    assert node.tried == []


@pytest.mark.parametrize("silent_seconds", [0, 0.3])
def test_an_agent_that_starts_again_drops_what_it_left_and_tries_anew(
    silent_seconds: float,
) -> None:
    node = make(golden("a", 2))
    node.try_looks = 50
    node.run_until_asked()
    node.restart_agent()
    node.requests.clear()
    node.try_looks = 2
    node.is_silent = True
    node.run(silent_seconds)
    node.is_silent = False

    node.run(10)

    assert shown(node.requests)[:2] == [{"a": [1]}, {"a": [1], "a@golden": [2]}]
    assert node.server.available("a") == {2}


def test_a_silent_server_does_not_end_a_trial() -> None:
    node = make(golden("a", 2))
    node.try_looks = 10
    node.run_until_asked()
    node.is_silent = True
    node.run(2)
    node.is_silent = False
    node.run(10)

    assert node.tried == [("a", 2)], "it was asked once, from beginning to end"
    assert node.server.available("a") == {2}


def test_other_bytes_under_the_same_number_are_tried_again() -> None:
    memory = remembered({"a": [1]})
    memory = fold(memory, Tried("a", 2, "digest of other bytes", 1), 400.0)
    memory = memory.with_model("a", replace(memory.of("a"), desired=fingerprint(golden("a", 2))))

    made = _plan(golden("a", 2), memory)

    assert made.memory.of("a").passed == {2: "digest of other bytes"}
    assert _configured(made) == {"a": [1], "a@golden": [2]}


def test_what_passed_other_requests_has_to_answer_the_new_ones() -> None:
    memory = remembered({"a": [1]})
    memory = fold(memory, Tried("a", 2, snapshot("a", 2).digest, 1), 400.0)
    same = replace(memory.of("a"), desired=fingerprint(golden("a", 2)))
    other = replace(memory.of("a"), desired=fingerprint(golden("a", 2, within_seconds=9.0)))

    assert _configured(_plan(golden("a", 2), memory.with_model("a", same))) == {"a": [1, 2]}
    assert _configured(_plan(golden("a", 2), memory.with_model("a", other))) == {
        "a": [1],
        "a@golden": [2],
    }


def test_what_has_passed_is_forgotten_when_nobody_wants_it() -> None:
    memory = fold(remembered({"a": [1]}), Tried("a", 3, "x", 1), 400.0)
    memory = memory.with_model("a", replace(memory.of("a"), desired=fingerprint(golden("a", 2))))

    assert _plan(golden("a", 2), memory).memory.of("a").passed == {}


def test_nothing_of_a_model_is_deleted_while_a_trial_of_it_is_in_the_server() -> None:
    memory = remembered({"a": [1], "a@golden": [3]})
    memory = memory.with_model("a", replace(memory.of("a"), desired=fingerprint(golden("a", 1))))

    with_trial = _plan(golden("a", 1), memory, {"a": {1: UP}, "a@golden": {3: UP}})
    memory = remembered({"a": [1]})
    without = _plan(golden("a", 1), memory, {"a": {1: UP}, "a@golden": {3: State.END}})

    assert _removals(with_trial) == []
    assert _removals(without) == [2, 3]


def test_a_leftover_of_a_model_that_left_git_is_no_model_of_its_own() -> None:
    memory = remembered({"a": [1], "b@golden": [2]})
    world = World(
        desired=desired(deployment("a", 1)),
        available=available(listing("a", 1)),
        local=local({"a": [1], "b": [1, 2]}),
        served=served({"a": {1: UP}, "b@golden": {2: UP}}),
        restart_config=restart_config(remembered({"a": [1]})),
    )

    made = plan(world, memory, LIMITS, 500.0)

    assert [o.deployment.model for o in made.removals] == ["b"]
    assert _configured(made) == {"a": [1]}


def test_a_refusal_that_names_a_trial_is_not_the_models() -> None:
    request = Request({"a": Ask(frozenset({1})), "a@golden": Ask(frozenset({2}))})
    message = "Illegal to change a model's platform. For model a@golden platform was x"
    failed = ReloadFailed(request, "INVALID_ARGUMENT", message)

    memory = fold(remembered({"a": [1]}), failed, 400.0)

    assert memory.of("a").refusal is None
    assert memory.of("a@golden").refusal is not None


def test_a_verdict_on_a_trial_counts_once() -> None:
    node = make(golden("a", 2), bad={("a@golden", 2)})
    node.run_until(LOAD_FAILED)

    once = note_trial_failures(node.memory)

    assert once.of("a").load_failures[2].attempts == 1
    assert note_trial_failures(once) == once
    # Other bytes have come, and the failure of those before them was forgotten.
    forgotten = once.with_model("a", replace(once.of("a"), load_failures={}))
    assert note_trial_failures(forgotten) == forgotten


def test_a_preview_speaks_of_the_model_and_not_of_its_trial() -> None:
    base, head = golden("a", 1), golden("a", 2)

    found = preview(fleet(base), fleet(head), bucket(a=[1, 2]), {base.path: [base]})

    (only,) = found.actions
    assert only.action.model == "a"
    assert (only.action.loaded, only.action.unloaded) == ((2,), (1,))
    assert not only.action.has_gap
    assert found.is_possible


@pytest.mark.parametrize("name", ["a", "a.b", "a-b_c"])
def test_a_trial_is_told_from_a_model(name: str) -> None:
    assert is_trial(trial_name(name))
    assert not is_trial(name)
    assert model_of(trial_name(name)) == model_of(name) == name


_ACTIONS = st.lists(
    st.sampled_from(
        ["run", "poll", "tick", "tick", "look", "look", "agent", "server", "2", "3", "1", "fail"]
    ),
    max_size=30,
)


@given(actions=_ACTIONS, bad=st.sets(st.sampled_from([("a@golden", 2), ("a", 3)])))
@settings(max_examples=60)
def test_whatever_happens_nobody_reaches_an_untried_version(
    actions: list[str], bad: set[tuple[str, int]]
) -> None:
    node = make(golden("a", 2), bad=bad)
    node.most_copies = 5
    for action in actions:
        match action:
            case "run":
                node.run(1)
            case "poll":
                node.server.poll()
            case "tick":
                node.server.tick()
            case "look":
                node.look()
            case "agent":
                while node.outstanding is not None:
                    node.run(0.1)  # the model of the server has no queue of reloads
                node.restart_agent()
            case "server":
                node.restart_server()
            case "fail":
                node.failing = {("a", 3)} - node.failing
            case version:
                node.wanted = (golden("a", int(version)),)
        assert node.server.available("a"), f"nothing serves after {action}"
    node.failing, node.server.bad = set(), set()
    node.wanted = (golden("a", 4),)
    node.run(30)
    assert node.server.available("a") == {4}
    assert not node.server.available("a@golden")


def _plan(
    item: Deployment,
    memory: Memory,
    states: Mapping[str, Mapping[int, State]] | None = None,
) -> Plan:
    world = World(
        desired=desired(item),
        available=available(listing("a", 1, 2, 3)),
        local=local({"a": [1, 2, 3]}),
        served=served(states or {"a": {1: UP}}),
        restart_config=restart_config(remembered({"a": [1]})),
    )
    return plan(world, memory, LIMITS, 500.0)


def _configured(made: Plan) -> dict[str, list[int]] | None:
    configs = [s.request.config for s in made.steps if isinstance(s, Configure)]
    return shown(configs)[0] if configs else None


def _removals(made: Plan) -> list[int]:
    return [step.version for step in made.steps if isinstance(step, RemoveVersion)]
