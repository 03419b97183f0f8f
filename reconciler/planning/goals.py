"""From a deployment to what its model should come to: versions, bytes to fetch, what is in the way.

What is installed as its lock says needs no bucket at all, and neither does an installed pin but for
a rare comparison. `latest` without a lock needs a listing, and while there is none it stays what it
last came to, so that a bucket that is down changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.model import (
    Available,
    Deployment,
    LocalVersion,
    LockedVersion,
    Query,
    Snapshot,
)
from reconciler.planning.holds import Hold
from reconciler.planning.locks import LOCK_MISMATCH, find_mismatch
from reconciler.planning.memory import ModelMemory
from reconciler.planning.resolve import VERSION_NOT_FOUND, NotReady, Resolved, resolve
from reconciler.planning.rollout import Goal

SOURCE_CHANGED = "SourceChanged"
SOURCE_GONE = "SourceGone"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something wanted cannot be had now, in a word and a sentence."""

    reason: str
    sentence: str
    retry_in_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One deployment, resolved as far as the listings and the disk allow."""

    deployment: Deployment
    goal: Goal
    snapshots: Mapping[int, Snapshot] = field(default_factory=dict)
    """Wanted versions that are not on disk, each with the bytes to fetch."""
    troubles: Mapping[int | None, Trouble] = field(default_factory=dict)
    """Version -> why it cannot be fetched; None stands for `latest` itself."""
    remarks: tuple[Trouble, ...] = ()
    """What is worth saying of a model that serves: changed bytes, newer versions passed over."""
    obsolete: frozenset[int] = frozenset()
    """Versions on disk that failed to load, never served, and are others in the source now."""
    is_certain: bool = True
    """False while `latest` is only what it last came to, because no listing says so now."""
    hold: Hold | None = None
    """Why the model is left as it is instead."""
    waits_for: tuple[str, ...] = ()
    """The nodes that have to come first, where that is why."""


def fingerprint(deployment: Deployment) -> str:
    """Return a text that changes when what is asked of the model changes.

    Descriptions and metadata are left out: to edit them is no reason to try a failed version.
    """
    labels = ",".join(f"{label}={version}" for label, version in sorted(deployment.labels.items()))
    version = "latest" if deployment.version is None else deployment.version
    lock = deployment.lock
    locked = sorted(item.fingerprint for item in lock.versions.values()) if lock else []
    golden = deployment.rollout.golden
    return (
        f"{deployment.source} {version} {labels} {deployment.rollout.strategy} {deployment.stop}"
        f" {lock.version if lock else ''} {','.join(locked)}"
        f" {f'golden {golden.path} {golden.within_seconds:g}' if golden else ''}"
    ).rstrip()


def remember_deployment(memory: ModelMemory, deployment: Deployment) -> ModelMemory:
    """Return the memory with every failure forgotten if the deployment asks something new."""
    desired = fingerprint(deployment)
    if desired == memory.desired:
        return memory
    return replace(
        memory, desired=desired, load_failures={}, fetch_failures={}, refusal=None, passed={}
    )


def wanted_queries(
    deployment: Deployment,
    local: Mapping[int, LocalVersion],
    memory: ModelMemory,
    available: Available,
) -> dict[Query, bool]:
    """Return what must be listed for the deployment, and whether that is only a re-check.

    A re-check (True) compares an installed pin with its bucket and may be rare; the rest is
    needed to go on. A pin that failed to load is needed: its bytes may be repaired any time. A
    locked version is listed once, when it is to be fetched, and never again.
    """
    if deployment.stop:
        return {}
    queries: dict[Query, bool] = {}
    if deployment.named_version is None:
        queries[Query(deployment.source)] = False
    for version in _pins(deployment):
        query, locked, found = (
            Query(deployment.source, version),
            deployment.locked(version),
            local.get(version),
        )
        if locked is None:
            queries[query] = _is_installed(found) and version not in memory.load_failures
        elif not _is_installed(found, locked):
            listing = available.listings.get(query)
            snapshot = listing.snapshots.get(version) if listing else None
            queries[query] = snapshot is not None and snapshot.digest == locked.digest
    return queries


def _pins(deployment: Deployment) -> set[int]:
    named = deployment.named_version
    main = set() if named is None else {named}
    return main | set(deployment.labels.values())


def _is_installed(local: LocalVersion | None, locked: LockedVersion | None = None) -> bool:
    if local is None or not local.intact or local.digest is None:
        return False
    return locked is None or local.digest == locked.digest


def set_target(
    deployment: Deployment,
    available: Available,
    local: Mapping[int, LocalVersion],
    memory: ModelMemory,
    settle_seconds: float,
) -> Target:
    """Resolve one deployment against the listings and the disk."""
    troubles: dict[int | None, Trouble] = {}
    remarks: list[Trouble] = []
    snapshots: dict[int, Snapshot] = {}
    obsolete: set[int] = set()
    main = deployment.named_version
    newest: Snapshot | None = None
    if main is None:
        match _answer(Query(deployment.source), available, settle_seconds):
            case Resolved(snapshot=newest, passed_over=passed_over):
                main = newest.version
                remarks += [_trouble(item) for item in passed_over]
            case Trouble() as trouble:
                troubles[None] = trouble
                main = memory.resolved.get(deployment.source)
            case None:
                main = memory.resolved.get(deployment.source)
    ready = {
        version
        for version, found in local.items()
        if _is_installed(found, deployment.locked(version))
    }
    goal = Goal(main, dict(deployment.labels), deployment.rollout.strategy)
    for version in sorted(goal.versions):
        found = local.get(version)
        if newest is not None and newest.version == version:
            answer: Resolved | Trouble | None = Resolved(newest)
        else:
            answer = _answer(Query(deployment.source, version), available, settle_seconds)
        if locked := deployment.locked(version):
            if version in ready:
                continue
            if isinstance(answer, Resolved):
                answer = _check_lock(deployment, locked, answer)
            if _is_installed(found):
                if isinstance(answer, Resolved):
                    obsolete.add(version)  # only where the right bytes can be had instead
                if not (isinstance(answer, Trouble) and answer.reason == LOCK_MISMATCH):
                    answer = _installed_otherwise(deployment, version)
        if found is None or version not in ready:
            if isinstance(answer, Resolved):
                snapshots[version] = answer.snapshot
            elif answer is not None:
                troubles[version] = answer
        elif isinstance(answer, Resolved) and answer.snapshot.digest != found.digest:
            if version in memory.load_failures and version not in memory.proven:
                obsolete.add(version)  # it never served: repaired bytes may take its place
            else:
                remarks.append(_changed(deployment, version))
        elif isinstance(answer, Trouble) and answer.reason == VERSION_NOT_FOUND:
            remarks.append(_gone(deployment, version))
    goal = replace(goal, ready=frozenset(ready - obsolete))
    is_certain = True
    if deployment.named_version is None:
        trouble_now = available.troubles.get(Query(deployment.source))
        is_certain = newest is not None and trouble_now is None
        if trouble_now is not None:
            remarks.insert(0, Trouble(trouble_now.reason, trouble_now.sentence))
    return Target(
        deployment, goal, snapshots, troubles, tuple(remarks), frozenset(obsolete), is_certain
    )


def _answer(query: Query, available: Available, settle_seconds: float) -> Resolved | Trouble | None:
    listing = available.listings.get(query)
    if listing is None:
        trouble = available.troubles.get(query)
        return Trouble(trouble.reason, trouble.sentence) if trouble else None
    resolution = resolve(query.version, listing, settle_seconds)
    return _trouble(resolution) if isinstance(resolution, NotReady) else resolution


def _check_lock(
    deployment: Deployment, locked: LockedVersion, answer: Resolved
) -> Resolved | Trouble:
    mismatch = find_mismatch(locked, answer.snapshot)
    if mismatch is None:
        return answer
    path = deployment.lock.path if deployment.lock else deployment.path
    return Trouble(
        LOCK_MISMATCH,
        f"{deployment.source} holds other bytes for version {locked.version} than {path} says:"
        f" {mismatch}; nothing of it is taken. Publish other bytes under a new number, or, if"
        " these are meant, remove the lock file and run `reconciler lock`",
    )


def _installed_otherwise(deployment: Deployment, version: int) -> Trouble:
    path = deployment.lock.path if deployment.lock else deployment.path
    return Trouble(
        LOCK_MISMATCH,
        f"version {version} was installed on this node from other bytes than {path} says; it is"
        " replaced as soon as the server does not hold it: deploy another version and come back,"
        " or publish the locked bytes under a new number",
    )


def _gone(deployment: Deployment, version: int) -> Trouble:
    return Trouble(
        SOURCE_GONE,
        f"version {version} is not in {deployment.source} any more; this node keeps what it has,"
        " but one that lacks it cannot get it: publish it again, or deploy another version",
    )


def _trouble(item: NotReady) -> Trouble:
    return Trouble(item.reason, item.sentence, item.retry_in_seconds)


def _changed(deployment: Deployment, version: int) -> Trouble:
    return Trouble(
        SOURCE_CHANGED,
        f"the objects of version {version} in {deployment.source} are others now than those"
        " installed here; this node keeps what it has: publish new bytes under a new number",
    )
