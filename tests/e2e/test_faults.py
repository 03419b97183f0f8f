"""Bad input and faults, one at a time, on a running node.

Each ends with a clear sentence in /status, every other model unharmed, the last good version
serving, and a recovery without a hand once the cause is gone.
"""

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bucket import read_files
from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.faultproxy import Fault, FaultProxy, Request, always, once, run_proxy
from tests.gitserver import git
from tests.savedmodels import write_savedmodel

GROUPS = {"groups/g.yaml": GROUP}


@pytest.fixture
def node(stage: Stage) -> Stage:
    """A node that serves ranker 1 and speller 1."""
    for model in ("ranker", "speller"):
        stage.publish(model, 1)
    stage.commit(GROUPS, deployment("ranker"), deployment("speller"))
    stage.start()
    stage.wait_served("ranker", 1)
    stage.wait_served("speller", 1)
    return stage


def others_go_on(node: Stage) -> None:
    """Deploy another version of speller: one model's trouble does not hold up another."""
    node.publish("speller", 2)
    node.commit(deployment("speller", 2))
    node.wait_served("speller", 2)


BROKEN_TEXTS = {
    "not YAML": ("source: [gs://x\nversion: 2\n", "YAML"),
    "a duplicate key": ("source: gs://BUCKET/ranker\nversion: 2\nversion: 3\n", "twice"),
    "an alias bomb": (
        "metadata: &a {x: y}\nsource: gs://BUCKET/ranker\nversion: 2\nlabels: *a\n",
        "alias",
    ),
    "an unknown field": ("source: gs://BUCKET/ranker\nverison: 2\n", "version"),
    "a 2 MB file": ("source: gs://BUCKET/ranker\nversion: 2\n#" + "x" * 2_000_000, "MiB"),
    "a model that is a path": ("model: ../ranker\nsource: gs://BUCKET/r\nversion: 2\n", "model"),
    "merge conflict markers": ("<<<<<<< HEAD\nversion: 2\n=======\n", "conflict"),
}


@pytest.mark.parametrize(("text", "word"), BROKEN_TEXTS.values(), ids=BROKEN_TEXTS.keys())
def test_a_broken_file_keeps_its_model_as_it_was(node: Stage, text: str, word: str) -> None:
    node.commit({"deployments/g/ranker.yaml": text})
    found = node.wait_phase("ranker", "Failed", "InvalidConfig")
    assert "deployments/g/ranker.yaml:" in found["sentence"]
    assert word in found["sentence"]
    assert found["serving_versions"] == [1]
    others_go_on(node)
    assert node.serving("ranker") == {1}
    node.publish("ranker", 2)
    node.commit(deployment("ranker", 2))
    node.wait_served("ranker", 2)


def test_an_empty_commit_changes_nothing(node: Stage) -> None:
    commit = node.remote.commit({}, "Nothing")
    wait_until(lambda: node.status()["applied"]["id"] == commit, "the empty commit")
    assert node.serving("ranker") == {1}


def test_a_group_without_this_node_removes_nothing(node: Stage) -> None:
    node.commit({"groups/g.yaml": "nodes: [another]\n"})
    found = wait_until(
        lambda: (c := node.condition("NodeKnown")) and not c["holds"] and c, "the condition"
    )
    assert "RECONCILER_NODE" in found["sentence"]
    assert node.serving("ranker") == {1}
    assert (node.models_dir / "ranker" / "1").exists()
    node.commit(GROUPS)
    others_go_on(node)


