"""Five nodes: models move between them, versions go out in waves, and nodes die and join."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from reconciler.planning.placement import holders
from tests.e2e.stage import Stage, deployment, wait_until

NAMES = ("n1", "n2", "n3", "n4", "n5")
DRAIN_SECONDS = 3
FLEET = {"fleet.yaml": f"drain: {DRAIN_SECONDS}s\nmax_removals: 10\n"}
WAVES = {"waves": [1, "50%", "100%"], "pause": "300ms"}

Fleet = dict[str, Stage]


@pytest.fixture
def fleet(make_stage: Callable[..., Stage]) -> Fleet:
    """Five nodes that follow one repository, not started yet."""
    first = make_stage(node=NAMES[0])
    return {first.node: first} | {name: make_stage(node=name, beside=first) for name in NAMES[1:]}


def group(fleet: Mapping[str, Stage], **weights: float) -> dict[str, str]:
    """The group's file; a node that is given a weight has it."""
    nodes = [
        {
            "name": name,
            "address": f"127.0.0.1:{stage.status_port}",
            "weight": weights.get(name, 1),
        }
        for name, stage in fleet.items()
    ]
    return {"groups/g.yaml": json.dumps({"nodes": nodes})}


def place(fleet: Mapping[str, Stage], model: str, replicas: int, **weights: float) -> set[str]:
    return set(holders(f"g/{model}", dict.fromkeys(fleet, 1.0) | weights, replicas))


def start(fleet: Mapping[str, Stage]) -> None:
    for stage in fleet.values():
        stage.start_agent()
    for stage in fleet.values():
        stage.start_server()


def serving(fleet: Mapping[str, Stage], model: str, version: int = 1) -> set[str]:
    return {name for name, stage in fleet.items() if version in stage.serving(model)}


def wait_placed(fleet: Mapping[str, Stage], model: str, nodes: set[str], version: int = 1) -> None:
    """Wait until exactly these nodes serve the version, and each of them says so."""

    def check() -> bool:
        said = all(fleet[name].deployment(model).get("phase") == "Deployed" for name in nodes)
        return said and serving(fleet, model, version) == nodes

    wait_until(check, lambda: f"{model} on {nodes} ({serving(fleet, model, version)})", 60)


@contextmanager
def watch(fleet: Mapping[str, Stage], model: str) -> Iterator[list[set[str]]]:
    """Look all the time at which nodes serve the model; the looks are there afterwards."""
    looks: list[set[str]] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            begun_at = time.monotonic()
            found = serving(fleet, model)
            # One node is asked after the other: in a look that takes longer than a node drains,
            # a model that has moved meanwhile would be seen nowhere.
            if time.monotonic() - begun_at < DRAIN_SECONDS / 2:
                looks.append(found)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        done.set()
        thread.join(60)
    assert looks


def test_replicas_move_between_nodes_and_are_never_fewer(fleet: Fleet) -> None:
    first = fleet["n1"]
    first.publish("ranker", 1)
    first.publish("speller", 1)
    first.commit(FLEET, group(fleet), deployment("ranker", 1, replicas=2), deployment("speller", 1))
    start(fleet)
    before = place(fleet, "ranker", 2)
    wait_placed(fleet, "ranker", before)
    wait_placed(fleet, "speller", set(fleet))

    # One of the two is drained: another takes over before it lets go.
    leaver = min(before)
    weights = {leaver: 0.0}
    after = place(fleet, "ranker", 2, **weights)
    assert leaver not in after
    with watch(fleet, "ranker") as looks:
        first.commit(group(fleet, **weights), subject=f"Drain {leaver}")
        wait_placed(fleet, "ranker", after)
    assert min(len(look) for look in looks) >= 2
    # Everything else it had went as well, since all others have it.
    wait_until(lambda: not fleet[leaver].serving("speller"), "the drained node to be empty")
    assert not fleet[leaver].status()["removals"]
    wait_until(lambda: not list(fleet[leaver].models_dir.glob("*/1")), "its disk to be cleared")

    # It comes back: the same two as before.
    with watch(fleet, "ranker") as looks:
        first.commit(group(fleet), subject=f"Take {leaver} back")
        wait_placed(fleet, "ranker", before)
        wait_placed(fleet, "speller", set(fleet))
    assert min(len(look) for look in looks) >= 2

    # More replicas: those that hold it keep it.
    with watch(fleet, "ranker") as looks:
        first.commit(deployment("ranker", 1, replicas=4), subject="Serve ranker on four nodes")
        wait_placed(fleet, "ranker", place(fleet, "ranker", 4))
    assert all(before <= look for look in looks)


