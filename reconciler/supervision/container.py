"""One server container as the engine describes it, and the one that is to take its place.

The description mixes what a person gave with what the image brought along. A successor gets only
the former, so that the new image's entrypoint, environment and labels come into force.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.model import ServerSpec
from reconciler.model.group import AGENT_FLAGS, flag_name

REPLACES = "reconciler.supervision.replaces"
"""The label of a successor: the id of the container whose place it is to take."""
NEXT_SUFFIX = ".next"
"""Of a successor's name, until it has the place."""
_ORCHESTRATORS = {
    "com.docker.swarm.task.id": "Docker Swarm",
    "com.hashicorp.nomad.alloc_id": "Nomad",
    "io.kubernetes.pod.uid": "Kubernetes",
}
_RUNNING = frozenset({"running", "restarting", "paused"})
_NO_NETWORKS = frozenset({"host", "none", "default"})
_OF_THE_IMAGE = ("Env", "ExposedPorts", "Volumes", "Labels")
_OF_THE_IMAGE_AS_A_WHOLE = ("Cmd", "Entrypoint", "WorkingDir", "User", "StopSignal", "Healthcheck")
_ENDPOINT_FIELDS = ("IPAMConfig", "Links", "Aliases", "DriverOpts")


@dataclass(frozen=True, slots=True)
class Container:
    """What the engine's `GET /containers/{id}/json` says, as far as it matters."""

    id: str
    name: str
    labels: Mapping[str, str]
    image: str
    """As it was asked for when the container was made."""
    image_id: str
    command: tuple[str, ...]
    """What is given to the image's entrypoint."""
    state: str
    restarts: int
    """How often the engine has started it again after it ended by itself."""
    exit_code: int
    """Of its last end."""
    started_at_seconds: float | None
    """Unix time; None where it never ran."""
    description: Mapping[str, Any]
    """All that the engine says."""

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Container":
        """Read the engine's description; raises LookupError, TypeError or ValueError."""
        config, state = description["Config"], description["State"]
        return cls(
            id=str(description["Id"]),
            name=str(description["Name"]).removeprefix("/"),
            labels=dict(config.get("Labels") or {}),
            image=str(config["Image"]),
            image_id=str(description["Image"]),
            command=tuple(map(str, config.get("Cmd") or ())),
            state=str(state["Status"]),
            restarts=int(description.get("RestartCount", 0)),
            exit_code=int(state.get("ExitCode", 0)),
            started_at_seconds=_parse_time(str(state.get("StartedAt", ""))),
            description=description,
        )

    @property
    def is_running(self) -> bool:
        """Whether its process runs, or is started again by the engine."""
        return self.state in _RUNNING

    @property
    def has_run(self) -> bool:
        """Whether it was ever started."""
        return self.state != "created"

    @property
    def owner(self) -> str | None:
        """The orchestrator that made it and starts it anew where it ends; None on a plain host."""
        return next((name for label, name in _ORCHESTRATORS.items() if label in self.labels), None)

    @property
    def place(self) -> str:
        """The name that it has or is to have."""
        return self.name.removesuffix(NEXT_SUFFIX) if REPLACES in self.labels else self.name

    @property
    def flags(self) -> tuple[str, ...]:
        """Its flags without those that the agent relies on."""
        return tuple(flag for flag in self.command if flag_name(flag) not in AGENT_FLAGS)


def follows(container: Container, spec: ServerSpec, wanted_image_id: str | None) -> bool:
    """Whether the container runs what git says; `wanted_image_id` where the image is here."""
    has_image = spec.image in (None, container.image) or wanted_image_id == container.image_id
    has_flags = spec.flags is None or sorted(spec.flags) == sorted(container.flags)
    return has_image and has_flags


