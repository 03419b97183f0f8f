"""The control panel: a pull request, its plan, its merge, and the way back, on two nodes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import Stage, deployment, wait_until
from tests.gitserver import git, serve_http
from tests.savedmodels import write_savedmodel

GROUPS = {"groups/g.yaml": "nodes: [one, two]\nquota: {disk: 1GB}\n"}
LOCKED = {"fleet.yaml": "lock: required\nkeep: 1\n"}
LOCK = "deployments/g/ranker.lock.yaml"


@pytest.fixture
def nodes(make_stage: Callable[..., Stage]) -> Iterator[tuple[Stage, Stage]]:
    """Two nodes that follow one repository over http."""
    one = make_stage(node="one")
    two = make_stage(node="two", beside=one)
    with serve_http(one.remote.bare.parent) as server:
        one.settings = two.settings = {"RECONCILER_REPO": server.url}
        yield one, two


def groups(*stages: Stage) -> dict[str, str]:
    """The group's file, with the addresses of the nodes."""
    nodes = [{"name": s.node, "address": f"127.0.0.1:{s.status_port}"} for s in stages]
    return {"groups/g.yaml": json.dumps({"nodes": nodes, "quota": {"disk": "1GB"}})}


def lock_and_commit(stage: Stage, subject: str) -> str:
    stage.run_command("lock")
    return stage.commit({}, subject=subject)


def start(*stages: Stage) -> None:
    for stage in stages:
        stage.start()


def wait_all(stages: tuple[Stage, ...], model: str, version: int) -> None:
    for stage in stages:
        stage.wait_served(model, version)


def downloaded(stages: tuple[Stage, ...]) -> list[float]:
    return [stage.metric("reconciler_downloaded_bytes_total") for stage in stages]


def test_a_model_moves_by_pull_request_and_back_by_revert(nodes: tuple[Stage, Stage]) -> None:
    one, _ = nodes
    work = one.remote.work
    one.publish("ranker", 1)
    one.publish("speller", 1)
    models = {**deployment("ranker", "latest"), **deployment("speller", 1)}
    one.commit(groups(*nodes), LOCKED, models)
    lock_and_commit(one, "Lock what we serve")
    start(*nodes)
    wait_all(nodes, "ranker", 1)
    wait_all(nodes, "speller", 1)

    # A new version in the bucket moves nobody: git says which one runs.
    one.publish("ranker", 2)
    before = one.status()["deployments"][0]
    assert (before["wanted_version"], before["locked_version"]) == (1, 1)

    # The scheduled job proposes it on a branch; the reviewer sees what it will do.
    one.run_command("lock", "--update", "--branch", "lock/update")
    assert git("log", "-1", "--format=%s", cwd=work) == "Move ranker 1 -> 2 in g"
    assert git("diff", "--name-only", "main", cwd=work) == LOCK
    comment = one.run_command("plan", "main", "HEAD", "--format", "markdown")
    assert comment.startswith("<!-- reconciler plan -->")
    assert "ranker" in comment
    assert "speller" not in comment
    planned = json.loads(one.run_command("plan", "main", "HEAD", "--format", "json"))
    assert planned["problems"] == []

    # Merged, every node follows.
    git("switch", "--quiet", "main", cwd=work)
    git("merge", "--quiet", "--no-ff", "-m", "Merge lock/update", "lock/update", cwd=work)
    one.remote.push()
    wait_all(nodes, "ranker", 2)

    # Back by one command, on every node, without a byte from the bucket.
    before_bytes = downloaded(nodes)
    said = one.run_command("rollback", "ranker", "--reason", "answers are worse", "--yes")
    assert "2 -> 1" in said
    message = git("log", "-1", "--format=%B", cwd=work)
    assert message.startswith('Revert "Move ranker 1 -> 2 in g"')
    assert "answers are worse" in message
    assert git("diff", "--name-only", "HEAD~1", cwd=work) == LOCK
    one.remote.push()
    wait_all(nodes, "ranker", 1)
    assert downloaded(nodes) == before_bytes

    # And git has the story, the nodes know when it came to pass.
    trail = json.loads(one.run_command("history", "ranker", "--json"))
    moves = [(entry["from_version"], entry["to_version"]) for entry in trail["entries"]]
    assert moves[:2] == [(2, 1), (1, 2)]
    assert trail["entries"][0]["reverts"] == git("rev-parse", "lock/update", cwd=work)
    for entry, version in zip(trail["entries"], (1, 2), strict=False):
        came = [(node["node"], node["result"], node["version"]) for node in entry["nodes"]]
        assert came == [("one", "deployed", version), ("two", "deployed", version)]
        assert all(node["commit_to_serving_seconds"] is not None for node in entry["nodes"])

    # One place tells the forge.
    status = ["commit-status", "--to", "github", "--project", "acme/models", "--dry-run"]
    assert "success" in one.run_command(*status)


def test_a_byte_changed_under_a_lock_is_refused_on_every_node_and_named(
    nodes: tuple[Stage, Stage],
) -> None:
    one, _ = nodes
    one.publish("ranker", 1)
    one.commit(GROUPS, LOCKED, deployment("ranker", 1))
    lock_and_commit(one, "Serve ranker 1")
    start(*nodes)
    wait_all(nodes, "ranker", 1)
    one.publish("ranker", 2)
    one.remote.write(
        {p: t.replace("BUCKET", one.bucket.name) for p, t in deployment("ranker", 2).items()}
    )
    one.run_command("lock")
    name = next(name for name in one.bucket.names() if name.startswith("ranker/2/variables"))
    content = bytearray(one.bucket.read(name))
    content[-1] ^= 1
    one.bucket.put(name, bytes(content))
    one.commit({}, subject="Serve ranker 2")
    for stage in nodes:
        found = stage.wait_phase("ranker", "Failed", "LockMismatch")
        assert found["serving_versions"] == [1]
        assert LOCK in found["sentence"]
        assert Path(name).name in found["sentence"]
        assert not (stage.models_dir / "ranker" / "2").exists()
    # The check in a pull request sees it too.
    assert LOCK in one.run_command("lock", "--check", codes=(1,))


def test_a_node_refuses_what_is_not_locked_where_locks_are_required(stage: Stage) -> None:
    stage.publish("ranker", 1)
    stage.commit({"groups/g.yaml": "nodes: [node]"}, LOCKED, deployment("ranker", "latest"))
    stage.start()
    wait_until(lambda: stage.condition("ConfigValid").get("holds") is False, "the refusal")
    assert "reconciler lock ranker" in stage.condition("ConfigValid")["sentence"]
    lock_and_commit(stage, "Lock it")
    stage.wait_served("ranker", 1)


def test_a_download_is_held_against_the_sums_that_were_published(stage: Stage) -> None:
    export = write_savedmodel(stage.folder / "export", 10)
    source = f"gs://{stage.bucket.name}/ranker"
    stage.run_command("publish", str(export), source)
    stage.commit({"groups/g.yaml": "nodes: [node]"}, LOCKED, deployment("ranker", 1))
    stage.run_command("lock")
    lock = stage.remote.work / LOCK
    right = lock.read_text()
    graph = next(line for line in right.splitlines() if "saved_model.pb:" in line)
    wrong = graph.rpartition(" ")[0] + " " + "f" * 64
    stage.commit({LOCK: right.replace(graph, wrong)})
    stage.start()
    found = stage.wait_phase("ranker", "Failed", "LockMismatch")
    assert "saved_model.pb" in found["sentence"]
    assert not (stage.models_dir / "ranker" / "1").exists()
    stage.commit({LOCK: right})
    stage.wait_served("ranker", 1)
