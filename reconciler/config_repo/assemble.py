"""All files of a commit together: what is in force, and every problem, also those between files.

The rule: a broken file never harms the others. What it said last, while it was good, stays in
force until it is good again; this includes files that are good alone but contradict another.
Where two contradict each other, the one whose text was in force before wins, then the one that is
named as its model, then the first by path: a newcomer cannot push out what serves, and without a
past (a new node, a pull request) the answer depends on the commit alone.

A deployment and its lock file are followed together or not at all: if one of them is wrong, or
they do not fit each other, the last good pair stays in force.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TypeAlias

from reconciler.config_repo.build import build_deployment, build_group, build_lock, build_policy
from reconciler.config_repo.documents import Broken, Document
from reconciler.config_repo.layout import MODEL_NAME, Kind, Place, lock_path
from reconciler.config_repo.locks import find_misfits
from reconciler.config_repo.rules import (
    find_rollout_mistakes,
    find_rule_mistakes,
    find_server_mistakes,
)
from reconciler.config_repo.yaml_text import Mistake
from reconciler.model import Deployment, Group, Lock, Problem
from reconciler.planning.placement import Holders, Placement, place_all
from reconciler.policy import Policy

_CAUTIOUS = Policy(keep=1000, max_removals=0.0)
"""While fleet.yaml cannot be read and never was: as little as possible is removed on doubt."""


Recall = Callable[[str], Document | None]
"""The last good document of a path, None where there is none."""


@dataclass(frozen=True)
class File:
    """One file of the config: where it is and what is in it.

    Of 10,000 files a commit changes one; what each says by itself is worked out once, and a
    deployment that stays the same stays the same object.
    """

    path: str
    place: Place
    blob_id: str
    content: Document | Broken

    @cached_property
    def deployment(self) -> Deployment:
        """The deployment that the file asks for by itself, without its lock."""
        return build_deployment(self.path, self.place, _document(self))

    @cached_property
    def group(self) -> Group:
        """The group that the file describes."""
        return build_group(self.path, self.place, _document(self))

    @cached_property
    def lock(self) -> Lock:
        """The lock that the file is."""
        return build_lock(self.path, _document(self))

    @cached_property
    def own_mistakes(self) -> tuple[Mistake, ...]:
        """What is wrong in a deployment without a look at other files."""
        document = _document(self)
        return (*_check_place(self, document), *find_rollout_mistakes(document))

    @cached_property
    def model(self) -> str:
        """The model it is about, as far as it can be told; only for deployments."""
        if isinstance(self.content, Document):
            return str(self.content.fields.get("model", self.place.model))
        written = self.content.model
        return written if written and MODEL_NAME.fullmatch(written) else self.place.model


@dataclass(frozen=True, slots=True)
class Pair:
    """A deployment and the lock beside it, put together."""

    file: File
    lock: File
    misfits: tuple[Mistake, ...]
    deployment: Deployment


Pairs: TypeAlias = dict[str, Pair]
"""Path of a deployment -> the pair that was put together for it last."""


@dataclass(slots=True)
class Fleet:
    """What is in force for every node."""

    policy: Policy = field(default_factory=Policy)
    groups: dict[str, Group] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    """Path -> the deployment that is in force for it."""
    problems: list[Problem] = field(default_factory=list)
    broken: dict[str, tuple[File, Problem]] = field(default_factory=dict)
    """Path -> the file that is not followed, and the first reason."""
    good: dict[str, str] = field(default_factory=dict)
    """Path -> blob id of its last good text, this commit included."""

    holders: Holders = field(default_factory=dict, repr=False, compare=False)
    """What was worked out of placements before, for this fleet or the one before it."""

    _placements: dict[str, Placement] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def place(self, group: Group) -> Placement:
        """Return where a group's deployments are, which is worked out once."""
        # For 300 nodes and 1,000 deployments it takes half a second, and each node is asked for.
        if group.name not in self._placements:
            own = [item for item in self.deployments.values() if item.group == group.name]
            self._placements[group.name] = place_all(own, group, self.holders)
        return self._placements[group.name]

    @property
    def lost_groups(self) -> list[str]:
        """Paths of group files that cannot be followed and have no last good text."""
        return [
            path
            for path, (file, _) in self.broken.items()
            if file.place.kind is Kind.GROUP and file.place.group not in self.groups
        ]


