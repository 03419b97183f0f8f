"""Two model servers that predict by TensorFlow, and clients of what is in front of them.

Both add to what they are asked, the first 10 by its version 1, the second 20 by its version 2, so
that an answer tells who gave it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx

from reconciler.ingress.routes import Server
from reconciler.serving.protocol.control_pb2 import ModelConfig
from reconciler.serving.protocol.inference_pb2 import DT_FLOAT, PredictRequest
from reconciler.serving.protocol.methods import PREDICT
from tests.conformance import harness
from tests.proxies import Proxy
from tests.savedmodels import write_savedmodel

FIRST, SECOND = 1, 2
_PACE = harness.Pace(poll_seconds=0.05, patience_seconds=60, blocked_seconds=0.3)
_MODELS = ("ranker", "Ranker", "ranker2")


class ModelServer:
    """A model server and what it may be asked to serve."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.folder = folder
        folder.mkdir(parents=True)
        write_savedmodel(folder / "model" / str(number), 10.0 * number)
        self.server = harness.Server(harness.STANDIN, folder, _PACE, is_standin=True)

    def config(self, *models: str) -> list[ModelConfig]:
        return [harness.model(name, self.folder / "model") for name in models]

    def serve(self, *models: str) -> None:
        """Serve exactly these models, and come back when that is so."""
        assert self.server.reload(*self.config(*models)).ok
        for name in models:
            self.server.until_states(name, {self.number: "AVAILABLE"})
        self.server.eventually(lambda: self._unloaded(models))

    def _unloaded(self, models: tuple[str, ...]) -> bool:
        others = (name for name in _MODELS if name not in models)
        states = (self.server.states(name).get(self.number) for name in others)
        return all(state in (None, "END") for state in states)

    def as_server(self) -> Server:
        grpc_address = f"127.0.0.1:{self.server.port}"
        return Server(f"node-{self.number}", grpc_address, f"127.0.0.1:{self.server.rest_port}")


@contextmanager
def run_pair(folder: Path) -> Iterator[tuple[ModelServer, ModelServer]]:
    """Run both during the block; they serve `ranker` to begin with."""
    first, second = (ModelServer(folder / f"{number}", number) for number in (FIRST, SECOND))
    try:
        for node in (first, second):
            node.server.launch(node.config("ranker"), predict=True)
        for node in (first, second):
            node.server.eventually(node.server.is_up)
            node.server.until_states("ranker", {node.number: "AVAILABLE"})
        yield first, second
    finally:
        first.server.stop()
        second.server.stop()


def ask_rest(proxy: Proxy, path: str, x: float | None = 1.0) -> httpx.Response:
    url = f"http://127.0.0.1:{proxy.rest_port}{path}"
    body = None if x is None else {"instances": [x]}
    method = "GET" if body is None else "POST"
    return httpx.request(method, url, json=body, timeout=20, trust_env=False)


def make_request(model: str) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["x"]
    tensor.dtype = DT_FLOAT
    tensor.tensor_shape.dim.add().size = 1
    tensor.float_val.append(1.0)
    return request


def ask_grpc(
    proxy: Proxy, model: str, *, header: str | None = None, host: str | None = None
) -> int:
    """Return the version that answered; raises grpc.RpcError."""
    options: list[tuple[str, object]] = [("grpc.enable_http_proxy", 0)]
    if host is not None:
        options.append(("grpc.default_authority", host))
    with grpc.insecure_channel(f"127.0.0.1:{proxy.grpc_port}", options=options) as channel:
        call = channel.unary_unary(
            PREDICT.path,
            request_serializer=PREDICT.request.SerializeToString,
            response_deserializer=PREDICT.response.FromString,
        )
        metadata = [("model", header)] if header is not None else None
        response = call(make_request(model), timeout=20, metadata=metadata)
    return int(response.model_spec.version.value)
