"""What nginx, HAProxy and Envoy make of the files that are rendered, before real model servers.

An answer tells which server gave it: see tests/modelservers.py.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from reconciler.demo.services import free_port
from reconciler.ingress.routes import Routes, Server
from tests.modelservers import FIRST, SECOND, ModelServer, ask_grpc, ask_rest, run_pair
from tests.proxies import Proxy

pytest.importorskip(
    "tensorflow", reason="real predictions need TensorFlow: pip install '.[tensorflow]'"
)

KINDS = ["nginx", "haproxy", "envoy"]


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ModelServer, ModelServer]]:
    with run_pair(tmp_path_factory.mktemp("nodes")) as pair:
        yield pair


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


@pytest.mark.parametrize("kind", KINDS)
def test_each_model_s_requests_go_where_it_is_served(
    kind: str, nodes: tuple[ModelServer, ModelServer], start: Callable[..., Proxy]
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
    answer = ask_rest(proxy, "/v1/models/ranker:predict")
    assert answer.json() == {"predictions": [11.0]}
    # nginx cuts off whatever is on its way on a connection that it kept when it reloads.
    assert answer.headers.get("connection") == ("close" if kind == "nginx" else None)
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
    kind: str, nodes: tuple[ModelServer, ModelServer], start: Callable[..., Proxy]
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
    kind: str, nodes: tuple[ModelServer, ModelServer], start: Callable[..., Proxy]
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
    kind: str, nodes: tuple[ModelServer, ModelServer], start: Callable[..., Proxy]
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
