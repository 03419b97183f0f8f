"""Golden requests on a whole node: who predicts all the time never meets a version that fails.

Each version answers y = x + 10 * version, so an answer names the version that gave it.
"""

from collections.abc import Callable
from typing import Any

from tests.bucket import read_files
from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.e2e.test_predictions import Client, asking
from tests.golden import predict_log, write_records
from tests.savedmodels import write_savedmodel

FILE = "assets.extra/golden_requests"
TRIAL = "ranker@golden"


def publish(node: Stage, version: int, *requests: bytes) -> None:
    """Put a version into the bucket, with its golden requests."""
    files = read_files(write_savedmodel(node.folder / f"ranker-{version}", version * 10))
    if requests:
        files[FILE] = write_records(requests)
    node.bucket.put_version(str(version), files, under="ranker")


def commit(node: Stage, version: int, within: str = "10s", requests: str = FILE) -> None:
    golden = {"requests": requests, "within": within}
    wanted = deployment("ranker", version, rollout={"golden": golden})
    node.commit({"groups/g.yaml": GROUP}, wanted, subject=f"Serve {version}")


def wait_for_failure(node: Stage, version: int, *words: str) -> dict[str, Any]:
    """Wait until /status says that this version failed its golden requests, in these words."""

    def check() -> dict[str, Any]:
        found = node.deployment("ranker")
        is_it = found.get("reason") == "GoldenFailed" and all(
            word in found["sentence"] for word in (f"version {version} failed its golden", *words)
        )
        return found if is_it else {}

    found: dict[str, Any] = wait_until(check, lambda: f"{words} ({node.deployment('ranker')})")
    assert found["phase"] == "Failed"
    return found


def wait_for_answers(client: Client, more: int = 50) -> None:
    enough = client.answers + more
    wait_until(lambda: client.answers > enough, f"{more} more answers")


def test_only_a_version_that_passes_is_ever_met(make_stage: Callable[..., Stage]) -> None:
    node = make_stage(predict=True)
    slow = predict_log("slow", x=[1.0], seconds=0.5)
    publish(node, 1, predict_log())
    publish(node, 2, predict_log(), predict_log("nosuch"), predict_log())
    publish(node, 3, predict_log(), slow)
    publish(node, 4)
    commit(node, 1)
    node.start()
    node.wait_served("ranker", 1)
    client = Client(node.port, allowed=frozenset({1}))
    with asking(client):
        commit(node, 2)
        found = wait_for_failure(
            node, 2, "request 2 of 3 (predict)", 'key "nosuch" not found', "version 1 goes on"
        )
        assert found["retry_in_seconds"] is not None
        wait_for_answers(client)

        commit(node, 4)
        wait_for_failure(node, 4, f"there is no {FILE} in its folder")

        commit(node, 3, within="100ms")
        wait_for_failure(node, 3, "request 2 of 2 (predict) was not answered within 100 ms")
        wait_for_answers(client)
        assert client.seen == {1}

        client.allowed = frozenset({1, 3})
        commit(node, 3)
        node.wait_served("ranker", 3)
        client.allowed = frozenset({3})
        wait_for_answers(client)
    assert client.mistakes == []
    assert client.seen == {1, 3}
    assert node.served("ranker").keys() == {1, 3}
    assert node.served(TRIAL).keys() == {1, 2, 3, 4}
    assert "AVAILABLE" not in node.served(TRIAL).values()
    assert TRIAL not in node.config_file.read_text()


def test_a_trial_survives_the_end_of_its_agent_and_of_its_server(
    make_stage: Callable[..., Stage],
) -> None:
    node = make_stage(predict=True)
    publish(node, 1, predict_log())
    publish(node, 2, predict_log("slow", x=[1.0], seconds=3.0))
    commit(node, 1)
    node.start()
    node.wait_served("ranker", 1)

    commit(node, 2)
    wait_until(lambda: "asked one by one" in node.deployment("ranker")["sentence"], "a trial")
    assert node.agent is not None
    node.agent.kill()
    node.agent.wait(10)
    wait_until(lambda: node.serving(TRIAL) == {2}, "a trial that is left over")
    added, dropped = f"adds {TRIAL} 2", f"drops {TRIAL}"
    assert (node.log.count(added), node.log.count(dropped)) == (1, 1), "1 was tried before it"
    node.start_agent()
    wait_until(lambda: node.log.count(dropped) == 2, "the end of what was left over")
    wait_until(lambda: node.log.count(added) == 2, "another trial")
    assert node.served("ranker").keys() <= {1}

    node.kill_server()
    node.start_server()
    wait_until(lambda: node.log.count(added) > 2, "a third trial", seconds=60)
    node.wait_served("ranker", 2)
    assert node.serving(TRIAL) == set()


def test_the_servers_own_warm_up_is_asked_again_within_the_time_given(
    make_stage: Callable[..., Stage],
) -> None:
    node = make_stage(predict=True)
    warm_up = "assets.extra/tf_serving_warmup_requests"
    node.publish("ranker", 1, load_seconds=0.3)
    node.publish("ranker", 2, fault="bad_warmup")
    commit(node, 1, within="50ms", requests=warm_up)
    node.start()
    wait_for_failure(node, 1, "request 1 of 1 (predict) was not answered within 50 ms")
    commit(node, 1, requests=warm_up)
    node.wait_served("ranker", 1)

    commit(node, 2, requests=warm_up)
    found = node.wait_phase("ranker", "Failed", "LoadFailed")

    assert (
        'version 2 failed to load: FAILED_PRECONDITION: Serving signature key "nosuch"'
        in (found["sentence"])
    )
    assert node.served("ranker").keys() == {1}, "the server has never seen it under this name"


def test_a_server_that_cannot_predict_lets_nothing_pass(stage: Stage) -> None:
    publish(stage, 1, predict_log())
    commit(stage, 1)
    stage.start()

    found = wait_for_failure(stage, 1, "request 1 of 1 (predict)", "answered with UNIMPLEMENTED")

    assert "nothing of this model is served meanwhile" in found["sentence"]
    assert stage.served("ranker") == {}
