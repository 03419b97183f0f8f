"""What a commit of the config repo asks of one node.

fleets.py reads what is in force for the whole fleet; placement says which of the group's
deployments are this node's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from reconciler.config_repo.assemble import File, Fleet, assemble
from reconciler.config_repo.documents import parse_document
from reconciler.config_repo.fleets import FleetReader
from reconciler.config_repo.last_good import LastGood
from reconciler.config_repo.layout import MODEL_NAME, Kind
from reconciler.config_repo.members import check_members, with_members
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.tree import survey
from reconciler.errors import ConfigError
from reconciler.model import Commit, Deployment, Desired, Group, Member, Problem, Unavailable
from reconciler.planning.placement import Placement
from reconciler.policy import Policy

FLEET_FILE = "fleet.yaml"
Members: TypeAlias = Mapping[str, tuple[Member, ...]]
"""Group -> its nodes, as a registry has told them."""


class ConfigRepo:
    """Reads commits of a mirror for one node. Blocking, for one thread at a time."""

    def __init__(self, mirror: Mirror, node: str, state_dir: Path) -> None:
        self._mirror = mirror
        self._reader = FleetReader(mirror)
        self._node = node
        self._last_good = LastGood(state_dir / "last_good.json", mirror.origin)
        self._fleet: Fleet | None = None
        self.placed: Fleet | None = None
        """The fleet of the commit in force, with the members that registries have told."""
        self._latest: Desired | None = None
        self._members: Members = {}
        self._troubles: Mapping[str, Unavailable] = {}

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of the commit that was read last, as git describes them."""
        return tuple(self._fleet.groups.values()) if self._fleet else ()

    def set_members(self, members: Members, troubles: Mapping[str, Unavailable]) -> bool:
        """Set who is in the groups that registries know; return whether that is news.

        `troubles` says why a group's members may not be known.
        """
        if (members, troubles) == (self._members, self._troubles):
            return False
        self._members, self._troubles = members, troubles
        self._latest = None
        return True

    def read(self, commit: Commit) -> Desired:
        """Return what `commit` asks of the node.

        Raises GitError when the mirror cannot be read, and ConfigError when the commit leaves open
        what the node should do; in both cases what was read before stays in force.
        """
        if self._latest is not None and self._latest.commit == commit:
            return self._latest
        last = self._last_good
        self._fleet = fleet = self._reader.read(commit.id, last.blob_ids, last.passed)
        placed = with_members(fleet, self._members)
        check_members(placed, self._node, self._troubles)
        desired = choose_desired(placed, commit, self._node)
        # While a file is broken, its last good text is one that may have been judged long ago.
        last.save(fleet.good, has_passed=not fleet.broken)
        self._latest, self.placed = desired, placed
        return desired

    def read_policy(self, commit: Commit) -> Policy | None:
        """Return what the fleet.yaml of a commit rules by itself, None where it is broken.

        No other file is read and nothing is remembered: the commit may not be one to follow.
        Raises GitError when the mirror cannot be read.
        """
        blob = self._mirror.read_tree(commit.id).get(FLEET_FILE)
        if blob is None:
            return Policy()
        found = survey({FLEET_FILE: blob})
        data = self._mirror.read_blob(blob.id) if found.readable else b""
        content = found.unreadable.get(FLEET_FILE) or parse_document(Kind.FLEET, data or b"")
        fleet = assemble([File(FLEET_FILE, found.places[FLEET_FILE], blob.id, content)])
        return None if fleet.broken else fleet.policy


def choose_desired(fleet: Fleet, commit: Commit, node: str) -> Desired:
    """Return the part of what is in force that is this node's.

    Raises ConfigError when a broken group file leaves open which group the node is in.
    """
    group = next((group for group in fleet.groups.values() if node in _names(group)), None)
    if group is None and fleet.lost_groups:
        _, problem = fleet.broken[fleet.lost_groups[0]]
        raise ConfigError(
            f"whether node {node} is in a group cannot be told, because a group file is broken and"
            f" was never good ({problem}); nothing is changed on this node until it is repaired"
        )
    own = {
        path: item
        for path, item in fleet.deployments.items()
        if group is not None and item.group == group.name
    }
    placement = fleet.place(group) if group else Placement({}, {})
    held = placement.held.get(node, frozenset())
    placed = {path: item for path, item in own.items() if path in held}
    deployments = _sort(placed.values(), group)
    return Desired(
        commit=commit,
        node=node,
        group=group,
        deployments=deployments,
        elsewhere=_sort((item for path, item in own.items() if path not in placed), group),
        abroad=_find_abroad(fleet, group) if group else {},
        groups=fleet.groups,
        holders={own[path].model: nodes for path, nodes in placement.holders.items()},
        policy=fleet.policy,
        problems=tuple(fleet.problems),
        broken=_find_broken(fleet, group, placed),
    )


def _find_abroad(fleet: Fleet, group: Group) -> dict[str, tuple[Deployment, ...]]:
    """Return what other groups are to serve of models that this one does not deploy."""
    own = {item.model for item in fleet.deployments.values() if item.group == group.name}
    found: dict[str, list[Deployment]] = {}
    for item in fleet.deployments.values():
        other = fleet.groups.get(item.group)
        if item.model not in own and not item.stop and other is not None and other.enabled:
            found.setdefault(item.model, []).append(item)
    return {
        model: tuple(sorted(items, key=lambda item: item.group)) for model, items in found.items()
    }


def _names(group: Group) -> list[str]:
    return [member.name for member in group.nodes]


def _sort(deployments: Iterable[Deployment], group: Group | None) -> tuple[Deployment, ...]:
    if group is not None and not group.enabled:
        deployments = (replace(deployment, stop=True) for deployment in deployments)
    return tuple(sorted(deployments, key=lambda deployment: deployment.model))


def _find_broken(
    fleet: Fleet, group: Group | None, placed: Mapping[str, Deployment]
) -> dict[str, Problem]:
    """Return the node's models whose file is not followed.

    A file that was never good may have been meant for this node, so its model counts as well, and
    is not taken for one that nobody wants; unless another file speaks for that model.
    """
    broken = {placed[path].model: fleet.broken[path][1] for path in placed if path in fleet.broken}
    for path, (file, problem) in fleet.broken.items():
        if group is None or file.place.kind is not Kind.DEPLOYMENT:
            continue
        if file.place.group != group.name or path in fleet.deployments:
            continue
        if MODEL_NAME.fullmatch(file.model) and not _speaks_for(fleet, group, file.model):
            broken.setdefault(file.model, problem)
    return broken


def _speaks_for(fleet: Fleet, group: Group, model: str) -> bool:
    return any(
        deployment.group == group.name and deployment.model == model
        for deployment in fleet.deployments.values()
    )
