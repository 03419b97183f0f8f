"""The agent's image, as it runs on a node: small, from the constraints file, without tools."""

import json
import re
from typing import Any

from tests.e2e.stage import wait_until
from tests.swarm import images
from tests.swarm.fleet import Fleet

_MAX_BYTES_BEYOND_BASE = 200_000_000
_LIST = (
    "import importlib.metadata as m, json;"
    " print(json.dumps({d.name: d.version for d in m.distributions()}))"
)


def execute(fleet: Fleet, *command: str) -> str:
    """Run a command in an image's container of its own."""
    run = ("run", "--rm", "--network", "none", "--entrypoint", command[0], images.AGENT)
    return fleet.manager.docker(*run, *command[1:])


def test_it_is_small(fleet: Fleet) -> None:
    arguments = ("history", "--human=false", "--format", "{{.Size}}", images.AGENT)
    *ours, base = map(int, fleet.manager.docker(*arguments).splitlines())
    assert base
    assert 0 < sum(ours) < _MAX_BYTES_BEYOND_BASE


def test_every_package_is_of_the_version_that_the_constraints_say(fleet: Fleet) -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (images.ROOT / "constraints.txt").read_text().split()
    wanted = {plain(name): version for name, _, version in (line.partition("==") for line in lines)}
    found: dict[str, Any] = json.loads(execute(fleet, "/opt/reconciler/bin/python", "-c", _LIST))
    installed = {plain(name): version for name, version in found.items()}
    assert installed.pop("tfserving-reconciler")
    assert len(installed) > 20
    assert installed.items() <= wanted.items()
    for heavy in ("tensorflow", "pytest", "pip"):
        assert heavy not in installed


def test_it_brings_what_the_agent_calls_and_no_compiler(fleet: Fleet) -> None:
    script = "for tool in git ssh ssh-keygen gpg cc gcc make; do command -v $tool; done; true"
    found = execute(fleet, "sh", "-c", script).split()
    assert [path.rpartition("/")[2] for path in found] == ["git", "ssh", "ssh-keygen", "gpg"]


def test_the_command_line_is_the_agents(fleet: Fleet) -> None:
    done = fleet.manager.try_docker("run", "--rm", "--network", "none", images.AGENT, "run")
    assert done.returncode == 2
    assert b"RECONCILER_REPO" in done.stderr
    assert (
        b"reconciler, version"
        in fleet.manager.try_docker(
            "run", "--rm", "--network", "none", images.AGENT, "--version"
        ).stdout
    )


def test_the_first_process_is_an_init(fleet: Fleet) -> None:
    """Else nobody would wait for the orphans of a killed git."""
    container = fleet.container("one", "agent")
    [first, *_] = (
        fleet.nodes["one"].docker("top", container["Id"], "-o", "pid,args").splitlines()[1:]
    )
    assert first.split()[1:3] == ["tini", "--"]


def test_sigterm_ends_it_in_time_and_in_order(fleet: Fleet) -> None:
    docker = fleet.manager.docker
    run = ("run", "--detach", "--network", "none", "--env", "RECONCILER_REPO=file:///nowhere")
    container = docker(*run, images.AGENT)
    try:
        wait_until(lambda: "status at" in logs(fleet, container), lambda: logs(fleet, container))
        docker("stop", "--time", "5", container)  # after which the engine would kill it
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    finally:
        docker("rm", "--force", "--volumes", container)


def logs(fleet: Fleet, container: str) -> str:
    """Return what a container has logged; the agent does so on stderr."""
    done = fleet.manager.try_docker("logs", container)
    return (done.stdout + done.stderr).decode()
