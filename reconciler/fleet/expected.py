"""What the config repo expects of the fleet: which nodes there are, and what each is to serve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.fleets import FleetReader
from reconciler.errors import ConfigError
from reconciler.fleet.poll import Target
from reconciler.model import Deployment, Desired

_MAX_COMMITS = 10_000


@dataclass(frozen=True, slots=True)
class ExpectedDeployment:
    """One deployment as git has it."""

    group: str
    model: str
    path: str
    source: str
    description: str
    version: int | None
    """The version that git names, by a lock or a pin."""
    stop: bool
    holders: tuple[str, ...] | None
    """The nodes that are to serve it; None where only a registry knows the group's nodes."""
    names: Mapping[int, str] = field(default_factory=dict)
    """What its versions are called that are not simply called by their numbers."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What one commit expects."""

    targets: tuple[Target, ...]
    """Every node that git names."""
    deployments: tuple[ExpectedDeployment, ...]
    enabled: Mapping[str, bool]
    """Group -> whether it is to serve."""
    unlisted_groups: tuple[str, ...] = ()
    """Groups whose nodes only a registry knows."""
    lost_files: tuple[str, ...] = ()
    """Files in groups/ that cannot be followed, so that nobody here knows their nodes."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """Id of each commit of the branch -> how many commits ago it was the newest."""


def expect(fleet: Fleet, positions: Mapping[str, int]) -> Expected:
    """Return what is expected of the fleet; `positions` as in `Expected`."""
    groups = sorted(fleet.groups.values(), key=lambda group: group.name)
    unlisted = {group.name for group in groups if group.membership and not group.nodes}
    deployments = []
    for deployment in fleet.deployments.values():
        group = fleet.groups.get(deployment.group)
        if group is None:
            continue
        expected = ExpectedDeployment(
            group=deployment.group,
            model=deployment.model,
            path=deployment.path,
            source=deployment.source,
            description=deployment.description,
            version=deployment.named_version,
            stop=deployment.stop or not group.enabled,
            holders=None if group.name in unlisted else fleet.place(group).holders[deployment.path],
            names=_name_versions(deployment),
        )
        deployments.append(expected)
    return Expected(
        targets=tuple(
            Target(member.address, member.name, group.name)
            for group in groups
            for member in group.nodes
        ),
        deployments=tuple(deployments),
        enabled={group.name: group.enabled for group in groups},
        unlisted_groups=tuple(sorted(unlisted)),
        lost_files=tuple(sorted(fleet.lost_groups)),
        positions=positions,
    )


def _name_versions(deployment: Deployment) -> dict[int, str]:
    named = {deployment.named_version, *deployment.labels.values()}
    aliases = ((each, deployment.scheme.alias(each)) for each in named if each is not None)
    return {version: name for version, name in aliases if name is not None}


class CheckoutReader:
    """What the newest commit of a clone expects, read anew when that is another one."""

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout
        self._reader = FleetReader(checkout)
        self._latest: tuple[str, Expected] | None = None

    def read(self) -> Expected:
        """Return what the current commit expects. Blocking; raises GitError or ConfigError."""
        commit_id = self._checkout.resolve("HEAD").id
        if self._latest is None or self._latest[0] != commit_id:
            expected = expect(self._reader.read(commit_id), _find_positions(self._log(commit_id)))
            self._latest = (commit_id, expected)
        return self._latest[1]

    def _log(self, commit_id: str) -> Sequence[str]:
        limit = f"--max-count={_MAX_COMMITS}"
        return self._checkout.git("rev-list", "--first-parent", limit, commit_id).split()


class Followed(Protocol):
    """An agent's watch on git."""

    @property
    def fleet(self) -> Fleet | None:
        """What is in force for all nodes, None before a commit was read."""

    @property
    def desired(self) -> Desired | None:
        """The same for the agent's own node, with the commit."""


class FollowedReader:
    """What an agent's commit expects, which is worked out when it is another one."""

    def __init__(self, git: Followed) -> None:
        self._git = git
        self._latest: tuple[Fleet, str, Expected] | None = None

    def read(self) -> Expected:
        """Return what is expected now; raises ConfigError before a commit was read."""
        fleet, desired = self._git.fleet, self._git.desired
        if fleet is None or desired is None:
            raise ConfigError("this node has not read a commit of the config repo yet")
        commit_id = desired.commit.id
        if self._latest is None or self._latest[0] is not fleet or self._latest[1] != commit_id:
            # The past of the branch is not at hand here; that this commit is its newest is.
            self._latest = (fleet, commit_id, expect(fleet, {commit_id: 0}))
        return self._latest[2]


def _find_positions(commit_ids: Sequence[str]) -> dict[str, int]:
    return {commit_id: position for position, commit_id in enumerate(commit_ids)}
