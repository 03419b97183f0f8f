"""Which lines the history gets: one for each change, none for what only goes on."""

from dataclasses import replace

import pytest

from reconciler.model import Commit, Deployment, Outcome, Phase
from reconciler.status.changes import Change, ChangeFinder, Result
from reconciler.status.report import NodeReport

FIRST = Commit("aaa", "Ada", "First", 1000.0)
SECOND = Commit("bbb", "Ada", "Second", 2000.0)
RANKER = Deployment("ranker", "search", "deployments/search/ranker.yaml", "gs://b/ranker", 41)


class Node:
    """Plays reports through a finder and keeps what it found, as the journal does."""

    def __init__(self) -> None:
        self.finder = ChangeFinder()
        self.recorded: dict[str, Change] = {}

    def sees(
        self,
        commit: Commit | None,
        now: float,
        *outcomes: Outcome,
        removals: tuple[Outcome, ...] = (),
        keep: bool = True,
    ) -> list[tuple[Result, int | None, int | None, float | None]]:
        report = NodeReport("n", "search", "0", 0, now, True, "", commit, None, outcomes, removals)
        changes = self.finder.find(report, self.recorded)
        if keep:
            for change in changes:
                self.recorded[change.model] = change
                if change.result is Result.REMOVED:
                    del self.recorded[change.model]
        return [
            (c.result, c.from_version, c.to_version, c.commit_to_serving_seconds) for c in changes
        ]


def deployed(version: int, deployment: Deployment = RANKER) -> Outcome:
    return Outcome(deployment, Phase.DEPLOYED, "Serving", "serves", version, (version,))


def failed(version: int, deployment: Deployment, reason: str = "LoadFailed") -> Outcome:
    return Outcome(deployment, Phase.FAILED, reason, "does not load", version)


def pinned(version: int) -> Deployment:
    return replace(RANKER, version=version)


def test_a_first_deployment_and_its_successor_are_measured_from_their_commits() -> None:
    node = Node()
    deploying = Outcome(RANKER, Phase.DEPLOYING, "Downloading", "downloads", 41)

    assert node.sees(FIRST, 1005, deploying) == []
    assert node.sees(FIRST, 1010, deployed(41)) == [(Result.DEPLOYED, None, 41, 10)]
    assert node.sees(FIRST, 1012, deployed(41)) == []
    assert node.sees(SECOND, 2003, deployed(42, pinned(42))) == [(Result.DEPLOYED, 41, 42, 3)]


def test_the_commit_that_changed_the_deployment_counts_not_one_that_came_later() -> None:
    node = Node()
    node.sees(FIRST, 1005, Outcome(RANKER, Phase.DEPLOYING, "Downloading", "downloads", 41))

    assert node.sees(SECOND, 2010, deployed(41)) == [(Result.DEPLOYED, None, 41, 1010)]
    assert node.recorded["ranker"].commit == FIRST


@pytest.mark.parametrize("restarted", [False, True])
def test_latest_moving_on_without_a_commit_has_no_commit_to_serving_seconds(
    restarted: bool,
) -> None:
    latest = replace(RANKER, version=None)
    node = Node()
    node.sees(FIRST, 1010, deployed(41, latest))
    if restarted:
        node.finder = ChangeFinder()
        assert node.sees(SECOND, 4999, deployed(41, latest)) == []

    assert node.sees(SECOND if restarted else FIRST, 5000, deployed(42, latest)) == [
        (Result.DEPLOYED, 41, 42, None)
    ]


def test_a_failure_is_recorded_once_and_the_way_back_too() -> None:
    node = Node()
    node.sees(FIRST, 1010, deployed(41))

    assert node.sees(SECOND, 2005, failed(42, pinned(42))) == [(Result.FAILED, 41, 42, None)]
    assert node.sees(SECOND, 2010, failed(42, pinned(42))) == []
    assert node.sees(SECOND, 2015, failed(42, pinned(42), "DiskFull")) == [
        (Result.FAILED, 41, 42, None)
    ]
    reverted = Commit("ccc", "Ada", "Revert", 3000.0)
    assert node.sees(reverted, 3002, deployed(41)) == [(Result.DEPLOYED, 41, 41, 2)]


