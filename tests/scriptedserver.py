"""A model server that says that all it was asked for is AVAILABLE at once, and counts its calls.

For tests and benchmarks of what the agent does, where the pace of a real server is in the way.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from reconciler.serving.protocol.control_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from reconciler.serving.protocol.methods import GET_MODEL_STATUS, RELOAD_CONFIG, Method

_AVAILABLE = 30
_GRACE_SECONDS = 20.0


@dataclass
class ScriptedServer:
    """A model server that loads everything at once; counts its calls."""

    status_calls: int = 0
    reloads: int = 0
    is_broken: bool = False
    """Whether it answers every question with an error."""
    configured: dict[str, list[int]] = field(default_factory=dict)

    def get_model_status(
        self, request: GetModelStatusRequest, context: grpc.ServicerContext
    ) -> GetModelStatusResponse:
        """Say that what was configured is AVAILABLE."""
        self.status_calls += 1
        if self.is_broken:
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        response = GetModelStatusResponse()
        versions = self.configured.get(request.model_spec.name)
        if not versions:
            context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
        for version in versions or ():
            response.model_version_status.add(version=version, state=_AVAILABLE)
        return response

    def reload(
        self, request: ReloadConfigRequest, _context: grpc.ServicerContext
    ) -> ReloadConfigResponse:
        """Take the config as a whole."""
        self.reloads += 1
        self.configured = {
            item.name: list(item.model_version_policy.specific.versions)
            for item in request.config.model_config_list.config
        }
        return ReloadConfigResponse()


@contextmanager
def serve_models(server: ScriptedServer, port: int) -> Iterator[None]:
    """Let the scripted server answer for a block."""
    calls: dict[Method[Any, Any], Callable[..., Any]] = {
        GET_MODEL_STATUS: server.get_model_status,
        RELOAD_CONFIG: server.reload,
    }
    handlers = [
        grpc.method_handlers_generic_handler(
            method.service,
            {
                method.name: grpc.unary_unary_rpc_method_handler(
                    call,
                    request_deserializer=method.request.FromString,
                    response_serializer=method.response.SerializeToString,
                )
            },
        )
        for method, call in calls.items()
    ]
    options = [("grpc.max_receive_message_length", -1)]
    running = grpc.server(ThreadPoolExecutor(4), handlers=handlers, options=options)
    running.add_insecure_port(f"127.0.0.1:{port}")
    running.start()
    try:
        yield
    finally:
        running.stop(None).wait(_GRACE_SECONDS)
