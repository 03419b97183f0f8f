"""A node whose agent looks after the server's container: real processes behind a small engine."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from reconciler.serving.protocol.control_pb2 import ReloadConfigRequest
from reconciler.serving.protocol.methods import RELOAD_CONFIG
from tests.dockerengine import DockerEngine, Image, docker_engine
from tests.e2e.stage import Stage, deployment, wait_until

OLD, NEW = "tensorflow/serving:2.19.0", "tensorflow/serving:2.20.0"
BROKEN = "tensorflow/serving:broken"
LABEL = "reconciler.serving"
_STANDIN = [
    *(sys.executable, "-m", "reconciler.cli.main", "dev", "tf-serving"),
    "--standin_listen_host=127.0.0.1",
    "--standin_tick_seconds=0.01",
    "--standin_load_seconds=0.02",
    "--standin_predict=off",
]


def group(image: str, *flags: str) -> dict[str, str | None]:
    return {"groups/g.yaml": f"nodes: [node]\nserving: {{image: '{image}', flags: {[*flags]}}}\n"}


def add_images(engine: DockerEngine) -> None:
    for reference in (OLD, NEW):
        engine.add_image(Image(reference, _STANDIN), here=reference == OLD)
    engine.add_image(Image(BROKEN, [sys.executable, "-c", "raise SystemExit(3)"]), here=False)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DockerEngine]:
    with docker_engine(tmp_path) as engine:
        add_images(engine)
        yield engine


@pytest.fixture
def node(make_stage: Callable[..., Stage], engine: DockerEngine) -> Stage:
    """A node that serves version 1 of one model from the container `serving`."""
    stage = make_stage(settings=follow(engine))
    stage.publish("ranker", 1)
    stage.commit(group(OLD), deployment("ranker", 1))
    start(stage, engine, "serving")
    return stage


def follow(engine: DockerEngine) -> dict[str, str]:
    return {
        "RECONCILER_SUPERVISE": "follow",
        "RECONCILER_DOCKER_HOST": f"unix://{engine.socket}",
    }


def start(stage: Stage, engine: DockerEngine, name: str) -> None:
    """Start the agent, and the server in a container of that name."""
    stage.start_agent()
    wait_until(stage.config_file.exists, "the first models.config")
    flags = [
        f"--port={stage.port}",
        f"--rest_api_port={stage.rest_port}",
        f"--model_config_file={stage.config_file}",
        "--file_system_poll_wait_seconds=0.1",
        "--allow_version_labels_for_unavailable_models=true",
        "--num_load_threads=2",
        "--num_unload_threads=2",
        "--max_num_load_retries=0",
    ]
    engine.run(name, OLD, {"Cmd": flags, "Labels": {LABEL: ""}})
    stage.wait_served("ranker", 1)


def wait_supervised(node: Stage, reason: str, words: str) -> None:
    def check() -> bool:
        found = node.condition("ServerSupervised")
        return found.get("reason") == reason and words in found["sentence"]

    wait_until(check, lambda: f"{reason} ({node.condition('ServerSupervised')})")


def running(engine: DockerEngine) -> list[tuple[str, str]]:
    return [(box.name, box.image.reference) for box in engine.labelled(LABEL)]


def test_a_pull_request_changes_the_server_and_another_one_that_fails_does_not(
    node: Stage, engine: DockerEngine
) -> None:
    node.commit(group(NEW, "--enable_batching=true"))
    wait_supervised(node, "AsExpected", f"runs {NEW} as git says")
    assert running(engine) == [("serving", NEW)]
    assert "--enable_batching=true" in engine.labelled(LABEL)[0].body["Cmd"]
    node.wait_served("ranker", 1)

    node.commit(group(BROKEN))
    wait_supervised(node, "ServerUpdateFailed", "the server ended with code 3")
    assert running(engine) == [("serving", NEW)]
    node.publish("ranker", 2)
    node.commit(deployment("ranker", 2))
    node.wait_served("ranker", 2)

    node.commit(group(NEW, "--enable_batching=true"))
    wait_supervised(node, "AsExpected", f"runs {NEW} as git says")
    assert running(engine) == [("serving", NEW)]
    assert node.serving("ranker") == {2}


def test_the_servers_of_a_group_are_replaced_one_after_the_other(
    make_stage: Callable[..., Stage], tmp_path: Path, engine: DockerEngine
) -> None:
    (tmp_path / "other").mkdir()
    with docker_engine(tmp_path / "other") as other:
        add_images(other)
        other.changes = engine.changes  # one list, so that their order can be seen
        first = make_stage(node="a", settings=follow(engine))
        second = make_stage(node="b", settings=follow(other), beside=first)
        first.publish("ranker", 1)
        nodes = {stage.node: f"127.0.0.1:{stage.status_port}" for stage in (second, first)}

        def group_of_two(image: str) -> dict[str, str]:
            members = [{"name": name, "address": address} for name, address in nodes.items()]
            return {"groups/g.yaml": json.dumps({"nodes": members, "serving": {"image": image}})}

        first.commit(group_of_two(OLD), deployment("ranker", 1))
        start(first, engine, "serving-a")
        start(second, other, "serving-b")
        for stage in (first, second):
            wait_supervised(stage, "AsExpected", f"runs {OLD} as git says")

        first.commit(group_of_two(NEW))
        for stage in (first, second):
            wait_supervised(stage, "AsExpected", f"runs {NEW} as git says")
        names = [name for what, name in engine.changes if what != "pull"]
        half = len(names) // 2
        assert all("serving-a" in name for name in names[:half])
        assert all("serving-b" in name for name in names[half:])
        assert "the group's servers are replaced one after the other, and a " in second.log

        done = len(engine.changes)
        first.commit(group_of_two(BROKEN))
        wait_supervised(first, "ServerUpdateFailed", "the server ended with code 3")
        wait_supervised(second, "UpdateHalted", f"halted, because a failed it: {BROKEN} did not")
        assert not [name for _, name in engine.changes[done:] if "serving-b" in name]
        assert running(other) == [("serving-b", NEW)]

        done = len(engine.changes)
        first.commit(group_of_two(NEW))
        for stage in (first, second):
            wait_supervised(stage, "AsExpected", f"runs {NEW} as git says")
        assert len(engine.changes) == done, "the way back needs nothing"


def test_a_server_that_another_client_broke_is_restarted(node: Stage, engine: DockerEngine) -> None:
    engine.labelled(LABEL)[0].started_at = "2020-01-01T00:00:00Z"
    request = ReloadConfigRequest()
    for model, platform in (("ranker", "tensorflow"), ("poison", "")):
        entry = request.config.model_config_list.config.add()
        entry.name, entry.base_path = model, str(node.models_dir / "ranker")
        entry.model_platform = platform
        entry.model_version_policy.specific.versions.append(1)
    with grpc.insecure_channel(f"127.0.0.1:{node.port}") as channel:
        call = channel.unary_unary(
            RELOAD_CONFIG.path,
            request_serializer=RELOAD_CONFIG.request.SerializeToString,
            response_deserializer=RELOAD_CONFIG.response.FromString,
        )
        with pytest.raises(grpc.RpcError):
            call(request, timeout=10)
    node.publish("ranker", 2)
    node.commit(deployment("ranker", 2))
    node.wait_served("ranker", 2)
    assert engine.changes == [("restart", "serving")]
    assert "restarted container serving (ServerPoisoned)" in node.log
