"""Three nodes in two groups, each with its own model server, on one machine."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.demo.models import write_broken_model, write_model
from reconciler.demo.services import (
    Services,
    free_port,
    model_server_command,
    read_status,
    wait_for,
)

NODES = ("search-1", "search-2", "vision-1")
MODELS = {
    "ranker": (1, 2),
    "suggest": (1, 2, 3),
    "speller": (1,),
    "similar": (1, 2),
    "detector": (1,),
    "captions": (1, 2),
}
BROKEN = ("ranker", 3)


@dataclass(frozen=True, slots=True)
class Node:
    """One agent and the model server that it drives."""

    name: str
    status_port: int = field(default_factory=free_port)
    serving_port: int = field(default_factory=free_port)
    rest_port: int = field(default_factory=free_port)

    @property
    def places(self) -> dict[str, str]:
        """Where it and its model server are found, as groups/ says it."""
        return {
            "address": f"127.0.0.1:{self.status_port}",
            "grpc": f"127.0.0.1:{self.serving_port}",
            "rest": f"127.0.0.1:{self.rest_port}",
        }

    @property
    def page(self) -> str:
        """Where a person looks at the node."""
        return f"http://127.0.0.1:{self.status_port}/"

    def deployments(self) -> dict[str, Any]:
        """Return what the node says of its deployments, by model; empty while it says nothing."""
        deployments = read_status(self.status_port).get("deployments", [])
        return {item["model"]: item for item in deployments}


def write_bucket(data: Path) -> None:
    """Lay out the bucket's content: real SavedModels, and one that fails to load."""
    for model, versions in MODELS.items():
        for version in versions:
            write_model(data / "demo-models" / model / str(version), version)
    write_broken_model(data / "demo-models" / BROKEN[0] / str(BROKEN[1]))


def start_node(services: Services, node: Node, folder: Path, repo: str, bucket: str) -> None:
    """Start an agent and its model server; the server waits for the agent's first models.config."""
    name = node.name
    config_file = folder / name / "models" / "models.config"
    services.start(
        name,
        [sys.executable, "-m", "reconciler.cli.main", "run"],
        {
            "STORAGE_EMULATOR_HOST": bucket,
            "RECONCILER_REPO": repo,
            "RECONCILER_NODE": name,
            "RECONCILER_MODELS_DIR": str(config_file.parent),
            "RECONCILER_STATE_DIR": str(folder / name / "state"),
            "RECONCILER_SERVING": f"127.0.0.1:{node.serving_port}",
            "RECONCILER_LISTEN": node.places["address"],
            "RECONCILER_GIT_INTERVAL": "1s",
            "RECONCILER_BUCKET_INTERVAL": "5s",
            "RECONCILER_SETTLE": "1s",
            "RECONCILER_TICK": "500ms",
        },
    )
    wait_for(_exists(services, config_file), f"the first models.config of {name}", 30)
    command = model_server_command(node.serving_port, node.rest_port, config_file)
    services.start(f"{name}-server", command, {"TF_CPP_MIN_LOG_LEVEL": "2"})


def _exists(services: Services, path: Path) -> Callable[[], bool]:
    def check() -> bool:
        services.check()
        return path.exists()

    return check
