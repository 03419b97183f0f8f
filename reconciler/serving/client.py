"""Asks TensorFlow Serving what it serves, and tells it what to serve.

Two calls only. Reading is one GetModelStatus a model, side by side. Reloading is one
HandleReloadConfigRequest at a time, for the server does them one after the other, does not stop
when its caller has left, and keeps one of its threads for each that waits.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import grpc
import grpc.aio

from reconciler.errors import ServingError
from reconciler.model import Served, ServerConfig, State, VersionStatus
from reconciler.planning.outcome import SERVER_UNREACHABLE
from reconciler.serving.config_file import to_message
from reconciler.serving.protocol.control_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ReloadConfigRequest,
)
from reconciler.serving.protocol.methods import GET_MODEL_STATUS, RELOAD_CONFIG

SERVER_SILENT = "ServerSilent"
"""It is connected and does not answer a status request."""
STATUS_DEADLINE_SECONDS = 3.0
_STATUS_CALLS_AT_ONCE = 32
_MAX_MESSAGE_CHARACTERS = 1200
_STATES = {int(state): state for state in State}
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.enable_http_proxy", 0),  # the server is a neighbour; a proxy would only break it
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class ReloadError(ServingError):
    """A reload that was not answered with OK; `code` is gRPC's word for why."""

    reason = "ReloadFailed"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class _Connection:
    """Counts how often the channel became ready: each time the server may be another process."""

    count: int = 0
    is_ready: bool = False


class ServingClient:
    """One TensorFlow Serving, reached by gRPC at `address`; `base` is its models folder."""

    def __init__(self, address: str, base: str) -> None:
        self.address = address
        self._base = base
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._connection = _Connection()
        self._get_status = self._channel.unary_unary(
            GET_MODEL_STATUS.path,
            request_serializer=GET_MODEL_STATUS.request.SerializeToString,
            response_deserializer=GET_MODEL_STATUS.response.FromString,
        )
        self._reload = self._channel.unary_unary(
            RELOAD_CONFIG.path,
            request_serializer=RELOAD_CONFIG.request.SerializeToString,
            response_deserializer=RELOAD_CONFIG.response.FromString,
        )

    @property
    def connection(self) -> int:
        """How many connections were made."""
        return self._connection.count

    async def watch_connection(self) -> None:
        """Count connections until cancelled."""
        while True:
            state = self._channel.get_state(try_to_connect=True)
            is_ready = state is grpc.ChannelConnectivity.READY
            if is_ready and not self._connection.is_ready:
                self._connection.count += 1
            self._connection.is_ready = is_ready
            await self._channel.wait_for_state_change(state)
            # It may be ready again by now, if the event loop stood still meanwhile.
            self._connection.is_ready = False

    async def read(self, models: Iterable[str]) -> Served:
        """Return the state of every version of `models`.

        Raises ServingError when the server does not answer for all of them: half a picture is
        none.
        """
        connection = self._connection.count
        # A node without models still wants to know whether its server is there.
        names = sorted(set(models)) or [""]
        left = iter(names)
        answers: dict[str, Mapping[int, VersionStatus]] = {}

        async def ask_on() -> None:
            for model in left:
                answers[model] = await self._read_model(model)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_STATUS_CALLS_AT_ONCE):
                    group.create_task(ask_on())
        except ExceptionGroup as errors:
            # The others were stopped by it: of a server that hangs, ever more would else be asked.
            raise errors.exceptions[0] from None
        if not self._connection.is_ready or connection != self._connection.count:
            raise ServingError(
                f"the connection to TensorFlow Serving at {self.address} is being made",
                SERVER_UNREACHABLE,
            )
        return Served(connection, {model: answers[model] for model in names if model})

    async def _read_model(self, model: str) -> Mapping[int, VersionStatus]:
        request = GetModelStatusRequest()
        request.model_spec.name = model
        try:
            response: GetModelStatusResponse = await self._get_status(
                request, timeout=STATUS_DEADLINE_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise self._unreachable(error) from None
        return {
            item.version: VersionStatus(
                _STATES.get(item.state, State.UNKNOWN),
                _code_name(item.status.error_code),
                item.status.error_message[:_MAX_MESSAGE_CHARACTERS],
            )
            for item in response.model_version_status
        }

    def _unreachable(self, error: grpc.aio.AioRpcError) -> ServingError:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return ServingError(
                f"TensorFlow Serving at {self.address} cannot be reached; it may be starting"
                " (its port opens when its first models are loaded) or be down; downloads go on,"
                " and nothing is removed",
                SERVER_UNREACHABLE,
            )
        return ServingError(
            f"TensorFlow Serving at {self.address} does not answer a status request:"
            f" {error.code().name}: {_cut(error.details())}; if this goes on, restart it",
            SERVER_SILENT,
        )

    async def reload(self, config: ServerConfig, deadline_seconds: float) -> None:
        """Send `config` and wait for the answer, which for a new model is its loading.

        Raises ReloadError for every answer but OK.
        """
        request = ReloadConfigRequest()
        request.config.CopyFrom(to_message(config, self._base))
        try:
            response = await self._reload(request, timeout=deadline_seconds)
        except grpc.aio.AioRpcError as error:
            raise ReloadError(error.code().name, _cut(error.details())) from None
        if response.status.error_code != 0:
            code = _code_name(response.status.error_code)
            raise ReloadError(code, _cut(response.status.error_message))

    async def close(self) -> None:
        """Close the channel."""
        with suppress(asyncio.CancelledError):
            await self._channel.close()


def _code_name(number: int) -> str:
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return str(code.name)
    return f"CODE_{number}"


def _cut(message: str | None) -> str:
    return (message or "no message")[:_MAX_MESSAGE_CHARACTERS]
