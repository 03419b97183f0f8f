"""What a deployment comes to in its source now, written down as a lock.

A version that a lock names already stays: its bytes must be those that were locked, or someone
has overwritten them, and that is refused rather than locked again. `latest` goes on to a newer
version only when that is asked for, or when the locked one is gone.
"""

import asyncio
from collections.abc import Mapping

from reconciler.config_repo.layout import lock_path
from reconciler.errors import ConfigError, SourceError
from reconciler.locking.text import trim_lock
from reconciler.model import Deployment, Listing, Lock, Query, Snapshot
from reconciler.planning.locks import LOCK_MISMATCH, find_mismatch, lock_snapshot
from reconciler.planning.resolve import Resolved, resolve
from reconciler.sources.registry import Sources
from reconciler.sources.sums import read_sums
from reconciler.threads import run_beside

SETTLE_SECONDS = 10.0
"""How long a version must have been unchanged before `latest` takes it."""

_REQUESTS_AT_ONCE = 8
_LISTING_DEADLINE_SECONDS = 180.0


class UnfitVersionError(SourceError):
    """A version that a deployment asks for cannot be locked."""

    def __init__(self, message: str, reason: str, version: int | None) -> None:
        super().__init__(message, reason)
        self.version = version
        """None where not even `latest` could be told."""


async def resolve_lock(
    deployment: Deployment, sources: Sources, *, keep: Lock | None = None
) -> Lock:
    """Return the lock of a deployment; what of `keep` can stay, stays.

    Raises ReconcilerError with a sentence: a version that is missing, incomplete or not as it was
    locked, a source that does not answer.
    """
    return await Locksmith(sources).lock(deployment, keep)


def wanted_versions(deployment: Deployment, version: int) -> list[int]:
    """Return what the deployment's lock must name, when its own version came to `version`."""
    return sorted({version, *deployment.labels.values()})


def lock_deployment(
    deployment: Deployment,
    version: int,
    snapshots: Mapping[int, Snapshot],
    sums: Mapping[int, Mapping[str, str]],
) -> Lock:
    """Return the lock of a deployment whose `version` came to the number given.

    `snapshots` has that version and each labelled one, `sums` their sha256 as far as known.
    """
    lock = Lock(
        path=lock_path(deployment.path),
        model=deployment.model,
        source=deployment.source,
        version=version,
        versions={
            number: lock_snapshot(snapshots[number], sums.get(number, {}))
            for number in wanted_versions(deployment, version)
        },
    )
    return trim_lock(lock)


class Locksmith:
    """Locks deployments, each distinct query listed once and a few at a time; one event loop's."""

    def __init__(self, sources: Sources, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._sources = sources
        self._settle_seconds = settle_seconds
        self._requests = asyncio.Semaphore(_REQUESTS_AT_ONCE)
        self._listings: dict[Query, asyncio.Task[Listing]] = {}
        self.remarks: set[str] = set()
        """Why `latest` passed over versions that are higher than what it came to."""

    async def lock(
        self, deployment: Deployment, keep: Lock | None = None, *, update: bool = False
    ) -> Lock:
        """Return the lock of a deployment; `update` lets `latest` go on from what `keep` says.

        Raises ReconcilerError as `resolve_lock`.
        """
        if keep is not None and not _is_about(keep, deployment):
            keep = None
        version = await self._choose_version(deployment, keep, update)
        snapshots, sums = {}, {}
        for number in wanted_versions(deployment, version):
            snapshot = await self._find(deployment, number)
            if keep is not None:
                _check_kept(deployment, keep, snapshot)
            snapshots[number] = snapshot
            sums[number] = await self._read_sums(snapshot)
        return lock_deployment(deployment, version, snapshots, sums)

    async def find_latest(self, deployment: Deployment) -> int:
        """Return what `latest` comes to in the deployment's source now.

        Raises ReconcilerError when that cannot be told.
        """
        listing = await self._list(deployment.query)
        found = _take(None, listing, self._settle_seconds)
        self.remarks.update(item.sentence for item in found.passed_over)
        return found.snapshot.version

    async def _choose_version(self, deployment: Deployment, keep: Lock | None, update: bool) -> int:
        if deployment.version is not None:
            return deployment.version
        if keep is None:
            return await self.find_latest(deployment)
        if update:
            await self._list(deployment.query)  # answers what comes next as well
        listing = await self._list_version(deployment, keep.version)
        is_there = keep.version in listing.snapshots or keep.version in listing.refused
        if is_there and not update:
            return keep.version
        latest = await self.find_latest(deployment)
        # The locked one is passed over for `latest` when it was written to just now: that is no
        # reason to go back, but one to look at it.
        return keep.version if is_there and latest < keep.version else latest

    async def _find(self, deployment: Deployment, version: int) -> Snapshot:
        listing = await self._list_version(deployment, version)
        return _take(version, listing, self._settle_seconds).snapshot

    async def _list_version(self, deployment: Deployment, version: int) -> Listing:
        whole = self._listings.get(deployment.query)
        if whole is not None:  # a look at all versions is a look at this one, too
            return await asyncio.shield(whole)
        return await self._list(deployment.query_for(version))

    async def _list(self, query: Query) -> Listing:
        task = self._listings.get(query)
        if task is None:
            task = asyncio.create_task(self._ask(query))
            self._listings[query] = task
        return await asyncio.shield(task)

    async def _ask(self, query: Query) -> Listing:
        def ask() -> Listing:
            return self._sources.open(query.source).list(query)

        async with self._requests:
            try:
                async with asyncio.timeout(_LISTING_DEADLINE_SECONDS):
                    return await run_beside(ask, "listing")
            except TimeoutError:
                raise SourceError(
                    f"{query.source} was not listed within {_LISTING_DEADLINE_SECONDS:.0f} s",
                    "ListingFailed",
                ) from None

    async def _read_sums(self, snapshot: Snapshot) -> dict[str, str]:
        source = self._sources.open(snapshot.source)  # at once: it was opened to be listed
        async with self._requests:
            return await read_sums(source, snapshot)


def _is_about(lock: Lock, deployment: Deployment) -> bool:
    """Whether what a lock says is about the versions that the deployment means by their numbers."""
    show = deployment.scheme.show
    return lock.source == deployment.source and all(
        locked.title == show(locked.version) for locked in lock.versions.values()
    )


def _take(version: int | None, listing: Listing, settle_seconds: float) -> Resolved:
    found = resolve(version, listing, settle_seconds)
    if isinstance(found, Resolved):
        return found
    raise UnfitVersionError(found.sentence, found.reason, version)


def _check_kept(deployment: Deployment, keep: Lock, snapshot: Snapshot) -> None:
    locked = keep.versions.get(snapshot.version)
    difference = find_mismatch(locked, snapshot) if locked is not None else None
    if difference is not None:
        raise ConfigError(
            f"version {snapshot.title} of {snapshot.source} is not what {keep.path} says:"
            f" {difference}. Someone overwrote a locked version; publish the new bytes under a new"
            f" number, or remove the lock file and run `reconciler lock {deployment.model}` to lock"
            " the bytes as they are now",
            LOCK_MISMATCH,
        )