def test_what_goes_to_another_group_is_served_all_the_time(
    make_stage: Callable[..., Stage],
) -> None:
    first = make_stage(node="n1")
    fleet = {"n1": first, "n2": make_stage(node="n2", beside=first)}
    first.publish("ranker", 1)
    first.publish("speller", 1)
    nodes = {
        name: [{"name": name, "address": f"127.0.0.1:{stage.status_port}"}]
        for name, stage in fleet.items()
    }
    groups = {
        "groups/g.yaml": json.dumps({"nodes": nodes["n1"]}),
        "groups/h.yaml": json.dumps({"nodes": nodes["n2"]}),
    }
    first.commit(FLEET, groups, deployment("ranker"), deployment("speller"))
    start(fleet)
    wait_placed(fleet, "ranker", {"n1"})
    wait_placed(fleet, "speller", {"n1"})

    # The deployment goes to the other group.
    there = {"deployments/h/ranker.yaml": deployment("ranker")["deployments/g/ranker.yaml"]}
    with watch(fleet, "ranker") as looks:
        first.commit({"deployments/g/ranker.yaml": None}, there, subject="Move ranker to h")
        wait_placed(fleet, "ranker", {"n2"})
    assert all(looks)

    # Both nodes change places: each takes from the other what its new group serves.
    groups = {
        "groups/g.yaml": json.dumps({"nodes": nodes["n2"]}),
        "groups/h.yaml": json.dumps({"nodes": nodes["n1"]}),
    }
    with watch(fleet, "ranker") as looks, watch(fleet, "speller") as others:
        first.commit(groups, subject="Swap the nodes")
        wait_placed(fleet, "ranker", {"n1"})
        wait_placed(fleet, "speller", {"n2"})
    assert all(looks)
    assert all(others)


def test_a_node_dies_and_its_models_move_once_git_says_so(
    fleet: Fleet, make_stage: Callable[..., Stage]
) -> None:
    first = fleet["n1"]
    first.publish("ranker", 1)
    first.commit(FLEET, group(fleet), deployment("ranker", 1, replicas=2))
    start(fleet)
    before = place(fleet, "ranker", 2)
    wait_placed(fleet, "ranker", before)

    dead = min(before - {"n1"})
    fleet[dead].close()
    alive = {name: stage for name, stage in fleet.items() if name != dead}
    report = look_at(first)
    assert report["nodes"][dead]["state"] == "dead"
    assert "did not answer" in report["nodes"][dead]["sentence"] or (
        "cannot be asked" in report["nodes"][dead]["sentence"]
    )
    assert {name for name, node in report["nodes"].items() if node["state"] == "well"} == set(alive)

    # Every node can show that.
    def see_dead(stage: Stage) -> bool:
        response = stage.ask("/fleet.json")
        states = {n["name"]: n["state"] for n in response.json()["nodes"]} if response else {}
        return states == {name: "dead" if name == dead else "well" for name in fleet}

    for stage in alive.values():
        wait_until(lambda stage=stage: see_dead(stage), "the node to show it")  # type: ignore[misc]
        page = stage.ask("/fleet")
        assert page is not None
        assert "text/html" in page.headers["content-type"]

    # A new machine takes its place in git, under its own name.
    joined = make_stage(node="n6", beside=first)
    alive["n6"] = joined
    joined.start_agent()
    joined.start_server()
    first.commit(group(alive), subject=f"Replace {dead} by n6")
    wait_placed(alive, "ranker", place(alive, "ranker", 2))
    assert len(place(alive, "ranker", 2) - before) <= 2


def look_at(stage: Stage) -> dict[str, Any]:
    """Return what `reconciler fleet status` says, its nodes by name."""
    report: dict[str, Any] = {}

    def check() -> bool:
        report.update(json.loads(stage.run_command("fleet", "status", "--json", codes=(0, 1))))
        report["nodes"] = {node["name"]: node for node in report["nodes"]}
        return all(node["state"] in ("well", "dead") for node in report["nodes"].values())

    wait_until(check, lambda: f"a fleet that is well or dead ({report})")
    return report


