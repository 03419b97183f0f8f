"""Whose answer is whose: from what was seen at addresses to the nodes of the fleet.

A node is known by its name, and an address may lead elsewhere: to another node, to one of two
agents that were given the same name, or to one that was named already. An answer counts for the
node that it names, and only where that is the node that was meant; all else is said to be wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.fleet.answers import Answer
from reconciler.fleet.poll import Sighting
from reconciler.fleet.view import Severity, Trouble
from reconciler.planning.wording import format_seconds, join_words
from reconciler.status.report import timestamp

_MAX_CLOCK_SECONDS = 60.0
_SHOWN_NODES = 3


@dataclass(frozen=True, slots=True)
class Now:
    """One moment by both clocks."""

    monotonic: float
    wall_seconds: float

    def wall_of(self, monotonic: float) -> float:
        """Return the Unix time of an earlier monotonic one."""
        return self.wall_seconds - (self.monotonic - monotonic)


@dataclass(frozen=True, slots=True)
class Node:
    """One node and what is known of it."""

    name: str
    group: str | None
    sighting: Sighting
    answer: Answer | None
    """Its last own answer, however old."""
    silence: str | None = None
    """What is so where there is no newer one; None where it answers."""
    cause: str | None = None
    """What came of asking it, where that failed."""
    was_asked: bool = True
    """Whether it was asked at all."""

    @property
    def is_alive(self) -> bool:
        """Whether it answered when it was last asked."""
        return self.silence is None

    @property
    def whole_silence(self) -> str:
        """Why there is no newer answer, with what came of asking."""
        return f"{self.silence}: {self.cause}" if self.cause else self.silence or ""


def identify(sightings: Sequence[Sighting], now: Now) -> tuple[dict[str, Node], list[Trouble]]:
    """Return the nodes by name, and what is wrong with names and addresses."""
    nodes: dict[str, Node] = {}
    wrong: list[Trouble] = []
    # Those that git names come first: an answer to a bare address must not take their place.
    for sighting in sorted(sightings, key=lambda sighting: sighting.target.name is None):
        target, answer = sighting.target, sighting.answer
        name = target.name or (answer.node if answer else str(target.address))
        if answer is not None and answer.node != name:
            _note_stranger(sighting, answer, sightings, nodes, wrong)
            continue
        if sighting.has_namesake:
            where = f"both answer at {target.address}"
            wrong.append(_namesakes(name, _group(sighting), where))
        known = nodes.get(name)
        if known is None:
            nodes[name] = _describe(name, sighting, now)
        elif _differ(known.answer, answer):
            where = f"at {known.sighting.target.address} and at {target.address}"
            wrong.append(_namesakes(name, _group(sighting), where))
    return nodes, wrong


def _note_stranger(
    sighting: Sighting,
    answer: Answer,
    sightings: Iterable[Sighting],
    nodes: dict[str, Node],
    wrong: list[Trouble],
) -> None:
    """Take down that at the address of one node another one answers."""
    target = sighting.target
    name = str(target.name)
    sentence = (
        f"its address {target.address} is answered by {answer.node}; correct the address in"
        " groups/, or the name of that agent (RECONCILER_NODE)"
    )
    nodes.setdefault(name, Node(name, target.group, sighting, None, sentence))
    twins = [s for s in sightings if s.target.name == answer.node and _differ(s.answer, answer)]
    if twins:
        where = f"at {twins[0].target.address} and at {target.address}"
        wrong.append(_namesakes(answer.node, target.group, where))


def _describe(name: str, sighting: Sighting, now: Now) -> Node:
    group = _group(sighting)
    if sighting.target.address is None:
        where = f"groups/{group}.yaml" if group else "groups/"
        sentence = f"nobody knows its address; write it in {where}"
        return Node(name, group, sighting, None, sentence, was_asked=False)
    if sighting.answer is None and sighting.trouble is None:
        return Node(name, group, sighting, None, "it was not asked yet", was_asked=False)
    silence = None if sighting.trouble is None else _since(sighting, now)
    return Node(name, group, sighting, sighting.answer, silence, sighting.trouble)


def _since(sighting: Sighting, now: Now) -> str:
    # A moment, not a duration: what says the same must read the same a second later.
    if sighting.answered_at is None:
        return "it has not answered yet"
    moment = timestamp(now.wall_of(sighting.answered_at))
    return f"it has not answered since {moment[11:19]} UTC"


def _group(sighting: Sighting) -> str | None:
    return sighting.target.group or (sighting.answer.group if sighting.answer else None)


def _differ(first: Answer | None, second: Answer | None) -> bool:
    """Tell whether two agents gave the answers, to one name."""
    if first is None or second is None or first.node != second.node:
        return False
    return bool(first.instance and second.instance) and first.instance != second.instance


def _namesakes(name: str, group: str | None, where: str) -> Trouble:
    sentence = (
        f"two agents run as {name}, {where}; give each machine a name of its own (RECONCILER_NODE),"
        " or both serve what is meant for one"
    )
    return Trouble(Severity.CRITICAL, group, name, None, sentence)


def find_node_troubles(nodes: Mapping[str, Node]) -> list[Trouble]:
    """Return what is wrong with the nodes themselves."""
    wrong = [trouble for node in nodes.values() if (trouble := _find_own_trouble(node))]
    return wrong + _find_broken_conditions(nodes.values()) + _find_partitions(nodes.values())


def _find_own_trouble(node: Node) -> Trouble | None:
    severity = Severity.WARNING
    sentence = node.whole_silence or describe_clock(node)
    if not node.is_alive and node.was_asked:
        severity = Severity.SERIOUS
    elif not node.is_alive and node.sighting.target.address is not None:
        return None  # it is about to be asked
    if sentence is None:
        return None
    return Trouble(severity, node.group, node.name, None, f"{node.name}: {sentence}")


def describe_clock(node: Node) -> str | None:
    """Return what is wrong with the node's clock, or the time of its report."""
    ahead = node.sighting.clock_ahead_seconds
    if not node.is_alive or node.answer is None or abs(ahead) <= _MAX_CLOCK_SECONDS:
        return None
    # By the ten seconds, because it wavers.
    words = format_seconds(10 * round(abs(ahead) / 10))
    if ahead > 0:
        return f"its clock is {words} ahead of this one; correct whichever is wrong"
    return f"its clock is {words} behind this one, or its report is so old; correct the clock"


