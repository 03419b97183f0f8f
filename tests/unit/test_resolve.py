"""`latest` and pins against listings of every shape."""

from collections.abc import Mapping

import pytest

from reconciler.model import Listing, Query, Snapshot, StoredFile
from reconciler.planning.resolve import NotReady, Resolved, resolve

SOURCE = "gs://acme/ranker"
NOW = 1_000_000.0
WHOLE = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")


def make_snapshot(version: int, age: float = 3600, paths: tuple[str, ...] = WHOLE) -> Snapshot:
    files = tuple(StoredFile(path, 10, 7, 1, NOW - age) for path in paths)
    return Snapshot(SOURCE, version, str(version), files)


def make_listing(*snapshots: Snapshot, refused: Mapping[int, str] | None = None) -> Listing:
    by_version = {snapshot.version: snapshot for snapshot in snapshots}
    return Listing(Query(SOURCE), NOW, by_version, refused or {})


def test_latest_is_the_highest_number() -> None:
    answer = resolve(None, make_listing(make_snapshot(9), make_snapshot(10)), 10)
    assert answer == Resolved(make_snapshot(10))


def test_an_unsettled_version_is_passed_over_and_named() -> None:
    answer = resolve(None, make_listing(make_snapshot(1), make_snapshot(2, age=4)), 10)
    assert isinstance(answer, Resolved)
    assert answer.snapshot.version == 1
    (note,) = answer.passed_over
    assert (note.version, note.reason, note.retry_in_seconds) == (2, "Settling", 6)
    assert "version 2 of gs://acme/ranker was written to 4 s ago" in note.sentence


@pytest.mark.parametrize(("age", "taken"), [(9.9, False), (10, True), (100, True)])
def test_a_version_settles_when_its_newest_object_is_old_enough(age: float, taken: bool) -> None:
    assert isinstance(resolve(None, make_listing(make_snapshot(1, age)), 10), Resolved) is taken


def test_one_new_object_unsettles_a_version() -> None:
    old = make_snapshot(1)
    newer = StoredFile("assets/words.txt", 1, 8, 2, NOW - 1)
    listing = make_listing(Snapshot(SOURCE, 1, "1", (*old.files, newer)))
    answer = resolve(None, listing, 10)
    assert isinstance(answer, NotReady)
    assert (answer.reason, answer.retry_in_seconds) == ("Settling", 9)


def test_an_object_written_in_the_future_waits_and_says_so_without_a_negative_age() -> None:
    answer = resolve(None, make_listing(make_snapshot(1, age=-5)), 10)
    assert isinstance(answer, NotReady)
    assert answer.retry_in_seconds == 15
    assert "written to 0 s ago" in answer.sentence


def test_settle_zero_takes_at_once() -> None:
    assert isinstance(resolve(None, make_listing(make_snapshot(1, age=-5)), 0), Resolved)


def test_an_incomplete_version_is_passed_over() -> None:
    partial = make_snapshot(3, paths=("saved_model.pb", "variables/variables.index"))
    answer = resolve(None, make_listing(make_snapshot(2), partial), 10)
    assert isinstance(answer, Resolved)
    assert answer.snapshot.version == 2
    assert answer.passed_over[0].reason == "Incomplete"
    assert "lacks variables/variables.data-00000-of-00001" in answer.passed_over[0].sentence


def test_a_refused_version_is_passed_over() -> None:
    answer = resolve(None, make_listing(make_snapshot(2), refused={5: "version 5: bad"}), 10)
    assert isinstance(answer, Resolved)
    assert answer.passed_over == (NotReady(5, "BadObjectName", "version 5: bad"),)


def test_none_ready_tells_of_the_highest_and_of_the_soonest_retry() -> None:
    listing = make_listing(make_snapshot(1, age=8), make_snapshot(2, paths=("x",)))
    answer = resolve(None, listing, 10)
    assert isinstance(answer, NotReady)
    assert (answer.version, answer.reason, answer.retry_in_seconds) == (2, "Incomplete", 2)


def test_no_versions() -> None:
    answer = resolve(None, make_listing(), 10)
    assert isinstance(answer, NotReady)
    assert (answer.version, answer.reason, answer.retry_in_seconds) == (None, "NoVersions", None)


def test_a_pin_does_not_wait_to_settle() -> None:
    answer = resolve(1, make_listing(make_snapshot(1, age=0), make_snapshot(2)), 10)
    assert answer == Resolved(make_snapshot(1, age=0))


@pytest.mark.parametrize(
    ("listing", "reason", "words"),
    [
        (make_listing(make_snapshot(3), make_snapshot(4)), "VersionNotFound", "which holds 4, 3"),
        (make_listing(), "VersionNotFound", "holds no version at all"),
        (make_listing(make_snapshot(1, paths=("x",))), "Incomplete", "lacks saved_model.pb"),
        (make_listing(refused={1: "a bad name"}), "BadObjectName", "a bad name"),
    ],
)
def test_a_pin_that_cannot_be_taken(listing: Listing, reason: str, words: str) -> None:
    answer = resolve(1, listing, 10)
    assert isinstance(answer, NotReady)
    assert (answer.version, answer.reason) == (1, reason)
    assert words in answer.sentence