def find_hindrance(container: Container, spec: ServerSpec) -> str | None:
    """Return why no successor can take the container's place, in words that follow `because`."""
    host = container.description["HostConfig"]
    if container.owner:
        return (
            f"{container.owner} made it and would start another one beside the successor; change"
            " the image and the flags there"
        )
    if host.get("AutoRemove"):
        return "it is removed when it stops (--rm), so there would be no way back"
    if container.state not in ("running", "restarting"):
        return f"it does not run (it is {container.state}), so it may have been stopped on purpose"
    if spec.flags is not None and not all(flag.startswith("--") for flag in container.command):
        return (
            "its command is not a list of flags only; start it with flags alone, or remove"
            " `flags` from git"
        )
    return None


def build_successor(
    container: Container, spec: ServerSpec, image_defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the body of `POST /containers/create` for what takes the container's place.

    `image_defaults` is the `Config` of the image that the container runs.
    """
    config = without_defaults(container.description["Config"], image_defaults)
    config["Image"] = spec.image or container.image
    if spec.flags is not None:
        kept = [flag for flag in container.command if flag_name(flag) in AGENT_FLAGS]
        config["Cmd"] = [*kept, *spec.flags]
    config["Labels"] = {**config.get("Labels", {}), REPLACES: container.id}
    host = dict(container.description["HostConfig"])
    mode = str(host.get("NetworkMode", "default"))
    if config.get("Hostname") == container.id[:12] or mode == "host" or _is_shared(mode):
        config.pop("Hostname", None)  # the engine's choice; it makes one for the successor
    host["Binds"] = [*(host.get("Binds") or ()), *_find_unnamed_volumes(container)]
    endpoints = find_endpoints(container)
    first = dict(list(endpoints.items())[:1])
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": first}}


def find_endpoints(container: Container) -> dict[str, dict[str, Any]]:
    """Return the container's networks and how it is known there, its main one first."""
    mode = str(container.description["HostConfig"].get("NetworkMode", "default"))
    if mode in _NO_NETWORKS or _is_shared(mode):
        return {}
    networks = container.description["NetworkSettings"]["Networks"] or {}
    own = container.id[:12]
    endpoints = {}
    for name in sorted(networks, key=lambda name: (name != mode, name)):
        endpoint = {field: networks[name].get(field) for field in _ENDPOINT_FIELDS}
        endpoint["Aliases"] = [alias for alias in endpoint["Aliases"] or () if alias != own]
        endpoints[name] = endpoint
    return endpoints


def without_defaults(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a container's config without what its image brought along."""
    given = {name: value for name, value in config.items() if value is not None}
    for name in _OF_THE_IMAGE_AS_A_WHOLE:
        if name in given and given[name] == defaults.get(name):
            del given[name]
    for name in _OF_THE_IMAGE:
        ours, theirs = given.get(name), defaults.get(name) or {}
        if isinstance(ours, Mapping):
            given[name] = {
                key: value
                for key, value in ours.items()
                if key not in theirs or theirs[key] != value
            }
        elif isinstance(ours, list):
            given[name] = [item for item in ours if item not in theirs]
    return given


def is_connected(new: Container, old: Container) -> bool:
    """Whether a successor is in all the networks of the container that it replaces."""
    networks = new.description["NetworkSettings"]["Networks"] or {}
    return find_endpoints(old).keys() <= networks.keys()


def _is_shared(mode: str) -> bool:
    return mode.startswith("container:")


def _find_unnamed_volumes(container: Container) -> Iterable[str]:
    """Yield a bind for each volume that the engine made up a name for; others are in HostConfig."""
    host = container.description["HostConfig"]
    named = {bind.split(":")[1] for bind in host.get("Binds") or () if ":" in bind}
    named |= {mount["Target"] for mount in host.get("Mounts") or ()}
    for mount in container.description.get("Mounts") or ():
        if mount.get("Type") == "volume" and mount["Destination"] not in named:
            yield f"{mount['Name']}:{mount['Destination']}{'' if mount.get('RW', True) else ':ro'}"


def _parse_time(text: str) -> float | None:
    """Return Docker's time, which has nanoseconds; the year 1 stands for never."""
    if not text or text.startswith("0001-"):
        return None
    whole, _, _ = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp()
