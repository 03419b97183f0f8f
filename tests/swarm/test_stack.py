"""deploy/swarm's stack on two nodes of a real Swarm: constraints, secrets, health checks, updates.

The agent's image is built by its Dockerfile; the stand-in plays the part of tensorflow/serving.
Each test leaves two nodes behind that serve `ranker`, and begins with a commit of its own.
"""

import itertools
import json

import pytest

from reconciler.membership.swarm import SwarmRegistry
from reconciler.model import Membership, Registry
from tests.e2e.stage import wait_until
from tests.swarm import images
from tests.swarm.fleet import STACK, WAIT_SECONDS, Fleet

MODELS = "/var/lib/reconciler/models"


def test_what_git_says_is_served_on_every_node(fleet: Fleet) -> None:
    fleet.commit("Serve ranker 41", ranker=41)
    fleet.wait_served("ranker", 41)
    fleet.wait_healthy("agent", "serving")


def test_a_commit_changes_the_version_and_a_revert_takes_it_back(fleet: Fleet) -> None:
    fleet.commit("Serve ranker 42", ranker=42)
    fleet.wait_served("ranker", 42)
    fleet.commit("Revert: serve ranker 42", ranker=41)
    fleet.wait_served("ranker", 41)


async def test_swarm_itself_can_say_which_nodes_are_in_the_group(fleet: Fleet) -> None:
    membership = Membership(Registry.SWARM, "group=search", 8080)
    members = await SwarmRegistry(fleet.manager.host).list(membership)
    assert {(member.name, member.address) for member in members} == {
        (name, f"{node.address}:8080") for name, node in fleet.nodes.items()
    }


@pytest.mark.parametrize(
    ("service", "user"), [("agent", "10001:10001"), ("serving", "10002:10001")]
)
def test_a_container_may_do_no_more_than_it_needs(fleet: Fleet, service: str, user: str) -> None:
    fleet.wait_healthy(service)
    node = fleet.nodes["one"]
    found = fleet.container("one", service)
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert not found["HostConfig"]["CapAdd"]

    def execute(script: str) -> str:
        return node.docker("exec", found["Id"], "sh", "-c", script)

    assert execute("echo $(id -u):$(id -g)") == user
    assert execute(f"stat -c %a:%u:%g {MODELS}") == "750:10001:10001"
    is_agent = service == "agent"
    assert execute("ls /run/secrets || true") == ("deploy_key\nsync_token" if is_agent else "")
    writable = execute(f"test -w {MODELS} && echo yes || echo no")
    assert writable == ("yes" if is_agent else "no")


def test_the_deploy_key_is_nowhere_but_in_its_file(fleet: Fleet) -> None:
    fleet.wait_healthy("agent")
    key = fleet.ssh.key.read_text().splitlines()[2]
    node, found = fleet.nodes["one"], fleet.container("one", "agent")
    mode = node.docker("exec", found["Id"], "stat", "-c", "%a:%u", "/run/secrets/deploy_key")
    assert mode == "400:10001"
    assert key in node.docker("exec", found["Id"], "cat", "/run/secrets/deploy_key")
    log = node.try_docker("logs", found["Id"])
    for text in (json.dumps(found), log.stdout.decode(), log.stderr.decode()):
        assert key not in text
    assert b"ranker" in log.stdout + log.stderr


def test_an_update_of_the_agent_leaves_the_servers_alone(fleet: Fleet) -> None:
    fleet.wait_healthy("agent", "serving")
    servers = {name: fleet.container(name, "serving")["Id"] for name in fleet.nodes}
    old = {name: fleet.container(name, "agent")["Id"] for name in fleet.nodes}
    fleet.agent_image = images.NEWER_AGENT
    fleet.deploy()
    _wait_update(fleet, "completed")
    fleet.wait_healthy("agent")
    for name, node in fleet.nodes.items():
        assert fleet.container(name, "agent")["Config"]["Image"] == images.NEWER_AGENT
        assert fleet.container(name, "serving")["Id"] == servers[name]
        # It ended by itself; 137 would say that the engine had to kill it after its grace.
        assert json.loads(node.docker("inspect", old[name]))[0]["State"]["ExitCode"] == 0
    fleet.commit("Serve ranker 42", ranker=42)
    fleet.wait_served("ranker", 42)


def test_an_agent_that_does_not_start_is_taken_back(fleet: Fleet) -> None:
    fleet.commit("Serve ranker 42", ranker=42)
    fleet.wait_served("ranker", 42)
    good = fleet.agent_image
    fleet.agent_image = images.BROKEN_AGENT
    try:
        fleet.deploy()
        _wait_update(fleet, "rollback_completed")
    finally:
        fleet.agent_image = good
        fleet.deploy()  # changes nothing unless Swarm has not taken it back
    for name in fleet.nodes:
        assert fleet.serving(name, "ranker") == {42}
    fleet.wait_healthy("agent")
    assert {fleet.container(name, "agent")["Config"]["Image"] for name in fleet.nodes} == {good}


def test_serving_outlives_a_restart_of_the_manager(fleet: Fleet) -> None:
    fleet.commit("Serve ranker 41", ranker=41)
    fleet.wait_served("ranker", 41)
    fleet.manager.stop()
    # The other node needs no manager: git is its master.
    fleet.commit("Serve ranker 42", ranker=42)
    fleet.wait_served("ranker", 42, "two")
    fleet.manager.start()
    fleet.wait_served("ranker", 42)
    fleet.wait_healthy("agent", "serving")


def test_a_node_that_is_lost_changes_nothing_for_the_other_and_comes_back(fleet: Fleet) -> None:
    fleet.commit("Serve ranker 42", ranker=42)
    fleet.wait_served("ranker", 42)
    lost = fleet.nodes["two"]
    lost.kill()
    assert not fleet.status("two")
    fleet.commit("Serve ranker 41", ranker=41)
    fleet.wait_served("ranker", 41, "one")
    wait_until(lambda: "two Down" in _list_nodes(fleet), lambda: _list_nodes(fleet), WAIT_SECONDS)
    lost.start()
    fleet.wait_served("ranker", 41)
    fleet.wait_healthy("agent", "serving")


def test_a_stack_that_was_removed_serves_again_without_a_download(fleet: Fleet) -> None:
    fleet.commit("Serve ranker 42", ranker=42)
    fleet.wait_served("ranker", 42)
    fleet.manager.docker("stack", "rm", STACK)
    wait_until(
        lambda: (
            not any(
                fleet.nodes[name].containers(f"{STACK}_{service}")
                for name, service in itertools.product(fleet.nodes, ("agent", "serving"))
            )
        ),
        fleet.tasks,
        WAIT_SECONDS,
    )
    for name in [name for name in fleet.bucket.names() if name.startswith("ranker/42/variables")]:
        fleet.bucket.delete(name)
    fleet.deploy()
    for name in fleet.nodes:
        wait_until(
            lambda name=name: fleet.serving(name, "ranker") == {42},  # type: ignore[misc]
            fleet.tasks,
            WAIT_SECONDS,
        )
    fleet.publish("ranker", 42)


def _wait_update(fleet: Fleet, state: str) -> None:
    wait_until(
        lambda: fleet.update_state("agent") == state,
        lambda: f"{state}, but {fleet.update_state('agent')}\n{fleet.tasks()}",
        WAIT_SECONDS,
    )


def _list_nodes(fleet: Fleet) -> str:
    return fleet.manager.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}")
