"""Whether it is this node's turn to replace its server: `serving` of a group.

While a server is replaced its node serves nothing, so the nodes of a group do it one after the
other, by name. A node's turn comes when every node before it runs what git asks, and serves, and
none after it is still busy with what an earlier commit asked. One that failed halts all the
others, which keep what they have. Nothing is remembered: a newer commit starts again from the
truth.
"""

from reconciler.model import Desired, Unavailable
from reconciler.planning.holds import Hold
from reconciler.planning.peers import (
    NO_ADDRESS,
    NO_ASK,
    Peer,
    Peers,
    ServerState,
    ask_of_server,
)

WAITS_FOR_TURN = "WaitsForTurn"
UPDATE_HALTED = "UpdateHalted"
_NOT_ASKED = "was not asked yet"


def find_others(desired: Desired) -> tuple[str, ...]:
    """Return the nodes that share the servers' order with this one."""
    members = desired.group.nodes if desired.group else ()
    return tuple(sorted({member.name for member in members} - {desired.node}))


def find_turn_hold(desired: Desired, peers: Peers) -> Hold | None:
    """Return why the node leaves its server as it is for now, None where it is its turn."""
    group = desired.group
    if group is None or group.serving is None:
        return None
    ask, others = ask_of_server(group.serving), find_others(desired)
    for name in others:
        if failure := _find_failure(ask, peers.get(name)):
            sentence = f"the update of the servers is halted, because {name} failed it: {failure}"
            return Hold(UPDATE_HALTED, sentence)
    for name in others:
        word = peers.get(name)
        lack = _find_lack(ask, word) if name < desired.node else _find_bustle(word)
        if lack is not None:
            is_nameless = isinstance(word, Unavailable) and word.reason == NO_ADDRESS
            sentence = f"the group's servers are replaced one after the other, and {name} {lack}"
            return Hold(NO_ADDRESS if is_nameless else WAITS_FOR_TURN, sentence)
    return None


def _find_failure(ask: str, word: Peer | Unavailable | None) -> str | None:
    server = word.server if isinstance(word, Peer) else None
    is_failed = server and server.ask == ask and server.state is ServerState.FAILED
    return server.sentence if server and is_failed else None


def _find_lack(ask: str, word: Peer | Unavailable | None) -> str | None:
    """Return what a node that comes before still lacks."""
    if word is None:
        return _NOT_ASKED
    if isinstance(word, Unavailable):
        return f"cannot be asked: {word.sentence}"
    if word.server is None:
        return None  # nobody replaces its server, at least not by git
    if not word.server.ask:
        return NO_ASK
    if word.server.ask != ask:
        return "is not at the same commit yet"
    if word.server.state is not ServerState.STEADY:
        return f"does not run it yet ({word.server.sentence})"
    return None


def _find_bustle(word: Peer | Unavailable | None) -> str | None:
    """Return what a node that comes later is still busy with; one that is silent waits for us."""
    if word is None:
        return _NOT_ASKED
    if isinstance(word, Peer) and word.server and word.server.state is ServerState.REPLACING:
        return f"is not done with an earlier commit ({word.server.sentence})"
    return None
