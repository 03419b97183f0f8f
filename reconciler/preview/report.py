"""What a preview says, as values: what each model does on which nodes, what fits, what to mind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.model import Commit, Problem
from reconciler.preview.catalog import UNKNOWN_VERSION, Bytes


class Level(StrEnum):
    """How much a remark matters."""

    PROBLEM = "problem"
    """The change cannot be carried out as it is."""
    WARNING = "warning"
    """It can be, and whoever merges it should know this."""
    NOTE = "note"
    """What the preview could not tell."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to mind, in a word and a sentence."""

    level: Level
    reason: str
    sentence: str
    group: str = ""
    model: str = ""
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelMove:
    """Where a label stands before and after; None where it is not there."""

    label: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Action:
    """What one model does on a node."""

    group: str
    model: str
    path: str
    before: int | None
    """The version that is served at the base; None where none is."""
    after: int | None
    """The version that the head asks for; None where the model goes or stops."""
    downloads: tuple[Bytes, ...] = ()
    reused: tuple[int, ...] = ()
    """Versions that are loaded without a download, because they are still on disk."""
    loaded: tuple[int, ...] = ()
    unloaded: tuple[int, ...] = ()
    deleted: tuple[Bytes, ...] = ()
    labels: tuple[LabelMove, ...] = ()
    has_gap: bool = False
    """Whether the node serves no version of it for a while in between."""
    trouble: str | None = None
    """Why it does not come to be as the head says; None where it does."""
    description: str = ""
    names: tuple[tuple[int, str], ...] = ()
    """What those of its versions are called that are not simply called by their numbers."""

    def show(self, version: int | None) -> str:
        """Return a version as people read it."""
        names = dict(self.names)
        return names[version] if version in names else show_version(version)

    @property
    def is_idle(self) -> bool:
        """Whether the node does nothing for it."""
        return not (self.downloads or self.loaded or self.unloaded or self.deleted or self.labels)


@dataclass(frozen=True, slots=True)
class ModelAction:
    """One thing that one model does, and on which nodes."""

    action: Action
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServerChange:
    """What a group's `serving` asks of its servers; None leaves image or flags as they are."""

    group: str
    path: str
    nodes: tuple[str, ...]
    image_before: str | None
    image_after: str | None
    flags_before: tuple[str, ...] | None
    flags_after: tuple[str, ...] | None

    @property
    def flags_added(self) -> tuple[str, ...]:
        """The flags that the head names and the base did not."""
        return _subtract(self.flags_after, self.flags_before)

    @property
    def flags_removed(self) -> tuple[str, ...]:
        """The flags that the base named and the head does not."""
        return _subtract(self.flags_before, self.flags_after)

    @property
    def replaces(self) -> bool:
        """Whether a server that is as the base says has to be replaced."""
        is_other_image = self.image_after not in (None, self.image_before)
        return is_other_image or self.flags_after not in (None, self.flags_before)


def _subtract(some: tuple[str, ...] | None, others: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple(flag for flag in some or () if flag not in (others or ()))


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of one quota a node uses: `disk` and `memory` in bytes, `models` by number."""

    kind: str
    before: int
    after: int
    peak: int
    """The most at any one time, while old and new versions are there."""
    quota: int
    unsized: tuple[str, ...] = ()
    """Models whose size nobody could tell; they count as nothing."""

    @property
    def fits(self) -> bool:
        """Whether what the head asks for is within the quota."""
        return self.after <= self.quota


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What some nodes of a group, all alike, use of its quotas."""

    group: str
    nodes: tuple[str, ...]
    usages: tuple[Usage, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """Everything that is to be said of a change."""

    base: Commit
    head: Commit
    actions: tuple[ModelAction, ...] = ()
    """Sorted by group and model."""
    servers: tuple[ServerChange, ...] = ()
    """Sorted by group."""
    usages: tuple[NodeUsage, ...] = ()
    """Of nodes that do something, in groups with a quota."""
    remarks: tuple[Remark, ...] = ()
    """The gravest first."""
    problems: tuple[Problem, ...] = field(default=())
    """What is wrong in the head's files."""

    @property
    def is_possible(self) -> bool:
        """Whether the head can be carried out as it is."""
        return not self.problems and all(r.level is not Level.PROBLEM for r in self.remarks)

    @property
    def models(self) -> list[tuple[str, str]]:
        """(group, model) of everything that does something on some node."""
        return sorted(
            {(a.action.group, a.action.model) for a in self.actions if not a.action.is_idle}
        )

    @property
    def nodes(self) -> list[str]:
        """The nodes that do something."""
        return sorted({node for a in self.actions if not a.action.is_idle for node in a.nodes})

    @property
    def download_bytes(self) -> int:
        """What all nodes together download, as far as sizes are known."""
        return sum(
            (item.size_bytes or 0) * len(found.nodes)
            for found in self.actions
            for item in found.action.downloads
        )

    @property
    def is_sized(self) -> bool:
        """Whether the size of every download is known."""
        downloads = [item for found in self.actions for item in found.action.downloads]
        return all(item.size_bytes is not None for item in downloads)


def show_version(version: int | None) -> str:
    """Return a version as people read it."""
    if version is None:
        return "none"
    return "?" if version == UNKNOWN_VERSION else str(version)


def by_group(preview: Preview) -> Mapping[str, Mapping[str, list[ModelAction]]]:
    """Return the actions as group -> model -> what happens where."""
    groups: dict[str, dict[str, list[ModelAction]]] = {}
    for found in preview.actions:
        models = groups.setdefault(found.action.group, {})
        models.setdefault(found.action.model, []).append(found)
    return groups