def test_a_bad_version_halts_after_its_first_node_and_a_good_one_goes_all_the_way(
    fleet: Fleet,
) -> None:
    first = fleet["n1"]
    first.publish("speller", 1)
    first.publish("speller", 2, "truncated_data")
    first.publish("speller", 3)
    first.commit(FLEET, group(fleet), deployment("speller", 1, rollout=WAVES))
    start(fleet)
    wait_placed(fleet, "speller", set(fleet))
    order = first.deployment("speller")["holders"]
    assert set(order) == set(fleet)

    first.commit(deployment("speller", 2, rollout=WAVES), subject="Serve speller 2")
    fleet[order[0]].wait_phase("speller", "Failed", "LoadFailed")
    for name in order[1:]:
        halted = fleet[name].wait_phase("speller", "Deploying", "RolloutHalted")
        assert f"version 2 is halted, because {order[0]} failed it" in halted["sentence"] or (
            name in order[3:]
        )
        assert fleet[name].serving("speller") == {1}
        assert 2 not in fleet[name].deployment("speller")["installed_versions"]
    assert serving(fleet, "speller") == set(fleet)

    # A newer commit starts again, wave by wave.
    first.commit(deployment("speller", 3, rollout=WAVES), subject="Serve speller 3")
    wait_placed(fleet, "speller", set(fleet), 3)
    ends = {name: find_time(stage, "speller", 3) for name, stage in fleet.items()}
    waves = [order[:1], order[1:3], order[3:]]
    for earlier, later in pairwise(waves):
        assert max(ends[name] for name in earlier) < min(ends[name] for name in later)

    # The way back waits for nobody.
    first.commit(deployment("speller", 1, rollout=WAVES), subject="Back to speller 1")
    wait_placed(fleet, "speller", set(fleet), 1)


def find_time(stage: Stage, model: str, version: int) -> str:
    """Return when the node came to serve the version."""
    response = stage.ask("/history")
    assert response is not None
    times = [
        str(change["time"])
        for change in response.json()["changes"]
        if change["model"] == model and change["to"] == version
    ]
    return max(times)


def test_a_canary_is_served_beside_under_its_label(fleet: Fleet) -> None:
    first = fleet["n1"]
    first.publish("ranker", 1)
    first.publish("ranker", 2)
    labels = {"stable": 1}
    pair = {"n1": fleet["n1"], "n2": fleet["n2"]}
    first.commit(FLEET, group(pair), deployment("ranker", 1, labels=labels))
    start(pair)
    wait_placed(pair, "ranker", set(pair))
    first.commit(deployment("ranker", 1, labels={"stable": 1, "canary": 2}), subject="Try ranker 2")
    for stage in pair.values():
        wait_until(
            lambda stage=stage: (  # type: ignore[misc]
                stage.deployment("ranker").get("labels") == {"canary": 2, "stable": 1}
            ),
            "both labels",
        )
        said = stage.deployment("ranker")
        assert (said["phase"], said["serving_versions"]) == ("Deployed", [1, 2])
        assert "requests without version or label go to 2, the highest one" in said["sentence"]
    first.commit(deployment("ranker", 2, labels={"stable": 2}), subject="Promote ranker 2")
    for stage in pair.values():
        stage.wait_served("ranker", 2)
        assert stage.deployment("ranker")["labels"] == {"stable": 2}


def test_two_agents_of_one_name_both_say_so(fleet: Fleet, make_stage: Callable[..., Stage]) -> None:
    first = fleet["n1"]
    twin = make_stage(node="twin", beside=first)
    twin.settings = {"RECONCILER_NODE": "n1"}
    first.publish("ranker", 1)
    first.commit(group({"n1": first}), deployment("ranker", 1))
    first.start()
    first.wait_served("ranker", 1)
    assert first.condition("NameUnique")["holds"]
    twin.start()
    for stage in (first, twin):
        wait_until(
            lambda stage=stage: stage.condition("NameUnique").get("holds") is False,  # type: ignore[misc]
            f"the one in {stage.folder} to notice",
        )
        assert stage.condition("NameUnique")["reason"] == "NameTaken"
