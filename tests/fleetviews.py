"""Views of large fleets, as /fleet.json answers them, for the tests of the page."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

PHASES = ("Failed", "Unknown", "Deploying", "Stopping", "Deployed", "Stopped")
STATES = ("dead", "trouble", "unasked", "well")

_GROUPS = (
    *("ads", "assistant", "billing", "catalog", "chat", "checkout", "discovery", "feed", "fraud"),
    *("geo", "mail", "maps", "moderation", "music", "photos", "search", "speech", "support"),
    *("translate", "vision"),
)
_MODELS = (
    *("ranker", "retriever", "embedder", "classifier", "detector", "speller", "tagger", "scorer"),
    *("encoder", "decoder", "segmenter", "predictor", "summarizer", "matcher", "deduper"),
)
_FAILING = (("photos", "detector"), ("billing", "matcher-de"))
_KINDS = ("", "-de", "-fr", "-ja", "-lite")
_COMMITS = (
    ("4be1c07d", "Ada Lovelace", "Roll search/ranker out to 42", 4),
    ("d20f5a6b", "Grace Hopper", "Let photos/detector learn the new labels", 27),
    ("93ac41ee", "Edsger Dijkstra", "Stop mail/tagger-fr until its labels are right", 190),
)


def make_view(nodes: int = 300, deployments: int = 1000, replicas: int = 5) -> dict[str, Any]:
    """Return a view as /fleet.json has it: most is well, a few things are not."""
    return _Fleet(datetime.now(UTC).replace(microsecond=0)).view(nodes, deployments, replicas)


class _Fleet:
    def __init__(self, now: datetime) -> None:
        self._now = now
        self._chance = random.Random(7)  # the same fleet every time
        self._commits = [
            {
                "id": (start * 5)[:40],
                "author": author,
                "subject": subject,
                "time": self._time(minutes * 60),
            }
            for start, author, subject, minutes in _COMMITS
        ]

    def view(self, nodes: int, deployments: int, replicas: int) -> dict[str, Any]:
        groups = _GROUPS[: max(1, min(len(_GROUPS), nodes // 3))]
        machines = [self._node(groups[n % len(groups)], n // len(groups) + 1) for n in range(nodes)]
        by_group = {
            group: [node for node in machines if node["group"] == group] for group in groups
        }
        names = [f"{model}{kind}" for kind in _KINDS for model in _MODELS]
        models = [
            self._deployment(
                groups[n % len(groups)],
                names[n // len(groups) % len(names)] + ("" if n < 1500 else f"-{n}"),
                by_group[groups[n % len(groups)]],
                replicas,
            )
            for n in range(deployments)
        ]
        _tell_nodes({node["name"]: node for node in machines}, models)
        models.sort(key=lambda m: (PHASES.index(m["phase"]), m["group"], m["model"]))
        machines.sort(key=lambda node: (node["group"], node["name"]))
        wrong = self._wrong(machines, models)
        return {
            "generated_at": self._time(0),
            "seen_from": "search-01",
            "expected_from": "git",
            "state": "trouble" if wrong else "well",
            "newest": self._commits[0],
            "counts": {
                "nodes": _count(STATES, [node["state"] for node in machines]),
                "deployments": _count(PHASES, [model["phase"] for model in models]),
                "groups": len(groups),
            },
            "wrong": wrong[:500],
            "wrong_count": len(wrong),
            "groups": sorted(
                (_group(name, by_group[name], models) for name in groups),
                key=lambda group: (PHASES.index(group["phase"]), group["name"]),
            ),
            "nodes": machines,
            "deployments": models,
            "changes": self._changes(models),
        }

    def _node(self, group: str, number: int) -> dict[str, Any]:
        name = f"{group}-{number:02}"
        address = f"10.4.{_GROUPS.index(group)}.{number}:8080"
        state = {("search", 3): "dead", ("photos", 5): "trouble", ("geo", 2): "trouble"}.get(
            (group, number), "well"
        )
        silent = 74.0 if state == "dead" else 0.4
        total = 500_000_000_000
        behind = 1 if state == "trouble" or self._chance.random() < 0.02 else 0
        used = int(total * (self._chance.uniform(0.3, 0.7) if group != "photos" else 0.95))
        condition = {
            "name": "GitReachable",
            "reason": "Timeout",
            "sentence": "the config repo did not answer within 20 s; commit d20f5a6 stays in force",
        }
        sentences = {
            "dead": f"it has not answered since {self._time(74)[11:19]} UTC:"
            f" http://{address}/status did not answer within 3 s; is the agent running there?",
            "trouble": f"GitReachable does not hold (Timeout): {condition['sentence']}",
            "well": "nothing is wrong",
        }
        return {
            "name": name,
            "group": group,
            "address": address,
            "state": state,
            "sentence": sentences[state],
            "answered_at": self._time(silent),
            "silent_seconds": silent,
            "program_version": "0.1.0",
            "uptime_seconds": 86400.0,
            "restarts": 0,
            "clock_ahead_seconds": 0.1,
            "observed": self._commits[behind],
            "applied": self._commits[behind],
            "lag": {"commits": behind, "seconds": behind * 1380.0},
            "disk": {
                "free_bytes": total - used,
                "total_bytes": total,
                "models_bytes": used * 9 // 10,
            },
            "conditions": [condition] if state == "trouble" else [],
            "problems": 0,
            "deployments": _count(PHASES, []),
        }

    def _deployment(
        self, group: str, model: str, nodes: list[dict[str, Any]], replicas: int
    ) -> dict[str, Any]:
        wanted = self._chance.randrange(3, 60)
        holders = self._chance.sample(nodes, min(replicas, len(nodes)))
        stop = (group, model) == ("mail", "tagger-fr")
        standings = [self._standing(group, model, node, wanted, stop=stop) for node in holders]
        available = sum(s["phase"] == "Deployed" for s in standings)
        phase = min((s["phase"] for s in standings), key=PHASES.index)
        sentence = f"{available} of {len(holders)} replicas serve version {wanted}"
        worst = next((s for s in standings if s["phase"] == phase), None)
        if stop:
            sentence = "it is stopped; the files of the last version stay"
        elif worst and phase != "Deployed":
            sentence += f"; {worst['node']}: {worst['sentence']}"
        return {
            "group": group,
            "model": model,
            "path": f"deployments/{group}/{model}.yaml",
            "source": f"gs://acme-models/{group}/{model}",
            "description": "",
            "stop": stop,
            "phase": phase,
            "sentence": sentence,
            "wanted_versions": [wanted],
            "wanted_replicas": 0 if stop else len(holders),
            "available_replicas": available,
            "serving_replicas": sum(bool(s["serving_versions"]) for s in standings),
            "nodes": standings,
            "version_names": {},
        }

    def _standing(
        self, group: str, model: str, node: dict[str, Any], wanted: int, *, stop: bool
    ) -> dict[str, Any]:
        """Return where it stands on one node: failed, on the way, stopped, unknown or well."""
        phase, reason = "Deployed", "Serving"
        sentence, serving = f"version {wanted} serves", [wanted]
        progress = None
        if node["state"] == "dead":
            phase, reason, serving = "Unknown", "NoAnswer", []
            sentence = (
                f"it has not answered since {self._time(74)[11:19]} UTC;"
                f" its last word was Deployed: version {wanted} serves"
            )
        elif stop:
            phase, reason, serving = "Stopped", "Stopped", []
            sentence = "it is stopped as git asks"
        elif (group, model) in _FAILING or (
            (group, model) == ("fraud", "scorer-fr") and int(node["name"][-2:]) % 3 == 0
        ):
            phase, reason, serving = "Failed", "LoadFailed", [wanted - 1]
            rest = f"version {wanted - 1} goes on serving"
            if group == "billing":
                serving, rest = [], "no version serves"
            sentence = (
                f"version {wanted} could not be loaded (Data loss: unable to read variables);"
                f" {rest}"
            )
        elif self._chance.random() < 0.003:
            phase, reason, serving = "Deploying", "Downloading", [wanted - 1]
            sentence = f"version {wanted} is being downloaded; version {wanted - 1} goes on serving"
            progress = {"done_bytes": 1_310_000_000, "total_bytes": 2_200_000_000}
        return {
            "node": node["name"],
            "role": "holder",
            "phase": phase,
            "reason": reason,
            "sentence": sentence,
            "wanted_version": None if phase == "Unknown" else wanted,
            "serving_versions": serving,
            "labels": {},
            "progress": progress,
        }

    def _wrong(
        self, nodes: list[dict[str, Any]], models: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        dead = [
            _trouble(
                "serious",
                node["group"],
                node["name"],
                None,
                f"{node['name']}: {node['sentence']}",
            )
            for node in nodes
            if node["state"] == "dead"
        ]
        failed = [
            _trouble(
                "serious" if model["serving_replicas"] else "critical",
                model["group"],
                None,
                model["model"],
                f"{model['group']}/{model['model']}: {model['sentence']}",
            )
            for model in models
            if model["phase"] == "Failed"
        ]
        troubled = [
            _trouble(
                "warning",
                node["group"],
                node["name"],
                None,
                f"{node['name']}: {node['sentence']}",
            )
            for node in nodes
            if node["conditions"]
        ]
        order = ("critical", "serious", "warning")
        return sorted(dead + failed + troubled, key=lambda item: order.index(item["severity"]))

    def _changes(self, models: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "time": self._time(30 + 95 * number),
                "commit_id": self._commits[number // 4 % 3]["id"],
                "group": model["group"],
                "model": model["model"],
                "to_version": model["wanted_versions"][0],
                "result": "failed" if model["phase"] == "Failed" else "deployed",
                "reason": "LoadFailed" if model["phase"] == "Failed" else "Serving",
                "nodes": sorted(standing["node"] for standing in model["nodes"]),
                "to_name": None,
            }
            for number, model in enumerate(models[:: max(1, len(models) // 40)][:50])
        ]

    def _time(self, seconds_ago: float) -> str:
        moment = self._now - timedelta(seconds=seconds_ago)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _group(name: str, nodes: list[dict[str, Any]], models: list[dict[str, Any]]) -> dict[str, Any]:
    phases = [model["phase"] for model in models if model["group"] == name]
    return {
        "name": name,
        "phase": min(phases, key=PHASES.index, default="Stopped"),
        "enabled": True,
        "deployments": _count(PHASES, phases),
        "nodes": _count(STATES, [node["state"] for node in nodes]),
    }


def _tell_nodes(nodes: dict[str, dict[str, Any]], models: list[dict[str, Any]]) -> None:
    """Give each node its counts of phases, and the state and sentence that follow from them."""
    for model in models:
        for standing in model["nodes"]:
            node, phase = nodes[standing["node"]], standing["phase"]
            node["deployments"][phase] += 1
            if node["state"] == "well" and phase in ("Failed", "Deploying"):
                words = " failed" if phase == "Failed" else ""
                node["sentence"] = f"{model['model']}{words}: {standing['sentence']}"
                if phase == "Failed":
                    node["state"] = "trouble"


def _trouble(
    severity: str, group: str, node: str | None, model: str | None, sentence: str
) -> dict[str, Any]:
    return {
        "severity": severity,
        "group": group,
        "node": node,
        "model": model,
        "sentence": sentence,
    }


def _count(names: tuple[str, ...], found: list[str]) -> dict[str, int]:
    return {name: Counter(found)[name] for name in names}
