"""The gRPC side: which method is answered by what, on how many threads.

A request keeps its thread to its end, whether its caller is still there or not. So reloads that
hang use the threads up one by one, and then nothing is answered any more.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import Message

from reconciler.serving.protocol.control_pb2 import Code
from reconciler.serving.protocol.health_pb2 import HealthCheckRequest, HealthCheckResponse
from reconciler.serving.protocol.methods import (
    GET_MODEL_METADATA,
    GET_MODEL_STATUS,
    HEALTH_CHECK,
    PREDICT,
    RELOAD_CONFIG,
    Method,
)
from reconciler.standin.api import Api
from reconciler.standin.errors import StatusError

_MAX_DETAIL_BYTES = 1024
_TRUNCATED = "...TRUNCATED"
_HEALTHY_NAMES = ("", "ModelService", "PredictionService")
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


def open_server(
    api: Api, places: Sequence[str], max_threads: int, arguments: str, with_health: bool
) -> grpc.Server:
    """Answer at every place, an address or `unix:` path; raises INVALID_ARGUMENT if one is taken.

    The server stops when nothing refers to it any more.

    `arguments` are channel arguments as the flag gives them: `key=value,key=value`.
    """
    # A few threads more than the limit, so that refusing does not have to wait for a thread.
    server = grpc.server(
        ThreadPoolExecutor(max_threads + 4, thread_name_prefix="grpc"),
        handlers=_handlers(api, max_threads, with_health),
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            *_channel_arguments(arguments),
        ],
    )
    try:
        for place in places:
            server.add_insecure_port(place)
        server.start()
    except RuntimeError as error:
        raise StatusError(
            Code.INVALID_ARGUMENT, f"Failed to BuildAndStart gRPC server: {error}"
        ) from None
    return server


def _channel_arguments(text: str) -> list[tuple[str, int | str]]:
    pairs = [item.partition("=") for item in text.split(",") if item]
    return [(key, int(value) if value.isdecimal() else value) for key, _, value in pairs]


def _handlers(api: Api, max_threads: int, with_health: bool) -> list[grpc.GenericRpcHandler]:
    threads = threading.BoundedSemaphore(max_threads)
    methods: list[tuple[Method[Any, Any], Callable[[Any], Message]]] = [
        (GET_MODEL_STATUS, api.get_model_status),
        (RELOAD_CONFIG, api.reload_config),
        (GET_MODEL_METADATA, api.get_model_metadata),
        (PREDICT, api.predict),
    ]
    if with_health:
        methods.append((HEALTH_CHECK, _check_health))
    return [
        grpc.method_handlers_generic_handler(
            method.service, {method.name: _handle(method, answer, threads)}
        )
        for method, answer in methods
    ]


def _handle(
    method: Method[Any, Any],
    answer: Callable[[Any], Message],
    threads: threading.BoundedSemaphore,
) -> grpc.RpcMethodHandler:
    def handle(request: Message, context: grpc.ServicerContext) -> Message:
        if not threads.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted")
        try:
            return answer(request)
        except StatusError as error:
            detail = error.message.encode()
            if len(detail) > _MAX_DETAIL_BYTES:
                detail = detail[:_MAX_DETAIL_BYTES] + _TRUNCATED.encode()
            context.abort(_STATUS_CODES[error.code], detail.decode(errors="replace"))
            raise  # abort has raised already
        finally:
            threads.release()

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=method.request.FromString,
        response_serializer=method.response.SerializeToString,
    )


def _check_health(request: HealthCheckRequest) -> HealthCheckResponse:
    if request.service not in _HEALTHY_NAMES:
        raise StatusError(Code.NOT_FOUND, "")
    return HealthCheckResponse(status=HealthCheckResponse.SERVING)
