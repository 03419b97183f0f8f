"""What is known of each version's bytes: from its lock, else from a listing, else nothing.

A preview has no node to ask. A lock says files and bytes without any listing; where neither lock
nor bucket answers, the size is unknown and is said to be, instead of being taken for nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from reconciler.model import Available, Deployment, Listing, Snapshot, StoredFile
from reconciler.planning.resolve import Resolved, resolve
from reconciler.planning.steps import Limits

UNKNOWN_VERSION = -1
"""Stands for what `latest` came to where nobody can tell: no version has a negative number."""

_WRONG_SOURCE = frozenset({"BucketNotFound", "FolderNotFound", "BadSource"})
"""Answers that are about the source itself; any other trouble is about who asks, and when."""
_UNKNOWN_DIGEST = "unknown"


@dataclass(frozen=True, slots=True)
class Bytes:
    """One version's bytes; None where neither lock nor listing says."""

    version: int
    files: int | None = None
    size_bytes: int | None = None
    digest: str = _UNKNOWN_DIGEST


@dataclass(frozen=True)
class _AssumedSnapshot(Snapshot):
    """A version that the bucket could not be asked for, taken to be there and as locked."""

    assumed: str = field(default=_UNKNOWN_DIGEST)

    @property
    def digest(self) -> str:
        return self.assumed


@dataclass(frozen=True, slots=True)
class Catalog:
    """All answers of the buckets, asked by deployment and version."""

    available: Available = field(default_factory=Available)
    limits: Limits = field(default_factory=Limits)

    def find_version(self, deployment: Deployment) -> int:
        """Return what the deployment's version comes to now, or UNKNOWN_VERSION."""
        if deployment.named_version is not None:
            return deployment.named_version
        listing = self.available.listings.get(deployment.query)
        if listing is None:
            return UNKNOWN_VERSION
        answer = resolve(None, listing, self.limits.settle_seconds)
        return answer.snapshot.version if isinstance(answer, Resolved) else UNKNOWN_VERSION

    def find_versions(self, deployment: Deployment) -> frozenset[int]:
        """Return every version that the deployment has served: its own and the labelled ones."""
        return frozenset({self.find_version(deployment), *deployment.labels.values()})

    def find_bytes(self, deployment: Deployment, version: int) -> Bytes:
        """Return what is known of one version of the deployment."""
        if locked := deployment.locked(version):
            return Bytes(version, locked.files, locked.size_bytes, locked.digest)
        snapshot = self._find_snapshot(deployment, version)
        if snapshot is None:
            return Bytes(version)
        return Bytes(version, len(snapshot.files), snapshot.size_bytes, snapshot.digest)

    def is_missing(self, deployment: Deployment, version: int) -> bool:
        """Whether the source was listed and does not hold the version."""
        listing = self.available.listings.get(deployment.query_for(version))
        return listing is not None and not {version} & {*listing.snapshots, *listing.refused}

    def is_silence(self, reason: str) -> bool:
        """Whether the reason is that a bucket could not be asked, which is no fault of a change."""
        return reason not in _WRONG_SOURCE and any(
            trouble.reason == reason for trouble in self.available.troubles.values()
        )

    @property
    def silences(self) -> list[str]:
        """The sentences about buckets that could not be asked."""
        troubles = self.available.troubles.values()
        return sorted({t.sentence for t in troubles if t.reason not in _WRONG_SOURCE})

    def assume(self, deployments: Iterable[Deployment]) -> Available:
        """Return the answers, with versions that no bucket could be asked for taken as there.

        Without that a bucket that is down would hide what else the change does.
        """
        listings = dict(self.available.listings)
        for deployment in deployments:
            for version in self.find_versions(deployment):
                query = deployment.query_for(version)
                trouble = self.available.troubles.get(query)
                if trouble and trouble.reason not in _WRONG_SOURCE and query not in listings:
                    snapshot = self._assume_snapshot(deployment, version)
                    listings[query] = Listing(query, 0.0, {version: snapshot})
        return replace(self.available, listings=listings)

    def _assume_snapshot(self, deployment: Deployment, version: int) -> Snapshot:
        known = self.find_bytes(deployment, version)
        file = StoredFile("saved_model.pb", known.size_bytes or 0, 0, None, 0.0)
        alias = deployment.scheme.alias(version)
        folder = alias or str(version)
        return _AssumedSnapshot(
            deployment.source, version, folder, (file,), known.digest, name=alias
        )

    def _find_snapshot(self, deployment: Deployment, version: int) -> Snapshot | None:
        for query in (deployment.query_for(version), deployment.query):
            listing = self.available.listings.get(query)
            if listing is not None and version in listing.snapshots:
                return listing.snapshots[version]
        return None


def hide_unknown(sentence: str) -> str:
    """Return a sentence of the plan without the number that stands for an unknown version."""
    return re.sub(rf"\bversion (number )?{UNKNOWN_VERSION}\b", "what is there", sentence)
