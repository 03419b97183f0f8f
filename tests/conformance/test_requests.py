"""Requests that are under way while versions come and go, and models that cannot answer."""

import pytest

from reconciler.serving.protocol.inference_pb2 import PredictRequest
from reconciler.serving.protocol.methods import PREDICT
from tests.conformance.harness import OK, Outcome, Server, model, spec
from tests.savedmodels import write_savedmodel


def test_a_request_under_way_holds_every_transition(server: Server) -> None:
    for path in ("a/1", "b/1", "c/1"):
        write_savedmodel(server.folder / path, 1)
    a, b, c = (model(name, server.folder / name) for name in "abc")
    server.start([a, b], predict=True)
    wait = server.predict_async("b", slow_seconds=server.pace.blocked_seconds + 2)
    server.let_polls_pass()  # long enough for the request to have begun

    assert server.reload(a) == OK  # at once, while b still answers
    server.until_states("b", {1: "UNLOADING"})
    assert server.predict("b").code == "NOT_FOUND"
    assert server.predict("a").value == (11.0, 1)
    adding = server.reload_async(a, c)
    assert wait().ok
    assert server.states("c").get(1) != "AVAILABLE"
    server.until_states("b", {1: "END"})
    assert adding() == OK

    # Adding b back before its unload has ended takes that end for its failure.
    assert server.reload(a, b, c) == OK
    wait = server.predict_async("b", slow_seconds=server.pace.blocked_seconds + 2)
    server.let_polls_pass()
    assert server.reload(a, c) == OK
    server.until_states("b", {1: "UNLOADING"})
    assert server.reload(a, b, c) == Outcome(
        "UNKNOWN", "1 model(s) did not become available: {{{name: b version: 1}}, }"
    )
    assert wait().ok
    server.until_states("b", {1: "AVAILABLE"})


def test_removing_and_re_adding_within_a_poll_can_lock_up(server: Server) -> None:
    if not server.is_standin:
        pytest.skip("a race between two of the server's own clocks: one try in twenty")
    write_savedmodel(server.folder / "a/1", 1)
    write_savedmodel(server.folder / "b/1", 1)
    a, b = model("a", server.folder / "a"), model("b", server.folder / "b")
    # Polls come before ticks here, so that a removal is always overwritten.
    server.start([a, b], "--standin_tick_seconds=1", "--file_system_poll_wait_seconds=0.01")
    while True:  # a tick may fall between the two all the same
        assert server.reload(a) == OK
        outcome = server.reload(a, b, seconds=0.5)
        if outcome.code == "DEADLINE_EXCEEDED":
            break
        server.until_states("b", {1: "AVAILABLE"})

    assert server.states("b") == {1: "AVAILABLE"}
    assert server.answering("b").value == 1
    wait = server.reload_async(a)
    write_savedmodel(server.folder / "incoming", 1).rename(server.folder / "b/2")
    assert wait() == OK  # any new event of the model releases it


def test_half_a_model_becomes_available_and_fails_at_the_first_request(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a")], predict=True)
    write_savedmodel(server.folder / "incoming", 2, fault="no_variables").rename(
        server.folder / "a/2"
    )
    server.until_states("a", {2: "AVAILABLE", 1: "END"})

    failed = server.predict("a")
    assert failed.code == "FAILED_PRECONDITION"
    assert failed.message.startswith("Could not find variable value.")

    for number, fault, error in (
        (3, "no_data", "END NOT_FOUND: "),
        (4, "truncated_data", "END OUT_OF_RANGE: Read less bytes than requested"),
        (5, "bad_warmup", 'END FAILED_PRECONDITION: Serving signature key "nosuch" not found.'),
    ):
        write_savedmodel(server.folder / "incoming", 1, fault=fault).rename(  # type: ignore[arg-type]
            server.folder / f"a/{number}"
        )
        server.until_states("a", {number: error})
    assert "variables.data-00000-of-00001; No such file or directory" in server.states("a")[3]

    for request, outcome in (
        (PredictRequest(), Outcome("INVALID_ARGUMENT", "Missing ModelSpec")),
        (
            PredictRequest(model_spec=spec("")),
            Outcome("INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ),
        (
            PredictRequest(model_spec=spec("a")),
            Outcome(
                "INVALID_ARGUMENT",
                "input size does not match signature: 0!=1 len({}) != len({x})."
                " Sent extra: {}. Missing but required: {x}.",
            ),
        ),
    ):
        assert server.call(PREDICT, request) == outcome


@pytest.mark.parametrize("fault", ["no_data", "truncated_data", "empty", "no_graph"])
def test_faults_are_found_without_tensorflow_too(server: Server, fault: str) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a")])
    write_savedmodel(server.folder / "incoming", 2, fault=fault).rename(  # type: ignore[arg-type]
        server.folder / "a/2"
    )
    server.until_states("a", {2: "END"})

    expected = "OUT_OF_RANGE" if fault == "truncated_data" else "NOT_FOUND"
    assert server.states("a")[2].startswith(f"END {expected}: ")
    assert server.states("a")[1] == "AVAILABLE"
