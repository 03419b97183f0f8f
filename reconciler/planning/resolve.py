"""Turn `latest` or a pin into one snapshot of a listing.

`latest` is the highest version that is complete and whose newest object has lain there for the
settle time by the source's own clock: an upload in progress is never taken, and a version that
has been there for long costs no wait. A higher version that is not ready is passed over, and
named, so that a person sees why the node does not take it.
"""

from dataclasses import dataclass

from reconciler.model import Listing, Rule, Snapshot
from reconciler.planning.savedmodel import find_missing

VERSION_NOT_FOUND = "VersionNotFound"
"""A pinned version is not in the source."""
NO_VERSIONS = "NoVersions"
"""The source holds no version at all."""
INCOMPLETE = "Incomplete"
"""The version lacks a part of its SavedModel."""
SETTLING = "Settling"
"""The version was written to a moment ago; its upload may still run."""
BAD_OBJECT_NAME = "BadObjectName"
"""The version holds a name that cannot safely become a path."""

_NAMED_VERSIONS = 5


@dataclass(frozen=True, slots=True)
class NotReady:
    """Why a version cannot be taken now: the reason word and a sentence."""

    version: int | None
    """The version meant; None where the source has none."""
    reason: str
    sentence: str
    retry_in_seconds: float | None = None
    """When it would be ready if nothing more is written; None: when someone changes the source."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The version to take, and the higher ones that were passed over, highest first."""

    snapshot: Snapshot
    passed_over: tuple[NotReady, ...] = ()


def resolve(version: int | None, listing: Listing, settle_seconds: float) -> Resolved | NotReady:
    """Return the snapshot that `version` (None is `latest`) stands for in `listing`.

    A pin is taken as soon as it is complete: whoever pins a number has looked at it. For `latest`
    NotReady comes back only when no version at all is ready.
    """
    if version is not None:
        return _resolve_pin(version, listing)
    passed_over: list[NotReady] = []
    for number in sorted(set(listing.snapshots) | set(listing.refused), reverse=True):
        trouble = _find_trouble(number, listing, settle_seconds)
        if trouble is None:
            return Resolved(listing.snapshots[number], tuple(passed_over))
        passed_over.append(trouble)
    if not passed_over:
        what = "with a number for a name"
        if listing.query.scheme.rule is not Rule.NUMBER:
            what = f"whose name fits version_scheme ({listing.query.scheme})"
        sentence = f"{listing.query.source} holds no version; publish one into a folder {what}"
        return NotReady(None, NO_VERSIONS, sentence)
    waits = [item.retry_in_seconds for item in passed_over if item.retry_in_seconds is not None]
    highest = passed_over[0]
    return NotReady(highest.version, highest.reason, highest.sentence, min(waits, default=None))


def _resolve_pin(version: int, listing: Listing) -> Resolved | NotReady:
    if version not in listing.snapshots and version not in listing.refused:
        name = listing.query.scheme.show(version)
        sentence = f"version {name} is not in {listing.query.source}{_name_others(listing)}"
        return NotReady(version, VERSION_NOT_FOUND, sentence)
    trouble = _find_trouble(version, listing, settle_seconds=0)
    return trouble or Resolved(listing.snapshots[version])


def _find_trouble(version: int, listing: Listing, settle_seconds: float) -> NotReady | None:
    if version in listing.refused:
        return NotReady(version, BAD_OBJECT_NAME, listing.refused[version])
    snapshot = listing.snapshots[version]
    place = f"version {listing.query.scheme.show(version)} of {listing.query.source}"
    # What an archive holds is known once it is here.
    missing = None if snapshot.archive else find_missing(file.path for file in snapshot.files)
    if missing is not None:
        sentence = f"{place} is incomplete: it lacks {missing}; upload the rest of it"
        return NotReady(version, INCOMPLETE, sentence)
    age_seconds = listing.read_at_seconds - snapshot.newest_seconds
    if settle_seconds > 0 and age_seconds < settle_seconds:
        wait_seconds = settle_seconds - age_seconds
        sentence = (
            f"{place} was written to {max(age_seconds, 0):.0f} s ago; it is taken once it has"
            f" been unchanged for {settle_seconds:g} s"
        )
        return NotReady(version, SETTLING, sentence, wait_seconds)
    return None


def _name_others(listing: Listing) -> str:
    others = sorted(listing.snapshots, reverse=True)
    if not others:
        return ", which holds no version at all" if listing.query.version is None else ""
    named = ", ".join(map(listing.query.scheme.show, others[:_NAMED_VERSIONS]))
    more = f" and {len(others) - _NAMED_VERSIONS} more" if len(others) > _NAMED_VERSIONS else ""
    return f", which holds {named}{more}"
