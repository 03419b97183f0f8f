"""Golden requests over a real connection: what arrives, and what each answer means."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from reconciler.demo.services import free_port
from reconciler.model import Golden
from reconciler.serving import golden
from reconciler.serving.golden import GoldenError, GoldenRequest, replay, try_version
from reconciler.serving.protocol.inference_pb2 import PredictRequest
from tests.golden import predict_log, write_records

FILE = "golden"
Answer = Callable[[bytes, Any], Awaitable[bytes]]


class Server(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers whatever is asked, by a function that a test gives."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.answers: list[Answer] = []
        self.address = ""

    def service(self, details: Any) -> Any:
        async def handle(request: bytes, context: Any) -> bytes:
            self.received.append((details.method, request))
            return await self.answers.pop(0)(request, context) if self.answers else b""

        return grpc.unary_unary_rpc_method_handler(handle)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    handler = Server()
    running = grpc.aio.server(handlers=[handler], options=[("grpc.max_send_message_length", -1)])
    handler.address = f"127.0.0.1:{running.add_insecure_port('127.0.0.1:0')}"
    await running.start()
    yield handler
    await running.stop(None)


def write(folder: Path, *records: bytes) -> None:
    (folder / FILE).write_bytes(write_records(records))


async def attempt(server: Server, folder: Path, within_seconds: float = 10.0) -> int:
    wanted = Golden(FILE, within_seconds)
    return await try_version(server.address, folder, wanted, name="ranker@golden", version=43)


async def complaint(server: Server, folder: Path, within_seconds: float = 10.0) -> str:
    with pytest.raises(GoldenError) as caught:
        await attempt(server, folder, within_seconds)
    return str(caught.value)


async def test_every_request_arrives_once_and_in_order(server: Server, tmp_path: Path) -> None:
    write(tmp_path, predict_log("first"), predict_log("second", x=[2.0]))

    count = await attempt(server, tmp_path)

    assert count == 2
    methods = [method for method, _ in server.received]
    assert methods == ["/tensorflow.serving.PredictionService/Predict"] * 2
    first, second = (PredictRequest.FromString(content) for _, content in server.received)
    assert (first.model_spec.name, first.model_spec.version.value) == ("ranker@golden", 43)
    assert (first.model_spec.signature_name, second.model_spec.signature_name) == (
        "first",
        "second",
    )
    assert list(second.inputs["x"].float_val) == [2.0]


async def test_the_first_that_fails_ends_it_and_is_named(server: Server, tmp_path: Path) -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'signature key "x" not found.')
        return b""

    async def answer(request: bytes, context: Any) -> bytes:
        return b""

    server.answers = [answer, fail]
    write(tmp_path, *[predict_log()] * 3)

    assert await complaint(server, tmp_path) == (
        "request 2 of 3 (predict) was answered with FAILED_PRECONDITION: signature key"
        ' "x" not found.'
    )
    assert len(server.received) == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("within_seconds", "shown"), [(0.05, "50 ms"), (0.001, "1 ms")])
async def test_an_answer_that_takes_too_long_is_a_failure(
    server: Server, tmp_path: Path, within_seconds: float, shown: str
) -> None:
    never = asyncio.Event()

    async def wait(request: bytes, context: Any) -> bytes:
        await never.wait()
        return b""

    server.answers = [wait]
    write(tmp_path, predict_log())

    said = await complaint(server, tmp_path, within_seconds)

    assert said == f"request 1 of 1 (predict) was not answered within {shown}"


async def test_a_server_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "CONNECT_SECONDS", 0.2)
    address = f"127.0.0.1:{free_port()}"

    with pytest.raises(GoldenError, match=f"{address} could not be reached within 0.2 s"):
        await replay(address, [GoldenRequest("predict", "/x/y", b"")], 1.0)


async def test_a_large_answer_is_no_failure(server: Server, tmp_path: Path) -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        return bytes(16 * 1024 * 1024)

    server.answers = [answer]
    write(tmp_path, predict_log())

    assert await attempt(server, tmp_path) == 1


async def test_a_long_message_is_cut(server: Server, tmp_path: Path) -> None:
    async def fail(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.INTERNAL, "x" * 5000)
        return b""

    server.answers = [fail]
    write(tmp_path, predict_log())

    assert len(await complaint(server, tmp_path)) < 1100


async def test_nothing_is_asked_when_a_later_record_cannot_be(
    server: Server, tmp_path: Path
) -> None:
    write(tmp_path, predict_log(), b"\xff\xff")

    assert "record 2 of golden is no PredictionLog" in await complaint(server, tmp_path)
    assert server.received == []
