"""deploy/monitoring: Prometheus takes it, alerts fire as written, and every name in it exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reconciler.demo.services import free_port
from reconciler.model import Commit, Condition, Deployment, Outcome, Phase
from reconciler.planning.memory import Memory
from reconciler.planning.plan import plan
from reconciler.planning.steps import World
from reconciler.status.changes import Change, Result
from reconciler.status.metrics import CONTENT_TYPE, Metrics
from reconciler.status.report import Disk, NodeReport
from tests.e2e.stage import wait_until
from tests.unit import worlds

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARDS = ("grafana-fleet.json", "grafana-node.json")
PROMTOOL = shutil.which("promtool")
PROMETHEUS = shutil.which("prometheus")
COMMIT = Commit("a" * 40, "Ada", "Subject", 1000)
UNITS = {"short", "none", "s", "bytes", "Bps", "percentunit", "ops"}
_OF_PROMETHEUS = {"up", "ALERTS"}

needs_prometheus = pytest.mark.skipif(
    PROMTOOL is None or PROMETHEUS is None,
    reason="prometheus and promtool are not on PATH: the rules were NOT checked"
    " (Debian: `make system-packages`)",
)


def promtool(*arguments: str | Path) -> None:
    command = [str(PROMTOOL), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def make_metrics(phase: Phase = Phase.DEPLOYED) -> Metrics:
    """Return the metrics of a node that has something to tell by each of them."""
    metrics = Metrics("0.1.0")
    deployment = Deployment("ranker", "search", "p", "gs://b/m")
    outcomes = (Outcome(deployment, phase, "Serving", "serves", 42, (42,)),)
    condition = Condition("GitReachable", False, "Unreachable", "s")
    metrics.show(
        NodeReport("n", "search", "0.1.0", 0, 1, True, "", COMMIT, COMMIT, outcomes, (),
                   (condition,), (), Disk(10, 100, 5))
    )  # fmt: skip
    metrics.count_change(Change(0, COMMIT, "ranker", 41, 42, Result.DEPLOYED, "R", "w", 1.0))
    metrics.count_download_error("Reason")
    metrics.count_reload("OK")
    return metrics


def exported() -> dict[str, set[str]]:
    """Return the names of all samples that a node exports, each with its labels."""
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(make_metrics().render().decode()):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


@contextmanager
def run_node(phase: Phase) -> Iterator[str]:
    """Serve the metrics of a node as its status endpoint does, and yield its host and port."""
    metrics = make_metrics(phase)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics.render()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(30)


@contextmanager
def run_prometheus(folder: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run Prometheus on the config in a folder, and yield what asks its API."""
    port = free_port()
    command = [
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:

        def ask(path: str, **query: str) -> dict[str, Any]:
            answer = httpx.get(f"{url}/api/v1/{path}", params=query, timeout=10, trust_env=False)
            assert answer.status_code == 200, answer.text
            data: dict[str, Any] = answer.json()["data"]
            return data

        def is_ready() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                return httpx.get(f"{url}/-/ready", timeout=5, trust_env=False).is_success
            except httpx.TransportError:
                return False

        try:
            wait_until(is_ready, "Prometheus answers")
            yield ask
        finally:
            process.terminate()
            process.wait(30)


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


@needs_prometheus
def test_prometheus_takes_the_config_and_the_rules() -> None:
    promtool("check", "config", "prometheus.yml")


@needs_prometheus
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


@needs_prometheus
def test_the_alerts_fire_as_written() -> None:
    promtool("test", "rules", "rules_test.yml")


@needs_prometheus
def test_a_running_prometheus_reads_nodes_and_answers_every_panel_and_rule(tmp_path: Path) -> None:
    with run_node(Phase.DEPLOYED) as first, run_node(Phase.FAILED) as second:
        (tmp_path / "targets.yml").write_text(json.dumps([{"targets": [first, second]}]))
        (tmp_path / "rules.yml").write_text((FOLDER / "rules.yml").read_text())
        config = (FOLDER / "prometheus.yml").read_text()
        (tmp_path / "prometheus.yml").write_text(re.sub(r": 1[05]s\n", ": 1s\n", config))
        with run_prometheus(tmp_path) as ask:
            query = 'up{job="reconciler"} == 1'
            wait_until(lambda: len(ask("query", query=query)["result"]) == 2, "both scrapes")
            found = ask("query", query="count by (phase) (reconciler_deployment_phase)")["result"]
            assert {item["metric"]["phase"] for item in found} == {"Deployed", "Failed"}
            for where, expression in expressions():
                if not expression.startswith("label_values"):
                    text = expression.replace("$__rate_interval", "1m").replace("$group", ".*")
                    assert "result" in ask("query", query=text.replace("$node", first)), where

            wait_until(
                lambda: {"ReconcilerGitUnreachable", "ReconcilerDeploymentFailed"} <= pending(ask),
                "two alerts that are about to fire",
            )
            groups = ask("rules")["groups"]
            health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
            assert health == {rule["alert"]: "ok" for rule in rules()}


def pending(ask: Callable[..., dict[str, Any]]) -> set[str]:
    """Return the alerts that Prometheus has found a reason for, once all rules were evaluated."""
    found = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    if any(rule["health"] == "unknown" for rule in found):
        return set()
    return {rule["name"] for rule in found if rule["state"] != "inactive"}


@needs_prometheus
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
