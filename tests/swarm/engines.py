"""Docker engines of a test's own, each on a machine of its own as far as the network shows.

A node is a network namespace plugged into a switch, which is a bridge in one more namespace: the
firewall rules that an engine makes stay in its namespace, and all is gone with the namespaces. The
engine runs in its own mount namespace too, so that what it mounts ends with it.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from tests.e2e.stage import wait_until

_TOOLS = ("dockerd", "docker", "ip", "iptables", "nsenter", "unshare", "debootstrap", "sshd")
_NUMBERS = itertools.count()
_DISK_BYTES = 3 * 1024**3
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
_COMMAND_SECONDS = 900.0


def find_obstacle() -> str:
    """Return why no engine can be started here, empty where one can."""
    if os.geteuid() != 0:
        return "engines and network namespaces need root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"run `make docker-packages` to have {', '.join(missing)}" if missing else ""


def run(*command: str | Path, seconds: float = _COMMAND_SECONDS, stdin: bytes = b"") -> str:
    """Run a command that must succeed and return what it printed."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=seconds, check=False)
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout.decode().strip()


@dataclass
class Lan:
    """A switch, this machine at .1 of its network, and nodes."""

    prefix: str
    subnet: str
    """The first three numbers of all addresses."""

    @property
    def here(self) -> str:
        """This machine's address."""
        return f"{self.subnet}.1"

    def plug_in(self, node: str, number: int) -> str:
        """Make the namespace of a node and return the node's address."""
        name, address = f"{self.prefix}{node}", f"{self.subnet}.{number}"
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        self._cable(node, name)
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        return address

    def open(self) -> None:
        """Make the switch and plug this machine in."""
        run("ip", "netns", "add", self._switch)
        run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        run("ip", "-n", self._switch, "link", "set", "switch", "up")
        self._cable("here", None)
        run("ip", "address", "add", f"{self.here}/24", "dev", f"{self.prefix}here")
        run("ip", "link", "set", f"{self.prefix}here", "up")

    def close(self) -> None:
        """Remove what was made: a cable goes with either end."""
        for line in run("ip", "netns", "list").splitlines():
            if line.startswith(self.prefix):
                run("ip", "netns", "delete", line.split()[0])

    def namespace(self, node: str) -> str:
        """Return the name of a node's network namespace."""
        return f"{self.prefix}{node}"

    @property
    def _switch(self) -> str:
        return f"{self.prefix}lan"

    def _cable(self, node: str, namespace: str | None) -> None:
        own = ["name", "eth0", "netns", namespace] if namespace else [f"{self.prefix}{node}"]
        peer = ["name", f"port-{node}", "netns", self._switch]
        run("ip", "link", "add", *own, "type", "veth", "peer", *peer)
        run("ip", "-n", self._switch, "link", "set", f"port-{node}", "master", "switch", "up")


@contextmanager
def make_lan() -> Iterator[Lan]:
    """Make a network for a block; its names and numbers are its own."""
    number = os.getpid() + next(_NUMBERS)
    lan = Lan(f"rs{number}-", f"10.213.{number % 250 + 1}")
    try:
        lan.open()
        yield lan
    finally:
        lan.close()


@contextmanager
def make_disk(folder: Path) -> Iterator[Path]:
    """Make a disk in memory for a block: writing and deleting images takes minutes on slow ones."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", folder)
    try:
        yield folder
    finally:
        run("umount", "--lazy", folder)


@dataclass
class Engine:
    """One dockerd; with a namespace it is the node `name`, else one of this machine's own."""

    name: str
    folder: Path
    namespace: str = ""
    address: str = ""
    _process: "Popen[bytes] | None" = field(default=None, init=False)

    @property
    def host(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self.folder}/docker.sock"

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "docker.pid").unlink(missing_ok=True)
        daemon = ["dockerd", "--data-root", f"{self.folder}/data", "--host", self.host]
        daemon += ["--exec-root", f"{self.folder}/exec", "--pidfile", f"{self.folder}/docker.pid"]
        # Should this machine have a containerd of its own, which dockerd would then use.
        daemon += ["--containerd-namespace", f"moby-{self.name}-{os.getpid()}"]
        daemon += ["--containerd-plugins-namespace", f"plugins-{self.name}-{os.getpid()}"]
        # In a mount namespace of its own, so that its mounts end with it.
        if self.namespace:
            # `ip netns exec` would hide the cgroups from it.
            command = ["nsenter", f"--net=/var/run/netns/{self.namespace}", "unshare", "-m", "-u"]
            script = 'hostname "$0" && exec "$@"'
            command += ["sh", "-c", script, self.name, *daemon]
        else:
            command = ["unshare", "-m", *daemon, "--bridge=none", "--iptables=false"]
        with (self.folder / "log").open("ab") as log:
            self._process = Popen(command, stdin=DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, self._tail, _START_SECONDS)

    def stop(self) -> None:
        """Stop the engine as an operator does; its containers end with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """End all that runs on the node at once, as a power cut does."""
        assert self.namespace
        try:
            for pid in run("ip", "netns", "pids", self.namespace).split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait(_STOP_SECONDS)
                self._process = None
        # It is in /run on a machine, which a restart empties.
        shutil.rmtree(self.folder / "exec", ignore_errors=True)

    def docker(self, *arguments: str, stdin: bytes = b"", **environment: str) -> str:
        """Run a docker command that must succeed and return what it printed."""
        done = self.try_docker(*arguments, stdin=stdin, **environment)
        assert done.returncode == 0, (arguments, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout.decode().strip()

    def try_docker(
        self, *arguments: str, stdin: bytes = b"", **environment: str
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a docker command and return what came of it."""
        return subprocess.run(
            ["docker", *arguments],
            env={**os.environ, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0", **environment},
            input=stdin,
            capture_output=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Return all that the engine knows of the running containers of a stack's service."""
        label = f"label=com.docker.swarm.service.name={service}"
        ids = self.docker("ps", "--quiet", "--filter", label).split()
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *ids)) if ids else []
        return found

    def copy_images(self, to: "Engine", *names: str) -> None:
        """Give images to another engine, without a registry between."""
        source = {**os.environ, "DOCKER_HOST": self.host}
        with Popen(["docker", "save", *names], env=source, stdout=PIPE) as saving:
            subprocess.run(
                ["docker", "load", "--quiet"],
                env={**os.environ, "DOCKER_HOST": to.host},
                stdin=saving.stdout,
                stdout=DEVNULL,
                timeout=_COMMAND_SECONDS,
                check=True,
            )
        assert saving.returncode == 0

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._tail()
        return self.try_docker("version", "--format", "{{.Server.Version}}").returncode == 0

    def _tail(self) -> str:
        log = (self.folder / "log").read_text(errors="replace")
        return f"the start of the engine {self.name}:\n{log[-3000:]}"


@contextmanager
def run_node(lan: Lan, folder: Path, name: str, number: int) -> Iterator[Engine]:
    """Run an engine on a node of its own for a block."""
    with make_disk(folder):
        address = lan.plug_in(name, number)
        engine = Engine(name, folder, lan.namespace(name), address)
        try:
            engine.start()
            yield engine
        finally:
            engine.kill()
