"""Two nodes of a real Swarm that run deploy/swarm's stack, with a git server and a bucket."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.bucket import FakeBucket, read_files
from tests.e2e.stage import wait_until
from tests.gitserver import ConfigRemote, SshServer
from tests.savedmodels import Fault, write_savedmodel
from tests.swarm import images
from tests.swarm.engines import Engine
from tests.swarm.images import ROOT

FOLDER = ROOT / "deploy/swarm"
STACK = "search"
WAIT_SECONDS = 300.0
_NUMBERS = itertools.count(1)


@dataclass
class Fleet:
    """What people do to the fleet, and what they see of it."""

    folder: Path
    nodes: Mapping[str, Engine]
    remote: ConfigRemote
    bucket: FakeBucket
    ssh: SshServer
    agent_image: str = images.AGENT
    weights: dict[str, int] = field(default_factory=dict)

    @property
    def manager(self) -> Engine:
        """The engine that takes Swarm's commands."""
        return self.nodes["one"]

    # --- what people do -------------------------------------------------------------------

    def form_swarm(self) -> None:
        """Join the nodes, label them, create the secrets: the steps of deploy/swarm/README.md."""
        one, *others = self.nodes.values()
        one.docker("swarm", "init", "--advertise-addr", one.address)
        token = one.docker("swarm", "join-token", "--quiet", "worker")
        for node in others:
            node.docker("swarm", "join", "--token", token, f"{one.address}:2377")
        for name in self.nodes:
            one.docker("node", "update", "--label-add", "group=search", name)
        sync_token = b"a token for sync"
        for name, content in {
            "reconciler_sync_token_1": sync_token,
            "reconciler_deploy_key_1": self.ssh.key.read_bytes(),
        }.items():
            one.docker("secret", "create", name, "-", stdin=content)
        known_hosts = self.ssh.host_line.encode()
        one.docker("config", "create", "reconciler_known_hosts_1", "-", stdin=known_hosts)

    def deploy(self) -> None:
        """Deploy the stack, with the few settings by which the test differs from production."""
        more = self.folder / "test.yml"
        update = {"delay": "1s", "monitor": "5s"}
        environment = {
            "STORAGE_EMULATOR_HOST": self.bucket.endpoint,
            "RECONCILER_GIT_INTERVAL": "1s",
            "RECONCILER_BUCKET_INTERVAL": "1s",
            "RECONCILER_SETTLE": "0s",
        }
        agent = {"environment": environment, "deploy": {"update_config": update}}
        serving = {"deploy": {"resources": {"reservations": {"memory": "64M"}}}}
        services = {"agent": agent, "serving": serving}
        more.write_text(yaml.safe_dump({"version": "3.8", "services": services}))
        files = [FOLDER / "stack.yml", FOLDER / "deploy-key.yml", more]
        options = [word for file in files for word in ("--compose-file", str(file))]
        self.manager.docker(
            *("stack", "deploy", "--resolve-image", "never", *options, STACK),
            GROUP="search",
            RECONCILER_IMAGE=self.agent_image,
            RECONCILER_REPO=self.ssh.url(self.remote.bare),
            SERVING_IMAGE=images.SERVER,
        )

    def publish(self, model: str, version: int, fault: Fault | None = None) -> None:
        """Put a version into the bucket."""
        folder = self.folder / f"export-{next(_NUMBERS)}"
        files = read_files(write_savedmodel(folder, version * 10, fault=fault))
        self.bucket.put_version(str(version), files, under=model)

    def commit(self, subject: str, **versions: int) -> str:
        """Commit deployments at these versions; the group's nodes are those of `nodes`."""
        files = {
            f"deployments/search/{model}.yaml": json.dumps(
                {"source": f"gs://{self.bucket.name}/{model}", "version": version}
            )
            for model, version in versions.items()
        }
        members = [
            {"name": name, "address": f"{node.address}:8080"} for name, node in self.nodes.items()
        ]
        files["groups/search.yaml"] = json.dumps({"nodes": members})
        return self.remote.commit(files, subject)

    # --- what is seen ---------------------------------------------------------------------

    def status(self, node: str) -> dict[str, Any]:
        """Return a node's /status; empty while nothing answers."""
        return _ask(f"http://{self.nodes[node].address}:8080/status")

    def deployment(self, node: str, model: str) -> dict[str, Any]:
        """Return what a node's /status says of a model."""
        deployments = self.status(node).get("deployments", [])
        return next((item for item in deployments if item["model"] == model), {})

    def serving(self, node: str, model: str) -> set[int]:
        """Return the versions that a node's model server itself has AVAILABLE."""
        answer = _ask(f"http://{self.nodes[node].address}:8501/v1/models/{model}")
        return {
            int(item["version"])
            for item in answer.get("model_version_status", [])
            if item["state"] == "AVAILABLE"
        }

    def wait_served(self, model: str, version: int, *nodes: str) -> None:
        """Wait until each of the nodes (default: all) serves exactly this and says Deployed."""
        for node in nodes or self.nodes:
            wait_until(
                lambda node=node: (  # type: ignore[misc]
                    self.serving(node, model) == {version}
                    and self.deployment(node, model).get("phase") == "Deployed"
                ),
                lambda node=node: (  # type: ignore[misc]
                    f"serving {model} {version} on {node}:"
                    f" {self.deployment(node, model)}\n{self.tasks()}"
                ),
                WAIT_SECONDS,
            )

    def tasks(self, format_: str = "{{.Name}} {{.CurrentState}} {{.Error}}") -> str:
        """Return what Swarm says of every task of the stack."""
        arguments = ("stack", "ps", "--no-trunc", "--format", format_, STACK)
        return self.manager.try_docker(*arguments).stdout.decode()

    def container(self, node: str, service: str) -> dict[str, Any]:
        """Return the one running container of a service on a node; empty if there is none."""
        found = self.nodes[node].containers(f"{STACK}_{service}")
        return found[0] if len(found) == 1 else {}

    def is_healthy(self, node: str, service: str) -> bool:
        """Tell whether a service's container on a node is there and healthy."""
        state = self.container(node, service).get("State", {})
        return bool(state.get("Health", {}).get("Status") == "healthy")

    def wait_healthy(self, *services: str) -> None:
        """Wait until each service is healthy on every node."""
        for node, service in itertools.product(self.nodes, services):
            wait_until(
                lambda node=node, service=service: self.is_healthy(node, service),  # type: ignore[misc]
                lambda node=node, service=service: (  # type: ignore[misc]
                    f"{service} on {node} healthy: "
                    f"{self.container(node, service).get('State')}\n{self.tasks()}"
                ),
                WAIT_SECONDS,
            )

    def update_state(self, service: str) -> str:
        """Return how far Swarm says that it is with the newest change of a service."""
        return self.manager.docker(
            *("service", "inspect", "--format", "{{.UpdateStatus.State}}", f"{STACK}_{service}")
        )


def _ask(url: str) -> dict[str, Any]:
    try:
        response = httpx.get(url, timeout=5, trust_env=False)
    except httpx.TransportError:
        return {}
    found: dict[str, Any] = response.json() if response.is_success else {}
    return found
