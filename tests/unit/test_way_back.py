"""Where a rollback goes, as a question to the history alone."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.history.read import Entry, State
from reconciler.model import Commit, Deployment, Lock, LockedVersion, VersionScheme
from reconciler.rollback.way_back import (
    asks_the_same,
    compose_lock,
    find_former,
    find_serving,
    find_step,
    follow,
    list_locks,
    revert_message,
    write_message,
)

SOURCE = "gs://acme/ranker"
PATH = "deployments/search/ranker.yaml"


def state(version: int | None, locked: int | None = None, **more: object) -> State:
    """Return a state whose blob ids follow from what it says."""
    plain = State("search", "ranker", PATH, "", version=version, locked=locked, source=SOURCE)
    lock = None if locked is None else f"lock of {locked}"
    digest = None if locked is None else f"digest of {locked}"
    made = replace(plain, lock_blob_id=lock, locked_digest=digest)
    made = replace(made, **more)  # type: ignore[arg-type]
    return replace(made, blob_id=f"{made.version} {made.labels} {made.replicas}")


def commit(number: int, subject: str = "Change") -> Commit:
    return Commit(f"{number:040x}", "Ada", subject, float(number))


def entry(before: State | None, after: State | None, number: int, **more: object) -> Entry:
    here = after or before
    assert here is not None
    made = Entry(
        commit(number), "ada@example.org", "Ada", "ada@example.org", "",
        here.group, here.model, here.path, before, after, only_this=True,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def history(*states: State | None, **more: object) -> list[Entry]:
    """Return the entries of a deployment that went through these states, oldest first."""
    pairs = zip((None, *states), states, strict=False)
    entries = [entry(before, after, n, **more) for n, (before, after) in enumerate(pairs, 1)]
    return entries[::-1]


READABLE = st.builds(
    state,
    st.one_of(st.none(), st.integers(40, 42)),
    st.one_of(st.none(), st.integers(40, 42)),
    replicas=st.one_of(st.none(), st.integers(1, 2)),
)


@given(st.lists(READABLE, min_size=1, max_size=8))
def test_the_way_back_is_to_the_newest_state_that_asked_for_something_else(
    states: list[State],
) -> None:
    former = find_former(follow(history(*states), PATH))
    others = [item for item in states if not asks_the_same(item, states[-1])]
    assert former == (others[-1] if others else None)


@given(st.lists(READABLE, min_size=1, max_size=8))
def test_to_take_back_the_step_found_is_to_ask_for_the_target(states: list[State]) -> None:
    steps = follow(history(*states), PATH)
    for target in states:
        step = find_step(steps, target)
        if step is not None:
            assert step.before == target
            later = states[states.index(target) + 1 :]
            assert step.after is not None and step.after in later
            assert step is steps[0] or asks_the_same(step.after, states[-1])


def test_a_lock_that_moves_latest_on_is_a_new_version() -> None:
    old, new = state(None, 41), state(None, 42)
    steps = follow(history(old, new, replace(new, replicas=2)), PATH)
    assert find_former(steps) == old
    assert find_step(steps, old) is steps[1]


def test_the_same_number_with_other_bytes_is_another_version() -> None:
    before = state(42, 42)
    after = replace(before, locked_digest="other", lock_blob_id="other")
    assert find_former(follow(history(before, after), PATH)) == before


def test_to_pin_what_latest_came_to_is_no_new_version() -> None:
    states = state(41), state(None, 42), state(42, 42)
    assert find_former(follow(history(*states), PATH)) == states[0]


def test_what_was_merged_together_is_one_step() -> None:
    states = state(41), state(42), state(43)
    newest, middle, oldest = history(*states)
    merge = commit(9, "Merge pull request 7")
    merged = [replace(newest, merged_by=merge), replace(middle, merged_by=merge), oldest]
    steps = follow(merged, PATH)
    assert find_former(steps) == states[0]
    step = find_step(steps, states[0])
    assert step is not None
    assert (step.commit, step.is_revertible) == (merge, False)
    # A single commit is known by its own name, however it was merged.
    single = follow([replace(newest, merged_by=merge), middle, oldest], PATH)
    assert (single[0].commit, single[0].is_revertible) == (newest.commit, True)


def test_only_a_commit_of_its_own_is_reverted() -> None:
    states = state(41), state(42)
    assert follow(history(*states), PATH)[0].is_revertible
    assert not follow(history(*states, only_this=False), PATH)[0].is_revertible
    assert not follow(history(*states, parts=(commit(8),)), PATH)[0].is_revertible


def test_a_step_further_back_is_not_taken_back() -> None:
    states = state(41), state(42), state(43)
    assert find_step(follow(history(*states), PATH), states[0]) is None


def test_a_deployment_is_followed_to_where_it_was_but_not_moved_back() -> None:
    old = replace(state(41), group="batch", path="deployments/batch/ranker.yaml")
    other = replace(state(7), path=PATH)
    entries = [entry(old, state(42), 3), entry(None, other, 2), entry(None, old, 1)]
    steps = follow(entries, PATH)
    assert [step.commit.time_seconds for step in steps] == [3, 1]
    assert find_former(steps) == old
    assert find_step(steps, old) is None


def test_broken_texts_are_passed_over() -> None:
    broken = replace(state(0), is_readable=False)
    states = state(41), broken, state(42), broken
    assert find_former(follow(history(*states), PATH)) == states[2]
    assert find_former(follow(history(*states[:3]), PATH)) == states[0]
    assert find_former(follow(history(broken, broken), PATH)) is None


def test_a_deployment_that_came_back_goes_on_where_it_ended() -> None:
    states = state(41), None, state(42)
    steps = follow(history(*states), PATH)
    assert find_former(steps) == states[0]
    assert find_step(steps, state(41)) is None


def test_nothing_to_go_back_to() -> None:
    assert find_former([]) is None
    assert find_former(follow(history(state(41)), PATH)) is None
    assert find_step([], state(41)) is None


def test_the_newest_state_that_served_a_version_of_this_source() -> None:
    states = (
        state(41, replicas=1),
        state(41, replicas=2),
        state(41, source="gs://other/ranker"),
        state(42),
    )
    steps = follow(history(*states), PATH)
    assert find_serving(steps, 41, SOURCE, VersionScheme()) == states[1]
    assert find_serving(steps, 42, SOURCE, VersionScheme()) == states[3]
    assert find_serving(steps, 40, SOURCE, VersionScheme()) is None


def test_locks_come_newest_first_after_the_one_that_is_meant() -> None:
    states = state(None, 40), state(None, 41), state(41), state(None, 42)
    steps = follow(history(*states), PATH)
    assert list_locks(steps, states[0]) == ["lock of 40", "lock of 42", "lock of 41"]
    assert list_locks(steps, None) == ["lock of 42", "lock of 41", "lock of 40"]


def test_a_lock_is_made_of_what_earlier_ones_say() -> None:
    def lock(*versions: int, digest: str, source: str = SOURCE) -> Lock:
        locked = {number: LockedVersion(number, 1, 1, digest) for number in versions}
        return Lock("", "ranker", source, versions[0], locked)

    deployment = Deployment("ranker", "search", PATH, SOURCE, 41, {"stable": 40, "canary": 43})
    locks = [
        lock(41, digest="first"),
        lock(41, 40, digest="second"),
        lock(43, digest="elsewhere", source="gs://other/ranker"),
    ]
    made = compose_lock(deployment, 41, "path", locks)
    assert (made.path, made.model, made.source, made.version) == ("path", "ranker", SOURCE, 41)
    found = {number: item.digest for number, item in made.versions.items()}
    assert found == {40: "second", 41: "first"}


def test_messages() -> None:
    assert revert_message(commit(1, "Deploy 42"), None) == (
        f'Revert "Deploy 42"\n\nThis reverts commit {commit(1).id}.\n'
    )
    assert revert_message(commit(1, 'Revert "Deploy 42"'), "It was fine.") == (
        f'Reapply "Deploy 42"\n\nThis reverts commit {commit(1).id}.\n\nIt was fine.\n'
    )
    twice = revert_message(commit(1, 'Revert "Revert "Deploy 42""'), None)
    assert twice.startswith('Revert "Revert "Revert "Deploy 42"""\n')
    assert write_message("Pin", None, "", "Why") == "Pin\n\nWhy\n"