def test_a_hiccup_is_not_measured_as_if_the_commit_had_just_arrived() -> None:
    node = Node()
    node.sees(FIRST, 1010, deployed(41))
    node.sees(FIRST, 1012, deployed(41))
    node.sees(FIRST, 9000, failed(41, RANKER, "SourceFailed"))

    assert node.sees(FIRST, 9005, deployed(41)) == [(Result.DEPLOYED, 41, 41, None)]


def test_stopping_is_recorded_when_it_is_over() -> None:
    node = Node()
    node.sees(FIRST, 1010, deployed(41))
    stop = replace(RANKER, stop=True)

    assert node.sees(SECOND, 2001, Outcome(stop, Phase.STOPPING, "Draining", "drains")) == []
    stopped = Outcome(stop, Phase.STOPPED, "Stopped", "stopped")
    assert node.sees(SECOND, 2002, stopped) == [(Result.STOPPED, 41, None, None)]
    assert node.sees(SECOND, 2003, stopped) == []


def test_a_model_that_was_never_started_is_not_recorded_as_stopped() -> None:
    stopped = Outcome(replace(RANKER, stop=True), Phase.STOPPED, "Stopped", "stopped")

    assert Node().sees(FIRST, 1001, stopped) == []


def test_a_removal_is_recorded_once_the_model_is_gone() -> None:
    node = Node()
    node.sees(FIRST, 1010, deployed(41))
    leaving = Outcome(RANKER, Phase.STOPPING, "Draining", "leaves")

    assert node.sees(SECOND, 2001, removals=(leaving,)) == []
    assert node.sees(SECOND, 2002) == [(Result.REMOVED, 41, None, None)]
    assert node.sees(SECOND, 2003) == []


def test_nothing_is_taken_for_removed_before_a_commit_has_been_read() -> None:
    node = Node()
    node.sees(FIRST, 1010, deployed(41))

    assert node.sees(None, 2000) == []


def test_a_change_whose_record_was_lost_is_found_again() -> None:
    node = Node()

    lost = node.sees(FIRST, 1010, deployed(41), keep=False)

    assert node.sees(FIRST, 1012, deployed(41)) == [(Result.DEPLOYED, None, 41, 12)]
    assert lost == [(Result.DEPLOYED, None, 41, 10)]


def test_a_committer_whose_clock_is_ahead_does_not_make_negative_seconds() -> None:
    assert Node().sees(FIRST, 900, deployed(41)) == [(Result.DEPLOYED, None, 41, 0)]


def test_a_change_has_the_names_of_its_versions() -> None:
    node = Node()
    named = replace(deployed(41), names={41: "1.9.0"})
    node.sees(FIRST, 1010, named)
    node.sees(SECOND, 2010, replace(deployed(42, pinned(42)), names={41: "1.9.0", 42: "1.10.0"}))
    change = node.recorded["ranker"]
    assert (change.from_name, change.to_name) == ("1.9.0", "1.10.0")
    assert node.sees(SECOND, 2020, replace(deployed(42, pinned(42)), names={42: "1.10.0"})) == []
    node.sees(SECOND, 2030, failed(43, pinned(43)))
    change = node.recorded["ranker"]
    assert (change.from_name, change.to_name, change.serving_name) == ("1.10.0", None, "1.10.0")


def test_a_number_that_came_to_be_another_version_is_a_change() -> None:
    node = Node()
    node.sees(FIRST, 1010, replace(deployed(1), names={1: "9f3c2ab"}))
    seen = node.sees(SECOND, 2010, replace(deployed(1, pinned(1)), names={1: "77ab01d"}))
    assert seen == [(Result.DEPLOYED, 1, 1, 10)]
    change = node.recorded["ranker"]
    assert (change.from_name, change.to_name) == ("9f3c2ab", "77ab01d")