def assemble(
    files: Iterable[File],
    problems: Iterable[Problem] = (),
    good: Mapping[str, str] | None = None,
    recall: Recall = lambda _path: None,
    pairs: Pairs | None = None,
    holders: Holders | None = None,
) -> Fleet:
    """Return what is in force.

    `problems` are those found before any file was read, `good` the blob id of each path's last
    good text and `recall` gives that text. `pairs` and `holders` keep what has been worked out for
    the next time.
    """
    fleet = Fleet(problems=list(problems), holders={} if holders is None else holders)
    assembly = _Assembly(good or {}, recall, fleet, {} if pairs is None else pairs)
    by_kind: dict[Kind, list[File]] = {kind: [] for kind in Kind}
    for file in files:
        by_kind[file.place.kind].append(file)
    for file in by_kind[Kind.FLEET]:
        assembly.take_policy(file)
    for file in sorted(by_kind[Kind.GROUP], key=assembly.rank):
        assembly.take_group(file)
    known = {file.place.group for file in by_kind[Kind.GROUP]}
    locks = {file.path: file for file in by_kind[Kind.LOCK]}
    for file in sorted(by_kind[Kind.DEPLOYMENT], key=assembly.rank):
        assembly.take_deployment(file, locks.pop(lock_path(file.path), None), known)
    for file in locks.values():
        assembly.refuse_orphan(file)
    assembly.fleet.problems.sort()
    return assembly.fleet


