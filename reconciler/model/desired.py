"""What the config repo says."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from reconciler.model.available import Query
from reconciler.model.group import Group
from reconciler.model.rollout import Rollout
from reconciler.model.scheme import NUMBER, VersionScheme
from reconciler.policy import Policy


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
    name: str | None = None
    """What the version is called by the deployment's scheme; None where that is its number."""

    @property
    def title(self) -> str:
        """What the version is called."""
        return self.name or str(self.version)

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

    @property
    def title(self) -> str:
        """What the version is called that the deployment's `version` came to."""
        locked = self.versions.get(self.version)
        return locked.title if locked else str(self.version)


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
    rollout: Rollout = field(default_factory=Rollout)
    description: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    scheme: VersionScheme = NUMBER
    """How versions are named in git and in the source."""

    @property
    def named_version(self) -> int | None:
        """The version that git names, by a lock or a pin; None where a node must look it up."""
        return self.lock.version if self.lock else self.version

    @property
    def query(self) -> Query:
        """What lists all versions of its source."""
        return Query(self.source, scheme=self.scheme)

    def query_for(self, version: int) -> Query:
        """Return what lists one version of its source."""
        return Query(self.source, version, self.scheme)

    def locked(self, version: int) -> LockedVersion | None:
        """Return which bytes a version must have, None where any will do."""
        return self.lock.versions.get(version) if self.lock else None


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
    elsewhere: tuple[Deployment, ...] = ()
    """The group's others, which are placed on other nodes, sorted by model."""
    abroad: Mapping[str, tuple[Deployment, ...]] = field(default_factory=dict)
    """Model -> what other groups are to serve of it, where this group does not deploy it."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    """All groups by name, for those that have to be asked about what is abroad."""
    holders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Model -> the nodes that hold it, in the order in which a rollout reaches them."""
