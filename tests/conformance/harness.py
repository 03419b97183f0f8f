"""One server under test: its folder of models, its process, its remote methods.

The server is a black box, started by a command line; what differs between the stand-in and a real
server is the pace, and that the stand-in loads TensorFlow only for tests that predict.
"""

import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf import text_format

from reconciler.serving.protocol.control_pb2 import (
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelConfig,
    ModelServerConfig,
    ModelSpec,
    ModelType,
    ReloadConfigRequest,
)
from reconciler.serving.protocol.inference_pb2 import PredictRequest
from reconciler.serving.protocol.methods import (
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    PREDICT,
    RELOAD_CONFIG,
    Method,
)

STANDIN = (
    f"{shlex.quote(sys.executable)} -m reconciler.standin --port={{port}}"
    " --rest_api_port={rest_port} --model_config_file={config} --standin_listen_host=127.0.0.1"
    " --standin_tick_seconds=0.005 --standin_load_seconds=0 --standin_scripts=true"
    " --standin_predict=off {flags}"
)
USUAL_FLAGS = (
    "--max_num_load_retries=0",
    "--load_retry_interval_micros=100000",
    "--num_load_threads=2",
    "--num_unload_threads=2",
)
_CALL_DEADLINE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take with the server under test."""

    poll_seconds: float
    patience_seconds: float
    """How long something may take that must happen."""
    blocked_seconds: float
    """How long to look at something that must not happen."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to: a code, its message, and the answer if there is one."""

    code: str
    message: str = ""
    value: Any = None

    @property
    def ok(self) -> bool:
        return self.code == "OK"


OK = Outcome("OK")


def model(
    name: str,
    base_path: Path | str,
    *,
    specific: Sequence[int] | None = None,
    latest: int | None = None,
    all_versions: bool = False,
    labels: dict[str, int] | None = None,
    platform: str = "tensorflow",
    tensorflow_type: bool = False,
) -> ModelConfig:
    config = ModelConfig(name=name, base_path=str(base_path), model_platform=platform)
    policy = config.model_version_policy
    if specific is not None:
        policy.specific.SetInParent()
        policy.specific.versions.extend(specific)
    if latest is not None:
        policy.latest.num_versions = latest
        policy.latest.SetInParent()
    if all_versions:
        policy.all.SetInParent()
    if tensorflow_type:
        config.model_type = ModelType.TENSORFLOW
    config.version_labels.update(labels or {})
    return config