class _Assembly:
    """Takes one file after the other and keeps what the next ones must not contradict."""

    def __init__(self, good: Mapping[str, str], recall: Recall, fleet: Fleet, pairs: Pairs) -> None:
        self.fleet = fleet
        self._pairs = pairs
        self._good = good
        self._recall = recall
        self._group_of_node: dict[str, str] = {}
        self._owners: dict[tuple[str, str], Deployment] = {}

    def rank(self, file: File) -> tuple[int, bool, str]:
        """Order files so that the first of two that contradict each other is to be kept.

        Broken files come before changed ones, because what is in force for them was before, too.
        """
        if self._good.get(file.path) == file.blob_id:
            age = 0
        else:
            age = 1 if isinstance(file.content, Broken) else 2
        return age, file.place.model != file.model, file.path

    def take_policy(self, file: File) -> None:
        document = self._choose(file, find_rule_mistakes, find_rule_mistakes)
        self.fleet.policy = build_policy(document) if document else _CAUTIOUS

    def take_group(self, file: File) -> None:
        def build(document: Document) -> Group:
            if document is file.content:
                return file.group
            return build_group(file.path, file.place, document)

        def clashes(document: Document) -> list[Mistake]:
            group = build(document)
            return [*self._find_double_nodes(group, document), *find_server_mistakes(document)]

        document = self._choose(file, clashes, clashes)
        if document is None:
            return
        group = build(document)
        self.fleet.groups[group.name] = group
        self._group_of_node.update((member.name, file.path) for member in group.nodes)

    def take_deployment(self, file: File, lock: File | None, known_groups: set[str]) -> None:
        problems = self._check_deployment(file, known_groups) + self._check_lock(file, lock)
        if problems:
            self._refuse(file, problems)
            deployment = self._recall_deployment(file)
        else:
            for good in filter(None, (file, lock)):
                self.fleet.good[good.path] = good.blob_id
            deployment = self._join(file, lock).deployment if lock else file.deployment
        if deployment is not None:
            self.fleet.deployments[file.path] = deployment
            self._owners[deployment.group, deployment.model.casefold()] = deployment

    def refuse_orphan(self, lock: File) -> None:
        """Say that there is nothing beside a lock file that it could be for."""
        message = (
            f"there is no {lock.place.model}.yaml beside this lock; remove it, or move it to where"
            " its deployment is"
        )
        self.fleet.problems.append(Problem(lock.path, 1, 1, message))

    def _check_deployment(self, file: File, known_groups: set[str]) -> list[Problem]:
        content = file.content
        if isinstance(content, Broken):
            return _at(file.path, content.mistakes)
        mistakes = [
            *file.own_mistakes,
            *self._check_group(file, content, known_groups),
            *self._find_owner(file.deployment, content),
        ]
        return _at(file.path, mistakes)

    def _check_lock(self, file: File, lock: File | None) -> list[Problem]:
        if isinstance(file.content, Broken):
            return []
        if lock is None:
            message = self._find_lack_of_lock(file.deployment)
            return _at(file.path, [file.content.complain(message, "version")] if message else [])
        if isinstance(lock.content, Broken):
            return _at(lock.path, lock.content.mistakes)
        return _at(lock.path, self._join(file, lock).misfits)

    def _join(self, file: File, lock: File) -> Pair:
        pair = self._pairs.get(file.path)
        if pair is None or pair.file is not file or pair.lock is not lock:
            misfits = find_misfits(file.deployment, lock.lock, _document(lock))
            deployment = replace(file.deployment, lock=lock.lock)
            pair = self._pairs[file.path] = Pair(file, lock, tuple(misfits), deployment)
        return pair

    def _find_lack_of_lock(self, deployment: Deployment) -> str | None:
        if deployment.lock or deployment.stop or not self.fleet.policy.requires_lock:
            return None
        return (
            f"fleet.yaml requires a lock, and {lock_path(deployment.path)} is not there; run"
            f" `reconciler lock {deployment.model}` and commit the file"
        )

    def _recall_deployment(self, file: File) -> Deployment | None:
        """Return what a file and its lock said when both were good, if it may still be followed."""
        lock_file = lock_path(file.path)
        known = [path for path in (file.path, lock_file) if path in self._good]
        self.fleet.good.update({path: self._good[path] for path in known})
        documents = {path: self._recall(path) for path in known}
        document = documents.get(file.path)
        if document is None or None in documents.values():
            return None
        deployment = _build(file, document, documents.get(lock_file))
        if self._find_owner(deployment, document) or self._find_lack_of_lock(deployment):
            return None
        return deployment

    def _refuse(self, file: File, problems: list[Problem]) -> None:
        self.fleet.problems += problems
        self.fleet.broken[file.path] = (file, min(problems))

    def _choose(
        self,
        file: File,
        check: Callable[[Document], list[Mistake]],
        clashes: Callable[[Document], list[Mistake]],
    ) -> Document | None:
        """Return the document in force for a file: its own, else its last good one, else None."""
        content = file.content
        mistakes = content.mistakes if isinstance(content, Broken) else tuple(check(content))
        if not mistakes and isinstance(content, Document):
            self.fleet.good[file.path] = file.blob_id
            return content
        self._refuse(file, _at(file.path, mistakes))
        if file.path not in self._good:
            return None
        self.fleet.good[file.path] = self._good[file.path]
        last = self._recall(file.path)
        return None if last is None or clashes(last) else last

    def _find_double_nodes(self, group: Group, document: Document) -> list[Mistake]:
        seen: set[str] = set()
        mistakes = []
        for index, member in enumerate(group.nodes):
            other = self._group_of_node.get(member.name)
            if member.name in seen:
                message = f"node {member.name} is listed twice; remove one"
                mistakes.append(document.complain(message, "nodes", index))
            elif other is not None:
                message = f"node {member.name} is in {other} already; a node is in one group only"
                mistakes.append(document.complain(message, "nodes", index))
            seen.add(member.name)
        return mistakes

    def _find_owner(self, deployment: Deployment, document: Document) -> list[Mistake]:
        owner = self._owners.get((deployment.group, deployment.model.casefold()))
        if owner is None:
            return []
        if owner.model == deployment.model:
            message = (
                f"model {owner.model} is deployed by {owner.path} already; remove one of the two"
            )
        else:
            message = (
                f"model {deployment.model} differs from {owner.model} in {owner.path} by case only,"
                " which not every file system can tell apart; rename one"
            )
        return [document.complain(message, "model")]

    def _check_group(self, file: File, document: Document, known: set[str]) -> list[Mistake]:
        name = file.place.group
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"move the file to deployments/{near[0]}/" if near else "add that file"
            return [document.complain(f"there is no groups/{name}.yaml; {hint}")]
        group = self.fleet.groups.get(name)
        replicas = document.fields.get("replicas")
        if group is None or not isinstance(replicas, int) or group.membership is not None:
            return []  # how many nodes a registry knows can change at any time
        nodes = sum(member.weight > 0 for member in group.nodes)
        if replicas <= nodes:
            return []
        message = f"replicas is {replicas} but group {name} has {nodes} node{'s'[: nodes != 1]}"
        if nodes < len(group.nodes):
            message += " of a weight above 0"
        hint = f"write {nodes} or all, or add nodes" if nodes else "write all, or add nodes"
        return [document.complain(f"{message}; {hint}", "replicas")]


def _at(path: str, mistakes: Iterable[Mistake]) -> list[Problem]:
    return [Problem(path, item.line, item.column, item.message) for item in mistakes]


def _document(file: File) -> Document:
    assert isinstance(file.content, Document)  # noqa: S101 - the checks came before
    return file.content


def _build(file: File, document: Document, lock: Document | None) -> Deployment:
    built: Lock | None = build_lock(lock_path(file.path), lock) if lock else None
    return build_deployment(file.path, file.place, document, built)


def _check_place(file: File, document: Document) -> list[Mistake]:
    """Return what the document says otherwise than its path."""
    mistakes = []
    written = document.fields.get("group", file.place.group)
    if written != file.place.group:
        message = (
            f"group is {written} but the file is in deployments/{file.place.group}/;"
            f" move it to deployments/{written}/ or remove the line"
        )
        mistakes.append(document.complain(message, "group"))
    if not MODEL_NAME.fullmatch(file.model):
        message = (
            f"the file's name {file.model!r} cannot be a model's name; rename it or write"
            " `model:` with letters, digits, dots, hyphens and underscores"
        )
        mistakes.append(document.complain(message))
    return mistakes
