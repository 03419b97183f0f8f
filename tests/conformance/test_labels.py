"""Labels: checked before anything is loaded, kept apart from what is loaded."""

import pytest

from tests.conformance.harness import OK, Outcome, Server, model
from tests.savedmodels import write_savedmodel

ALLOW = "--allow_version_labels_for_unavailable_models=true"


def unavailable(version: int) -> Outcome:
    return Outcome(
        "FAILED_PRECONDITION",
        f"Request to assign label to version {version} of model a, which is not currently"
        " available for inference",
    )


def unknown(label: str) -> Outcome:
    return Outcome("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")


def missing(version: int) -> Outcome:
    return Outcome("NOT_FOUND", f"Servable not found for request: Specific(a, {version})")


def test_label_to_unavailable_rejected_atomically(server: Server) -> None:
    for path in ("a/1", "a/2", "b/1"):
        write_savedmodel(server.folder / path, 1)
    base = server.folder / "a"
    server.start([model("a", base, specific=[1])])
    assert server.reload(model("a", base, specific=[1], labels={"stable": 1})) == OK

    config = model("a", base, specific=[1, 2], labels={"stable": 1, "canary": 2})
    assert server.reload(config, model("b", server.folder / "b")) == unavailable(2)
    server.let_polls_pass()
    assert server.answering("a", label="stable").value == 1
    assert server.answering("a", label="canary") == unknown("canary")
    assert server.states("a") == {1: "AVAILABLE"}
    assert server.status("b").code == "NOT_FOUND"
    assert server.reload(model("a", base, specific=[1], labels={"stable": 1})) == OK


def test_flag_allows_new_label_to_unavailable(server: Server) -> None:
    for number in (1, 2):
        write_savedmodel(server.folder / f"a/{number}", 1)
    base = server.folder / "a"
    server.start([model("a", base, specific=[1])], ALLOW)
    both = model("a", base, specific=[1], labels={"stable": 1, "future": 2})

    assert server.reload(both) == OK
    assert server.answering("a", label="future") == missing(2)
    moved = model("a", base, specific=[1], labels={"stable": 2, "future": 2})
    assert server.reload(moved) == unavailable(2)  # an existing label may not move there
    assert server.answering("a", label="stable").value == 1
    assert server.reload(both) == OK
    assert server.answering("a", label="nosuch") == unknown("nosuch")

    assert server.reload(model("a", base, specific=[1, 2])) == OK
    assert server.reload(model("a", base, specific=[1, 2], labels={"stable": 2})) == OK
    server.until_states("a", {2: "AVAILABLE"})
    assert server.answering("a", label="stable").value == 2


@pytest.mark.parametrize("flags", [(), (ALLOW,)], ids=["strict", "allowed"])
def test_move_existing_label_and_add_its_version_in_one_reload_fails(
    server: Server, flags: tuple[str, ...]
) -> None:
    for number in (1, 2):
        write_savedmodel(server.folder / f"a/{number}", 1)
    base = server.folder / "a"
    server.start([model("a", base, specific=[1])], *flags)
    assert server.reload(model("a", base, specific=[1], labels={"stable": 1})) == OK

    assert server.reload(model("a", base, specific=[1, 2], labels={"stable": 2})) == unavailable(2)
    brand_new = model("a", base, specific=[1, 2], labels={"stable": 1, "canary": 2})
    assert server.reload(brand_new) == (OK if flags else unavailable(2))

    assert server.reload(model("a", base, specific=[1, 2], labels={"stable": 1})) == OK
    server.until_states("a", {2: "AVAILABLE"})
    for version in (2, 1):
        config = model("a", base, specific=[1, 2], labels={"stable": version})
        assert server.reload(config) == OK
        assert server.answering("a", label="stable").value == version
    assert server.reload(model("a", base, specific=[2], labels={"stable": 2})) == OK
    server.until_states("a", {1: "END"})
    assert server.answering("a", label="stable").value == 2


def test_label_removed_on_reload(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    base = server.folder / "a"
    server.start([model("a", base)])
    assert server.reload(model("a", base, labels={"s": 1, "t": 1})) == OK
    assert server.reload(model("a", base, labels={"s": 1})) == OK

    assert server.answering("a", label="t") == unknown("t")
    assert server.answering("a", label="s").value == 1


def test_label_survives_unload(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    base = server.folder / "a"
    server.start([model("a", base)])
    assert server.reload(model("a", base, labels={"s": 1})) == OK
    write_savedmodel(server.folder / "incoming", 1).rename(base / "2")
    server.until_states("a", {1: "END", 2: "AVAILABLE"})

    assert server.answering("a", label="s") == missing(1)
    assert server.reload(model("a", base, labels={"s": 1})) == unavailable(1)


def test_startup_with_labels_without_flag_exits(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    labelled = model("a", server.folder / "a", labels={"s": 1})
    server.launch([labelled])
    assert server.wait_for_exit() == 255
    assert f"Failed to start server. Error: FAILED_PRECONDITION: {unavailable(1).message}" in (
        server.log
    )

    server.stop()
    server.start([labelled], ALLOW)
    assert server.answering("a", label="s").value == 1
