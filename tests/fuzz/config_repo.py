"""A commit of which one file is made of any bytes: parse, hold together, place, plan, report."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reconciler.config_repo.assemble import File, assemble
from reconciler.config_repo.documents import parse_document
from reconciler.config_repo.layout import Place, locate
from reconciler.model import Desired
from reconciler.planning.memory import Memory
from reconciler.planning.steps import World
from reconciler.status.report import NodeReport, render
from tests.fuzz.target import Target
from tests.statuses import COMMIT
from tests.unit.worlds import available, local, make_plan, served

_EXAMPLE = Path(__file__).parents[2] / "example-config-repo"
_DEPLOYMENT = "deployments/g/ranker.yaml"
_LOCK = "deployments/g/ranker.lock.yaml"
_VALID = {
    "fleet.yaml": b"keep: 1\n",
    "groups/g.yaml": b"nodes: [n, m]\n",
    _DEPLOYMENT: b"source: gs://acme-models/ranker\nversion: 42\n",
}
_FLEET_TEXT = b"""\
keep: 2
max_removals: 50%
allow_empty: true
freezes:
  - start: "0 18 * * fri"
    duration: 62h
    timezone: Europe/Berlin
    reason: weekend
"""
_GROUP_TEXT = b"""\
nodes:
  - n
  - {name: m, address: "m:8080", weight: 2}
quota: {disk: 10GB, models: 20}
"""
_DEPLOYMENT_TEXT = b"""\
source: gs://acme-models/ranker
version: 42
replicas: 2
labels: {stable: 42, canary: 41}
rollout:
  strategy: overlap
  waves: [1, 50%, 100%]
  pause: 10m
metadata: {accuracy: "0.98"}
"""
_LOCK_TEXT = b"""\
model: ranker
source: gs://acme-models/ranker
version: 42
locked:
- {version: 42, files: 2, bytes: 10, digest: "sha256:%064x"}
- {version: 41, files: 2, bytes: 10, digest: "sha256:%064x"}
""" % (42, 41)


def make_targets() -> Iterator[Target]:
    """Yield a target for each kind of file."""
    fleet = (_EXAMPLE / "fleet.yaml").read_bytes()
    groups = [path.read_bytes() for path in sorted(_EXAMPLE.glob("groups/*.yaml"))]
    models = [path.read_bytes() for path in sorted(_EXAMPLE.glob("deployments/*/*.yaml"))]
    yield Target("fleet.yaml", (_FLEET_TEXT, fleet), partial(follow, "fleet.yaml"))
    yield Target("group", (_GROUP_TEXT, *groups), partial(follow, "groups/g.yaml"))
    yield Target("deployment", (_DEPLOYMENT_TEXT, *models), partial(follow, _DEPLOYMENT))
    yield Target("lock", (_LOCK_TEXT,), partial(follow, _LOCK))


def follow(path: str, data: bytes) -> None:
    """Do with a commit all that a node does before it touches anything."""
    files = []
    for name, content in {**_VALID, path: data}.items():
        place = locate(name)
        assert isinstance(place, Place)
        files.append(File(name, place, "", parse_document(place.kind, content)))
    fleet = assemble(files)
    group = fleet.groups.get("g")
    if group is None:
        return
    fleet.place(group)
    own = tuple(item for item in fleet.deployments.values() if item.group == "g")
    world = World(
        desired=Desired(COMMIT, "n", group, own, fleet.policy, problems=tuple(fleet.problems)),
        available=available(),
        local=local({}),
        served=served({}),
        wall_seconds=1e9,
    )
    made = make_plan(world, Memory())
    report = NodeReport(
        "n", "g", "0", 0, 1e9, True, "x", COMMIT, COMMIT, made.outcomes, (), made.conditions
    )
    json.dumps(render(report))
