"""How far the nodes of a fleet are with one commit: pure, from what each says of itself.

A node has followed a commit when it has applied that one or a newer one that contains it. It has
failed it when it looks at just that commit and a deployment failed; what fails under a newer one
is that one's business. Everything else may still come right, and is pending.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from reconciler.model import Phase
from reconciler.planning.conditions import GIT_REACHABLE, SOURCE_VERIFIED
from reconciler.status.client import printable
from reconciler.status.report import Json, name_version, worst_first

MAX_SUMMARY_CHARACTERS: Final = 140
"""What GitHub shows of a status; GitLab takes more."""
_AT_REST = (Phase.DEPLOYED, Phase.STOPPED)
_SHORT_ID = 7


class Mark(StrEnum):
    """What a forge shows beside a commit."""

    FAILURE = "failure"
    PENDING = "pending"
    SUCCESS = "success"


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one node is, and why, after its name."""

    node: str
    mark: Mark
    words: str

    def __str__(self) -> str:
        return f"{self.node}: {self.words}"


Contains = Callable[[str], bool | None]
"""Whether the commit of an id contains the one asked about; None where the clone lacks it."""


def stand(node: str, commit_id: str, report: Json, contains: Contains) -> Standing:
    """Return how far the node is with the commit, by its /status."""
    if report["node"] != node:
        words = f"its address is answered by {report['node']}; correct it in groups/"
        return Standing(node, Mark.PENDING, printable(words))
    applied, observed = report["applied"], report["observed"]
    if applied is not None and contains(applied["id"]):
        return Standing(node, Mark.SUCCESS, "serves it")
    refusal = _find_condition(report, SOURCE_VERIFIED)
    if refusal is not None:
        is_about_it = commit_id[:_SHORT_ID] in refusal
        mark = Mark.FAILURE if is_about_it else Mark.PENDING
        return Standing(node, mark, printable(refusal))
    if observed is not None and observed["id"] == commit_id:
        return _stand_at(node, report)
    return Standing(node, Mark.PENDING, printable(_why_elsewhere(report, contains)))


def summarise(standings: Sequence[Standing], unasked: int) -> tuple[Mark, str]:
    """Return how far the whole fleet is, in a line; `unasked` nodes have no known address."""
    done = sum(standing.mark is Mark.SUCCESS for standing in standings)
    words = f"{done} of {len(standings)} nodes serve it"
    if unasked:
        words += f" ({unasked} without an address)"
    for mark in (Mark.FAILURE, Mark.PENDING):
        first = next((s for s in standings if s.mark is mark), None)
        if first is not None:
            return mark, shorten(f"{words}; {first}")
    return Mark.SUCCESS, shorten(words)


def shorten(words: str) -> str:
    """Return the words on one line, cut where a forge would refuse them."""
    line = " ".join(words.split())
    if len(line) <= MAX_SUMMARY_CHARACTERS:
        return line
    return line[: MAX_SUMMARY_CHARACTERS - 1].rstrip() + "…"


def _stand_at(node: str, report: Json) -> Standing:
    for item in worst_first(_all_deployments(report)):
        wanted = item["wanted_version"]
        version = "" if wanted is None else f" {name_version(item, wanted)}"
        name = f"{item['model']}{version}"
        if item["phase"] == Phase.FAILED:
            words = f"{name} failed: {item['last_error'] or item['sentence']}"
            return Standing(node, Mark.FAILURE, printable(words))
        if item["phase"] not in _AT_REST:
            words = f"{name}: {item['sentence']}"
            return Standing(node, Mark.PENDING, printable(words))
    broken = next((c["sentence"] for c in report["conditions"] if not c["holds"]), None)
    return Standing(node, Mark.PENDING, printable(broken or "is about to be done with it"))


def _why_elsewhere(report: Json, contains: Contains) -> str:
    trouble = _find_condition(report, GIT_REACHABLE)
    observed = report["observed"]
    if observed is None:
        return trouble or "has read no commit yet"
    short = observed["id"][:_SHORT_ID]
    match contains(observed["id"]):
        case True:
            return f"is under way to the newer {short}"
        case None:
            return f"is at {short}, which this clone does not hold; fetch it"
    return trouble or f"is still at {short}"


def _find_condition(report: Json, name: str) -> str | None:
    """Return the sentence of a condition that does not hold."""
    broken = (c for c in report["conditions"] if c["name"] == name and not c["holds"])
    return next((condition["sentence"] for condition in broken), None)


def _all_deployments(report: Json) -> Iterable[Json]:
    return (*report["deployments"], *report["removals"])