def as_config(models: Sequence[ModelConfig]) -> ModelServerConfig:
    config = ModelServerConfig()
    config.model_config_list.SetInParent()
    config.model_config_list.config.extend(models)
    return config


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """One server and its folder; start() may be called again after stop()."""

    command: str
    folder: Path
    pace: Pace
    is_standin: bool
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    rest_port: int = 0
    _channel: grpc.Channel | None = field(default=None, repr=False)

    @property
    def config_file(self) -> Path:
        return self.folder / "models.config"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def launch(
        self,
        config: Sequence[ModelConfig] | str | bytes,
        *flags: str,
        predict: bool = False,
        poll_seconds: float | None = None,
    ) -> None:
        """Start the process and come back at once."""
        self.write_config(config)
        self.port, self.rest_port = free_port(), free_port()
        poll = self.pace.poll_seconds if poll_seconds is None else poll_seconds
        own = ["--standin_predict=on", "--standin_scripts=false"] if predict else []
        flags = (
            f"--file_system_poll_wait_seconds={poll:g}",
            *USUAL_FLAGS,
            *(own if self.is_standin else []),
            *flags,
        )
        command = self.command.format(
            port=self.port,
            rest_port=self.rest_port,
            config=shlex.quote(str(self.config_file)),
            flags=shlex.join(flags),
        )
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                shlex.split(command), stdout=log, stderr=subprocess.STDOUT
            )
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}", options=[("grpc.enable_http_proxy", 0)]
        )

    def start(
        self,
        config: Sequence[ModelConfig] | str | bytes,
        *flags: str,
        predict: bool = False,
        poll_seconds: float | None = None,
    ) -> None:
        """Start the process and wait until its port is open."""
        self.launch(config, *flags, predict=predict, poll_seconds=poll_seconds)
        self.eventually(self.is_up)

    def is_up(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"the server ended with {code}:\n{self.log}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait_for_exit(self) -> int:
        assert self.process is not None
        return self.process.wait(self.pace.patience_seconds)

    def stop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def write_config(self, config: Sequence[ModelConfig] | str | bytes) -> None:
        """Replace models.config by rename, as anyone should."""
        if not isinstance(config, str | bytes):
            config = text_format.MessageToString(as_config(config))
        temporary = self.folder / "models.config.new"
        temporary.write_bytes(config.encode() if isinstance(config, str) else config)
        temporary.rename(self.config_file)

    def call(
        self, method: Method[Any, Any], request: Any, seconds: float = _CALL_DEADLINE_SECONDS
    ) -> Outcome:
        return self.call_async(method, request, seconds)()

    def call_async(
        self, method: Method[Any, Any], request: Any, seconds: float = _CALL_DEADLINE_SECONDS
    ) -> Callable[[], Outcome]:
        """Send a request; the function that is returned waits for the answer."""
        assert self._channel is not None
        future = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        ).future(request, timeout=seconds)

        def wait() -> Outcome:
            code = future.code().name
            if code != "OK":
                return Outcome(code, future.details() or "")
            return Outcome(code, "", future.result())

        return wait

    def reload(self, *models: ModelConfig, seconds: float = _CALL_DEADLINE_SECONDS) -> Outcome:
        return self.reload_async(*models, seconds=seconds)()

    def reload_async(
        self, *models: ModelConfig, seconds: float = _CALL_DEADLINE_SECONDS
    ) -> Callable[[], Outcome]:
        wait = self.call_async(
            RELOAD_CONFIG, ReloadConfigRequest(config=as_config(models)), seconds
        )
        return lambda: Outcome(wait().code, wait().message)

    def status(self, name: str, version: int | None = None, label: str = "") -> Outcome:
        """Tell `{version: state}`, an error behind the state: `END OUT_OF_RANGE: ...`."""
        outcome = self.call(
            GET_MODEL_STATUS, GetModelStatusRequest(model_spec=spec(name, version, label))
        )
        if not outcome.ok:
            return outcome
        found = {}
        for entry in outcome.value.model_version_status:
            state = entry.State.Name(entry.state)
            if entry.status.error_code:
                code = type(entry.status).DESCRIPTOR.fields_by_name["error_code"].enum_type
                number = code.values_by_number[entry.status.error_code].name
                state += f" {number}: {entry.status.error_message}"
            found[entry.version] = state
        return Outcome("OK", "", found)

    def states(self, name: str) -> dict[int, str]:
        return self.status(name).value or {}

    def answering(self, name: str, version: int | None = None, label: str = "") -> Outcome:
        """Tell which version a request would go to, by the metadata it would get."""
        request = GetModelMetadataRequest(
            model_spec=spec(name, version, label), metadata_field=["signature_def"]
        )
        outcome = self.call(GET_MODEL_METADATA, request)
        version = outcome.value.model_spec.version.value if outcome.ok else None
        return Outcome(outcome.code, outcome.message, version)

    def predict_async(
        self, name: str, *, x: float = 10.0, label: str = "", slow_seconds: float = 0.0
    ) -> Callable[[], Outcome]:
        request = PredictRequest(model_spec=spec(name, None, label))
        inputs = {"x": x} | ({"seconds": slow_seconds} if slow_seconds else {})
        for alias, value in inputs.items():
            request.inputs[alias].dtype = 1  # type: ignore[assignment]
            request.inputs[alias].tensor_shape.SetInParent()
            request.inputs[alias].float_val.append(value)
        request.inputs["x"].tensor_shape.dim.add(size=1)
        if slow_seconds:
            request.model_spec.signature_name = "slow"
        return self.call_async(PREDICT, request)

    def predict(self, name: str, **options: Any) -> Outcome:
        """Ask a model; the value is what it answered and which version did."""
        outcome = self.predict_async(name, **options)()
        if not outcome.ok:
            return outcome
        answer = outcome.value.outputs["y"].float_val[0]
        return Outcome("OK", "", (answer, outcome.value.model_spec.version.value))

    def get(self, path: str) -> httpx.Response:
        return self.http("GET", path)

    def http(self, method: str, path: str, content: str = "") -> httpx.Response:
        url = f"http://127.0.0.1:{self.rest_port}{path}"
        return httpx.request(method, url, content=content, timeout=30, trust_env=False)

    def eventually(self, check: Callable[[], bool]) -> None:
        """Wait until `check` says so, at most as long as the pace allows."""
        deadline = time.monotonic() + self.pace.patience_seconds
        while not check():
            assert time.monotonic() < deadline, f"it did not happen in time:\n{self.log[-3000:]}"
            time.sleep(0.005)

    def until_states(self, name: str, states: dict[int, str]) -> None:
        """Wait until these versions of a model are in these states; errors need only begin so."""

        def reached() -> bool:
            found = self.states(name)
            return all(found.get(v, "").startswith(state) for v, state in states.items())

        self.eventually(reached)

    def let_polls_pass(self) -> None:
        """Look away for some polls and ticks, to see afterwards that nothing has happened."""
        time.sleep(self.pace.blocked_seconds)

    @contextmanager
    def watch(self, name: str) -> Iterator["Watch"]:
        """Record the states of a model's versions during the block."""
        watch = Watch(self, name)
        watch.thread.start()
        try:
            yield watch
        finally:
            watch.done.set()
            watch.thread.join(30)


@dataclass
class Watch:
    """What was seen of a model: each version's states in order, and the snapshots."""

    server: Server
    name: str
    snapshots: list[dict[int, str]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)

    def states(self, version: int) -> list[str]:
        """Return the states of one version without repetition, errors cut off."""
        seen: list[str] = []
        for snapshot in self.snapshots:
            state = snapshot.get(version, "").partition(" ")[0]
            if state and (not seen or seen[-1] != state):
                seen.append(state)
        return seen

    def _run(self) -> None:
        while not self.done.is_set():
            self.snapshots.append(self.server.states(self.name))
            time.sleep(0.002)
        # What the block has waited for may have come between two looks.
        self.snapshots.append(self.server.states(self.name))


def spec(name: str, version: int | None = None, label: str = "") -> ModelSpec:
    model_spec = ModelSpec(name=name)
    if version is not None:
        model_spec.version.value = version
    if label:
        model_spec.version_label = label
    return model_spec


def is_in_order(seen: Sequence[str], story: Sequence[str]) -> bool:
    """Tell whether the states seen are the story, of which quick ones may have been missed."""
    rest = iter(story)
    return bool(seen) and seen[-1] == story[-1] and all(state in rest for state in seen)
