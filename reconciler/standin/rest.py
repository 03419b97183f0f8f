"""The HTTP/REST side: status, metadata and predict, with the real paths, codes and layout.

There is no REST call for a reload, and none that lists the models.
"""

import http.server
import json
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from google.protobuf.message import Message

from reconciler.serving.protocol.control_pb2 import (
    Code,
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelSpec,
)
from reconciler.serving.protocol.inference_pb2 import PredictRequest, SignatureDefMap
from reconciler.standin import json_tensor
from reconciler.standin.api import Api
from reconciler.standin.errors import StatusError

_MODEL = r"/v1/models/([^/:]+)"
_WHICH = r"(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
_PREDICT_PATH = re.compile(rf"{_MODEL}{_WHICH}:(classify|regress|predict)", re.IGNORECASE)
_STATUS_PATH = re.compile(rf"/v1/models(?:/([^/:]+))?{_WHICH}(?:/(metadata))?", re.IGNORECASE)
_API_PATH = re.compile(r"/v1/.*", re.IGNORECASE | re.DOTALL)
_MAX_BODY_BYTES = 64 * 1024 * 1024
_REQUEST_DEADLINE_SECONDS = 30.0

_HTTP_STATUS = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the caller."""

    status: int
    body: str
    content_type: str = "application/json"


def answer_request(api: Api, method: str, path: str, body: bytes) -> Answer:
    """Answer one request; every error of the server becomes a status and `{"error": ...}`."""
    if not _API_PATH.fullmatch(path):
        return Answer(404, "<html><body>404 Not Found</body></html>", "text/html")
    try:
        return Answer(200, _process(api, method, path, body))
    except StatusError as error:
        text = json.dumps(error.message, ensure_ascii=False)
        return Answer(_HTTP_STATUS.get(error.code, 500), '{\n    "error": ' + text + "\n}")
    except OverflowError:
        return Answer(400, "")  # the real server forgets the body here, too


def _process(api: Api, method: str, path: str, body: bytes) -> str:
    pattern = {"GET": _STATUS_PATH, "POST": _PREDICT_PATH}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise StatusError(Code.INVALID_ARGUMENT, f"Malformed request: {method} {path}")
    name, version, label, action = match.groups()
    spec = ModelSpec(name=unquote(name or ""))
    if version:
        if int(version) >= 2**63:
            raise OverflowError
        spec.version.value = int(version)
    if label:
        spec.version_label = unquote(label)
    if method == "POST":
        if action.lower() == "predict":
            return _predict(api, spec, body)
        raise StatusError(
            Code.UNIMPLEMENTED, f"The stand-in server answers predict, not {action.lower()}"
        )
    if not name:
        raise StatusError(Code.INVALID_ARGUMENT, "Missing model name in request.")
    if action:
        return _metadata(api, spec)
    status = api.get_model_status(GetModelStatusRequest(model_spec=spec))
    return _to_json(status) + "\n"


def _predict(api: Api, spec: ModelSpec, body: bytes) -> str:
    document = json_tensor.parse_body(body)
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise StatusError(
            Code.INVALID_ARGUMENT, "JSON Value: 'signature_name' key must be a string value."
        )
    request = PredictRequest(model_spec=spec)
    request.model_spec.signature_name = signature_name
    signature = api.inputs_of(spec, signature_name)
    rows = json_tensor.fill_request(document, signature.inputs, request)
    return json_tensor.render(api.predict(request), rows)


def _metadata(api: Api, spec: ModelSpec) -> str:
    response = api.get_model_metadata(
        GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
    )
    signatures = SignatureDefMap.FromString(response.metadata["signature_def"].value)
    return (
        f'{{\n"model_spec":{_to_json(response.model_spec)}\n,\n'
        f'"metadata": {{"signature_def": {_to_json(signatures)}\n}}\n}}\n'
    )


def _to_json(message: Message) -> str:
    return json_format.MessageToJson(
        message,
        indent=1,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


class RestServer(http.server.ThreadingHTTPServer):
    """Serves REST on all addresses of both families, as the real server does."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, api: Api) -> None:
        self.api = api
        everywhere = host == "0.0.0.0"  # noqa: S104
        self.address_family = (
            socket.AF_INET6 if everywhere and socket.has_dualstack_ipv6() else socket.AF_INET
        )
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind `::` for IPv4, too."""
        if self.address_family is socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self.server_address = ("::", self.server_address[1])
        super().server_bind()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _REQUEST_DEADLINE_SECONDS
    server: RestServer

    def _answer(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            self.send_error(413)
            self.close_connection = True
            return
        body = self.rfile.read(int(length))
        path = self.path.partition("?")[0]
        answer = answer_request(self.server.api, self.command, path, body)
        content = answer.body.encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing for each request."""
