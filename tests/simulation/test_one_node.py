"""A node deletes nothing that is needed, whatever happens; and where it did, this would be seen."""

from collections.abc import Callable

import pytest

from reconciler.planning import plan as planning
from reconciler.planning import retention
from tests.simulation.one_node import OneNode, run

HISTORIES = 120
"""`python -m tests.simulation.one_node` plays as many as anybody has patience for."""


def test_nothing_that_is_needed_is_deleted_whatever_happens() -> None:
    counts = run(HISTORIES)
    assert counts["histories"] >= HISTORIES
    assert counts["deletions"] > HISTORIES / 10


def forget_what_is_wanted(patch: pytest.MonkeyPatch) -> None:
    def remove_all(local: dict[int, object], *_: object) -> tuple[int, ...]:
        return tuple(local)

    patch.setattr(retention, "removable_versions", remove_all)


def forget_doubt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planning, "_find_doubt", lambda *_: None)


@pytest.mark.parametrize("spoil", [forget_what_is_wanted, forget_doubt])
def test_a_node_that_deletes_too_much_is_found_out(
    spoil: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A history that is written down: the chosen ones meet this too, but not within a known number.
    spoil(monkeypatch)
    with pytest.raises(AssertionError, match="delete"):
        remove_a_model_while_git_goes_away()


def test_a_model_that_leaves_while_git_goes_away_stays_on_disk() -> None:
    remove_a_model_while_git_goes_away()


def remove_a_model_while_git_goes_away() -> None:
    node = OneNode()
    node.begin(first={"a", "b"})
    node.remove(gone={"a"})
    node.tick()
    node.lose_git(away=True)
    node.pass_time(12.0)
    assert node.node.disk["a"]
    node.teardown()


def test_what_a_plan_has_the_server_load_it_does_not_delete() -> None:
    node = OneNode()
    node.begin(first={"a", "b"})
    node.follow(model="a")
    node.lose_git(away=True)  # so that the first version stays on disk
    node.pass_time(4.0)
    node.stall_server(5.0)
    node.pin(model="a", version=2, label=None, recreate=True)
    node.pass_time(2.0)
    # The newest was told to go, and has not gone: the first one is the next best to serve.
    node.lose_git(away=False)
    node.pin(model="a", version=2, label=None, recreate=False)
    node.pass_time(4.0)
    node.teardown()
