"""The server's container is restarted and replaced on a real engine."""

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.planning.supervision import RestartNeed
from tests.supervised import CALM, LABEL, QUICK, Node
from tests.swarm.engines import Engine, find_obstacle, make_lan, run_node

_NOT_TRIED = "SUPERVISION WAS NOT TRIED ON A REAL ENGINE"
OLD, NEW, ENDING = "serving:1", "serving:2", "serving:ending"
UNSTARTABLE, SILENT = "serving:unstartable", "serving:silent"
ENTRYPOINTS = {
    OLD: ["/sleep"],
    NEW: ["/sleep"],
    SILENT: ["/sleep"],
    ENDING: ["/sleep", "no-number"],
    UNSTARTABLE: ["/is-not-there"],
}
PATIENT = replace(QUICK, look_seconds=0.2, wait_seconds=0.1, ready_seconds=60.0)


@dataclass(frozen=True)
class Seen:
    """A container as `docker inspect` shows it."""

    id: str
    name: str
    status: str
    reference: str
    started_at: str


@dataclass(frozen=True)
class RealHost:
    """An engine, asked by its own command."""

    engine: Engine

    @property
    def host(self) -> str:
        return self.engine.host

    def labelled(self, label: str) -> list[Seen]:
        ids = self.engine.docker("ps", "--all", "--quiet", "--filter", f"label={label}").split()
        done = self.engine.try_docker("inspect", *ids) if ids else None
        if done is None or done.returncode != 0:
            return []  # one was removed between the two questions
        return [
            Seen(
                item["Id"],
                item["Name"].removeprefix("/"),
                item["State"]["Status"],
                item["Config"]["Image"],
                item["State"]["StartedAt"],
            )
            for item in json.loads(done.stdout)
        ]

    def inspect(self, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.engine.docker("inspect", name))[0]
        return found


def pack_sleep() -> bytes:
    """Return a root file system in which one program runs."""
    program = shutil.which("sleep")
    assert program is not None
    listed = subprocess.run(
        ["ldd", program], capture_output=True, text=True, check=True, timeout=10
    )
    libraries = {word for word in listed.stdout.split() if word.startswith("/")}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        archive.add(program, "sleep")
        for library in sorted(libraries):
            archive.add(Path(library).resolve(), library)
    return packed.getvalue()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHost]:
    if obstacle := find_obstacle():
        pytest.skip(f"{_NOT_TRIED}: {obstacle}")
    folder = tmp_path_factory.mktemp("engine")
    with ExitStack() as stack:
        try:
            lan = stack.enter_context(make_lan())
            engine = stack.enter_context(run_node(lan, folder / "node", "supervised", 13))
        except AssertionError as error:
            pytest.skip(f"{_NOT_TRIED}: no engine starts here: {error}")
        root = pack_sleep()
        for image, entrypoint in ENTRYPOINTS.items():
            change = f"ENTRYPOINT {json.dumps(entrypoint)}"
            engine.docker(
                *("import", "--change", change, "--change", f"ENV OF_THE_IMAGE={image}"),
                *("-", image),
                stdin=root,
            )
        engine.docker("network", "create", "front")
        engine.docker("network", "create", "back")
        yield RealHost(engine)


@pytest.fixture
def node(real: RealHost, tmp_path: Path) -> Iterator[Node]:
    real.engine.docker(
        *("run", "--detach", "--name", "serving", "--label", f"{LABEL}=mine"),
        *("--restart", "unless-stopped", "--network", "front", "--network-alias", "tfs"),
        *("--publish", "127.0.0.1:18500:8500", "--volume", f"{tmp_path}:/models:ro"),
        *("--volume", "/cache", "--env", "MINE=1", "--memory", "32m"),
        # It runs as process 1, for which SIGTERM means nothing.
        *("--stop-signal", "SIGKILL", OLD, "3600"),
    )
    real.engine.docker("network", "connect", "--alias", "behind", "back", "serving")
    real.engine.docker("run", "--detach", "--name", "bystander", OLD, "3600")
    before = real.inspect("bystander")
    yield Node(real, tmp_path, "follow", PATIENT)
    assert real.inspect("bystander") == before, "nothing without the label was touched"
    names = real.engine.docker("ps", "--all", "--format", "{{.Names}}").split()
    real.engine.docker("rm", "--force", "--volumes", *names)


def find_setup(real: RealHost) -> dict[str, object]:
    """Return what a person gave to the server's container."""
    found = json.loads(real.engine.docker("inspect", "serving"))[0]
    host, networks = found["HostConfig"], found["NetworkSettings"]["Networks"]
    mine = [entry for entry in found["Config"]["Env"] if not entry.startswith("OF_THE_IMAGE")]
    own = found["Id"][:12]
    return {
        "ports": host["PortBindings"],
        "memory": host["Memory"],
        "stop signal": found["Config"]["StopSignal"],
        "restart": host["RestartPolicy"],
        "env": mine,
        "command": found["Config"]["Cmd"],
        "label": found["Config"]["Labels"][LABEL],
        "mounts": sorted(
            (item["Destination"], item["Source"], item["RW"]) for item in found["Mounts"]
        ),
        "networks": {
            name: [alias for alias in network["Aliases"] if alias != own]
            for name, network in networks.items()
        },
    }


async def test_an_image_is_replaced_with_all_that_was_given(node: Node, real: RealHost) -> None:
    before = find_setup(real)
    node.wants(NEW)
    async with node.running():
        await node.until_settled(NEW, "AsExpected", 60.0)
    assert find_setup(real) == before
    environment = real.engine.docker("inspect", "--format", "{{.Config.Env}}", "serving")
    assert f"OF_THE_IMAGE={NEW}" in environment


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (UNSTARTABLE, "Docker would not start container serving.next"),
        (ENDING, "times in a row"),
    ],
)
async def test_an_image_that_does_not_come_up_is_taken_back(
    node: Node, real: RealHost, image: str, words: str
) -> None:
    before = find_setup(real)
    (server,) = real.labelled(LABEL)
    node.wants(image)
    async with node.running():
        assert await node.until_settled(OLD, "ServerUpdateFailed", 60.0) == server.id
        assert words in node.condition.sentence
    assert find_setup(real) == before


async def test_a_server_is_restarted(node: Node, real: RealHost) -> None:
    def started_at() -> str:
        return real.engine.docker("inspect", "--format", "{{.State.StartedAt}}", "serving")

    before = started_at()
    node.pace = replace(PATIENT, restart_gap_seconds=0.0)
    node.sight = replace(CALM, need=RestartNeed("ServerPoisoned", None))
    async with node.running():
        await node.until_says("ServerRestarted", 60.0)
        node.sight = CALM
        await node.until_settled(OLD, "AsExpected", 60.0)
    assert started_at() > before
