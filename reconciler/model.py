"""The words of the system as frozen values: what is desired, available, local and served.

Four snapshots of the world go into the plan. Each is read by one package (config_repo, sources,
store, serving) and none of them changes once read, so a plan can be computed, tested and replayed
without touching anything.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import TypeAlias

from reconciler.policy import Policy

# --- desired: what the config repo says -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of the config repo; `time_seconds` is the committer's clock, Unix time."""

    id: str
    author: str
    subject: str
    time_seconds: float


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A mistake in the config repo: where it is and a sentence that says what would be right."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}"


class Strategy(StrEnum):
    """How a model goes from one version to the next."""

    OVERLAP = "overlap"
    """Load the new version beside the old one, then drop the old one: no gap, twice the memory."""
    RECREATE = "recreate"
    """Unload the old version first: a gap, for a model of which two do not fit in memory."""


@dataclass(frozen=True)
class LockedVersion:
    """One version as it was when it was locked: a node takes these bytes or none."""

    version: int
    files: int
    size_bytes: int
    digest: str
    """`Snapshot.digest` of what the source listed."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Path -> hex sha256 of each file, where the version was published with these; else empty."""

    @cached_property
    def fingerprint(self) -> str:
        """A text that is the same for the same bytes."""
        sums = "".join(f"{path}\0{digest}\n" for path, digest in sorted(self.sha256.items()))
        return hashlib.sha256(f"{self.digest}\n{sums}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Lock:
    """What one deployment's versions came to, as written in `path` of the config repo."""

    path: str
    model: str
    source: str
    version: int
    """What the deployment's `version` came to."""
    versions: Mapping[int, LockedVersion]
    """That version and each labelled one."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One model in one group, as written in `path` of the config repo."""

    model: str
    group: str
    path: str
    source: str
    """`gs://bucket/prefix` or `file:///folder`, without a trailing slash."""
    version: int | None = None
    """The pinned version; None is `latest`."""
    labels: Mapping[str, int] = field(default_factory=dict)
    replicas: int | None = None
    """On how many of the group's nodes; None is `all`."""
    stop: bool = False
    suspend: bool = False
    """Whether the node is to leave the model as it is, whatever else is asked."""
    lock: Lock | None = None
    """The bytes to take; None where the versions are resolved by each node."""
    strategy: Strategy = Strategy.OVERLAP
    description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def named_version(self) -> int | None:
        """The version that git names, by a lock or a pin; None where a node must look it up."""
        return self.lock.version if self.lock else self.version

    def locked(self, version: int) -> LockedVersion | None:
        """Return which bytes a version must have, None where any will do."""
        return self.lock.versions.get(version) if self.lock else None


@dataclass(frozen=True, slots=True)
class Quota:
    """What a group may use of each of its nodes; None is no limit."""

    disk_bytes: int | None = None
    models: int | None = None
    memory_bytes: int | None = None
    """Held against the sizes of the served versions: a loaded model takes at least its files."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node of a group; `address` is the `host:port` of its status endpoint, where known."""

    name: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that serve the same set of deployments."""

    name: str
    path: str
    nodes: tuple[Member, ...]
    quota: Quota = field(default_factory=Quota)
    enabled: bool = True
    suspend: bool = False
    """Whether its nodes are to stay as they are."""


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything one commit asks of one node."""

    commit: Commit
    node: str
    group: Group | None
    """The node's group; None where no group names it."""
    deployments: tuple[Deployment, ...]
    """Those placed on this node, stopped ones included, sorted by model."""
    policy: Policy = field(default_factory=Policy)
    problems: tuple[Problem, ...] = ()
    """What is wrong in the commit, everywhere; the last good text of those files is in force."""
    broken: Mapping[str, Problem] = field(default_factory=dict)
    """Model -> why the newest text of its file is not followed (this node's models only)."""


# --- available: what the bucket holds -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One object of a version, as the listing names it."""

    path: str
    """Relative to the version's folder, with `/` between folders."""
    size_bytes: int
    generation: int
    """Cloud Storage's generation; for `file://` the modification time in nanoseconds."""
    crc32c: int | None
    """Of the whole object; None where the source does not know it (`file://`)."""
    updated_seconds: float
    """When the object was written, by the source's clock, Unix time."""


@dataclass(frozen=True)
class Snapshot:
    """One version as its source lists it at one moment."""

    source: str
    version: int
    folder: str
    """The version's folder name as it stands in the source: `42`, or `0042`."""
    files: tuple[StoredFile, ...]

    @property
    def size_bytes(self) -> int:
        """Sum of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def newest_seconds(self) -> float:
        """When the last of its files was written."""
        return max((file.updated_seconds for file in self.files), default=0.0)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 over the sorted (path, size, crc32c, generation) of all files."""
        text = "".join(
            f"{file.path}\0{file.size_bytes}\0{file.crc32c}\0{file.generation}\n"
            for file in sorted(self.files, key=lambda file: file.path)
        )
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class Query:
    """What to list: one version of a source, or all of them where `version` is None."""

    source: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete answer to a query."""

    query: Query
    read_at_seconds: float
    """The source's own clock when it answered, Unix time."""
    snapshots: Mapping[int, Snapshot]
    refused: Mapping[int, str] = field(default_factory=dict)
    """Versions that cannot be taken because of a name in them, each with a sentence."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A query that was not answered: the reason word and a sentence."""

    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Available:
    """The last complete listing of each query, and why the newest try failed where it did."""

    listings: Mapping[Query, Listing] = field(default_factory=dict)
    troubles: Mapping[Query, Unavailable] = field(default_factory=dict)


# --- local: what is on disk -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LocalVersion:
    """A version in the models folder."""

    model: str
    version: int
    size_bytes: int
    digest: str | None
    """Of the snapshot it was installed from; None where this reconciler did not install it."""
    intact: bool = True
    """Whether the files still are what the manifest says."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A download that was begun: the bytes that are there already."""

    model: str
    version: int
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Local:
    """What the models folder holds."""

    versions: Mapping[str, Mapping[int, LocalVersion]]
    staged: tuple[Staged, ...] = ()
    free_bytes: int = 0
    total_bytes: int = 0
    strays: tuple[str, ...] = ()
    """Names in model folders that TensorFlow Serving would take for versions but are not."""


# --- served: what TensorFlow Serving says ---------------------------------------------------


class State(IntEnum):
    """tensorflow.serving.ModelVersionStatus.State, by its numbers."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The state of one version of one model; `code` is gRPC's word, `OK` when all is well."""

    state: State
    code: str = "OK"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """One round of GetModelStatus over all models of interest."""

    connection: int
    """Counts the connections made: another number means that the server may have restarted."""
    models: Mapping[str, Mapping[int, VersionStatus]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One model's entry in TensorFlow Serving's config: `specific` versions and their labels."""

    versions: frozenset[int]
    labels: Mapping[str, int] = field(default_factory=dict)


ServerConfig: TypeAlias = Mapping[str, Ask]
"""Model name -> entry. Platform and base path follow from the name."""

# --- the outcome per deployment -------------------------------------------------------------


class Phase(StrEnum):
    """Where a deployment stands on this node."""

    DEPLOYING = "Deploying"
    DEPLOYED = "Deployed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the plan says of one deployment: phase, the reason word and a sentence for a person."""

    deployment: Deployment
    phase: Phase
    reason: str
    sentence: str
    wanted: int | None = None
    """The version that `latest` or the pin came to; None while that is not known."""
    serving: tuple[int, ...] = ()
    """The versions that answer requests now, ascending."""
    installed: tuple[int, ...] = ()
    """The versions on disk that this reconciler put there, ascending."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """The labels that TensorFlow Serving has accepted."""
    progress: Progress | None = None
    last_error: str | None = None
    retry_in_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """An operator's word to one node: touch nothing until then."""

    reason: str
    until_seconds: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One yes-or-no fact about the node; `holds` False with a sentence is something to act on."""

    name: str
    holds: bool
    reason: str
    sentence: str