def test_a_vanished_branch_and_a_forced_push_are_survived(node: Stage) -> None:
    git("update-ref", "-d", "refs/heads/main", cwd=node.remote.bare)
    found = wait_until(
        lambda: (c := node.condition("GitReachable")) and not c["holds"] and c, "the condition"
    )
    assert "main" in found["sentence"]
    assert node.serving("ranker") == {1}
    node.publish("ranker", 2)
    node.remote.work.joinpath("x").write_text("x")
    node.commit(deployment("ranker", 2))
    node.wait_served("ranker", 2)
    node.remote.commit({"y": "y"}, "Rewritten", amend=True)
    others_go_on(node)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("gs://no-such-bucket-at-all/ranker", "BucketNotFound"),
        ("file:///no/such/folder", "FolderNotFound"),
    ],
)
def test_a_source_that_is_not_there_is_named(node: Stage, source: str, reason: str) -> None:
    node.commit(
        {"deployments/g/ranker.yaml": json.dumps({"source": source, "version": 5})},
    )
    found = node.wait_phase("ranker", "Failed", reason)
    assert source.removesuffix("/ranker").removeprefix("gs://") in found["sentence"]
    assert found["serving_versions"] == [1]
    others_go_on(node)


def test_a_pin_that_is_not_in_the_bucket_is_taken_once_it_is(node: Stage) -> None:
    node.commit(deployment("ranker", 2))
    found = node.wait_phase("ranker", "Failed", "VersionNotFound")
    assert "version 2" in found["sentence"]
    assert found["serving_versions"] == [1]
    node.publish("ranker", 2)
    node.wait_served("ranker", 2)


