"""The answers of ModelService and PredictionService, apart from how they travel.

Everything here raises StatusError; gRPC and REST each make of it what they do.
"""

import importlib.util
from collections.abc import Iterable

from google.protobuf.any_pb2 import Any as AnyMessage

from reconciler.serving.protocol.control_pb2 import (
    Code,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelSpec,
    ReloadConfigRequest,
    ReloadConfigResponse,
)
from reconciler.serving.protocol.inference_pb2 import (
    PredictRequest,
    PredictResponse,
    SignatureDef,
    SignatureDefMap,
    TensorProto,
)
from reconciler.standin.core import ServerCore
from reconciler.standin.errors import StatusError
from reconciler.standin.loader import LoadedModel
from reconciler.standin.monitor import ServableId

DEFAULT_SIGNATURE = "serving_default"
_SIGNATURE_FIELD = "signature_def"
_SIGNATURE_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


class Api:
    """The remote methods of one server."""

    def __init__(self, core: ServerCore) -> None:
        self._core = core

    def get_model_status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        """Tell the last known state of one version or of all; a label is ignored."""
        if not request.HasField("model_spec"):
            raise StatusError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        spec = request.model_spec
        if spec.HasField("version"):
            state = self._core.monitor.state(ServableId(spec.name, spec.version.value))
            states = [state] if state else []
            missing = f"Could not find version {spec.version.value} of model {spec.name}"
        else:
            states = self._core.monitor.versions(spec.name)
            missing = f"Could not find any versions of model {spec.name}"
        if not states:
            raise StatusError(Code.NOT_FOUND, missing)
        response = GetModelStatusResponse()
        for state in states:
            entry = response.model_version_status.add(
                version=state.id.version, state=state.state.name
            )
            entry.status.SetInParent()
            if state.error:
                entry.status.error_code = state.error.code
                entry.status.error_message = state.error.message
        return response

    def reload_config(self, request: ReloadConfigRequest) -> ReloadConfigResponse:
        """Apply a config. Metrics are named back with no increase: there are none here."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise StatusError(
                Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
                " ModelConfigList is currently supported",
            )
        self._core.reload(request.config)
        response = ReloadConfigResponse()
        response.status.SetInParent()
        for name in request.metric_names:
            response.metric.add(name=name, int64_value_increase=0)
        return response

    def get_model_metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        """Tell the signatures of the version that the spec names, and which version that is."""
        if not request.HasField("model_spec"):
            raise StatusError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        if not request.metadata_field:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for name in request.metadata_field:
            if name != _SIGNATURE_FIELD:
                raise StatusError(Code.INVALID_ARGUMENT, f"Metadata field {name} is not supported")
        response = GetModelMetadataResponse()
        with self._core.borrow(request.model_spec) as (version, model):
            response.model_spec.name = request.model_spec.name
            response.model_spec.version.value = version
            signatures = SignatureDefMap(signature_def=model.signatures)
            response.metadata[_SIGNATURE_FIELD].CopyFrom(
                AnyMessage(
                    type_url=_SIGNATURE_TYPE_URL,
                    value=signatures.SerializeToString(deterministic=True),
                )
            )
        return response

    def inputs_of(self, spec: ModelSpec, signature_name: str) -> SignatureDef:
        """Return the signature that a REST request means."""
        name = signature_name or DEFAULT_SIGNATURE
        with self._core.borrow(spec) as (_, model):
            if name not in model.signatures:
                raise StatusError(
                    Code.INVALID_ARGUMENT,
                    f'Serving signature name: "{name}" not found in signature def',
                )
            return model.signatures[name]

    def predict(self, request: PredictRequest) -> PredictResponse:
        """Ask the version that the spec names; the answer says which one that was."""
        if not request.HasField("model_spec"):
            raise StatusError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        with self._core.borrow(request.model_spec) as (version, model):
            return answer_predict(request, version, model)


def can_predict() -> bool:
    """Tell whether TensorFlow is installed; it is not imported for that."""
    return importlib.util.find_spec("tensorflow") is not None


def answer_predict(request: PredictRequest, version: int, model: LoadedModel) -> PredictResponse:
    """Ask one loaded model; raises what the real server says to a request that does not fit."""
    if model.run is None:
        raise StatusError(
            Code.UNIMPLEMENTED,
            "This stand-in server does not predict: install the extra"
            " tfserving-reconciler[tensorflow], or start it without --standin_predict=off",
        )
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = model.signatures.get(name)
    if signature is None:
        raise StatusError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    feeds = _match_inputs(request, signature)
    aliases = list(request.output_filter) or sorted(signature.outputs)
    for alias in aliases:
        if alias not in signature.outputs:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias} Outputs expected to be in"
                f" the set {_braced(signature.outputs)}.",
            )
    tensors = model.run(feeds, [signature.outputs[alias].name for alias in aliases])
    response = PredictResponse(outputs=dict(zip(aliases, tensors, strict=True)))
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = version
    response.model_spec.signature_name = name
    return response


def _match_inputs(request: PredictRequest, signature: SignatureDef) -> dict[str, TensorProto]:
    """Return what to feed by tensor name; the messages are the ones of the real check."""
    sent, expected = set(request.inputs), set(signature.inputs)
    defaults = set(signature.defaults)
    extra, missing = sent - expected, expected - sent - defaults
    if len(sent) != len(expected) and (extra or missing):
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(expected)}"
            f" len({_braced(sent)}) != len({_braced(expected)})."
            f" Sent extra: {_braced(extra)}. Missing but required: {_braced(missing)}.",
        )
    for alias in sorted(missing):
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found"
            " in request and no default value provided. Inputs expected to be in the request"
            f" {_braced(sent)}, or default input alias set: {','.join(sorted(defaults))}",
        )
    return {
        signature.inputs[alias].name: request.inputs[alias]
        if alias in sent
        else signature.defaults[alias]
        for alias in expected
    }


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
