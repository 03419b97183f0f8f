"""Starting up, the config file and its polling, sockets, health, threads."""

import http.client
import socket
import tempfile

import grpc
import pytest

from reconciler.serving.protocol.health_pb2 import HealthCheckRequest, HealthCheckResponse
from reconciler.serving.protocol.methods import GET_MODEL_STATUS, HEALTH_CHECK
from tests.conformance.harness import OK, Outcome, Server, model, spec
from tests.savedmodels import write_savedmodel

POLL = "--model_config_file_poll_wait_seconds={:g}"
BAD = "OUT_OF_RANGE: Read less bytes than requested"


def config_poll(server: Server) -> str:
    return POLL.format(0.1 if server.is_standin else 1)


def test_ports_open_only_when_every_model_has_a_version(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.launch([model("a", server.folder / "a"), model("b", server.folder / "b")])
    server.let_polls_pass()
    assert not server.is_up()

    write_savedmodel(server.folder / "incoming/1", 1)
    (server.folder / "incoming").rename(server.folder / "b")
    server.eventually(server.is_up)
    assert server.states("a") == {1: "AVAILABLE"}
    assert server.states("b") == {1: "AVAILABLE"}


def test_one_bad_model_ends_the_start(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    write_savedmodel(server.folder / "x/1", 1, fault="junk")
    server.launch([model("a", server.folder / "a"), model("x", server.folder / "x")])

    assert server.wait_for_exit() == 255
    assert (
        "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available:"
        f" {{{{{{name: x version: 1}} due to error: {BAD}}}, }}"
    ) in server.log


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model_config_list { config { nam", "INVALID_ARGUMENT: Invalid protobuf file: '{}'"),
        (b"", "INVALID_ARGUMENT: {}; Invalid argument"),
        (b"\xef\xbb\xbfmodel_config_list {}", "INVALID_ARGUMENT: Invalid protobuf file: '{}'"),
    ],
    ids=["broken", "empty", "byte order mark"],
)
def test_a_config_file_that_cannot_be_read_ends_the_start(
    server: Server, content: bytes, message: str
) -> None:
    server.launch(content)

    assert server.wait_for_exit() == 255
    where = message.format(server.config_file)
    assert f"Failed to start server. Error: {where}" in server.log


@pytest.mark.parametrize(
    "text",
    [
        "model_config_list: < config: < name: 'a' base_path: 'BASE' model_platform: 'tensorflow';"
        " model_version_policy { specific { versions: [1, 0x2] } } > > # comment\r\n",
        'model_config_list { config { name: "\\x61" base_path: "BA" "SE" model_platform: "tensor"'
        ' "flow" model_version_policy: { specific { versions: 1 versions: 02 versions: 2 } } } }',
        'model_config_list { config { model_platform: "tensorflow" base_path: "BASE//./" name: "a"'
        " model_version_policy { all {} } } }",
    ],
    ids=["brackets", "escapes", "path"],
)
def test_text_forms_that_are_taken(server: Server, text: str) -> None:
    for number in (1, 2):
        write_savedmodel(server.folder / f"models/a/{number}", 1)
    base = str(server.folder / "models/a")
    text = text.replace('"BA" "SE"', f'"{base[:3]}" "{base[3:]}"').replace("BASE", base)
    server.start(text.encode() + b"\n# caf\xe9\n")

    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})


@pytest.mark.parametrize(
    "text",
    [
        "model_config_list {} model_config_list {}",
        'model_config_list { config { name: "a" name: "b" } }',
        "model_config_list { config { model_version_policy { all {} latest {} } } }",
        "model_config_list { config { model_version_policy { specific { versions: [1,2,] } } } }",
        'model_config_list { config { model_version_policy { latest { num_versions: "1" } } } }',
        'model_config_list { config { surprise: "x" } }',
    ],
    ids=["list twice", "name twice", "two policies", "comma", "quoted number", "unknown field"],
)
def test_text_forms_that_are_refused(server: Server, text: str) -> None:
    server.launch(text)

    assert server.wait_for_exit() == 255
    assert f"Invalid protobuf file: '{server.config_file}'" in server.log


def test_config_file_poll(server: Server) -> None:
    for path in ("a/1", "a/2", "b/1", "b/2"):
        write_savedmodel(server.folder / path, 1)
    a = model("a", server.folder / "a", specific=[1])
    server.start([a], config_poll(server))
    server.write_config(
        [
            model("a", server.folder / "a", specific=[1, 2]),
            model("b", server.folder / "b", specific=[1]),
        ]
    )
    server.until_states("b", {1: "AVAILABLE"})
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})

    refused = model("a", server.folder / "a", labels={"s": 5})
    for content in (b"model_config_list { config { nam", b"", b"# nothing\n", [refused]):
        server.write_config(content)
        server.let_polls_pass()
        assert server.states("a") == {1: "AVAILABLE", 2: "AVAILABLE"}
        assert server.states("b") == {1: "AVAILABLE"}

    server.write_config([a])
    server.until_states("b", {1: "END"})
    # What comes by RPC lasts until the next poll of the file.
    b = model("b", server.folder / "b", specific=[2])
    assert server.reload(a, b) == OK
    server.until_states("b", {2: "END"})
    server.write_config([])
    server.until_states("a", {1: "END"})


