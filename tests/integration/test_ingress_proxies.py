"""What nginx, HAProxy and Envoy make of the files that are rendered, before real model servers.

Both servers add to what they are asked, the first 10 by its version 1, the second 20 by version 2,
so that an answer tells who gave it.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from reconciler.demo.services import free_port
from reconciler.ingress.routes import Routes, Server
from reconciler.serving.protocol.control_pb2 import ModelConfig
from reconciler.serving.protocol.inference_pb2 import DT_FLOAT, PredictRequest
from reconciler.serving.protocol.methods import PREDICT
from tests.conformance import harness
from tests.proxies import Proxy, wait_for
from tests.savedmodels import write_savedmodel

pytest.importorskip(
    "tensorflow", reason="real predictions need TensorFlow: pip install '.[tensorflow]'"
)

KINDS = ["nginx", "haproxy", "envoy"]
FIRST, SECOND = 1, 2
PACE = harness.Pace(poll_seconds=0.05, patience_seconds=60, blocked_seconds=0.3)


class Node:
    """A model server and what it may be asked to serve."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.folder = folder
        folder.mkdir(parents=True)
        write_savedmodel(folder / "model" / str(number), 10.0 * number)
        self.server = harness.Server(harness.STANDIN, folder, PACE, is_standin=True)

    def config(self, *models: str) -> list[ModelConfig]:
        return [harness.model(name, self.folder / "model") for name in models]

    def serve(self, *models: str) -> None:
        """Serve exactly these models, and come back when that is so."""
        assert self.server.reload(*self.config(*models)).ok
        for name in models:
            self.server.until_states(name, {self.number: "AVAILABLE"})
        self.server.eventually(lambda: self._unloaded(models))

    def _unloaded(self, models: tuple[str, ...]) -> bool:
        known = ("ranker", "Ranker", "ranker2")
        states = (self.server.states(name).get(self.number) for name in known if name not in models)
        return all(state in (None, "END") for state in states)

    def as_server(self) -> Server:
        grpc_address = f"127.0.0.1:{self.server.port}"
        return Server(f"node-{self.number}", grpc_address, f"127.0.0.1:{self.server.rest_port}")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    first, second = (Node(tmp_path_factory.mktemp("nodes") / f"{n}", n) for n in (FIRST, SECOND))
    for node in (first, second):
        node.server.launch(node.config("ranker"), predict=True)
    for node in (first, second):
        node.server.eventually(node.server.is_up)
        node.server.until_states("ranker", {node.number: "AVAILABLE"})
    yield first, second
    first.server.stop()
    second.server.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    proxies: list[Proxy] = []

    def make(kind: str, routes: Routes) -> Proxy:
        proxies.append(Proxy(kind, tmp_path / "proxy", domain="Models.Example"))
        proxies[-1].start(routes)
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.stop()


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


def ask_grpc(proxy: Proxy, model: str, *, header: str | None = None, host: str | None = None) -> int:
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


@pytest.mark.parametrize("kind", KINDS)
def test_each_model_s_requests_go_where_it_is_served(
    kind: str, nodes: tuple[Node, Node], start: Callable[..., Proxy]
) -> None:
    first, second = nodes
    first.serve("ranker", "ranker2")
    second.serve("Ranker")
    proxy = start(
        kind,
        {
            "Ranker": (second.as_server(),),
            "ranker": (first.as_server(),),
            "ranker2": (first.as_server(),),
        },
    )
    assert ask_rest(proxy, "/v1/models/ranker:predict").json() == {"predictions": [11.0]}
    assert ask_rest(proxy, "/v1/models/Ranker:predict").json() == {"predictions": [21.0]}
    assert ask_rest(proxy, "/v1/models/ranker2:predict").json() == {"predictions": [11.0]}
    assert ask_rest(proxy, "/v1/models/ranker/versions/1:predict").is_success
    status = ask_rest(proxy, "/v1/models/Ranker", None).json()["model_version_status"]
    assert [item["version"] for item in status] == ["2"]
    assert ask_rest(proxy, "/v1/models/ranker/versions/1", None).is_success
    assert "signature_def" in ask_rest(proxy, "/v1/models/ranker/metadata", None).text
    assert "label" in ask_rest(proxy, "/v1/models/ranker/labels/no:predict").json()["error"]

    assert ask_grpc(proxy, "ranker", header="ranker") == FIRST
    assert ask_grpc(proxy, "Ranker", header="Ranker") == SECOND
    assert ask_grpc(proxy, "ranker2", host="ranker2.models.example") == FIRST
    assert ask_grpc(proxy, "ranker2", host="RANKER2.models.example:8500") == FIRST
    # A header says more than a host, and of two names that a host cannot tell apart it is the
    # one in lower case.
    assert ask_grpc(proxy, "Ranker", header="Ranker", host="ranker.models.example") == SECOND
    assert ask_grpc(proxy, "ranker", host="ranker.models.example") == FIRST


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_nobody_serves_is_said_so_in_the_caller_s_language(
    kind: str, nodes: tuple[Node, Node], start: Callable[..., Proxy]
) -> None:
    proxy = start(kind, {"ranker": (nodes[0].as_server(),)})
    for path in ("/v1/models/nosuch:predict", "/v1/models/rankerx", "/v1/models/", "/other"):
        answer = ask_rest(proxy, path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json")
        assert answer.json() == {"error": "no node serves a model of this name"}
    codes = {"envoy": grpc.StatusCode.UNIMPLEMENTED}
    for names in ({"header": "nosuch"}, {"host": "nosuch.models.example"}, {}):
        with pytest.raises(grpc.RpcError) as raised:
            ask_grpc(proxy, "nosuch", **names)
        assert raised.value.code() is codes.get(kind, grpc.StatusCode.NOT_FOUND)
        assert raised.value.details() == "no node serves a model of this name"


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_one_node_cannot_answer_goes_to_the_next(
    kind: str, nodes: tuple[Node, Node], start: Callable[..., Proxy]
) -> None:
    first, second = nodes
    first.serve("ranker2")
    second.serve("ranker")
    nobody = Server("node-3", f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    proxy = start(
        kind,
        {
            "ranker": (first.as_server(), second.as_server()),
            "ranker2": (first.as_server(), nobody),
        },
    )
    # The first server has no such model any more, and says 404.
    answers = [ask_rest(proxy, "/v1/models/ranker:predict") for _ in range(8)]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    assert {answer.json()["predictions"][0] for answer in answers} == {21.0}
    # The third is not there at all.
    answers = [ask_rest(proxy, "/v1/models/ranker2:predict") for _ in range(8)]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    assert {ask_grpc(proxy, "ranker2", header="ranker2") for _ in range(8)} == {FIRST}


@pytest.mark.parametrize("kind", KINDS)
def test_when_no_node_can_answer_the_caller_hears_of_it_in_time(
    kind: str, nodes: tuple[Node, Node], start: Callable[..., Proxy]
) -> None:
    first, _ = nodes
    first.serve("ranker2")
    nobody = Server("node-3", f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    proxy = start(kind, {"gone": (nobody,), "ranker": (first.as_server(),)})
    assert ask_rest(proxy, "/v1/models/gone:predict").status_code in (502, 503)
    with pytest.raises(grpc.RpcError) as raised:
        ask_grpc(proxy, "gone", header="gone")
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    # What every node says is the answer, in the server's own words.
    answer = ask_rest(proxy, "/v1/models/ranker:predict")
    assert answer.status_code == 404
    assert "ranker" in answer.json()["error"]
