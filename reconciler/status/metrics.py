"""What Prometheus is told.

Counts and durations are fed by the agent as they happen; everything that describes the node as it
is now (phases, versions, conditions, disk) is derived from the newest report when it is scraped,
so a model that left is gone from the next scrape. Labels hold groups and models of the config repo
and words of this program only, never a commit, a path or a sentence.

=========================================================  =========  ===========================
name                                                       labels     meaning
=========================================================  =========  ===========================
reconciler_build_info                                      version    1; which program runs
reconciler_commit_to_serving_seconds                                  histogram: a commit's time
                                                                      to the version answering
reconciler_changes_total                                   result     lines of the history
reconciler_tick_duration_seconds                                      histogram: one tick
reconciler_git_last_fetch_success_timestamp_seconds                   last fetch that worked
reconciler_downloaded_bytes_total                                     bytes from the bucket
reconciler_download_errors_total                           reason     attempts that failed
reconciler_reloads_total                                   result     reloads of the server
reconciler_applied_commit_timestamp_seconds                           time of the newest commit
                                                                      that the node is as asked by
reconciler_deployments                                     phase      how many are in a phase
reconciler_deployment_phase                                group,     1 for the phase and reason
                                                           model,     of each deployment, and of
                                                           phase,     each model on its way out
                                                           reason
reconciler_wanted_version                                  group,     what git came to
                                                           model
reconciler_served_version                                  group,     highest that answers
                                                           model
reconciler_condition                                       condition  1 holds, 0 does not
reconciler_disk_free_bytes                                            free for models
reconciler_disk_size_bytes                                            size of the file system
reconciler_models_size_bytes                                          taken by models
=========================================================  =========  ===========================
"""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from reconciler.model import Outcome, Phase
from reconciler.status.changes import Change, Result
from reconciler.status.report import NodeReport

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COMMIT_BUCKETS = (1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
_TICK_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_MAX_WORDS = 32
"""Values one label takes; words beyond are counted as `Other`, so a bug cannot flood a scrape."""
_DEPLOYMENT = ("group", "model")


class Metrics:
    """One node's metrics, in a registry of their own."""

    def __init__(self, program_version: str) -> None:
        self._registry = CollectorRegistry()
        self._standing = _Standing()
        self._registry.register(self._standing)
        build = Gauge(
            "reconciler_build_info",
            "Which program runs.",
            ["version"],
            registry=self._registry,
        )
        build.labels(program_version).set(1)
        self._commit_to_serving = Histogram(
            "reconciler_commit_to_serving_seconds",
            "From a commit's time to the version it asks for answering requests.",
            buckets=_COMMIT_BUCKETS,
            registry=self._registry,
        )
        self._changes = Counter(
            "reconciler_changes",
            "Changes of deployments by how they came out.",
            ["result"],
            registry=self._registry,
        )
        for result in Result:
            self._changes.labels(result.value)
        self._tick_duration = Histogram(
            "reconciler_tick_duration_seconds",
            "How long one tick of the loop takes.",
            buckets=_TICK_BUCKETS,
            registry=self._registry,
        )
        self._last_fetch = Gauge(
            "reconciler_git_last_fetch_success_timestamp_seconds",
            "When the config repo was last fetched, Unix time; 0 before the first time.",
            registry=self._registry,
        )
        self._downloaded = Counter(
            "reconciler_downloaded_bytes",
            "Bytes of models that downloads brought to disk or found there when resumed.",
            registry=self._registry,
        )
        self._download_errors = _WordCounter(
            "reconciler_download_errors",
            "Attempts to download a file that failed.",
            "reason",
            self._registry,
        )
        self._reloads = _WordCounter(
            "reconciler_reloads",
            "Reloads asked of TensorFlow Serving by their result.",
            "result",
            self._registry,
        )

    def observe_tick(self, seconds: float) -> None:
        """Note how long a tick took."""
        self._tick_duration.observe(seconds)

    def note_fetch(self, time_seconds: float) -> None:
        """Note when a fetch of the config repo succeeded, Unix time."""
        self._last_fetch.set(time_seconds)

    def count_downloaded(self, size_bytes: int) -> None:
        """Count bytes that came from a source."""
        self._downloaded.inc(size_bytes)

    def count_download_error(self, reason: str) -> None:
        """Count a failed attempt by its CamelCase reason."""
        self._download_errors.count(reason)

    def count_reload(self, result: str) -> None:
        """Count a reload by its result: `OK`, or the word for what went wrong."""
        self._reloads.count(result)

    def count_change(self, change: Change) -> None:
        """Count a line of the history."""
        self._changes.labels(change.result.value).inc()
        if change.commit_to_serving_seconds is not None:
            self._commit_to_serving.observe(change.commit_to_serving_seconds)

    def show(self, report: NodeReport) -> None:
        """Let the next scrape describe the node as `report` does."""
        self._standing.report = report

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _WordCounter:
    """A counter by one word, of which it takes a bounded number."""

    def __init__(self, name: str, help_text: str, label: str, registry: CollectorRegistry) -> None:
        self._counter = Counter(name, help_text, [label], registry=registry)
        self._words: set[str] = set()

    def count(self, word: str) -> None:
        if word not in self._words and len(self._words) >= _MAX_WORDS:
            word = "Other"
        self._words.add(word)
        self._counter.labels(word).inc()


class _Standing(Collector):
    """Describes the newest report at the moment of a scrape."""

    def __init__(self) -> None:
        self.report: NodeReport | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        report = self.report
        if report is None:
            return
        if report.applied is not None:
            yield GaugeMetricFamily(
                "reconciler_applied_commit_timestamp_seconds",
                "Time of the newest commit that all deployments of the node came to be as, Unix"
                " time; absent before the first.",
                value=report.applied.time_seconds,
            )
        yield _family(
            "deployments",
            "Deployments of this node by phase.",
            ("phase",),
            (((phase,), sum(o.phase is phase for o in report.outcomes)) for phase in Phase),
        )
        outcomes = (*report.outcomes, *report.removals)
        yield _family(
            "deployment_phase",
            "1 for the phase that a deployment is in, and why; other phases are absent.",
            ("group", "model", "phase", "reason"),
            (((o.deployment.group, o.deployment.model, o.phase, o.reason), 1) for o in outcomes),
        )
        yield _family(
            "wanted_version",
            "The version that the config repo came to.",
            _DEPLOYMENT,
            ((_place(o), o.wanted) for o in outcomes if o.wanted is not None),
        )
        yield _family(
            "served_version",
            "The highest version that answers requests; absent where none does.",
            _DEPLOYMENT,
            ((_place(o), max(o.serving)) for o in outcomes if o.serving),
        )
        yield _family(
            "condition",
            "1 where a condition of the node holds, 0 where there is something to act on.",
            ("condition",),
            (((condition.name,), condition.holds) for condition in report.conditions),
        )
        if report.disk is not None:
            for name, help_text, value in (
                ("disk_free_bytes", "Free for models.", report.disk.free_bytes),
                ("disk_size_bytes", "Size of the models' file system.", report.disk.total_bytes),
                ("models_size_bytes", "Taken by installed versions.", report.disk.models_bytes),
            ):
                yield GaugeMetricFamily(f"reconciler_{name}", help_text, value=value)


def _place(outcome: Outcome) -> tuple[str, str]:
    return outcome.deployment.group, outcome.deployment.model


def _family(
    name: str,
    help_text: str,
    labels: Sequence[str],
    values: Iterable[tuple[Sequence[str], float]],
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"reconciler_{name}", help_text, labels=labels)
    for words, value in values:
        family.add_metric(words, value)
    return family
