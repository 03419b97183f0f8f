"""Where each deployment stands, over all nodes that have to do with it.

Who is to serve a deployment is known from git where a clone is at hand that holds the newest
commit, else from the nodes: each says who holds it by the commit that it has read, and the one
with the newest commit is believed. What a dead node was to serve is Unknown there: it may serve it
still.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.fleet.answers import Telling
from reconciler.fleet.expected import ExpectedDeployment
from reconciler.fleet.nodes import Node
from reconciler.fleet.view import (
    PHASE_RANK,
    DeploymentView,
    FleetPhase,
    ProgressView,
    Role,
    Standing,
)

NO_ANSWER = "NoAnswer"
NOT_ASKED = "NotAsked"
NOT_LISTED = "NotListed"
_AT_REST = (FleetPhase.DEPLOYED, FleetPhase.STOPPED)

Key = tuple[str, str]
"""Group and model."""


@dataclass(slots=True)
class _Gathered:
    """What git and nodes say of one deployment."""

    expected: ExpectedDeployment | None = None
    tellings: dict[str, Telling] = field(default_factory=dict)
    """Node -> its last word, however old."""


def roll_up_deployments(
    nodes: Mapping[str, Node], expected: Iterable[ExpectedDeployment] | None
) -> list[DeploymentView]:
    """Return every deployment, worst first; `expected` is None where no clone is at hand."""
    gathered: dict[Key, _Gathered] = {}
    for item in expected or ():
        gathered[item.group, item.model] = _Gathered(item)
    for node in nodes.values():
        for telling in node.answer.tellings if node.answer else ():
            found = gathered.setdefault((telling.group, telling.model), _Gathered())
            found.tellings[node.name] = telling
    views = [
        _roll_up(key, found, nodes, has_git=expected is not None) for key, found in gathered.items()
    ]
    return sorted(views, key=lambda view: (PHASE_RANK[view.phase], view.group, view.model))


def _roll_up(
    key: Key, found: _Gathered, nodes: Mapping[str, Node], *, has_git: bool
) -> DeploymentView:
    voter = _find_voter(found.tellings, nodes)
    holders = _find_holders(found, voter, nodes, has_git=has_git)
    leaving = sorted(found.tellings.keys() - set(holders))
    standings = (
        *(_stand(name, Role.HOLDER, found.tellings.get(name), nodes.get(name)) for name in holders),
        *(_stand(name, Role.LEAVING, found.tellings[name], nodes[name]) for name in leaving),
    )
    word: ExpectedDeployment | Telling = found.expected or found.tellings[voter]
    wanted = () if word.stop else _find_wanted(word.version, standings)
    view = DeploymentView(
        group=key[0],
        model=key[1],
        path=word.path,
        source=word.source,
        description=word.description,
        stop=word.stop,
        phase=_find_worst(standings, word.stop),
        sentence="",
        wanted_versions=wanted,
        wanted_replicas=0 if word.stop else len(holders),
        available_replicas=_count_serving(standings, wanted),
        serving_replicas=sum(bool(standing.serving_versions) for standing in standings),
        nodes=standings,
        version_names=_gather_names(found),
    )
    if view.phase in _AT_REST and _count_holding(view) < view.wanted_replicas:
        # A node that has not read the commit yet calls itself Deployed, with what was asked before.
        view = replace(view, phase=FleetPhase.DEPLOYING)
    is_hidden = found.expected is not None and found.expected.holders is None
    return replace(view, sentence="; ".join(_describe(view, is_hidden=is_hidden)))


def _gather_names(found: _Gathered) -> dict[int, str]:
    """Return what versions are called; where git and nodes differ, a number stays a number."""
    names: dict[int, str] = {}
    unclear = set()
    words = [word.names for word in found.tellings.values()]
    for said in [found.expected.names, *words] if found.expected else words:
        for version, name in said.items():
            if names.setdefault(version, name) != name:
                unclear.add(version)
    return {version: name for version, name in sorted(names.items()) if version not in unclear}


def _find_voter(tellings: Mapping[str, Telling], nodes: Mapping[str, Node]) -> str:
    """Return the node whose word counts: it has read the newest commit, and best is alive."""

    def rank(name: str) -> tuple[float, bool, bool, str]:
        return (_commit_seconds(nodes[name]), nodes[name].is_alive, bool(tellings[name].path), name)

    return max(tellings, key=rank, default="")


def _commit_seconds(node: Node) -> float:
    observed = node.answer.observed if node.answer else None
    return observed.time_seconds if observed else 0.0


def _find_holders(
    found: _Gathered, voter: str, nodes: Mapping[str, Node], *, has_git: bool
) -> tuple[str, ...]:
    if found.expected is not None and found.expected.holders is not None:
        return found.expected.holders
    if (has_git and found.expected is None) or not voter:
        return ()  # git does not name it any more, or nobody knows of it
    vote_seconds = _commit_seconds(nodes[voter])

    def has_dropped_it(name: str) -> bool:
        """Tell whether a named holder has read a newer commit, by which it holds nothing."""
        node = nodes.get(name)
        if node is None or not node.is_alive or name in found.tellings:
            return False
        return _commit_seconds(node) > vote_seconds

    named = found.tellings[voter].holders
    return tuple(name for name in dict.fromkeys(named) if not has_dropped_it(name))


def _stand(name: str, role: Role, telling: Telling | None, node: Node | None) -> Standing:
    if node is None or not node.was_asked:
        sentence = node.silence if node and node.silence else "its address is not known here"
        return Standing(name, role, FleetPhase.UNKNOWN, NOT_ASKED, sentence)
    if node.silence is not None:
        last = f"; its last word was {telling.phase}: {telling.sentence}" if telling else ""
        return Standing(name, role, FleetPhase.UNKNOWN, NO_ANSWER, node.silence + last)
    if telling is None:
        observed = node.answer.observed if node.answer else None
        where = f"it is at commit {observed.id[:7]}" if observed else "it has read no commit yet"
        sentence = f"it does not list this model; {where}"
        return Standing(name, role, FleetPhase.UNKNOWN, NOT_LISTED, sentence)
    progress = telling.progress
    return Standing(
        node=name,
        role=role,
        phase=FleetPhase(telling.phase.value),
        reason=telling.reason,
        sentence=telling.sentence,
        wanted_version=telling.wanted,
        serving_versions=telling.serving,
        labels=telling.labels,
        progress=ProgressView(progress.done_bytes, progress.total_bytes) if progress else None,
    )


def _find_wanted(named: int | None, standings: Iterable[Standing]) -> tuple[int, ...]:
    if named is not None:
        return (named,)
    holders = (standing for standing in standings if standing.role is Role.HOLDER)
    return tuple(sorted({s.wanted_version for s in holders if s.wanted_version is not None}))


def _count_serving(standings: Iterable[Standing], wanted: Sequence[int]) -> int:
    return sum(
        any(version in wanted for version in standing.serving_versions) for standing in standings
    )


def _count_holding(view: DeploymentView) -> int:
    """Return how many of those that are to serve it do, those that hand it over left out."""
    holders = (standing for standing in view.nodes if standing.role is Role.HOLDER)
    return _count_serving(holders, view.wanted_versions)


def _find_worst(standings: Sequence[Standing], stop: bool) -> FleetPhase:
    if not standings:
        return FleetPhase.STOPPED if stop else FleetPhase.UNKNOWN
    return min((standing.phase for standing in standings), key=PHASE_RANK.__getitem__)


def _describe(view: DeploymentView, *, is_hidden: bool) -> Iterator[str]:
    holding = _count_holding(view)
    others = view.available_replicas - holding
    if view.wanted_replicas:
        names = [view.version_names.get(each, str(each)) for each in view.wanted_versions]
        what = f"version {' or '.join(names)}"
        yield (
            f"{holding} of {view.wanted_replicas} replicas serve"
            f" {what if view.wanted_versions else 'it'}"
        )
    elif view.phase is FleetPhase.STOPPED:
        yield "it is stopped"
    elif not view.nodes and is_hidden:
        yield "only a registry knows the nodes of its group, and none of them was asked"
    elif not view.nodes:
        yield "no node is to serve it"
    if others:
        yield f"{others} more {'serves' if others == 1 else 'serve'} it until these do"
    worst = next((standing for standing in view.nodes if standing.phase is view.phase), None)
    if worst is not None and view.phase not in _AT_REST:
        yield f"{worst.node}: {worst.sentence}"
