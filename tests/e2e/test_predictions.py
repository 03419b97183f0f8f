"""Real predictions by TensorFlow through every kind of change: none fails, none is wrong.

Each version answers y = x + 10 * version, so an answer names the version that gave it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest

from reconciler.serving.protocol.inference_pb2 import DT_FLOAT, PredictRequest, PredictResponse
from reconciler.serving.protocol.methods import PREDICT
from tests.e2e.stage import GROUP, Stage, deployment

pytest.importorskip(
    "tensorflow", reason="real predictions need TensorFlow: pip install '.[tensorflow]'"
)

SWITCHES = 50


@dataclass
class Client:
    """Asks without pause and keeps what came back."""

    port: int
    label: str | None = None
    allowed: frozenset[int] = frozenset()
    """The versions that may answer now."""
    answers: int = 0
    seen: set[int] = field(default_factory=set)
    mistakes: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Predict until `stop` is set."""
        request = PredictRequest()
        request.model_spec.name = "ranker"
        if self.label:
            request.model_spec.version_label = self.label
        tensor = request.inputs["x"]
        tensor.dtype = DT_FLOAT
        tensor.tensor_shape.dim.add().size = 1
        tensor.float_val.append(1.0)
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call = channel.unary_unary(
                PREDICT.path,
                request_serializer=PREDICT.request.SerializeToString,
                response_deserializer=PREDICT.response.FromString,
            )
            while not stop.is_set():
                allowed_before = self.allowed
                try:
                    response = call(request, timeout=10)
                except grpc.RpcError as error:
                    self.mistakes.append(str(error))
                    continue
                self._check(response, allowed_before | self.allowed)

    def _check(self, response: PredictResponse, allowed: frozenset[int]) -> None:
        self.answers += 1
        version = response.model_spec.version.value
        self.seen.add(version)
        (value,) = response.outputs["y"].float_val
        if value != 1.0 + 10 * version:
            self.mistakes.append(f"version {version} answered {value}")
        if allowed and version not in allowed:
            self.mistakes.append(f"version {version} answered, allowed were {sorted(allowed)}")


@contextmanager
def asking(*clients: Client) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=client.run, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.timeout(600)
def test_predictions_never_fail_through_fifty_switches_and_a_bad_version(
    make_stage: Callable[..., Stage],
) -> None:
    node = make_stage(predict=True)
    for version in range(1, 5):
        node.publish("ranker", version)
    node.publish("ranker", 5, fault="truncated_data")

    def commit(version: int) -> None:
        node.commit(
            {"groups/g.yaml": GROUP}, deployment("ranker", version, labels={"stable": version})
        )

    commit(1)
    node.start()
    node.wait_served("ranker", 1)
    plain = Client(node.port, allowed=frozenset({1}))
    stable = Client(node.port, "stable", allowed=frozenset({1}))
    serving = 1
    with asking(plain, stable):
        for number in range(SWITCHES):
            version = number % 4 + 1 if number % 4 + 1 != serving else serving % 4 + 1
            plain.allowed = stable.allowed = frozenset({serving, version})
            commit(version)
            node.wait_served("ranker", version)
            serving = version
            plain.allowed = stable.allowed = frozenset({serving})
            if number == SWITCHES // 2:
                commit(5)
                node.wait_phase("ranker", "Failed", "LoadFailed")
        enough = plain.answers + 100
        deadline = time.monotonic() + 30
        while plain.answers < enough and time.monotonic() < deadline:
            time.sleep(0.01)
    assert plain.mistakes == []
    assert stable.mistakes == []
    assert plain.answers > SWITCHES
    assert stable.answers > SWITCHES
    assert {1, 2, 3, 4} == plain.seen == stable.seen
