"""Traces as a collector receives them: from the real exporter, and from a whole node."""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from reconciler import __version__
from reconciler.tracing import open_tracing
from reconciler.tracing.passes import Span, Trace
from tests.bucket import run_fake_gcs
from tests.collector import Collector, ReceivedSpan, run_collector
from tests.e2e.stage import GROUP, Stage, deployment, wait_until

SECOND_NS = 10**9
NOW_NS = 1_700_000_000 * SECOND_NS
TRACE = Trace(
    (
        Span("fetch git", NOW_NS, NOW_NS + SECOND_NS, {}),
        Span("download", NOW_NS + SECOND_NS, NOW_NS + 3 * SECOND_NS, {"model": "m", "version": 42}),
        Span("list", NOW_NS, NOW_NS + SECOND_NS, {"source": "gs://b/m"}, "Forbidden"),
    ),
    {"commit": "c1", "settled": True},
    NOW_NS + 5 * SECOND_NS,
)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    level = logging.getLogger("opentelemetry").level
    with run_collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        yield server
    logging.getLogger("opentelemetry").setLevel(level)


def by_name(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    return {span.name: span for span in spans}


def test_a_trace_arrives_as_it_was(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    tracing = open_tracing("node-7", {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert tracing.send is not None
    tracing.send(TRACE)
    tracing.close()

    spans = by_name(collector.spans)
    assert spans.keys() == {"reconcile", "fetch git", "download", "list"}
    root = spans.pop("reconcile")
    assert root.parent == b""
    assert (root.begun_ns, root.ended_ns) == (NOW_NS, NOW_NS + 5 * SECOND_NS)
    assert root.facts == {"reconciler.commit": "c1", "reconciler.settled": True}
    assert {(span.trace, span.parent) for span in spans.values()} == {(root.trace, root.id)}
    download = spans["download"]
    assert download.facts == {"reconciler.model": "m", "reconciler.version": 42}
    assert download.ended_ns - download.begun_ns == 2 * SECOND_NS
    assert spans["list"].error == "Forbidden"
    assert (spans["download"].error, spans["fetch git"].error, root.error) == (None, None, None)
    assert root.resource["service.name"] == "reconciler"
    assert root.resource["service.instance.id"] == "node-7"
    assert root.resource["service.version"] == __version__
    assert root.resource["deployment.environment.name"] == "test"
    assert "Bearer abc" in collector.headers[0]


def test_the_platform_may_name_the_service(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "models")
    tracing = open_tracing("node-7", {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert tracing.send is not None
    tracing.send(TRACE)
    tracing.close()
    assert collector.spans[0].resource["service.name"] == "models"


def test_a_collector_that_refuses_is_warned_of_once_without_its_address(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    address = collector.url.replace("//", "//me:s3cr3t@")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    tracing = open_tracing("node-7", {"OTEL_EXPORTER_OTLP_ENDPOINT": address})
    assert tracing.send is not None
    for _ in range(2):
        collector.asked.clear()
        tracing.send(TRACE)
        assert collector.asked.wait(30)
    tracing.close()

    assert [record.message for record in caplog.records] == [
        "the collector of traces does not take them; they are lost until it does."
        " Check OTEL_EXPORTER_OTLP_ENDPOINT; nothing else is concerned"
    ]
    assert collector.spans == []


@pytest.mark.parametrize("address", ["not an address", "http://127.0.0.1:1/s3cr3t", "ftp://x:y@z"])
def test_an_address_that_cannot_be_used_costs_a_warning(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    tracing = open_tracing("node-7", {"OTEL_EXPORTER_OTLP_ENDPOINT": address})
    if tracing.send is not None:
        tracing.send(TRACE)
        wait_until(lambda: caplog.records, "a warning")
    tracing.close()
    (record,) = caplog.records
    assert "trace" in record.message
    assert address not in caplog.text


def test_a_collector_that_hangs_does_not_hold_the_end_up(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "120")
    collector.may_answer.clear()
    tracing = open_tracing("node-7", {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert tracing.send is not None
    tracing.send(TRACE)
    assert collector.asked.wait(30)
    closing = Thread(target=tracing.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert not collector.bodies  # it ended although the collector has not answered yet


def test_a_node_without_the_packages_works_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "reconciler.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    tracing = open_tracing("node-7", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert tracing.send is None
    assert "install tfserving-reconciler[tracing]" in caplog.text


def test_without_a_collector_nothing_of_it_is_loaded() -> None:
    script = (
        "import sys, reconciler.agent, reconciler.cli.run\n"
        "from reconciler.tracing import open_tracing\n"
        "assert open_tracing('n', {}).send is None\n"
        "assert 'reconciler.tracing.otlp' not in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk.trace')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def wait_ticks(stage: Stage, count: int) -> None:
    name = "reconciler_tick_duration_seconds_count"
    before = stage.metric(name)
    wait_until(lambda: stage.metric(name) >= before + count, f"{count} more looks")


def test_a_rollout_of_a_node_is_one_trace_and_rest_is_none(
    tmp_path: Path, collector: Collector
) -> None:
    with run_fake_gcs() as endpoint:
        stage = Stage(tmp_path, endpoint)
        try:
            stage.publish("ranker", 1)
            stage.commit({"groups/g.yaml": GROUP})
            stage.start()
            wait_until(lambda: stage.condition("ServingReachable").get("holds"), "an answer")
            commit = stage.commit(deployment("ranker"))
            stage.wait_served("ranker", 1)
            wait_until(lambda: "download" in by_name(collector.spans), "a trace")
            wait_ticks(stage, 10)
            spans = collector.spans
            wait_ticks(stage, 10)
            stage.stop_agent()
        finally:
            stage.close()

    assert collector.spans == spans, "looks at a node at rest became a trace"
    download = by_name(spans)["download"]
    rollout = by_name([span for span in spans if span.trace == download.trace])
    assert rollout.keys() >= {"reconcile", "fetch git", "list", "plan", "download", "reload"}
    root = rollout["reconcile"]
    assert root.facts == {"reconciler.commit": commit, "reconciler.settled": True}
    assert download.facts == {"reconciler.model": "ranker", "reconciler.version": 1}
    assert rollout["list"].facts == {"reconciler.source": f"gs://{stage.bucket.name}/ranker"}
    assert root.begun_ns <= download.begun_ns <= download.ended_ns <= rollout["reload"].ended_ns
    assert root.resource["service.instance.id"] == "node"
    assert root.ended_ns <= time.time_ns()
