"""deploy/monitoring: Prometheus takes it, alerts fire as written, and every name in it exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reconciler.model import Commit, Condition, Deployment, Outcome, Phase
from reconciler.planning.memory import Memory
from reconciler.planning.plan import plan
from reconciler.planning.steps import World
from reconciler.status.changes import Change, Result
from reconciler.status.metrics import Metrics
from reconciler.status.report import Disk, NodeReport
from tests.unit import worlds

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARDS = ("grafana-fleet.json", "grafana-node.json")
PROMTOOL = shutil.which("promtool")
COMMIT = Commit("a" * 40, "Ada", "Subject", 1000)
UNITS = {"short", "none", "s", "bytes", "Bps", "percentunit", "ops"}
_OF_PROMETHEUS = {"up", "ALERTS"}

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None,
    reason="promtool is not on PATH: the rules were NOT checked (Debian: `make system-packages`)",
)


def promtool(*arguments: str | Path) -> None:
    command = [str(PROMTOOL), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def exported() -> dict[str, set[str]]:
    """Return the names of all samples that a node exports, each with its labels."""
    metrics = Metrics("0.1.0")
    deployment = Deployment("ranker", "search", "p", "gs://b/m")
    outcomes = (Outcome(deployment, Phase.DEPLOYED, "Serving", "serves", 42, (42,)),)
    condition = Condition("GitReachable", True, "Fetched", "s")
    metrics.show(
        NodeReport("n", "search", "0.1.0", 0, 1, True, "", COMMIT, COMMIT, outcomes, (),
                   (condition,), (), Disk(10, 100, 5))
    )  # fmt: skip
    metrics.count_change(Change(0, COMMIT, "ranker", 41, 42, Result.DEPLOYED, "R", "w", 1.0))
    metrics.count_download_error("Reason")
    metrics.count_reload("OK")
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((FOLDER / "rules.yml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return loaded


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression of rules and panels with what it belongs to."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for name in DASHBOARDS:
        for panel in dashboard(name)["panels"]:
            for target in panel.get("targets", ()):
                yield f"{name}: {panel['title']}", target["expr"]
        for variable in dashboard(name)["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{name}: ${variable['name']}", variable["definition"]


@needs_promtool
def test_prometheus_takes_the_config_and_the_rules() -> None:
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_prometheus_takes_every_way_of_naming_the_nodes(tmp_path: Path) -> None:
    config = (FOLDER / "prometheus.yml").read_text()
    beginning, found, end = config.partition("    file_sd_configs:\n")
    _, rest = end.split("\n\n", 1)
    snippets = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert found
    assert len(snippets) == 3
    for number, text in enumerate(snippets):
        # Debian builds Prometheus without these two; the rest of their snippets is checked.
        snippet = re.sub(
            r"(nomad|kubernetes)_sd_configs:\n(?: {6}.*\n)+",
            "static_configs:\n      - targets: [a:1]\n",
            text,
        )
        file = tmp_path / f"{number}.yml"
        file.write_text(f"{beginning}{snippet}\n{rest}")
        (tmp_path / "rules.yml").write_text((FOLDER / "rules.yml").read_text())
        promtool("check", "config", file)


@needs_promtool
def test_the_alerts_fire_as_written() -> None:
    promtool("test", "rules", "rules_test.yml")


@needs_promtool
def test_prometheus_understands_every_panel(tmp_path: Path) -> None:
    file = tmp_path / "panels.yml"
    panels = [
        expression.replace("$__rate_interval", "5m")
        for _, expression in expressions()
        if not expression.startswith("label_values")
    ]
    recorded = [{"record": f"panel_{i}", "expr": text} for i, text in enumerate(panels)]
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))
    assert len(recorded) > 40
    promtool("check", "rules", file)


def test_every_metric_and_label_that_is_named_is_exported() -> None:
    names = exported()
    for where, expression in expressions():
        named = re.findall(r"\b(?:reconciler_\w+|up\b)", re.sub(r'"[^"]*"', '""', expression))
        assert named, where
        assert set(named) <= names.keys() | _OF_PROMETHEUS, where
        by_scrape = {"job", "instance"}
        for metric, selector in re.findall(r"(reconciler_\w+)\s*{([^}]*)}", expression):
            labels = set(re.findall(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', '""', selector)))
            assert labels <= names[metric] | by_scrape, (where, metric)
        every_label = set().union(*(names.get(metric, set()) for metric in named)) | by_scrape
        for labels_text in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
            assert set(re.findall(r"\w+", labels_text)) <= every_label, where


def test_every_alert_is_tested_and_tells_what_it_means() -> None:
    tested = (FOLDER / "rules_test.yml").read_text()
    for rule in rules():
        assert f'"{rule["alert"]}", alertstate="firing"' in tested, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["for"]
        assert {"summary", "description"} == set(rule["annotations"])
        # An alert for each node would have its address as a label; it may count nodes only.
        assert "instance" not in str(rule["annotations"]), rule["alert"]


def test_every_condition_of_the_agent_has_one_alert_of_its_own() -> None:
    world = World(worlds.desired(), worlds.available(), worlds.local({}), worlds.served({}))
    known = {item.name for item in plan(world, Memory(), worlds.LIMITS, worlds.NOW).conditions}
    assert "GitReachable" in known
    named = [
        word
        for rule in rules()
        for words in re.findall(r'\bcondition=~?"([^"]+)"', rule["expr"])
        if rule["alert"] != "ReconcilerDeploymentFailed"  # leaves out what a condition tells
        for word in words.split("|")
    ]
    assert sorted(named) == sorted(known)
    rest = next(rule for rule in rules() if rule["alert"] == "ReconcilerConditionFails")
    left_out = [w for words in re.findall(r'!~"([^"]+)"', rest["expr"]) for w in words.split("|")]
    assert sorted(left_out) == sorted(known)


def test_the_page_lists_every_alert_with_its_severity() -> None:
    page = (FOLDER.parents[1] / "docs" / "monitoring.md").read_text()
    listed = re.findall(r"^\| `(Reconciler\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert sorted(listed) == sorted((rule["alert"], rule["labels"]["severity"]) for rule in rules())


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafana_can_take_the_dashboard(name: str) -> None:
    content = dashboard(name)
    panels = content["panels"]
    assert content["uid"] == f"reconciler-{name.removeprefix('grafana-').removesuffix('.json')}"
    assert "id" not in content  # Grafana gives its own; one from elsewhere overwrites another's
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in {"stat", "table", "timeseries", "state-timeline"}
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    variables = {variable["name"] for variable in content["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(content)))
    assert used == variables
    other = {f"/d/{dashboard(item)['uid']}" for item in DASHBOARDS} - {f"/d/{content['uid']}"}
    assert {link["url"] for link in content["links"]} == other
