"""HandleReloadConfigRequest: what it waits for, what it refuses, what a refusal leaves behind."""

from google.protobuf.any_pb2 import Any as AnyMessage

from reconciler.serving.protocol.control_pb2 import (
    LoggingConfig,
    ModelServerConfig,
    ReloadConfigRequest,
)
from reconciler.serving.protocol.methods import RELOAD_CONFIG
from tests.conformance.harness import OK, Outcome, Server, as_config, model
from tests.savedmodels import write_savedmodel

BAD = "OUT_OF_RANGE: Read less bytes than requested"
POISON = (
    "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
    " ModelServerConfig::model_platform, model name is c"
)


def test_reload_waits_for_new_model(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    write_savedmodel(server.folder / "b/1", 1, load_seconds=0.3)
    a = model("a", server.folder / "a")
    server.start([a])

    assert server.reload(a, model("b", server.folder / "b")) == OK
    assert server.states("b") == {1: "AVAILABLE"}
    assert server.answering("b").value == 1


def test_reload_existing_policy_change_returns_immediately(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    write_savedmodel(server.folder / "a/2", 2, load_seconds=0.5)
    server.start([model("a", server.folder / "a", specific=[1])])

    assert server.reload(model("a", server.folder / "a", specific=[1, 2])) == OK
    assert server.states("a").get(2) in (None, "START", "LOADING")
    server.until_states("a", {2: "AVAILABLE"})


def test_reload_new_model_missing_base_path_blocks(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    a, b = model("a", server.folder / "a"), model("b", server.folder / "b")
    server.start([a])
    seconds = server.pace.blocked_seconds

    assert server.reload(a, b, seconds=seconds).code == "DEADLINE_EXCEEDED"
    assert server.reload(a, seconds=seconds).code == "DEADLINE_EXCEEDED"
    assert server.answering("a").value == 1
    assert server.status("b").code == "NOT_FOUND"

    with server.watch("b") as seen:
        wait = server.reload_async(a)
        write_savedmodel(server.folder / "incoming/1", 1)
        (server.folder / "incoming").rename(server.folder / "b")
        assert wait() == OK
        server.until_states("b", {1: "END"})
    # The reload that nobody waits for any more ran first: b was there, then dropped.
    assert seen.states(1)[-1] == "END"
    assert server.states("b") == {1: "END"}


def test_reload_of_a_model_without_versions_blocks_until_one_appears(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    write_savedmodel(server.folder / "f/1", 1)
    (server.folder / "e").mkdir()
    a = model("a", server.folder / "a")
    server.start([a])
    for waiting, number in (
        (model("e", server.folder / "e"), 1),
        (model("f", server.folder / "f", specific=[7]), 7),
    ):
        wait = server.reload_async(a, waiting)
        # One sent at once may overtake the first in the server's threads; the next then waits.
        server.eventually(
            lambda: (
                server.reload(a, seconds=server.pace.blocked_seconds).code == "DEADLINE_EXCEEDED"
            )
        )
        path = server.folder / f"{waiting.name}/{number}"
        write_savedmodel(server.folder / "incoming", 1).rename(path)
        assert wait() == OK


def test_junk_folder_ends_a_blocked_reload_and_the_freeze(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a", specific=[1])])
    wait = server.reload_async(
        model("a", server.folder / "a", specific=[1, 3]), model("g", server.folder / "g")
    )
    write_savedmodel(server.folder / "a/3", 3)
    server.let_polls_pass()
    assert server.states("a") == {1: "AVAILABLE"}

    write_savedmodel(server.folder / "incoming/1", 1, fault="junk")
    (server.folder / "incoming").rename(server.folder / "g")
    assert wait() == Outcome(
        "UNKNOWN",
        "1 model(s) did not become available:"
        f" {{{{{{name: g version: 1}} due to error: {BAD}}}, }}",
    )
    server.until_states("a", {3: "AVAILABLE"})


def test_reload_new_model_bad_version(server: Server) -> None:
    for path in ("a/1", "a/2", "b/1", "d/1"):
        write_savedmodel(server.folder / path, 1)
    write_savedmodel(server.folder / "x/1", 1, fault="junk")
    a = model("a", server.folder / "a", specific=[1, 2])
    server.start([a, model("d", server.folder / "d")])
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})
    config = [
        model("a", server.folder / "a", specific=[1, 2], labels={"l": 1}),
        model("x", server.folder / "x"),
        model("b", server.folder / "b"),
    ]

    assert server.reload(*config) == Outcome(
        "UNKNOWN",
        "1 model(s) did not become available:"
        f" {{{{{{name: x version: 1}} due to error: {BAD}}}, }}",
    )
    # Nothing is taken back: labels, removals, the other models.
    assert server.answering("a", label="l").value == 1
    assert server.states("b") == {1: "AVAILABLE"}
    server.until_states("d", {1: "END"})
    assert server.reload(*config) == OK
    assert server.states("x") == {1: f"END {BAD}"}


def test_every_failed_model_is_named(server: Server) -> None:
    write_savedmodel(server.folder / "y/1", 1, fault="empty")
    write_savedmodel(server.folder / "z/1", 1, fault="truncated_graph")
    server.start([])

    assert server.reload(
        model("z", server.folder / "z"), model("y", server.folder / "y")
    ) == Outcome(
        "UNKNOWN",
        "2 model(s) did not become available: {{{name: y version: 1} due to error: NOT_FOUND:"
        " Specified file path does not appear to contain a SavedModel bundle (should have a file"
        f" called `saved_model.pb`)\nSpecified file path: {server.folder}/y/1}},"
        f" {{{{name: z version: 1}} due to error: {BAD}}}, }}",
    )


def test_the_first_version_to_get_anywhere_decides(server: Server) -> None:
    for number, fault in ((1, None), (2, "junk")):
        write_savedmodel(server.folder / f"f/{number}", 1, fault=fault)  # type: ignore[arg-type]
    write_savedmodel(server.folder / "g/1", 1)
    write_savedmodel(server.folder / "g/2", 2, load_seconds=1.5)
    write_savedmodel(server.folder / "h/1", 1, fault="junk")
    write_savedmodel(server.folder / "h/2", 2, load_seconds=1.5)
    server.start([])
    f, g, h = (model(name, server.folder / name, specific=[1, 2]) for name in ("f", "g", "h"))

    assert server.reload(f).code == "UNKNOWN"  # 2 failed, 1 is good
    server.until_states("f", {1: "AVAILABLE"})
    assert server.reload(f, g) == OK  # 1 is good, 2 takes its time
    assert server.states("g")[2] in ("START", "LOADING")
    server.until_states("g", {2: "AVAILABLE"})
    if server.is_standin:  # with real loads it is a race which of the two comes first
        assert server.reload(f, g, h).code == "UNKNOWN"  # 1 failed before 2 was ready
        assert server.states("h")[2] in ("START", "LOADING")
        server.until_states("h", {2: "AVAILABLE"})


def test_reload_removes_model(server: Server) -> None:
    for name in ("a", "b"):
        write_savedmodel(server.folder / f"{name}/1", 1)
    a, b = model("a", server.folder / "a"), model("b", server.folder / "b")
    server.start([a, b])

    assert server.reload(a) == OK
    server.until_states("b", {1: "END"})
    assert server.answering("b") == Outcome(
        "NOT_FOUND", "Servable not found for request: Latest(b)"
    )
    assert server.reload(a, b) == OK
    assert server.states("b") == {1: "AVAILABLE"}


def test_reload_empty_list_unloads_all(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    write_savedmodel(server.folder / "b/2", 1)
    server.start([model("a", server.folder / "a"), model("b", server.folder / "b")])

    assert server.reload() == OK
    server.until_states("a", {1: "END"})
    server.until_states("b", {2: "END"})
    assert server.answering("a").code == "NOT_FOUND"


def test_reload_unset_or_custom_config(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    a = model("a", server.folder / "a")
    server.start([a])
    refused = Outcome(
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList"
        " is currently supported",
    )
    custom = ModelServerConfig(custom_model_config=AnyMessage(type_url="type.googleapis.com/x"))

    assert server.call(RELOAD_CONFIG, ReloadConfigRequest()) == refused
    assert server.call(RELOAD_CONFIG, ReloadConfigRequest(config=custom)) == refused
    assert server.states("a") == {1: "AVAILABLE"}
    assert server.reload(a) == OK


def test_duplicate_name_relative_path_empty_path(server: Server) -> None:
    for number in (1, 2):
        write_savedmodel(server.folder / f"a/{number}", 1)
    a = model("a", server.folder / "a", specific=[1])
    more = model("a", server.folder / "a", specific=[1, 2])
    server.start([a])
    relative = "Expected model b to have an absolute path or URI; got base_path()="

    assert server.reload(more, a) == Outcome(
        "INVALID_ARGUMENT", "Illegal to list model a multiple times in config list"
    )
    assert server.reload(more, model("b", "rel/b")) == Outcome(
        "INVALID_ARGUMENT", f"{relative}rel/b"
    )
    assert server.reload(more, model("b", "")) == Outcome("INVALID_ARGUMENT", relative)
    server.let_polls_pass()
    assert server.states("a") == {1: "AVAILABLE"}
    assert server.reload(a) == OK


def test_platform_change_rejected(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    base = server.folder / "a"
    server.start([model("a", base)])
    illegal = "ModelServerConfig::model_type (deprecated)"

    assert server.reload(model("a", base, platform="other")) == Outcome(
        "INVALID_ARGUMENT",
        "Illegal to change a model's platform. For model a platform was tensorflow and new"
        " platform requested is other",
    )
    assert server.reload(model("a", base, tensorflow_type=True)) == Outcome(
        "INVALID_ARGUMENT",
        f"Illegal setting both {illegal} and ModelServerConfig::model_platform, model name is a",
    )
    assert server.reload(model("a", base, platform="")) == Outcome(
        "INVALID_ARGUMENT",
        f"Illegal setting neither {illegal} nor ModelServerConfig::model_platform, model name is a",
    )
    assert server.reload(model("a", base, platform="", tensorflow_type=True)) == OK
    assert server.reload(model("a", base)) == OK


def test_unknown_platform_new_model_rejected_and_two_step_cure(server: Server) -> None:
    for path in ("a/1", "a/2", "b/1"):
        write_savedmodel(server.folder / path, 1)
    a = model("a", server.folder / "a", specific=[1])
    b = model("b", server.folder / "b")
    server.start([a])
    wrong = model("b", server.folder / "b", platform="zzz")

    assert server.reload(model("a", server.folder / "a", specific=[1, 2]), wrong) == Outcome(
        "INVALID_ARGUMENT", "Model b requests unsupported platform zzz"
    )
    server.let_polls_pass()
    assert server.states("a") == {1: "AVAILABLE"}
    assert server.reload(a, b) == Outcome(
        "INVALID_ARGUMENT",
        "Illegal to change a model's platform. For model b platform was zzz and new platform"
        " requested is tensorflow",
    )
    assert server.reload(a) == OK
    assert server.reload(a, b) == OK


def test_missing_platform_new_model_poisons_reloads_until_restart(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    a = model("a", server.folder / "a")
    poison = model("c", server.folder / "c", platform="")
    server.start([a])

    for models in ([a, poison], [a], [], [a, poison]):
        assert server.reload(*models) == Outcome("INVALID_ARGUMENT", POISON)
    assert server.answering("a").value == 1
    server.stop()
    server.start([a])
    assert server.reload(a) == OK


def test_metric_names_echoed_with_increase_on_ok_only(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a")])
    good = as_config([model("a", server.folder / "a")])
    bad = as_config([model("a", server.folder / "a", labels={"x": 9})])

    done = server.call(RELOAD_CONFIG, ReloadConfigRequest(config=good, metric_names=["/no/such"]))
    assert [(m.name, m.int64_value_increase) for m in done.value.metric] == [("/no/such", 0)]
    assert done.value.HasField("status")
    assert done.value.status.error_code == 0
    refused = server.call(RELOAD_CONFIG, ReloadConfigRequest(config=bad, metric_names=["/no"]))
    assert refused.code == "FAILED_PRECONDITION"
    assert refused.value is None


def test_grpc_error_truncated_at_1024(server: Server) -> None:
    server.start([])

    message = server.answering("a", label="x" * 2000).message
    assert message.endswith("...TRUNCATED")
    assert len(message) == 1024 + len("...TRUNCATED")


def test_logging_config_is_refused_after_all_was_applied(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    a = model("a", server.folder / "a")
    logged = model("a", server.folder / "a")
    logged.logging_config.CopyFrom(LoggingConfig())
    server.start([])

    assert server.reload(logged) == Outcome(
        "INVALID_ARGUMENT", "No request-logger-creator provided."
    )
    assert server.states("a") == {1: "AVAILABLE"}
    assert server.reload(a) == OK


def test_odd_values_pass(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([])

    assert (
        server.reload(
            model("", server.folder / "a", specific=[1, 1, -3]), model("twin", server.folder / "a")
        )
        == OK
    )
    assert server.states("") == {1: "AVAILABLE"}
    assert server.states("twin") == {1: "AVAILABLE"}
    assert server.answering("").message == "ModelSpec has no name specified."
