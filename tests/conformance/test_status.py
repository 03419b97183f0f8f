"""GetModelStatus: what is listed, in which order, and how what is not there is told."""

from reconciler.serving.protocol.control_pb2 import GetModelStatusRequest
from reconciler.serving.protocol.methods import GET_MODEL_STATUS
from tests.conformance.harness import Outcome, Server, model
from tests.savedmodels import write_savedmodel


def test_status_without_spec(server: Server) -> None:
    server.start([])

    assert server.call(GET_MODEL_STATUS, GetModelStatusRequest()) == Outcome(
        "INVALID_ARGUMENT", "Missing ModelSpec"
    )
    assert server.status("") == Outcome("NOT_FOUND", "Could not find any versions of model ")


def test_status_unknown_model(server: Server) -> None:
    server.start([])

    assert server.status("zzz") == Outcome("NOT_FOUND", "Could not find any versions of model zzz")
    assert server.status("zzz", 3) == Outcome("NOT_FOUND", "Could not find version 3 of model zzz")


def test_status_unknown_version(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a")])

    assert server.status("a", 9) == Outcome("NOT_FOUND", "Could not find version 9 of model a")
    assert server.status("a", 1).value == {1: "AVAILABLE"}


def test_status_lists_all_versions_descending(server: Server) -> None:
    for version in (1, 2, 10):
        write_savedmodel(server.folder / f"a/{version}", version)
    server.start([model("a", server.folder / "a", all_versions=True)])
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE", 10: "AVAILABLE"})

    assert list(server.states("a").items()) == [
        (10, "AVAILABLE"),
        (2, "AVAILABLE"),
        (1, "AVAILABLE"),
    ]


def test_status_with_label_ignores_label(server: Server) -> None:
    for version in (1, 2):
        write_savedmodel(server.folder / f"a/{version}", version)
    server.start([model("a", server.folder / "a", all_versions=True)])
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})
    labelled = model("a", server.folder / "a", all_versions=True, labels={"stable": 1})
    assert server.reload(labelled).ok

    for label in ("stable", "nosuch"):
        assert server.status("a", label=label).value == {2: "AVAILABLE", 1: "AVAILABLE"}
        answer = server.get(f"/v1/models/a/labels/{label}")
        assert answer.status_code == 200
        assert [entry["version"] for entry in answer.json()["model_version_status"]] == ["2", "1"]


def test_ended_versions_stay_listed_for_ever(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a", latest=1)])
    for version in (2, 3):
        write_savedmodel(server.folder / f"new/{version}", version).rename(
            server.folder / f"a/{version}"
        )
        server.until_states("a", {version: "AVAILABLE", version - 1: "END"})
    assert server.reload().ok
    server.until_states("a", {3: "END"})
    server.let_polls_pass()

    assert server.states("a") == {3: "END", 2: "END", 1: "END"}
