"""Which nodes are asked where a model is served, and what they say.

The nodes are those of the groups in the newest commit of a clone, which something else keeps up to
date (`git pull` in a loop, git-sync), or those that were given by address. A group file that cannot
be followed counts as it last could, so that a slip in git takes no node out of the proxy.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.fleets import FleetReader
from reconciler.fleet.answers import Answer
from reconciler.fleet.poll import Sighting, Target
from reconciler.ingress.proxy import is_fit
from reconciler.ingress.routes import Server, Word, place, read_word
from reconciler.model import Member
from reconciler.model.group import find_host

FRESH_SECONDS: Final = 5.0
"""How old an answer may be: a question that hangs must not keep its node in the proxy."""
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is to be asked, and where its TensorFlow Serving is."""

    target: Target
    server: Server


class Nodes(Protocol):
    """Says which nodes there are."""

    def read(self) -> tuple[list[Node], list[str]]:
        """Return the nodes, and a sentence for each that is left out. May block for a moment."""
        ...


@dataclass(frozen=True, slots=True)
class GivenNodes:
    """Nodes by the `host:port` of their status endpoints, or `https://host:port`."""

    addresses: tuple[str, ...]
    grpc_port: int
    rest_port: int

    def read(self) -> tuple[list[Node], list[str]]:
        """Return them all; each says its name when it is asked."""
        return [
            Node(Target(address), _locate(address, self.grpc_port, self.rest_port))
            for address in dict.fromkeys(self.addresses)
        ], []


class CloneNodes:
    """The nodes of all groups, by the commit that is checked out in a clone."""

    def __init__(self, folder: Path, grpc_port: int, rest_port: int) -> None:
        """Raises GitError where `folder` is in no clone."""
        self._checkout = Checkout(folder)
        self._reader = FleetReader(self._checkout)
        self._ports = grpc_port, rest_port
        self._commit_id = ""
        self._fleet = Fleet()

    def read(self) -> tuple[list[Node], list[str]]:
        """Return the nodes of the newest commit; raises GitError or ConfigError."""
        commit_id = self._checkout.resolve("HEAD").id
        if commit_id != self._commit_id:
            self._fleet = self._reader.read(commit_id, self._fleet.good)
            self._commit_id = commit_id
        nodes: list[Node] = []
        notes = [f"{path} cannot be followed" for path in self._fleet.lost_groups]
        for group in self._fleet.groups.values():
            if group.membership is not None:
                notes.append(
                    f"group {group.name} is left out: git does not list its nodes; give them by"
                    " --node"
                )
            for member in group.nodes:
                server = place(member, *self._ports)
                if member.address is None or server is None:
                    notes.append(f"node {member.name} is left out: {_lack(member, group.path)}")
                else:
                    nodes.append(Node(Target(member.address, member.name, group.name), server))
        return nodes, notes


def find_shared(nodes: Iterable[Node]) -> Iterator[str]:
    """Yield a sentence for each TensorFlow Serving that more than one node is said to be."""
    by_place: dict[str, list[str]] = {}
    for node in nodes:
        by_place.setdefault(node.server.rest, []).append(node.server.node)
    for rest, names in by_place.items():
        if len(names) > 1:
            more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
            yield (
                f"requests for any of {', '.join(names[:_MAX_NAMED])}{more} go to {rest}: say where"
                " each is by `rest` and `grpc` in groups/, and give the clone by -C"
            )


def read_words(
    nodes: Iterable[Node], sightings: Iterable[Sighting], now: float
) -> tuple[list[Word], list[str]]:
    """Return what each node says now, and a sentence for each that cannot be told from it.

    `now` is by the poller's clock.
    """
    by_target = {sighting.target: sighting for sighting in sightings}
    words: list[Word] = []
    notes: list[str] = []
    taken: dict[str, str | None] = {}
    for node in nodes:
        sighting = by_target[node.target]
        server = _name(node, sighting.answer)
        trouble = _find_trouble(node, sighting, now)
        if trouble is None and server.node in taken:
            trouble = f"it says that it is {server.node}, as {taken[server.node]} does"
        if trouble is not None or sighting.answer is None:
            notes.append(f"{node.target.name or node.target.address}: {trouble}")
            words.append(Word(server, is_blind=True))
            continue
        taken[server.node] = node.target.address
        words.append(read_word(server, sighting.answer))
    return words, notes


def _find_trouble(node: Node, sighting: Sighting, now: float) -> str | None:
    name, answer = node.target.name, sighting.answer
    if sighting.trouble is not None:
        return sighting.trouble
    if answer is None or sighting.answered_at is None:
        return "has not answered yet"
    if now - sighting.answered_at > FRESH_SECONDS:
        return f"has not answered for more than {FRESH_SECONDS:g} s"
    if name is not None and answer.node != name:
        return f"its address is answered by {answer.node}; correct it in groups/"
    return None if is_fit(_name(node, answer)) else "its name or address cannot be used"


def _name(node: Node, answer: Answer | None) -> Server:
    """Return the node's server by the name that the node itself says, where git says none."""
    if node.target.name is not None or answer is None:
        return node.server
    return Server(answer.node, node.server.grpc, node.server.rest)


def _locate(address: str, grpc_port: int, rest_port: int) -> Server:
    host = find_host(address)
    return Server(address, f"{host}:{grpc_port}", f"{host}:{rest_port}")


def _lack(member: Member, path: str) -> str:
    what = "an address" if member.address is None else "where its TensorFlow Serving is"
    return f"write {what} in {path}"