def test_config_file_is_read_once_without_polling(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a")])
    server.write_config([])
    server.let_polls_pass()

    assert server.states("a") == {1: "AVAILABLE"}


def test_fs_poll_zero(server: Server) -> None:
    for path in ("a/1", "a/2", "b/1"):
        write_savedmodel(server.folder / path, 1)
    server.start([model("a", server.folder / "a", specific=[1])], poll_seconds=0)
    assert server.reload(model("a", server.folder / "a", specific=[1, 2])) == OK
    server.let_polls_pass()
    assert server.states("a") == {1: "AVAILABLE"}

    assert server.reload() == OK
    server.until_states("a", {1: "END"})
    waiting = model("b", server.folder / "b")
    blocked = server.reload(waiting, seconds=server.pace.blocked_seconds)
    assert blocked.code == "DEADLINE_EXCEEDED"


def test_first_config_after_an_unset_one_fails_for_good(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    write_savedmodel(server.folder / "x/1", 1, fault="junk")
    a, x = model("a", server.folder / "a"), model("x", server.folder / "x")
    server.start("# no config yet\n")
    assert server.answering("a", label="l") == Outcome(
        "UNAVAILABLE", "Model labels does not init yet.l"
    )
    failed = Outcome(
        "UNKNOWN",
        "1 servable(s) did not become available:"
        f" {{{{{{name: x version: 1}} due to error: {BAD}}}, }}",
    )

    assert server.reload(a, x) == failed
    server.until_states("a", {1: "AVAILABLE"})
    write_savedmodel(server.folder / "x/1", 1)
    assert server.reload(a, x) == failed  # repaired or not
    assert server.reload() == OK
    server.let_polls_pass()
    assert server.states("a") == {1: "AVAILABLE"}  # nobody is left to unload it
    blocked = server.reload(a, seconds=server.pace.blocked_seconds)
    assert blocked.code == "DEADLINE_EXCEEDED"


def test_an_empty_list_is_a_first_config_without_these_surprises(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    write_savedmodel(server.folder / "x/1", 1, fault="junk")
    a, x = model("a", server.folder / "a"), model("x", server.folder / "x")
    server.start([])

    assert server.reload(a, x).code == "UNKNOWN"
    assert server.reload(a, x) == OK
    assert server.reload() == OK
    server.until_states("a", {1: "END"})


def test_one_model_by_flags(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    if not server.is_standin:
        pytest.skip("the command of a real server names a config file, which wins")
    server.command = server.command.replace("--model_config_file={config}", "")
    server.start([], "--model_name=mine", f"--model_base_path={server.folder}/a")

    assert server.answering("mine").value == 1


def test_unknown_flags_are_named_and_ignored(server: Server) -> None:
    server.start([], "--no_such_flag=1")

    assert "unknown argument: --no_such_flag=1" in server.log


def test_unix_socket_serves(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    # A socket's path has room for about a hundred letters, pytest's folders are longer.
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        server.start([model("a", server.folder / "a")], f"--grpc_socket_path={path}")
        with grpc.insecure_channel(f"unix:{path}") as channel:
            ask = channel.unary_unary(
                GET_MODEL_STATUS.path,
                request_serializer=GET_MODEL_STATUS.request.SerializeToString,
                response_deserializer=GET_MODEL_STATUS.response.FromString,
            )
            request = GET_MODEL_STATUS.request(model_spec=spec("a"))
            assert len(ask(request, timeout=10).model_version_status) == 1


def test_health_service_off_by_default(server: Server) -> None:
    server.start([])

    assert server.call(HEALTH_CHECK, HealthCheckRequest()).code == "UNIMPLEMENTED"


def test_health_service_on(server: Server) -> None:
    server.start([], "--enable_grpc_healthcheck_service=true")

    for name in ("", "ModelService", "PredictionService"):
        answer = server.call(HEALTH_CHECK, HealthCheckRequest(service=name))
        assert answer.value.status == HealthCheckResponse.SERVING
    assert server.call(HEALTH_CHECK, HealthCheckRequest(service="x")).code == "NOT_FOUND"


def test_hanging_reloads_use_up_the_threads(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    a, missing = model("a", server.folder / "a"), model("b", server.folder / "b")
    if not server.is_standin:
        pytest.skip("how many threads a real server needs for itself is not known")
    server.start([a], "--grpc_max_threads=3")
    for _ in range(3):
        abandoned = server.reload(a, missing, seconds=0.2)
        assert abandoned.code == "DEADLINE_EXCEEDED"

    exhausted = Outcome("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
    server.eventually(lambda: server.status("a") == exhausted)
    assert server.answering("a") == exhausted
    # HTTP has threads of its own.
    assert server.get("/v1/models/a").status_code == 200


def test_it_ends_at_once_by_a_signal_even_while_a_reload_hangs(server: Server) -> None:
    server.start([])
    server.reload(model("b", server.folder / "b"), seconds=0.2)
    assert server.process is not None
    server.process.terminate()

    assert server.process.wait(10) == -15
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0


def test_rest_port_zero_is_no_port(server: Server) -> None:
    if not server.is_standin:
        pytest.skip("the command of a real server names a REST port")
    server.command = server.command.replace("--rest_api_port={rest_port}", "")
    server.start([])
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=5)

    with pytest.raises(ConnectionRefusedError):
        connection.request("GET", "/v1/models/a")
