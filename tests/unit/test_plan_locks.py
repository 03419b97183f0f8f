"""A locked deployment: these bytes or none, and no more questions to the bucket than needed."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Available, Deployment, Lock, Phase, Query, Quota, State
from reconciler.planning.events import FetchFailed, fold
from reconciler.planning.goals import fingerprint, wanted_queries
from reconciler.planning.locks import LOCK_MISMATCH, lock_snapshot
from reconciler.planning.memory import Memory, ModelMemory
from reconciler.planning.plan import plan
from reconciler.planning.steps import Fetch, World
from tests.unit.worlds import (
    LIMITS,
    NOW,
    SIZE,
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

UP = State.AVAILABLE


def lock(
    model: str, *versions: int, generation: int = 1, sha256: Mapping[str, str] | None = None
) -> Lock:
    """A lock whose first version is the deployment's own."""
    return Lock(
        path=f"deployments/g/{model}.lock.yaml",
        model=model,
        source=source(model),
        version=versions[0],
        versions={
            version: lock_snapshot(snapshot(model, version, generation=generation), sha256 or {})
            for version in versions
        },
    )


def locked(model: str, *versions: int, generation: int = 1, **changes: object) -> Deployment:
    found = lock(model, *versions, generation=generation)
    return replace(deployment(model, None, **changes), lock=found)


def world(*wanted: Deployment, listed: Available | None = None, on_disk: int = 1) -> World:
    """A node that serves version `on_disk` of a."""
    return World(
        desired=desired(*wanted),
        available=listed or available(),
        local=local({"a": [on_disk]}),
        served=served({"a": {on_disk: UP}}),
        restart_config=restart_config(remembered({"a": [on_disk]})),
    )


def queries(wanted: Deployment, found: World) -> dict[Query, bool]:
    models = found.local.versions.get(wanted.model, {})
    return wanted_queries(wanted, models, ModelMemory(), found.available)


def test_latest_is_what_the_lock_says_whatever_the_bucket_holds() -> None:
    newer = available(listing("a", 1, 2, 3))
    made = make_plan(world(locked("a", 1), listed=newer), remembered({"a": [1]}))
    assert made.converged
    assert made.outcomes[0].wanted == 1


def test_what_is_installed_as_locked_needs_no_bucket() -> None:
    assert queries(locked("a", 1), world()) == {}


def test_a_locked_version_is_listed_to_be_fetched_and_no_more_once_it_is_known() -> None:
    query = Query(source("a"), 2)
    assert queries(locked("a", 2), world()) == {query: False}
    listed = available(listing("a", 2, pin=2))
    assert queries(locked("a", 2), world(listed=listed)) == {query: True}
    assert queries(locked("a", 2), world(on_disk=2)) == {}


def test_the_locked_bytes_are_fetched_with_their_sums() -> None:
    listed = available(listing("a", 2, pin=2))
    sums = {"saved_model.pb": "0" * 64}
    wanted = replace(deployment("a", None), lock=lock("a", 2, sha256=sums))
    made = make_plan(world(wanted, listed=listed), remembered({"a": [1]}))
    (fetch,) = (step for step in made.steps if isinstance(step, Fetch))
    assert (fetch.snapshot.version, fetch.sha256) == (2, sums)


def test_other_bytes_than_the_locked_ones_are_refused_and_named() -> None:
    listed = available(listing("a", 2, pin=2, generation=9))
    made = make_plan(world(locked("a", 2), listed=listed), remembered({"a": [1]}))
    assert fetches(made) == []
    (outcome,) = made.outcomes
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, LOCK_MISMATCH)
    assert "a.lock.yaml" in outcome.sentence
    assert "saved_model.pb was written last" in outcome.sentence
    assert "version 1 goes on serving" in outcome.sentence


