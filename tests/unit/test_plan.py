"""The plan as a whole: what it does, what it refuses to do, and what it says."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import (
    Ask,
    Available,
    Deployment,
    Listing,
    Phase,
    Problem,
    Query,
    Quota,
    Rollout,
    Served,
    Snapshot,
    State,
    StoredFile,
    Strategy,
    Unavailable,
)
from reconciler.planning.events import FetchFailed, fold
from reconciler.planning.memory import Memory, ModelMemory, back_off
from reconciler.planning.plan import plan
from reconciler.planning.steps import Fetch, World, WriteConfig
from reconciler.policy import Policy
from tests.unit.worlds import (
    LIMITS,
    NOW,
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


def serving_world(*wanted: Deployment, policy: Policy | None = None) -> tuple[World, Memory]:
    """A node on which a, b and c serve version 1, with `wanted` in git."""
    memory = remembered({"a": [1], "b": [1], "c": [1]})
    world = World(
        desired=desired(*wanted, policy=policy),
        available=available(),
        local=local({"a": [1], "b": [1], "c": [1]}),
        served=served({"a": {1: UP}, "b": {1: UP}, "c": {1: UP}}),
        restart_config=restart_config(memory),
    )
    return world, memory


ABC = (deployment("a"), deployment("b"), deployment("c"))


def test_a_node_at_rest_has_nothing_to_do() -> None:
    made = make_plan(*serving_world(*ABC))
    assert made.steps == ()
    assert made.converged
    assert not made.in_motion
    assert all(condition.holds for condition in made.conditions)
    assert [outcome.phase for outcome in made.outcomes] == [Phase.DEPLOYED] * 3


def test_a_new_pin_is_fetched_and_then_asked_beside_the_old_version() -> None:
    world, memory = serving_world(deployment("a", 2), *ABC[1:])
    world = replace(world, available=available(listing("a", 2, pin=2)))
    made = make_plan(world, memory)
    assert fetches(made) == [("a", 2)]
    assert configured(made) is None
    assert made.outcomes[0].reason == "Downloading"
    world = replace(world, local=local({"a": [1, 2], "b": [1], "c": [1]}))
    config = configured(make_plan(world, memory))
    assert config is not None
    assert config["a"] == Ask(frozenset({1, 2}))


def test_how_long_it_is_deployed_as_asked_is_told() -> None:
    world, memory = serving_world(*ABC)
    made = make_plan(world, memory, NOW)
    assert made.outcomes[0].deployed_since == NOW
    made = make_plan(world, made.memory, NOW + 7)
    assert made.outcomes[0].deployed_since == NOW
    away = replace(world, served=served({"b": {1: UP}, "c": {1: UP}}))
    lost = make_plan(away, made.memory, NOW + 8)
    assert lost.outcomes[0].phase is not Phase.DEPLOYED
    assert lost.outcomes[0].deployed_since is None
    made = make_plan(world, lost.memory, NOW + 9)
    assert made.outcomes[0].deployed_since == NOW + 9
    # What is asked is another thing, although it comes to the same version.
    asked = replace(ABC[0], rollout=Rollout(Strategy.RECREATE))
    made = make_plan(replace(world, desired=desired(asked, *ABC[1:])), made.memory, NOW + 20)
    assert made.outcomes[0].deployed_since == NOW + 20


def test_a_server_that_is_slow_for_a_moment_begins_no_time_anew() -> None:
    world, memory = serving_world(*ABC)
    silent = replace(world, served=Unavailable("ServerSilent", "has not answered yet"))
    memory = make_plan(world, memory, NOW).memory
    blind = make_plan(silent, make_plan(world, memory, NOW + 60).memory, NOW + 64)
    assert blind.outcomes[0].deployed_since is None
    assert make_plan(world, blind.memory, NOW + 65).outcomes[0].deployed_since == NOW
    # One that is silent for longer may have answered nobody, and one that was restarted has not.
    longer = make_plan(silent, blind.memory, NOW + 66).memory
    assert make_plan(world, longer, NOW + 67).outcomes[0].deployed_since == NOW + 67
    states = {model: {1: UP} for model in "abc"}
    anew = replace(world, served=served(states, connection=2))
    assert make_plan(anew, blind.memory, NOW + 65).outcomes[0].deployed_since == NOW + 65


def test_a_pin_that_its_bucket_has_lost_goes_on_and_is_named() -> None:
    world, memory = serving_world(*ABC)
    world = replace(world, available=available(listing("a", pin=1), listing("b", 1, pin=1)))
    made = make_plan(world, memory)
    assert made.steps == ()
    lost, kept = made.outcomes[:2]
    assert (lost.phase, lost.reason) == (Phase.DEPLOYED, "SourceGone")
    assert (
        "version 1 is not in gs://models/a any more; this node keeps what it has" in lost.sentence
    )
    assert kept.reason == "Serving"


def test_going_back_to_what_is_on_disk_fetches_nothing() -> None:
    memory = remembered({"a": [2]})
    memory = memory.with_model("a", replace(memory.of("a"), proven=(1, 2)))
    world = World(
        desired(deployment("a", 1)),
        Available(),
        local({"a": [1, 2]}),
        served({"a": {2: UP, 1: State.END}}),
        restart_config(memory),
    )
    made = make_plan(world, memory)
    assert fetches(made) == []
    config = configured(made)
    assert config is not None
    assert config["a"] == Ask(frozenset({1, 2}))


def test_on_the_way_back_the_higher_version_is_named_until_it_no_longer_answers() -> None:
    memory = remembered({"a": [1, 2]})
    world = World(
        desired(deployment("a", 1)),
        Available(),
        local({"a": [1, 2]}),
        served({"a": {1: UP, 2: UP}}),
        restart_config(memory),
    )
    made = make_plan(world, memory)
    assert configured(made) == {"a": Ask(frozenset({1}))}
    assert (made.outcomes[0].phase, made.outcomes[0].reason) == (Phase.DEPLOYING, "Unloading")
    ended = replace(world, served=served({"a": {1: UP, 2: State.END}}))
    assert make_plan(ended, memory).outcomes[0].phase is Phase.DEPLOYED


def test_latest_waits_for_the_settle_time_and_says_when_to_look_again() -> None:
    world, memory = serving_world(deployment("a", None), *ABC[1:])
    fresh = replace(listing("a", 1, 2), read_at_seconds=4.0)
    young = {1: fresh.snapshots[1], 2: fresh.snapshots[2]}
    made = make_plan(replace(world, available=available(replace(fresh, snapshots=young))), memory)
    assert fetches(made) == []
    assert made.relist == {Query("gs://models/a"): 6.0}


def test_while_the_bucket_is_away_latest_stays_what_it_was_and_nothing_is_removed() -> None:
    world, memory = serving_world(deployment("a", None), *ABC[1:])
    known = replace(memory.of("a"), resolved={"gs://models/a": 1}, proven=(5, 1))
    memory = memory.with_model("a", known)
    trouble = {Query("gs://models/a"): Unavailable("ListingFailed", "the bucket is away")}
    world = replace(
        world,
        available=Available({}, trouble),
        local=local({"a": [1, 3, 4, 5], "b": [1], "c": [1]}),
    )
    made = make_plan(world, memory)
    assert removals(made) == []
    assert made.outcomes[0].phase is Phase.DEPLOYED
    assert "the bucket is away" in made.outcomes[0].sentence
    condition = next(c for c in made.conditions if c.name == "BucketReachable")
    assert not condition.holds


def test_versions_that_nothing_needs_go_and_the_previous_one_stays() -> None:
    world, memory = serving_world(*ABC)
    memory = memory.with_model("a", replace(memory.of("a"), proven=(3, 4, 5, 1)))
    world = replace(world, local=local({"a": [1, 2, 3, 4, 5], "b": [1], "c": [1]}))
    assert removals(make_plan(world, memory)) == [("a", 2), ("a", 3), ("a", 4)]


def test_a_version_that_the_restart_file_still_names_is_not_removed() -> None:
    world, memory = serving_world(*ABC)
    config = {**(world.restart_config or {}), "a": Ask(frozenset({1, 2}))}
    world = replace(world, restart_config=config, local=local({"a": [1, 2], "b": [1], "c": [1]}))
    made = make_plan(world, memory)
    assert removals(made) == []
    assert any(isinstance(step, WriteConfig) for step in made.steps)


def test_nothing_is_removed_by_what_the_server_said_a_while_ago() -> None:
    world, memory = serving_world(*ABC)
    world = replace(world, local=local({"a": [1, 2], "b": [1, 2], "c": [1]}))
    assert isinstance(world.served, Served)
    asked_for_b = replace(world, served=replace(world.served, fresh=frozenset({"b"})))
    assert removals(make_plan(asked_for_b, memory)) == [("b", 2)]
    assert removals(make_plan(world, memory)) == [("a", 2), ("b", 2)]


def test_what_this_agent_did_not_install_is_never_deleted() -> None:
    world, memory = serving_world(*ABC)
    versions = {m: dict(v) for m, v in local({"a": [1, 9], "b": [1], "c": [1]}).versions.items()}
    versions["a"][9] = replace(versions["a"][9], digest=None)
    world = replace(world, local=replace(world.local, versions=versions))
    assert removals(make_plan(world, memory)) == []


def leave(world: World, memory: Memory) -> World:
    """The world after the server dropped what the plan dropped."""
    made = make_plan(world, memory)
    config = configured(made)
    assert config is not None
    return replace(world, restart_config=dict(config))


def test_a_model_that_left_git_is_unloaded_first_and_deleted_after_its_end() -> None:
    world, memory = serving_world(*ABC[:2])
    made = make_plan(world, memory)
    config = configured(made)
    assert config is not None
    assert config.keys() == {"a", "b"}
    assert removals(made) == []
    assert [outcome.deployment.model for outcome in made.removals] == ["c"]
    dropped = memory.with_model("c", ModelMemory(proven=(1,)))
    world = replace(world, restart_config={m: config[m] for m in ("a", "b")})
    unloading = served({"a": {1: UP}, "b": {1: UP}, "c": {1: State.UNLOADING}})
    assert removals(make_plan(replace(world, served=unloading), dropped)) == []
    ended = served({"a": {1: UP}, "b": {1: UP}, "c": {1: State.END}})
    assert removals(make_plan(replace(world, served=ended), dropped)) == [("c", 1)]


def test_a_version_that_says_start_for_ever_is_waited_for_no_longer() -> None:
    memory = remembered({"a": [1]})
    memory = memory.with_model("a", replace(memory.of("a"), dropped={2: NOW - 1.0}))
    world = World(
        desired(deployment("a", 2)),
        Available(),
        local({"a": [1, 2]}),
        served({"a": {1: UP, 2: State.START}}),
        restart_config(memory),
    )
    assert configured(make_plan(world, memory)) is None, "it may still be taken up"
    assert configured(make_plan(world, memory, NOW + 1)) == {"a": Ask(frozenset({1, 2}))}


def test_held_models_keep_their_labels() -> None:
    world, memory = serving_world(*ABC[:2])
    labelled = Ask(frozenset({1}), {"stable": 1})
    memory = memory.with_model("c", replace(memory.of("c"), asked=labelled, good=labelled))
    world = replace(
        world,
        restart_config=restart_config(memory),
        git_trouble=Unavailable("GitUnreachable", "the git server is away"),
    )
    assert make_plan(world, memory).steps == ()


def test_nothing_is_deleted_before_the_server_took_a_config_without_it() -> None:
    world, _ = serving_world(policy=Policy(allow_empty=True))
    unknown = Memory(models={m: ModelMemory(proven=(1,)) for m in "abc"}, connection=1)
    world = replace(world, served=served({"a": {}, "b": {}, "c": {}}), restart_config={})
    made = make_plan(world, unknown)
    assert removals(made) == []
    assert configured(made) == {}
    assert len(removals(make_plan(world, replace(made.memory, confirmed=True)))) == 3


def test_a_restart_file_that_names_what_is_gone_is_mended_while_the_server_is_away() -> None:
    world, memory = serving_world(*ABC)
    away = Unavailable("ServerUnreachable", "it is down")
    world = replace(world, served=away, local=local({"a": [1], "b": [1]}))
    (step,) = make_plan(world, memory).steps
    assert step == WriteConfig({m: Ask(frozenset({1})) for m in "ab"})
    silent = Unavailable("ServerSilent", "it does not answer")
    assert make_plan(replace(world, served=silent), memory).steps == ()


def test_models_served_from_a_folder_that_is_not_ours_are_not_touched() -> None:
    world, _ = serving_world(*ABC[:1])
    foreign = Memory(models={m: ModelMemory(good=Ask(frozenset())) for m in "abc"})
    world = replace(world, local=local({"a": [1]}), restart_config=None)
    made = make_plan(world, foreign)
    assert made.steps == ()
    condition = next(c for c in made.conditions if c.name == "ServingAccepts")
    assert condition.reason == "ServedFromElsewhere"
    assert "b, c" in condition.sentence


def test_a_file_that_a_server_starts_from_names_nothing_without_a_version() -> None:
    world, memory = serving_world(*ABC)
    memory = make_plan(world, memory).memory
    failed = back_off("junk", None, NOW)
    broken = replace(memory.of("a"), load_failures={1: failed}, since={1: NOW - 1}, proven=())
    world = replace(world, served=served({"a": {1: State.END}, "b": {1: UP}, "c": {1: UP}}))
    by_rpc = configured(make_plan(world, memory.with_model("a", broken)))
    assert by_rpc is not None
    assert by_rpc["a"] == Ask(frozenset())
    limits = replace(LIMITS, is_file_driven=True)
    by_file = configured(plan(world, memory.with_model("a", broken), limits, NOW))
    assert by_file is not None
    assert by_file.keys() == {"b", "c"}


HELD = {
    "an empty desired set": lambda world: replace(world, desired=desired()),
    "more than half at once": lambda world: replace(world, desired=desired(ABC[0])),
    "no removal is allowed at all": lambda world: replace(
        world, desired=desired(*ABC[:2], policy=Policy(max_removals=0.0))
    ),
    "git could not be read": lambda world: replace(
        world,
        desired=desired(*ABC[:2]),
        git_trouble=Unavailable("GitUnreachable", "the git server is away"),
    ),
    "a file of the commit is broken": lambda world: replace(
        world,
        desired=replace(desired(*ABC[:2]), problems=(Problem("x.yaml", 1, 1, "is not YAML"),)),
    ),
    "no group names the node": lambda world: replace(
        world, desired=replace(desired(*ABC[:2]), group=None)
    ),
}


@pytest.mark.parametrize("change", HELD.values(), ids=HELD.keys())
def test_removals_are_held_back_in_doubt(change: object) -> None:
    world, memory = serving_world(*ABC)
    made = make_plan(change(world), memory)  # type: ignore[operator]
    assert removals(made) == []
    config = configured(made)
    assert config is None or config.keys() == {"a", "b", "c"}
    condition = next(c for c in made.conditions if c.name == "RemovalsAllowed")
    assert not condition.holds
    assert "left git and stay" in condition.sentence


def test_nothing_is_removed_while_the_server_does_not_answer() -> None:
    world, memory = serving_world(*ABC)
    world = replace(
        world,
        served=Unavailable("ServerUnreachable", "it is down"),
        local=local({"a": [1, 2, 3], "b": [1], "c": [1]}),
    )
    assert make_plan(world, memory).steps == ()


def test_a_person_can_allow_what_is_held_back() -> None:
    world, memory = serving_world(policy=Policy(allow_empty=True))
    config = configured(make_plan(world, memory))
    assert config == {}
    world, memory = serving_world(ABC[0], policy=Policy(max_removals=2))
    config = configured(make_plan(world, memory))
    assert config is not None
    assert config.keys() == {"a"}


def test_a_version_that_does_not_fit_is_refused_with_the_numbers() -> None:
    world, memory = serving_world(deployment("a", 2), *ABC[1:])
    installed = local({"a": [1], "b": [1], "c": [1]}, free=400_000)
    big = listing("a", 2, pin=2, size=1_000_000)
    made = make_plan(replace(world, local=installed, available=available(big)), memory)
    assert fetches(made) == []
    assert made.outcomes[0].reason == "DiskFull"
    assert "1.0 MB" in made.outcomes[0].sentence
    assert "400.0 kB are free" in made.outcomes[0].sentence


@pytest.mark.parametrize(
    ("quota", "number"),
    [
        (Quota(models=2), "a would be number 3"),
        (Quota(disk_bytes=2 * SIZE), "a needs 1.0 kB more; the others use 2.0 kB of the 2.0 kB"),
        (Quota(memory_bytes=2 * SIZE), "a takes at least 1.0 kB more of memory"),
    ],
)
def test_a_newcomer_does_not_push_out_what_serves(quota: Quota, number: str) -> None:
    memory = remembered({"b": [1], "c": [1]})
    states = {"b": {1: State.AVAILABLE}, "c": {1: State.AVAILABLE}}
    listings = [listing(model, 1, 2, pin=2 if model == "b" else 1) for model in "abc"]
    world = World(
        desired(deployment("a"), deployment("b", 2), deployment("c"), quota=quota),
        available(*listings),
        local({"b": [1], "c": [1]}),
        served(states),
        restart_config(memory),
    )
    made = make_plan(world, memory)
    assert fetches(made) == [("b", 2)]  # no larger than what it comes after
    newcomer = made.outcomes[0]
    assert (newcomer.phase, newcomer.reason) == (Phase.FAILED, "GroupQuotaExceeded")
    assert number in newcomer.sentence
    assert newcomer.sentence.count("groups/g.yaml") == 1


def packed(model: str, version: int) -> Listing:
    stored = StoredFile("saved_model.zip", SIZE, 1, 7, 0.0)
    found = Snapshot(source(model), version, str(version), (stored,), archive=stored.path)
    return Listing(Query(source(model), version), 10_000.0, {version: found})


@pytest.mark.parametrize(
    ("quota", "limits"),
    [
        (Quota(), {"a": None, "b": None, "c": None}),
        (Quota(models=3), {"a": None, "b": None, "c": None}),
        # Of 10 are 3 for what is known, and each of the two archives may have half of the rest.
        (Quota(disk_bytes=10 * SIZE), {"a": None, "b": 9 * SIZE // 2, "c": 9 * SIZE // 2}),
        (
            Quota(disk_bytes=10 * SIZE, memory_bytes=4 * SIZE),
            {"a": None, "b": 3 * SIZE // 2, "c": 3 * SIZE // 2},
        ),
        (Quota(disk_bytes=2 * SIZE), {"a": None, "b": SIZE}),
    ],
    ids=["none", "of models", "of the disk", "the smaller one", "nothing left"],
)
def test_an_archive_may_unpack_to_what_the_quota_leaves(
    quota: Quota, limits: dict[str, int | None]
) -> None:
    memory = remembered({"b": [1]})
    world = World(
        desired(deployment("a"), deployment("b", 2), deployment("c", 2), quota=quota),
        available(listing("a", 1, pin=1), packed("b", 2), packed("c", 2)),
        local({"b": [1]}),
        served({"b": {1: UP}}),
        restart_config(memory),
    )
    steps = make_plan(world, memory).steps
    assert {step.model: step.most_bytes for step in steps if isinstance(step, Fetch)} == limits


def test_a_group_over_its_quota_keeps_the_models_before_it_in_order() -> None:
    wanted = desired(*ABC, deployment("d"), quota=Quota(models=3))
    world, memory = serving_world(*ABC)
    world = replace(world, desired=wanted, available=available(listing("d", 1, pin=1)))
    made = make_plan(world, memory)
    assert fetches(made) == []
    assert made.outcomes[3].reason == "GroupQuotaExceeded"
    assert made.outcomes[3].phase is Phase.FAILED


def test_a_download_that_failed_waits_its_turn_and_a_new_commit_tries_at_once() -> None:
    world, memory = serving_world(deployment("a", 2), *ABC[1:])
    world = replace(world, available=available(listing("a", 2, pin=2)))
    memory = make_plan(world, memory).memory
    digest = snapshot("a", 2).digest
    failed = FetchFailed("a", 2, digest, "ChecksumMismatch", "the bytes are not right")
    memory = fold(memory, failed, NOW)
    made = make_plan(world, memory)
    assert fetches(made) == []
    assert made.outcomes[0].phase is Phase.FAILED
    assert made.outcomes[0].retry_in_seconds == pytest.approx(1.0)
    assert "version 1 goes on serving" in made.outcomes[0].sentence
    assert fetches(make_plan(world, memory, NOW + 2)) == [("a", 2)]
    changed = desired(deployment("a", 2, labels={"stable": 1}), *ABC[1:])
    assert fetches(make_plan(replace(world, desired=changed), memory)) == [("a", 2)]


@pytest.mark.parametrize("reason", ["BadArchive", "Incomplete", "LockMismatch"])
def test_bytes_that_cannot_be_installed_are_not_fetched_again_before_there_are_others(
    reason: str,
) -> None:
    world, memory = serving_world(deployment("a", 2), *ABC[1:])
    world = replace(world, available=available(listing("a", 2, pin=2)))
    memory = make_plan(world, memory).memory
    failed = FetchFailed("a", 2, snapshot("a", 2).digest, reason, "it is cut off")
    memory = fold(memory, failed, NOW)
    for now in (NOW, NOW + 3600):
        made = plan(world, memory, LIMITS, now)
        assert fetches(made) == []
        (outcome,) = [item for item in made.outcomes if item.deployment.model == "a"]
        assert (outcome.phase, outcome.reason) == (Phase.FAILED, reason)
        assert outcome.retry_in_seconds is None, "no time brings other bytes"
    other = replace(world, available=available(listing("a", 2, pin=2, generation=2)))
    assert fetches(make_plan(other, memory)) == [("a", 2)]


def test_a_pin_whose_objects_changed_keeps_what_is_installed_and_says_so() -> None:
    world, memory = serving_world(*ABC)
    changed = available(listing("a", 1, pin=1, generation=2))
    made = make_plan(replace(world, available=changed), memory)
    assert made.steps == ()
    assert made.outcomes[0].reason == "SourceChanged"
    assert made.outcomes[0].phase is Phase.DEPLOYED


def test_a_version_that_never_loaded_is_replaced_once_its_bytes_are_repaired() -> None:
    world, memory = serving_world(deployment("a", 2), *ABC[1:])
    failure = back_off("junk", None, NOW, digest=snapshot("a", 2).digest)
    memory = make_plan(world, memory).memory
    memory = memory.with_model("a", replace(memory.of("a"), load_failures={2: failure}))
    world = replace(
        world,
        local=local({"a": [1, 2], "b": [1], "c": [1]}),
        available=available(listing("a", 2, pin=2, generation=2)),
    )
    assert removals(make_plan(world, memory)) == [("a", 2)]
    gone = replace(world, local=local({"a": [1], "b": [1], "c": [1]}))
    assert fetches(make_plan(gone, memory)) == [("a", 2)]


def test_a_stopped_model_is_unloaded_and_its_files_stay() -> None:
    world, memory = serving_world(deployment("a", 1, stop=True), *ABC[1:])
    config = configured(make_plan(world, memory))
    assert config is not None
    assert config.keys() == {"b", "c"}
    stopped = memory.with_model("a", replace(memory.of("a"), asked=None, good=None))
    ended = served({"a": {1: State.END}, "b": {1: UP}, "c": {1: UP}})
    made = make_plan(replace(world, served=ended, restart_config=config), stopped)
    assert removals(made) == []
    assert made.outcomes[0].phase is Phase.STOPPED


def test_a_broken_file_leaves_its_model_as_it_is() -> None:
    world, memory = serving_world(*ABC[:2])
    problem = Problem("deployments/g/c.yaml", 1, 1, "is not YAML")
    broken = replace(world.desired, broken={"c": problem}, problems=(problem,))
    made = make_plan(replace(world, desired=broken), memory)
    assert made.steps == ()
    outcome = made.outcomes[2]
    assert (outcome.deployment.model, outcome.phase) == ("c", Phase.FAILED)
    assert outcome.reason == "InvalidConfig"
    assert outcome.serving == (1,)


versions = st.sets(st.integers(1, 5), max_size=5)
states = st.dictionaries(st.integers(1, 5), st.sampled_from(list(State)), max_size=5)


@given(
    on_disk=versions,
    asked=versions,
    good=versions,
    seen=states,
    proven=st.lists(st.integers(1, 5), unique=True),
    pin=st.integers(1, 5),
    label=st.none() | st.integers(1, 5),
    strategy=st.sampled_from(list(Strategy)),
    keep=st.integers(0, 3),
)
def test_whatever_the_state_nothing_needed_is_deleted(
    on_disk: set[int],
    asked: set[int],
    good: set[int],
    seen: dict[int, State],
    proven: list[int],
    pin: int,
    label: int | None,
    strategy: Strategy,
    keep: int,
) -> None:
    labels = {} if label is None else {"stable": label}
    wanted = deployment("a", pin, labels=labels, rollout=Rollout(strategy))
    known = ModelMemory(
        asked=Ask(frozenset(asked)) if asked else None,
        good=Ask(frozenset(good)) if good else None,
        since=dict.fromkeys(asked, 0.0),
        proven=tuple(proven),
    )
    memory = Memory(models={"a": known}, connection=1, confirmed=True)
    world = World(
        desired(wanted, policy=Policy(keep=keep)),
        Available(),
        local({"a": on_disk}),
        served({"a": seen}),
        restart_config(memory),
    )
    made = make_plan(world, memory)
    gone = {version for _, version in removals(made)}
    # START of a version that is not asked is a trace: the server forgot it without an event.
    held = {
        v
        for v, state in seen.items()
        if State.START < state < State.END or (state is State.START and v in asked)
    }
    previous = [v for v in reversed(made.memory.of("a").proven) if v not in (pin, label)]
    assert not gone & ({pin, label} | asked | held | good | set(previous[:keep]))
    assert gone <= on_disk
    config = configured(made)
    for version in config["a"].versions if config and "a" in config else ():
        assert version in on_disk or version in asked or version in held