BAD_NAMES = ["2/../evil", "2/a\nb", "2/Weights", "2//etc"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_dangerous_object_name_refuses_its_version_only(node: Stage, name: str) -> None:
    node.publish("ranker", 2)
    if name == "2/Weights":
        node.bucket.put("ranker/2/weights", b"x")
    node.bucket.put(f"ranker/{name}", b"x")
    node.commit(deployment("ranker", 2))
    found = node.wait_phase("ranker", "Failed", "BadObjectName")
    assert "object name" in found["sentence"]
    assert not (node.models_dir / "ranker" / "2").exists()
    others_go_on(node)
    node.bucket.delete(f"ranker/{name}")
    node.wait_served("ranker", 2)


def test_an_incomplete_upload_is_not_taken_until_it_is_whole(node: Stage) -> None:
    folder = write_savedmodel(node.folder / "export", 20)
    files = read_files(folder)
    data = "variables/variables.data-00000-of-00001"
    missing = files.pop(data)
    node.bucket.put_version("2", files)
    node.commit(deployment("ranker", 2))
    found = node.wait_phase("ranker", "Failed", "Incomplete")
    assert "variables.data" in found["sentence"]
    assert node.serving("ranker") == {1}
    node.bucket.put(f"ranker/2/{data}", missing)
    node.wait_served("ranker", 2)


def test_weights_that_come_after_the_graph_are_waited_for(node: Stage) -> None:
    """TensorFlow Serving would load the graph without them and fail at the first request."""
    files = read_files(write_savedmodel(node.folder / "export", 20))
    node.bucket.put("ranker/2/saved_model.pb", files["saved_model.pb"])
    node.commit(deployment("ranker", 2))
    found = node.wait_phase("ranker", "Failed", "Incomplete")
    assert "variables" in found["sentence"]
    for name, content in files.items():
        if name.startswith("variables/"):
            node.bucket.put(f"ranker/2/{name}", content)
    node.wait_served("ranker", 2)


def test_a_stray_numeric_file_is_reported_and_does_no_harm(node: Stage) -> None:
    stray = node.models_dir / "ranker" / "20260101"
    stray.write_text("x")
    found = wait_until(
        lambda: (c := node.condition("ModelsIntact")) and not c["holds"] and c, "the condition"
    )
    assert "ranker/20260101" in found["sentence"]
    node.publish("ranker", 2)
    node.commit(deployment("ranker", 2))
    node.wait_served("ranker", 2)
    assert stray.exists()


def test_a_version_that_fails_to_load_and_its_repair(node: Stage) -> None:
    node.publish("ranker", 2, fault="truncated_graph")
    node.commit(deployment("ranker", 2))
    found = node.wait_phase("ranker", "Failed", "LoadFailed")
    assert "OUT_OF_RANGE" in found["sentence"]
    assert "version 1 goes on serving" in found["sentence"]
    assert found["retry_at"] is not None
    others_go_on(node)
    assert node.serving("ranker") == {1}
    node.publish("ranker", 2)
    node.wait_served("ranker", 2)


def test_a_new_model_that_fails_to_load_costs_the_others_nothing(node: Stage) -> None:
    node.publish("similar", 1, fault="truncated_graph")
    node.commit(deployment("similar", 1))
    node.wait_phase("similar", "Failed", "LoadFailed")
    assert "similar" not in node.config_file.read_text()
    others_go_on(node)
    node.publish("similar", 2)
    node.commit(deployment("similar", 2))
    node.wait_served("similar", 2)


def test_pinned_bytes_that_change_in_the_bucket_are_reported_and_not_taken(
    make_stage: Callable[..., Stage],
) -> None:
    node = make_stage(settings={"RECONCILER_PIN_CHECK_INTERVAL": "300ms"})
    node.publish("ranker", 1)
    node.commit(GROUPS, deployment("ranker"))
    node.start()
    node.wait_served("ranker", 1)
    node.publish("ranker", 1)
    found = node.wait_phase("ranker", "Deployed", "SourceChanged")
    assert "keeps what it has" in found["sentence"]


# --- the model server -------------------------------------------------------------------------


def test_a_server_that_is_killed_comes_back_with_what_worked(node: Stage) -> None:
    node.kill_server()
    found = wait_until(
        lambda: (c := node.condition("ServingReachable")) and not c["holds"] and c, "the condition"
    )
    assert "cannot be reached" in found["sentence"]
    node.publish("ranker", 2)
    node.commit(deployment("ranker", 2))
    wait_until((node.models_dir / "ranker" / "2").exists, "the download meanwhile")
    node.start_server()
    node.wait_served("ranker", 2)
    node.wait_served("speller", 1)


def test_a_model_that_kills_the_server_while_it_loads_is_given_time(node: Stage) -> None:
    folder = write_savedmodel(node.folder / "export", 20)
    (folder / "standin.json").write_text('{"crash": true}')
    node.bucket.put_version("2", read_files(folder))
    node.commit(deployment("ranker", 2))
    assert node.server is not None
    node.server.wait(30)
    node.start_server()
    wait_until(
        lambda: "stopped while it loaded" in node.deployment("ranker").get("sentence", ""),
        "the suspicion",
    )
    node.commit(deployment("ranker", 1))
    if node.server.poll() is not None:
        node.start_server()
    node.wait_served("ranker", 1)
    node.wait_served("speller", 1)


def test_a_server_that_hangs_in_a_reload_is_reported_and_others_serve(node: Stage) -> None:
    """A new model that takes long blocks every change; that is the server's way."""
    node.publish("similar", 1, load_seconds=6)
    node.commit(deployment("similar", 1))
    node.wait_phase("similar", "Deploying", "Loading")
    assert node.serving("ranker") == {1}
    node.wait_served("similar", 1)


def test_a_stopped_server_process_does_not_stop_the_agent(node: Stage) -> None:
    assert node.server is not None
    node.server.send_signal(signal.SIGSTOP)
    found = wait_until(
        lambda: (c := node.condition("ServingReachable")) and not c["holds"] and c, "the condition"
    )
    assert found["reason"] == "ServerSilent"
    wait_until(
        lambda: "has not answered yet" in node.condition("ServingReachable")["sentence"],
        "a tick that does not wait for the server's answer",
    )
    response = node.ask("/livez")
    assert response is not None
    assert response.status_code == 200
    node.server.send_signal(signal.SIGCONT)
    others_go_on(node)


def test_a_server_poisoned_by_another_client_is_told_apart(node: Stage) -> None:
    import grpc

    from reconciler.serving.protocol.control_pb2 import ReloadConfigRequest
    from reconciler.serving.protocol.methods import RELOAD_CONFIG

    request = ReloadConfigRequest()
    for model in ("ranker", "speller"):
        entry = request.config.model_config_list.config.add()
        entry.name, entry.base_path = model, str(node.models_dir / model)
        entry.model_platform = "tensorflow"
        entry.model_version_policy.specific.versions.append(1)
    entry = request.config.model_config_list.config.add()
    entry.name, entry.base_path = "poison", str(node.models_dir / "ranker")
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
    found = wait_until(
        lambda: (c := node.condition("ServingAccepts")) and not c["holds"] and c, "the condition"
    )
    assert found["reason"] == "ServerPoisoned"
    assert "only a restart of the server helps" in found["sentence"]
    assert node.serving("ranker") == {1}
    node.kill_server()
    node.start_server()
    node.wait_served("ranker", 2)


# --- the bucket behind a proxy that breaks things -----------------------------------------------


@contextmanager
def proxied(endpoint: str) -> Iterator[FaultProxy]:
    """Run the fault proxy on a loop of its own, beside the test."""
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()
    proxies: list[FaultProxy] = []

    async def serve() -> None:
        async with run_proxy(endpoint) as proxy:
            proxies.append(proxy)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield proxies[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def proxy(endpoint: str) -> Iterator[FaultProxy]:
    with proxied(endpoint) as running:
        yield running


@pytest.fixture
def far(proxy: FaultProxy, make_stage: Callable[..., Stage]) -> Stage:
    """A node that serves ranker 1 and reaches its bucket through the proxy."""
    node = make_stage(settings={"STORAGE_EMULATOR_HOST": proxy.url})
    for model in ("ranker", "speller"):
        node.publish(model, 1)
    node.commit(GROUPS, deployment("ranker"), deployment("speller"))
    node.start()
    node.wait_served("ranker", 1)
    node.wait_served("speller", 1)
    return node


def of_ranker(request: Request) -> bool:
    return "ranker" in request.decoded


def test_a_forbidden_bucket_is_named_and_taken_up_again(far: Stage, proxy: FaultProxy) -> None:
    proxy.rules.append(always(Fault(status=403), of_ranker))
    far.publish("ranker", 2)
    far.commit(deployment("ranker", 2))
    far.wait_phase("ranker", "Failed", "Forbidden")
    others_go_on(far)
    assert far.serving("ranker") == {1}
    proxy.rules.clear()
    far.wait_served("ranker", 2)


BROKEN_READS = {
    "a truncated body": Fault(action="cut", after_bytes=100),
    "a body that is short without saying so": Fault(action="shorten", after_bytes=100),
    "a reset connection": Fault(action="reset", after_bytes=100),
    "a wrong byte": Fault(action="flip", after_bytes=100),
    "too many requests": Fault(status=429),
    "a server error": Fault(status=503),
}


@pytest.mark.parametrize("fault", BROKEN_READS.values(), ids=BROKEN_READS.keys())
def test_a_broken_read_is_tried_again_until_the_bytes_are_right(
    far: Stage, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.rules.append(once(fault, lambda r: r.is_read and of_ranker(r), times=2))
    far.publish("ranker", 2)
    far.commit(deployment("ranker", 2))
    far.wait_served("ranker", 2)
    installed = read_files(far.models_dir / "ranker" / "2")
    assert {f"ranker/2/{name}" for name in installed} <= far.bucket.names()
    for name, content in installed.items():
        assert far.bucket.read(f"ranker/2/{name}") == content


def test_an_object_that_disappears_between_listing_and_download(
    far: Stage, proxy: FaultProxy
) -> None:
    proxy.rules.append(always(Fault(status=404), lambda r: r.is_read and of_ranker(r)))
    far.publish("ranker", 2)
    far.commit(deployment("ranker", 2))
    found = far.wait_phase("ranker", "Failed", "SourceChanged")
    assert "deleted or overwritten" in found["sentence"]
    others_go_on(far)
    proxy.rules.clear()
    far.wait_served("ranker", 2)


def test_a_newer_commit_cancels_a_download_that_stalls(far: Stage, proxy: FaultProxy) -> None:
    stalls = always(
        Fault(action="stall", after_bytes=10), lambda r: r.is_read and "/2/" in r.decoded
    )
    proxy.rules.append(stalls)
    far.publish("ranker", 2)
    far.publish("ranker", 3)
    far.commit(deployment("ranker", 2))
    far.wait_phase("ranker", "Deploying", "Downloading")
    progress = wait_until(lambda: far.deployment("ranker")["progress"], "the progress")
    assert progress["total_bytes"] > progress["done_bytes"]
    far.commit(deployment("ranker", 3))
    far.wait_served("ranker", 3)
    wait_until(
        lambda: not any((far.models_dir / ".staging").rglob("2-*")), "the end of what was begun"
    )


# --- the disk, and the agent itself --------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("needs root and mount(8) for a small tmpfs; run the tests as root to have it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_refuses_the_version_with_the_numbers_until_there_is_room(
    make_stage: Callable[..., Stage], small_disk: Path
) -> None:
    node = make_stage(settings={"RECONCILER_MODELS_DIR": str(small_disk)})
    node.models_dir, node.config_file = small_disk, small_disk / "models.config"
    node.publish("ranker", 1)
    node.publish("speller", 1)
    node.commit(GROUPS, deployment("ranker"), deployment("speller"))
    node.start()
    node.wait_served("ranker", 1)
    node.bucket.put_version(
        "2",
        {**read_files(write_savedmodel(node.folder / "e", 20)), "assets/big": b"x" * 500_000},
    )
    node.commit(deployment("ranker", 2))
    found = node.wait_phase("ranker", "Failed", "DiskFull")
    assert "kB" in found["sentence"]
    assert found["serving_versions"] == [1]
    others_go_on(node)
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    node.wait_served("ranker", 2)


def test_a_start_without_git_and_bucket_serves_the_last_good_state(node: Stage) -> None:
    assert node.stop_agent() == 0
    node.kill_server()
    node.remote.bare.rename(node.folder / "gone")
    node.start_agent(STORAGE_EMULATOR_HOST="http://127.0.0.1:9")
    node.start_server()
    node.wait_served("ranker", 1)
    found = wait_until(
        lambda: (c := node.condition("GitReachable")) and not c["holds"] and c, "the condition"
    )
    assert "stays in force" in found["sentence"]
    (node.folder / "gone").rename(node.remote.bare)
    wait_until(lambda: node.condition("GitReachable")["holds"], "git to be back")


def test_a_mirror_that_was_damaged_is_made_again(node: Stage) -> None:
    mirror = node.folder / "state" / "mirror"
    shutil.rmtree(mirror / "objects")
    node.publish("ranker", 2)
    node.commit(deployment("ranker", 2))
    node.wait_served("ranker", 2)


def test_a_damaged_version_on_disk_is_found_at_start_and_fetched_again(node: Stage) -> None:
    assert node.stop_agent() == 0
    data = next((node.models_dir / "ranker" / "1" / "variables").glob("*.data-*"))
    whole = data.read_bytes()
    data.chmod(0o644)
    data.write_bytes(bytes(len(whole)))
    node.start_agent()
    wait_until(lambda: data.read_bytes() == whole, "the repair")
    node.wait_served("ranker", 1)
    assert "is damaged and is fetched again" in node.log


def test_a_server_that_polls_its_file_needs_no_reload_call(
    make_stage: Callable[..., Stage],
) -> None:
    node = make_stage(
        settings={"RECONCILER_SERVING_MODE": "file", "RECONCILER_SERVING_POLL": "300ms"},
        serving_flags=("--model_config_file_poll_wait_seconds=0.1",),
    )
    for version in (1, 2):
        node.publish("ranker", version)
    node.commit(GROUPS, deployment("ranker", 1, labels={"stable": 1}))
    node.start()
    node.wait_served("ranker", 1)
    node.commit(deployment("ranker", 2, labels={"stable": 2}))
    node.wait_served("ranker", 2)
    node.publish("ranker", 3, fault="truncated_graph")
    node.commit(deployment("ranker", 3, labels={"stable": 3}))
    node.wait_phase("ranker", "Failed", "LoadFailed")
    assert node.serving("ranker") == {2}


def test_a_model_that_kills_a_server_which_polls_its_file_does_not_keep_it_down(
    make_stage: Callable[..., Stage],
) -> None:
    node = make_stage(
        settings={"RECONCILER_SERVING_MODE": "file", "RECONCILER_SERVING_POLL": "300ms"},
        serving_flags=("--model_config_file_poll_wait_seconds=0.1",),
    )
    node.publish("ranker", 1)
    node.commit(GROUPS, deployment("ranker", 1))
    node.start()
    node.wait_served("ranker", 1)
    folder = write_savedmodel(node.folder / "export", 20)
    (folder / "standin.json").write_text('{"crash": true}')
    node.bucket.put_version("1", read_files(folder), under="similar")
    node.commit(deployment("similar", 1))
    assert node.server is not None
    node.server.wait(30)
    wait_until(lambda: "similar" not in node.config_file.read_text(), "the mended file")
    node.commit({"deployments/g/similar.yaml": None})
    node.start_server()
    node.wait_served("ranker", 1)


def test_a_server_that_serves_something_of_its_own_is_not_frozen(stage: Stage) -> None:
    """Its models lie elsewhere: told our folders for them it would look for no version any more."""
    stage.publish("ranker", 1)
    stage.commit(GROUPS, deployment("ranker"))
    other = stage.folder / "other"
    write_savedmodel(other / "legacy" / "7", 70)
    write_savedmodel(other / "veteran" / "7", 70)
    stage.models_dir.mkdir()
    text = "".join(
        f'config {{ name: "{name}" base_path: "{other / name}" model_platform: "tensorflow" }}\n'
        for name in ("legacy", "veteran")
    )
    stage.config_file.write_text(f"model_config_list {{ {text} }}")
    stage.start_server()
    wait_until(lambda: stage.serving("legacy") == {7}, "the server's own model")
    stage.start_agent()
    found = wait_until(
        lambda: (c := stage.condition("ServingAccepts")) and not c["holds"] and c, "the condition"
    )
    assert found["reason"] == "ServedFromElsewhere"
    assert "legacy, veteran" in found["sentence"]
    wait_until((stage.models_dir / "ranker" / "1").exists, "the download")
    assert stage.serving("legacy") == {7}
    assert str(other) in stage.config_file.read_text(), "its file is left to it"
    for name in ("legacy", "veteran"):
        (other / name).rename(stage.models_dir / name)
        (other / name).symlink_to(stage.models_dir / name)
    stage.wait_served("ranker", 1)
    assert stage.serving("legacy") == {7}
    assert "stay here" in stage.condition("RemovalsAllowed")["sentence"]


def test_the_exit_codes_of_the_command(stage: Stage) -> None:
    command = [sys.executable, "-m", "reconciler.cli.main", "run", "--listen", "nowhere"]
    done = subprocess.run(command, capture_output=True, env=stage.environment(), timeout=30)
    assert done.returncode == 2
    assert b"listen: 'nowhere' is not host:port" in done.stderr


@contextmanager
def black_hole() -> Iterator[int]:
    """Listen on a port and never answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


def test_hanging_git_and_bucket_hold_up_neither_the_status_nor_the_end(node: Stage) -> None:
    assert node.stop_agent() == 0
    models = {f"m{number}": deployment(f"m{number}", "latest") for number in range(12)}
    node.commit(*models.values())
    node.start_agent()
    wait_until(lambda: node.deployment("m1"), "the commit")
    assert node.stop_agent() == 0
    with black_hole() as git_port, black_hole() as bucket_port:
        node.start_agent(STORAGE_EMULATOR_HOST=f"http://127.0.0.1:{bucket_port}")
        node.wait_served("ranker", 1)
        wait_until(lambda: node.deployment("m1").get("reason") == "Listing", "the listing")
        node.publish("speller", 2)
        before = node.status()["generated_at"]
        wait_until(lambda: node.status()["generated_at"] > before, "another tick")
        assert node.stop_agent() == 0
        node.start_agent(RECONCILER_REPO=f"http://127.0.0.1:{git_port}/fleet.git")
        wait_until(node.status, "the status")
        assert node.stop_agent() == 0