def test_a_download_that_was_not_what_is_locked_is_not_tried_again_before_another_lock() -> None:
    listed = available(listing("a", 2, pin=2))
    found = world(locked("a", 2), listed=listed)
    digest = snapshot("a", 2).digest
    memory = make_plan(found, remembered({"a": [1]})).memory
    memory = fold(memory, FetchFailed("a", 2, digest, LOCK_MISMATCH, "other sums"), NOW)
    later = plan(found, memory, LIMITS, NOW + 3600)
    assert fetches(later) == []
    assert later.outcomes[0].reason == LOCK_MISMATCH
    relocked = replace(deployment("a", None), lock=lock("a", 2, 3))
    assert fetches(make_plan(replace(found, desired=desired(relocked)), memory)) == [("a", 2)]


def test_a_locked_version_that_is_gone_is_named() -> None:
    listed = available(listing("a", 5, pin=2))
    made = make_plan(world(locked("a", 2), listed=listed), remembered({"a": [1]}))
    assert made.outcomes[0].reason == "VersionNotFound"


def test_other_bytes_that_serve_under_the_locked_number_go_on_and_are_no_success() -> None:
    found = world(locked("a", 1, generation=9), listed=available(listing("a", 1, pin=1)))
    made = make_plan(found, remembered({"a": [1]}))
    (outcome,) = made.outcomes
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, LOCK_MISMATCH)
    assert outcome.serving == (1,)
    assert removals(made) == []
    assert fetches(made) == []


def test_other_bytes_that_nobody_serves_make_way_for_the_locked_ones() -> None:
    memory = Memory(models={"a": ModelMemory(proven=(1,))}, connection=1, confirmed=True)
    right, wrong = (available(listing("a", 1, pin=1, generation=g)) for g in (9, 8))
    found = replace(world(locked("a", 1, generation=9)), served=served({}), restart_config={})
    assert removals(make_plan(replace(found, available=right), memory)) == [("a", 1)]
    # Never before the locked ones are known to be there.
    assert removals(make_plan(found, memory)) == []
    assert removals(make_plan(replace(found, available=wrong), memory)) == []


def test_labels_are_locked_too() -> None:
    listed = available(listing("a", 2, pin=2), listing("a", 3, pin=3, generation=9))
    wanted = locked("a", 2, 3, labels={"canary": 3})
    made = make_plan(world(wanted, listed=listed), remembered({"a": [1]}))
    assert fetches(made) == [("a", 2)]
    assert made.outcomes[0].reason == LOCK_MISMATCH


def test_a_quota_counts_what_is_locked_before_anything_is_listed() -> None:
    found = world(locked("a", 2), deployment("b", 1), listed=available(listing("b", 1, pin=1)))
    group = found.desired.group
    assert group is not None
    quota = replace(group, quota=Quota(disk_bytes=SIZE))
    found = replace(found, desired=replace(found.desired, group=quota))
    made = make_plan(found, remembered({"a": [1]}))
    assert [o.reason for o in made.outcomes] == ["Listing", "GroupQuotaExceeded"]


def test_memory_is_a_quota_of_its_own() -> None:
    found = world(deployment("a"), deployment("b", 1), listed=available(listing("b", 1, pin=1)))
    group = found.desired.group
    assert group is not None
    quota = replace(group, quota=Quota(memory_bytes=SIZE + 1))
    made = make_plan(
        replace(found, desired=replace(found.desired, group=quota)), remembered({"a": [1]})
    )
    assert made.outcomes[1].reason == "GroupQuotaExceeded"
    assert "memory" in made.outcomes[1].sentence


def test_another_lock_is_another_wish_so_failures_are_forgotten() -> None:
    assert fingerprint(locked("a", 1)) != fingerprint(locked("a", 1, generation=2))


@given(st.lists(st.integers(1, 6), max_size=4), st.integers(1, 6), st.booleans())
def test_a_lock_alone_decides(in_bucket: list[int], wanted: int, tampered: bool) -> None:
    listed = available(listing("a", *in_bucket, pin=wanted, generation=9 if tampered else 1))
    made = make_plan(world(locked("a", wanted), listed=listed), remembered({"a": [1]}))
    can_fetch = wanted in in_bucket and not tampered and wanted != 1
    assert fetches(made) == ([("a", wanted)] if can_fetch else [])
