"""Asks other nodes what they say of themselves, and whether one has this one's name.

Only those are asked whose word the plan needs now, once a second or, where they are many, less
often, each by itself: one that is slow or lies is its own trouble. The node's own address is asked
too, rarely: if another agent answers there, two run under one name. The question bears the name of
who asks, so both learn of it.
"""

import asyncio
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.model import Desired, Phase, Unavailable
from reconciler.planning.peers import (
    NO_ADDRESS,
    Peer,
    PeerModel,
    Peers,
    ServerStanding,
    ServerState,
)
from reconciler.status.access import OPEN_ACCESS, Access
from reconciler.status.client import StatusError, fetch_status, printable
from reconciler.threads import run_beside

WRONG_ADDRESS = "WrongAddress"
NAME_TAKEN = "NameTaken"
DEADLINE_SECONDS = 3.0
INTERVAL_SECONDS = 1.0
_INTERVAL_SECONDS_PER_NODE = 0.05
"""Else the last wave of 300 nodes would ask those before it thousands of times a second."""
OWN_INTERVAL_SECONDS = 30.0
_MAX_SENTENCE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Badge:
    """Who asks, as it stands in the header of the question."""

    node: str
    instance: str

    def __str__(self) -> str:
        return f"{self.node} {self.instance}"


class PeerWatch:
    """The last word of each node that is wanted."""

    def __init__(
        self, badge: Badge, clock: Callable[[], float], access: Access = OPEN_ACCESS
    ) -> None:
        self._badge = badge
        self._access = access
        self._clock = clock
        self._addresses: dict[str, str | None] = {}
        self._wanted: frozenset[str] = frozenset()
        self._found: dict[str, Peer | Unavailable] = {}
        self._due_at: dict[str, float] = {}
        self.namesake: Unavailable | None = None
        """Where another agent of this node's name, or of another, answers at its own address."""

    @property
    def peers(self) -> Peers:
        """What is known of the nodes that are wanted."""
        return {node: self._found[node] for node in self._wanted if node in self._found}

    @property
    def answered(self) -> bool:
        """Whether each node that is wanted was asked, well or badly."""
        return self._wanted <= self._found.keys()

    def want(self, desired: Desired, nodes: Iterable[str]) -> bool:
        """Set who is to be asked; return whether somebody is due."""
        own_group = (desired.group,) if desired.group else ()
        self._addresses = {
            member.name: member.address
            for group in (*desired.groups.values(), *own_group)
            for member in group.nodes
        }
        self._wanted = frozenset(nodes)
        own = self._badge.node
        asked = self._wanted | ({own} if self._addresses.get(own) else frozenset())
        if own not in asked:
            self.namesake = None
        for node in self._due_at.keys() - asked:
            del self._due_at[node]
            self._found.pop(node, None)
        for node in asked - self._due_at.keys():
            self._due_at[node] = self._clock()
        return self.next_due_seconds() <= 0

    def next_due_seconds(self) -> float:
        """Return how long nobody is due, negative when somebody is overdue."""
        return min(self._due_at.values(), default=self._clock() + INTERVAL_SECONDS) - self._clock()

    @property
    def _interval_seconds(self) -> float:
        return max(INTERVAL_SECONDS, len(self._wanted) * _INTERVAL_SECONDS_PER_NODE)

    async def refresh(self) -> bool:
        """Ask everybody who is due and return whether any answer is other than before."""
        now = self._clock()
        due = [node for node, due_at in self._due_at.items() if due_at <= now]
        before = (self.peers, self.namesake)
        answers = await asyncio.gather(*(self._ask(node) for node in due))
        for node, answer in zip(due, answers, strict=True):
            if node not in self._due_at:
                continue
            is_own = node == self._badge.node
            interval_seconds = OWN_INTERVAL_SECONDS if is_own else self._interval_seconds
            self._due_at[node] = self._clock() + interval_seconds
            if is_own:
                self.namesake = self._compare(answer)
            elif isinstance(answer, _Answer):
                self._found[node] = answer.peer
            else:
                self._found[node] = answer
        return before != (self.peers, self.namesake)

    async def _ask(self, node: str) -> "_Answer | Unavailable":
        address = self._addresses.get(node)
        if address is None:
            return Unavailable(NO_ADDRESS, f"the group gives no address for {node}")

        def ask() -> _Answer:
            badge = str(self._badge)
            return _read_answer(fetch_status(address, DEADLINE_SECONDS, badge, self._access))

        try:
            answer = await run_beside(ask, "peer")
        except StatusError as error:
            return Unavailable(error.reason, str(error))
        if answer.peer.node == node:
            return answer
        sentence = (
            f"{address} is to be {node}, but {printable(answer.peer.node[:100])} answers there;"
            " correct the address or the name of that agent"
        )
        return Unavailable(WRONG_ADDRESS, sentence)

    def _compare(self, answer: "_Answer | Unavailable") -> Unavailable | None:
        """Return why the node's own address does not lead to itself, if somebody else answers."""
        if isinstance(answer, Unavailable):
            return answer if answer.reason == WRONG_ADDRESS else None
        if not answer.instance or answer.instance == self._badge.instance:
            return None
        address = self._addresses[self._badge.node]
        return describe_namesake(self._badge.node, f"answers at {address}")


def describe_namesake(node: str, where: str) -> Unavailable:
    """Return what to say where two agents run under one name."""
    return Unavailable(
        NAME_TAKEN,
        f"another agent that calls itself {node} {where}; give each machine a name of its own"
        " (RECONCILER_NODE), or both serve what is meant for one",
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    peer: Peer
    instance: str


def _read_answer(body: bytes) -> _Answer:
    """Read what is used of a /status; raises StatusError where it is none."""
    try:
        report = json.loads(body)
        models = {str(item["model"]): _read_model(item) for item in report["deployments"]}
        peer = Peer(str(report["node"]), models, _read_server(report))
        return _Answer(peer, str(report.get("instance", "")))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise StatusError("what it answers is not a reconciler's status") from None


def _read_server(report: Mapping[str, Any]) -> ServerStanding | None:
    if "server" not in report:
        return ServerStanding("", ServerState.PENDING, "")
    server = report["server"]
    if server is None:
        return None
    sentence = printable(str(server["sentence"])[:_MAX_SENTENCE_CHARACTERS])
    return ServerStanding(str(server["ask"]), ServerState(server["state"]), sentence)


def _read_model(item: Mapping[str, Any]) -> PeerModel:
    wanted, deployed_seconds = item["wanted_version"], float(item.get("deployed_seconds") or 0.0)
    if not math.isfinite(deployed_seconds):
        raise ValueError("no time is that long")  # it would be reckoned with
    return PeerModel(
        ask=str(item.get("ask", "")),
        phase=Phase(item["phase"]),
        reason=str(item["reason"]),
        wanted=None if wanted is None else int(wanted),
        serving=tuple(int(version) for version in item["serving_versions"]),
        deployed_seconds=deployed_seconds,
        sentence=printable(str(item["sentence"])[:_MAX_SENTENCE_CHARACTERS]),
    )
