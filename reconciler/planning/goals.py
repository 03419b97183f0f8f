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
    Rule,
    Snapshot,
    share,
)
from reconciler.planning.holds import Hold
from reconciler.planning.locks import LOCK_MISMATCH, find_mismatch
from reconciler.planning.memory import ModelMemory
from reconciler.planning.resolve import VERSION_NOT_FOUND, NotReady, Resolved, resolve
from reconciler.planning.rollout import Goal

SOURCE_CHANGED = "SourceChanged"
SOURCE_GONE = "SourceGone"
RENUMBERED = "Renumbered"
"""A number on disk was installed as another version than it stands for by now."""
OTHER_BYTES = frozenset({LOCK_MISMATCH, RENUMBERED})
"""What is said where a node has other bytes under a number than git names."""


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
    labels = ",".join(
        f"{label}={_identify(deployment, version)}"
        for label, version in sorted(deployment.labels.items())
    )
    version, lock, scheme = "latest", deployment.lock, deployment.scheme
    if deployment.version is not None:
        version = _identify(deployment, deployment.version)
    elif scheme.rule is not Rule.NUMBER:
        version += f" of {scheme} {dict(scheme.names)}"
    locked = sorted(item.fingerprint for item in lock.versions.values()) if lock else []
    golden = deployment.rollout.golden
    return (
        f"{deployment.source} {version} {labels} {deployment.rollout.strategy} {deployment.stop}"
        f" {_identify(deployment, lock.version) if lock else ''} {','.join(locked)}"
        f" {f'golden {golden.path} {golden.within_seconds:g}' if golden else ''}"
    ).rstrip()


def _identify(deployment: Deployment, version: int) -> str:
    """Return a text that changes also where the number comes to stand for another version."""
    alias = deployment.scheme.alias(version)
    return f"{version}" if alias is None else f"{version}={alias}"


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
        queries[deployment.query] = False
    for version in _pins(deployment):
        query, locked, found = (
            deployment.query_for(version),
            deployment.locked(version),
            local.get(version),
        )
        is_ready = _is_ready(deployment, version, found)
        if locked is None:
            queries[query] = is_ready and version not in memory.load_failures
        elif not is_ready:
            listing = available.listings.get(query)
            snapshot = listing.snapshots.get(version) if listing else None
            queries[query] = snapshot is not None and snapshot.digest == locked.digest
    return queries


def _pins(deployment: Deployment) -> set[int]:
    named = deployment.named_version
    main = set() if named is None else {named}
    return main | set(deployment.labels.values())


def _is_installed(local: LocalVersion | None) -> bool:
    return local is not None and local.intact and local.digest is not None


def _is_ready(deployment: Deployment, version: int, local: LocalVersion | None) -> bool:
    """Whether what git names is on disk: under this number, by this name, and as it was locked."""
    if local is None or not _is_installed(local) or not _has_name(deployment, local):
        return False
    locked = deployment.locked(version)
    return locked is None or local.digest == locked.digest


def _has_name(deployment: Deployment, local: LocalVersion) -> bool:
    return local.title == deployment.scheme.show(local.version)


def resolved_key(deployment: Deployment) -> str:
    """Return by what it is remembered what `latest` came to: a number is worth its scheme only."""
    scheme = deployment.scheme
    return deployment.source if scheme.rule is Rule.NUMBER else f"{deployment.source} {scheme}"


def _recall_latest(
    deployment: Deployment, local: Mapping[int, LocalVersion], memory: ModelMemory
) -> int | None:
    """Return what `latest` last came to, unless that number stands for another version by now."""
    version = memory.resolved.get(resolved_key(deployment))
    if version is None or (version in local and not _has_name(deployment, local[version])):
        return None
    return version


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
        match _answer(deployment.query, available, settle_seconds):
            case Resolved(snapshot=newest, passed_over=passed_over):
                main = newest.version
                remarks += [_trouble(item) for item in passed_over]
            case Trouble() as trouble:
                troubles[None] = trouble
                main = _recall_latest(deployment, local, memory)
            case None:
                main = _recall_latest(deployment, local, memory)
    ready = {version for version, found in local.items() if _is_ready(deployment, version, found)}
    goal = Goal(main, dict(deployment.labels), deployment.rollout.strategy)
    for version in sorted(goal.versions):
        found = local.get(version)
        if newest is not None and newest.version == version:
            answer: Resolved | Trouble | None = Resolved(newest)
        else:
            answer = _answer(deployment.query_for(version), available, settle_seconds)
        if locked := deployment.locked(version):
            if version in ready:
                continue
            if isinstance(answer, Resolved):
                answer = _check_lock(deployment, locked, answer)
        if found is not None and version not in ready and _is_installed(found):
            if isinstance(answer, Resolved):
                obsolete.add(version)  # only where the right bytes can be had instead
            if not (isinstance(answer, Trouble) and answer.reason == LOCK_MISMATCH):
                answer = _installed_otherwise(deployment, found)
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
    goal = replace(goal, ready=share(frozenset(ready - obsolete)))
    is_certain = True
    if deployment.named_version is None:
        trouble_now = available.troubles.get(deployment.query)
        is_certain = newest is not None and trouble_now is None
        if trouble_now is not None:
            remarks.insert(0, Trouble(trouble_now.reason, trouble_now.sentence))
    return Target(
        deployment,
        goal,
        snapshots,
        troubles,
        tuple(remarks),
        share(frozenset(obsolete)),
        is_certain,
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
        f"{deployment.source} holds other bytes for version {locked.title} than {path} says:"
        f" {mismatch}; nothing of it is taken. Publish other bytes under a new number, or, if"
        " these are meant, remove the lock file and run `reconciler lock`",
    )


def _installed_otherwise(deployment: Deployment, found: LocalVersion) -> Trouble:
    name = deployment.scheme.show(found.version)
    if not _has_name(deployment, found):
        return Trouble(
            RENUMBERED,
            f"number {found.version} on this node is version {found.title}, and {deployment.path}"
            f" means {name} by it now; it is replaced as soon as the server does not hold it:"
            " deploy a version with another number and come back, or give each name a number that"
            " was never used",
        )
    path = deployment.lock.path if deployment.lock else deployment.path
    return Trouble(
        LOCK_MISMATCH,
        f"version {name} was installed on this node from other bytes than {path} says; it is"
        " replaced as soon as the server does not hold it: deploy another version and come back,"
        " or publish the locked bytes under a new number",
    )


def _gone(deployment: Deployment, version: int) -> Trouble:
    name = deployment.scheme.show(version)
    return Trouble(
        SOURCE_GONE,
        f"version {name} is not in {deployment.source} any more; this node keeps what it has,"
        " but one that lacks it cannot get it: publish it again, or deploy another version",
    )


def _trouble(item: NotReady) -> Trouble:
    return Trouble(item.reason, item.sentence, item.retry_in_seconds)


def _changed(deployment: Deployment, version: int) -> Trouble:
    name = deployment.scheme.show(version)
    return Trouble(
        SOURCE_CHANGED,
        f"the objects of version {name} in {deployment.source} are others now than those"
        " installed here; this node keeps what it has: publish new bytes under a new number",
    )
