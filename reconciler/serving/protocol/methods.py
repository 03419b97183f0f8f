"""TensorFlow Serving's remote methods that we use: full path, request and response.

    call = channel.unary_unary(
        GET_MODEL_STATUS.path,
        request_serializer=GET_MODEL_STATUS.request.SerializeToString,
        response_deserializer=GET_MODEL_STATUS.response.FromString,
    )

No generated service stubs: those would carry our own package name into the path.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from reconciler.serving.protocol.control_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from reconciler.serving.protocol.health_pb2 import HealthCheckRequest, HealthCheckResponse
from reconciler.serving.protocol.inference_pb2 import PredictRequest, PredictResponse

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """One unary method: where it is called and what goes each way."""

    service: str
    name: str
    request: type[RequestT]
    response: type[ResponseT]

    @property
    def path(self) -> str:
        """The path that gRPC calls: `/tensorflow.serving.ModelService/GetModelStatus`."""
        return f"/{self.service}/{self.name}"


_MODEL_SERVICE = "tensorflow.serving.ModelService"
_PREDICTION_SERVICE = "tensorflow.serving.PredictionService"

GET_MODEL_STATUS = Method(
    _MODEL_SERVICE, "GetModelStatus", GetModelStatusRequest, GetModelStatusResponse
)
RELOAD_CONFIG = Method(
    _MODEL_SERVICE, "HandleReloadConfigRequest", ReloadConfigRequest, ReloadConfigResponse
)
GET_MODEL_METADATA = Method(
    _PREDICTION_SERVICE, "GetModelMetadata", GetModelMetadataRequest, GetModelMetadataResponse
)
PREDICT = Method(_PREDICTION_SERVICE, "Predict", PredictRequest, PredictResponse)

# TensorFlow Serving answers it only with --enable_grpc_healthcheck_service.
HEALTH_CHECK = Method("grpc.health.v1.Health", "Check", HealthCheckRequest, HealthCheckResponse)

METHODS = (GET_MODEL_STATUS, RELOAD_CONFIG, GET_MODEL_METADATA, PREDICT)