def _find_broken_conditions(nodes: Iterable[Node]) -> list[Trouble]:
    """Return each condition that does not hold, once for all nodes that say the same of it."""
    found: dict[tuple[str, str, str], list[Node]] = {}
    for node in nodes:
        for condition in node.answer.broken if node.answer and node.is_alive else ():
            key = (condition.name, condition.reason, condition.sentence)
            found.setdefault(key, []).append(node)
    return [
        Trouble(
            Severity.WARNING,
            _common({node.group for node in where}),
            _common({node.name for node in where}),
            None,
            f"{_list_names([node.name for node in where])}: {name} does not hold ({reason}):"
            f" {sentence}",
        )
        for (name, reason, sentence), where in found.items()
    ]


def _find_partitions(nodes: Iterable[Node]) -> list[Trouble]:
    """Return the groups of which two nodes at one commit see different members."""
    seen: dict[tuple[str, str], dict[tuple[str, ...], str]] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        answer = node.answer
        if answer is None or not node.is_alive or answer.group is None or not answer.members:
            continue
        if answer.observed is not None:
            views = seen.setdefault((answer.group, answer.observed.id), {})
            views.setdefault(tuple(sorted(answer.members)), node.name)
    return [
        Trouble(Severity.WARNING, group, None, None, _describe_partition(group, views))
        for (group, _), views in seen.items()
        if len(views) > 1
    ]


def _describe_partition(group: str, views: Mapping[tuple[str, ...], str]) -> str:
    (first, one), (second, other) = list(views.items())[:2]
    only_one = _list_names(sorted(set(first) - set(second))) or "nobody"
    only_other = _list_names(sorted(set(second) - set(first))) or "nobody"
    return (
        f"{one} and {other} do not see the same nodes in group {group}: only {one} sees"
        f" {only_one}, only {other} sees {only_other}; both place models by what they see"
    )


def _common(values: set[str | None] | set[str]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None


def _list_names(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN_NODES + 1:
        return join_words(list(names))
    return f"{', '.join(names[:_SHOWN_NODES])} and {len(names) - _SHOWN_NODES} more"
