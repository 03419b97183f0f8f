"""Traces of what a node does, one for each stretch of work, where a collector is named.

`passes` notes what is done, `otlp` turns a finished trace into OpenTelemetry's form and sends it.
Between the two stand plain values, so that OpenTelemetry stays out of the agent's loop: without a
collector it is not even imported, and one that is away costs a warning.

The spans of a trace are `fetch git`, `list`, `plan` and the steps (`download`, `reload`, `try`,
`remove`, ...), all below one named `reconcile`. They carry commit, model, version and source.
"""

import logging
from collections.abc import Mapping

from reconciler.tracing.passes import Tracing

__all__ = ["ENDPOINT", "Tracing", "open_tracing"]

_log = logging.getLogger(__name__)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""The variable that names the collector; the others of OpenTelemetry's exporter count as well."""


def open_tracing(node: str, environment: Mapping[str, str]) -> Tracing:
    """Return what sends the traces of `node` to the collector that the environment names, if any.

    A platform may name one to every program that it runs, so one that cannot be used is no reason
    not to start.
    """
    if not environment.get(ENDPOINT):
        return Tracing()
    try:
        from reconciler.tracing.otlp import Collector

        collector = Collector(node)
    except ImportError:
        _log.warning(
            "%s is set, but what sends traces is not installed; install"
            " tfserving-reconciler[tracing] or unset it. The node works on without traces",
            ENDPOINT,
        )
        return Tracing()
    except Exception as error:
        # Its message may quote the endpoint or its headers, where a token can stand.
        _log.warning(
            "traces cannot be sent as the OTEL_* variables say (%s); the node works on without",
            type(error).__name__,
        )
        return Tracing()
    return Tracing(collector.send, collector.stop)
