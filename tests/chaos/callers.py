"""Clients that predict without pause, and what each may be answered."""

import threading
import time
from dataclasses import dataclass, field

import grpc

from reconciler.serving.protocol.inference_pb2 import DT_FLOAT, PredictRequest, PredictResponse
from reconciler.serving.protocol.methods import PREDICT

_PAUSE_SECONDS = 0.01
_ANSWER_SECONDS = 60.0
"""Longer than a server is ever stopped for: to wait is no failure, to be refused is one."""
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 200)]
_OPTIONS += [("grpc.initial_reconnect_backoff_ms", 50)]


@dataclass
class Caller:
    """Asks one model for one prediction after the other."""

    port: int
    model: str
    is_due: bool = False
    """Whether it must be answered: the model was served, and nobody wanted it away since."""
    allowed: frozenset[int] = frozenset()
    """Versions that git asked for since the node was last at rest; empty where any may answer."""
    answers: int = 0
    refused: int = 0
    """Refusals when nothing was due."""
    failures: list[str] = field(default_factory=list)
    last: str = ""
    """What came back last."""

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop` is set."""
        request = PredictRequest()
        request.model_spec.name = self.model
        tensor = request.inputs["x"]
        tensor.dtype = DT_FLOAT
        tensor.tensor_shape.dim.add().size = 1
        tensor.float_val.append(1.0)
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=_OPTIONS) as channel:
            call = channel.unary_unary(
                PREDICT.path,
                request_serializer=PREDICT.request.SerializeToString,
                response_deserializer=PREDICT.response.FromString,
            )
            while not stop.wait(_PAUSE_SECONDS):
                was_due, allowed = self.is_due, self.allowed
                try:
                    response = call(request, timeout=_ANSWER_SECONDS)
                except grpc.RpcError as error:
                    self._note_refusal(was_due, f"{error.code().name}: {error.details()}")
                else:
                    self._note_answer(response, allowed | self.allowed if allowed else allowed)

    def _note_refusal(self, was_due: bool, text: str) -> None:
        self.last = text
        if was_due and self.is_due:
            self.failures.append(f"{time.strftime('%H:%M:%S')} {self.model}: {text}")
        else:
            self.refused += 1

    def _note_answer(self, response: PredictResponse, allowed: frozenset[int]) -> None:
        self.answers += 1
        version = response.model_spec.version.value
        (value,) = response.outputs["y"].float_val
        self.last = f"version {version}"
        if value != 1.0 + 10 * version:
            self.failures.append(f"{self.model} {version} answered {value}: other bytes")
        if allowed and self.is_due and version not in allowed:
            self.failures.append(f"{self.model} {version} answered, {sorted(allowed)} were asked")
