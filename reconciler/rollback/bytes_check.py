"""Whether a version that git is to ask for again can still be had, and what could be instead.

The bucket is asked first. What it no longer holds may still be on the nodes' disks, which is all
that a way back needs; what neither has would leave every node waiting for a file that is gone.
"""

from collections.abc import Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from reconciler.errors import ConfigError, SourceError
from reconciler.model import Deployment, Listing, Member
from reconciler.planning.locks import find_mismatch
from reconciler.planning.resolve import NotReady, Resolved, resolve
from reconciler.sources.registry import Sources
from reconciler.status.access import OPEN_ACCESS, Access
from reconciler.status.client import StatusError, fetch_status, parse_status
from reconciler.status.report import name_version

BYTES_GONE = "BytesGone"

_NODE_DEADLINE_SECONDS = 5.0
_NODES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Offer:
    """How to offer another version instead."""

    command: str
    """What to type, but for the version at its end."""
    present: int | None
    """The version that is asked for now, which is no way out."""


def check_bytes(
    deployment: Deployment,
    version: int,
    nodes: Iterable[Member],
    sources: Sources,
    offer: Offer,
    access: Access = OPEN_ACCESS,
) -> list[str]:
    """Return what is worth knowing about a version's bytes before it is asked for.

    `nodes` are those that serve the deployment. Raises ConfigError (BytesGone) when neither the
    bucket nor the nodes have the bytes.
    """
    name = deployment.scheme.show(version)
    try:
        listing = sources.open(deployment.source).list(deployment.query_for(version))
    except SourceError as error:
        return [f"whether version {name} still exists was not checked, because {error}"]
    lack = _find_lack(deployment, version, listing)
    if lack is None:
        return []
    found = _ask_nodes(deployment, version, nodes, access)
    if found.having and not found.lacking:
        return [
            f"{lack}, but {_join(found.having)} {_has(found.having)} it on disk, so the way back"
            " needs no download; a node without it could not fetch it",
            *_name_silent(found),
        ]
    raise ConfigError(
        f"{lack}, and {_describe_absence(found)}; {_make(offer, deployment, version, sources)};"
        " nothing was changed",
        BYTES_GONE,
    )


def _find_lack(deployment: Deployment, version: int, listing: Listing) -> str | None:
    """Return why the source cannot give the bytes, None where it can."""
    answer = resolve(version, listing, settle_seconds=0)
    if isinstance(answer, NotReady):
        return answer.sentence
    locked = deployment.locked(version)
    difference = find_mismatch(locked, answer.snapshot) if locked else None
    if difference is None:
        return None
    name = deployment.scheme.show(version)
    return f"version {name} of {deployment.source} is not what was locked ({difference})"


@dataclass(slots=True)
class _Answers:
    """What the nodes said, by their names."""

    having: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    """Those that did not answer, or whose address is not known."""


def _ask_nodes(
    deployment: Deployment, version: int, nodes: Iterable[Member], access: Access
) -> _Answers:
    def ask(node: Member) -> bool | None:
        if node.address is None:
            return None
        return _has_on_disk(node.address, deployment, version, access)

    answers = _Answers()
    members = sorted(nodes, key=lambda node: node.name)
    with ThreadPoolExecutor(_NODES_AT_ONCE) as pool:
        for node, has in zip(members, pool.map(ask, members), strict=True):
            names = {True: answers.having, False: answers.lacking, None: answers.silent}[has]
            names.append(node.name)
    return answers


def _has_on_disk(address: str, deployment: Deployment, version: int, access: Access) -> bool | None:
    """Return whether the node has the version, not only another one of the same number."""
    try:
        report = parse_status(fetch_status(address, _NODE_DEADLINE_SECONDS, access=access))
    except StatusError:
        return None
    installed = [
        (number, name_version(item, number))
        for item in report["deployments"]
        if item["model"] == deployment.model
        for number in item["installed_versions"]
    ]
    return (version, deployment.scheme.show(version)) in installed


def _describe_absence(found: _Answers) -> str:
    if found.having:
        return (
            f"only {_join(found.having)} {_has(found.having)} it on disk, not"
            f" {_join(found.lacking)}"
        )
    if found.lacking:
        return f"no node that answers has it on disk ({_join(found.lacking)})"
    return "no node could be asked whether it has it on disk"


def _name_silent(found: _Answers) -> list[str]:
    if not found.silent:
        return []
    return [f"{_join(found.silent)} could not be asked; there the version may be missing"]


def _make(offer: Offer, deployment: Deployment, version: int, sources: Sources) -> str:
    show = deployment.scheme.show
    nearest = _find_nearest(deployment, sources, version, {version, offer.present})
    if nearest is None:
        return f"its source holds no other to go to, so publish {show(version)} again"
    which = f"the nearest that exists is {show(nearest)}"
    if nearest > version:
        which = f"no older one exists; the nearest newer one is {show(nearest)}"
    return f"{which}: `{offer.command} {show(nearest)}`"


def _find_nearest(
    deployment: Deployment, sources: Sources, version: int, besides: Container[int | None]
) -> int | None:
    """Return the highest lower version that could be taken, else the lowest higher one."""
    try:
        listing = sources.open(deployment.source).list(deployment.query)
    except SourceError:
        return None
    whole = [
        number
        for number in listing.snapshots
        if number not in besides and isinstance(resolve(number, listing, 0), Resolved)
    ]
    lower = [number for number in whole if number < version]
    return max(lower) if lower else min(whole, default=None)


def _join(names: list[str]) -> str:
    shown = names if len(names) <= 5 else [*names[:4], f"{len(names) - 4} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _has(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"
