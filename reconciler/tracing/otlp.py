"""Sends finished traces to a collector, by OpenTelemetry's protocol over HTTP.

The address, headers, certificates, timeout and sampling are OpenTelemetry's own variables
(OTEL_EXPORTER_OTLP_*, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER). Spans
wait in a queue of bounded length and are sent by a thread, so that a collector that hangs holds
nothing up.
"""

import logging
import threading
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status, StatusCode, set_span_in_context

from reconciler import __version__
from reconciler.logs import Facts
from reconciler.tracing.passes import Trace

_log = logging.getLogger(__name__)

_SEND_AFTER_MILLISECONDS = 1000
_MAX_WAITING_SPANS = 2048
_STOP_SECONDS = 1.5
"""The process has 5 s to end, and its traces must not cost it those."""


class Collector:
    """The way to the collector that the environment names."""

    def __init__(self, node: str) -> None:
        # What its own loggers say may quote the collector's address, and comes with every try.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        own = Resource(
            {
                "service.name": "reconciler",
                "service.version": __version__,
                "service.instance.id": node,
            }
        )
        self._provider = TracerProvider(
            resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                _Exporter(),
                max_queue_size=_MAX_WAITING_SPANS,
                schedule_delay_millis=_SEND_AFTER_MILLISECONDS,
            )
        )
        self._tracer = self._provider.get_tracer("reconciler", __version__)

    def send(self, trace: Trace) -> None:
        """Put a finished trace into the queue; what does not fit is lost."""
        root = self._tracer.start_span(
            "reconcile", Context(), attributes=_name(trace.facts), start_time=trace.begun_ns
        )
        within = set_span_in_context(root, Context())
        for span in trace.spans:
            child = self._tracer.start_span(
                span.name, within, attributes=_name(span.facts), start_time=span.begun_ns
            )
            if span.failure is not None:
                child.set_status(Status(StatusCode.ERROR, span.failure))
            child.end(span.ended_ns)
        root.end(trace.ended_ns)

    def stop(self) -> None:
        """Send what waits, and give up after a short time."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(_STOP_SECONDS)


def _name(facts: Facts) -> dict[str, str | int]:
    return {f"reconciler.{key}": value for key, value in facts.items()}


class _Exporter(SpanExporter):
    """The protocol's exporter, and one warning for all that it cannot deliver in a row."""

    def __init__(self) -> None:
        self._exporter = OTLPSpanExporter()
        self._failed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:  # an address that is none, a proxy that does not speak HTTP
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failed:
            _log.warning(
                "the collector of traces does not take them; they are lost until it does."
                " Check OTEL_EXPORTER_OTLP_ENDPOINT; nothing else is concerned"
            )
        self._failed = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]
