"""A collector of traces on a free port: takes OpenTelemetry's protocol over HTTP, as one would."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_WAIT_SECONDS = 30


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived."""

    name: str
    trace: bytes
    id: bytes
    parent: bytes
    begun_ns: int
    ended_ns: int
    facts: dict[str, Any]
    error: str | None
    resource: dict[str, Any]


class Collector(ThreadingHTTPServer):
    """Keeps all that it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        """What it answers."""
        self.bodies: list[bytes] = []
        self.headers: list[str] = []
        self.asked = Event()
        self.may_answer = Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Everything that has arrived."""
        found = []
        for body in list(self.bodies):
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _read(group.resource.attributes)
                for scope in group.scope_spans:
                    found += [
                        ReceivedSpan(
                            name=span.name,
                            trace=span.trace_id,
                            id=span.span_id,
                            parent=span.parent_span_id,
                            begun_ns=span.start_time_unix_nano,
                            ended_ns=span.end_time_unix_nano,
                            facts=_read(span.attributes),
                            error=span.status.message if span.status.code == 2 else None,
                            resource=resource,
                        )
                        for span in scope.spans
                    ]
        return found


def _read(attributes: Any) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value")
        for item in attributes
    }


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()
        self.server.may_answer.wait(_WAIT_SECONDS)
        if self.server.status == 200 and self.path == "/v1/traces":
            self.server.bodies.append(body)
            self.server.headers.append(str(self.headers))
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


@contextmanager
def run_collector() -> Iterator[Collector]:
    """Serve a collector for a block."""
    with Collector() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.may_answer.set()
            server.shutdown()
            thread.join(_WAIT_SECONDS)
