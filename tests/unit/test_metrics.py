"""What Prometheus reads: complete, documented, bounded, and nothing of models that left."""

import re
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from reconciler.model import Commit, Condition, Deployment, Outcome, Phase
from reconciler.status import metrics as module
from reconciler.status.changes import Change, Result
from reconciler.status.metrics import Metrics
from reconciler.status.report import Disk, NodeReport

COMMIT = Commit("a", "Ada", "Subject", 1000)


def report(*models: str) -> NodeReport:
    outcomes = tuple(
        Outcome(
            Deployment(model, "search", "p", "gs://b/m"),
            Phase.DEPLOYED,
            "Serving",
            "serves",
            42,
            (41, 42),
        )
        for model in models
    )
    conditions = (
        Condition("GitReachable", True, "Fetched", "s"),
        Condition("BucketReachable", False, "Forbidden", "s"),
    )
    return NodeReport(
        "n", "search", "0.1.0", 0, 1, True, "", COMMIT, COMMIT, outcomes, (), conditions, (),
        Disk(10, 100, 5),
    )  # fmt: skip


def change(seconds: float | None, result: Result = Result.DEPLOYED) -> Change:
    return Change(0, COMMIT, "ranker", 41, 42, result, "R", "w", seconds)


def samples(metrics: Metrics) -> dict[tuple[str, Mapping[str, str]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, frozendict(sample.labels)): sample.value
        for family in families
        for sample in family.samples
    }


class frozendict(dict[str, str]):  # noqa: N801
    """A dict that can be a key."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozendict(labels)))


def test_the_report_is_what_a_scrape_sees_and_models_that_left_are_gone() -> None:
    metrics = Metrics("0.1.0")
    metrics.show(report("ranker", "spell"))

    assert value(metrics, "reconciler_applied_commit_timestamp_seconds") == 1000
    assert value(metrics, "reconciler_served_version", group="search", model="ranker") == 42
    assert value(metrics, "reconciler_wanted_version", group="search", model="spell") == 42
    phase = {"group": "search", "model": "ranker", "phase": "Deployed", "reason": "Serving"}
    assert value(metrics, "reconciler_deployment_phase", **phase) == 1
    assert value(metrics, "reconciler_deployments", phase="Deployed") == 2
    assert value(metrics, "reconciler_deployments", phase="Failed") == 0
    assert value(metrics, "reconciler_condition", condition="GitReachable") == 1
    assert value(metrics, "reconciler_condition", condition="BucketReachable") == 0
    assert value(metrics, "reconciler_disk_free_bytes") == 10
    assert value(metrics, "reconciler_disk_size_bytes") == 100
    assert value(metrics, "reconciler_models_size_bytes") == 5

    metrics.show(report("ranker"))
    assert b"spell" not in metrics.render()


def test_what_happens_is_counted() -> None:
    metrics = Metrics("0.1.0")
    metrics.count_change(change(7.0))
    metrics.count_change(change(None, Result.FAILED))
    metrics.observe_tick(0.03)
    metrics.note_fetch(1234.0)
    metrics.count_downloaded(100)
    metrics.count_downloaded(11)
    metrics.count_download_error("ShortBody")
    metrics.count_reload("OK")

    assert value(metrics, "reconciler_build_info", version="0.1.0") == 1
    assert value(metrics, "reconciler_commit_to_serving_seconds_sum") == 7.0
    assert value(metrics, "reconciler_commit_to_serving_seconds_count") == 1
    assert value(metrics, "reconciler_commit_to_serving_seconds_bucket", le="5.0") == 0
    assert value(metrics, "reconciler_commit_to_serving_seconds_bucket", le="10.0") == 1
    assert value(metrics, "reconciler_changes_total", result="deployed") == 1
    assert value(metrics, "reconciler_changes_total", result="failed") == 1
    assert value(metrics, "reconciler_changes_total", result="removed") == 0
    assert value(metrics, "reconciler_tick_duration_seconds_count") == 1
    assert value(metrics, "reconciler_git_last_fetch_success_timestamp_seconds") == 1234.0
    assert value(metrics, "reconciler_downloaded_bytes_total") == 111
    assert value(metrics, "reconciler_download_errors_total", reason="ShortBody") == 1
    assert value(metrics, "reconciler_reloads_total", result="OK") == 1


def test_a_label_takes_a_bounded_number_of_words() -> None:
    metrics = Metrics("0.1.0")
    for number in range(100):
        metrics.count_download_error(f"Reason{number}")

    counted = [
        value for (name, _), value in samples(metrics).items()
        if name == "reconciler_download_errors_total"
    ]  # fmt: skip
    assert len(counted) == 33
    assert sum(counted) == 100
    assert value(metrics, "reconciler_download_errors_total", reason="Other") == 68


def test_the_table_lists_every_metric_and_its_label() -> None:
    metrics = Metrics("0.1.0")
    metrics.show(report("ranker"))
    metrics.count_change(change(1.0))
    metrics.count_download_error("X")
    metrics.count_reload("OK")
    documented: dict[str, set[str]] = {}
    name = ""
    for line in str(module.__doc__).splitlines():
        if found := re.match(r"reconciler_\w+(?=  )|(?= {50})", line):
            name = found[0] or name
            documented.setdefault(name, set()).update(re.findall(r"\w+", line[59:68]))

    exported: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.name.endswith("_created"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exported[name] = labels

    assert exported == documented


def test_two_nodes_in_one_process_do_not_share_anything() -> None:
    first, second = Metrics("1"), Metrics("2")
    first.count_downloaded(5)

    assert value(second, "reconciler_downloaded_bytes_total") == 0
