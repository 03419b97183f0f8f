"""Whether it is this node's turn to take a new version: `rollout.waves` of a deployment.

The nodes that hold a deployment have an order, the same everywhere. A node of a later wave takes a
version when every node of the waves before has had it Deployed for the pause. One that failed
halts all the others, which keep what they have. Nothing is remembered but what the node has begun
itself, so a newer commit starts again from the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.model import Deployment, Desired, Phase, Unavailable, Wave
from reconciler.planning.goals import Target, fingerprint, resolved_key
from reconciler.planning.holds import Hold, has_served
from reconciler.planning.memory import ModelMemory
from reconciler.planning.peers import NO_ASK, Peers, ask_of
from reconciler.planning.wording import format_seconds, join_words

WAITS_FOR_WAVE = "WaitsForWave"
ROLLOUT_HALTED = "RolloutHalted"
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """Which wave a node is in, and the nodes that come before it."""

    wave: int
    """From 0."""
    waves: int
    before: tuple[str, ...] = ()


def await_turn(
    desired: Desired, target: Target, known: ModelMemory, peers: Peers | None
) -> tuple[Hold | None, tuple[str, ...]]:
    """Return what keeps the node from a new version, and the nodes that have to come first.

    Without `peers` nothing does: a preview plays one node alone.
    """
    deployment, main = target.deployment, target.goal.main
    waves, holders = deployment.rollout.waves, desired.holders.get(deployment.model, ())
    if not waves or peers is None or deployment.stop or main is None:
        return None, ()
    if desired.node not in holders or has_served(target.goal, known):
        return None, ()  # the way back waits for nobody
    is_named = deployment.named_version is not None
    is_begun = known.admitted == fingerprint(deployment)
    if is_begun and (is_named or known.resolved.get(resolved_key(deployment)) == main):
        return None, ()
    turn = find_turn(waves, holders, desired.node)
    hold = find_wave_hold(deployment, main, turn, peers)
    return hold, turn.before if hold else ()


def find_turn(waves: Sequence[Wave], holders: Sequence[str], node: str) -> Turn:
    """Return the turn of one of the `holders`, which stand in the order of the rollout."""
    position = holders.index(node)
    begins = 0
    for index, wave in enumerate(waves):
        ends = max(begins, wave.count(len(holders)))
        if position < ends:
            return Turn(index, len(waves), tuple(holders[:begins]))
        begins = ends
    return Turn(len(waves), len(waves) + 1, tuple(holders[:begins]))


def find_wave_hold(deployment: Deployment, version: int, turn: Turn, peers: Peers) -> Hold | None:
    """Return why the node does not take `version` yet, None where it is its turn."""
    waits, failures, pauses = [], [], []
    for node in turn.before:
        verdict = _judge(deployment, version, node, peers)
        if isinstance(verdict, _Failure):
            failures.append(f"{node} failed it: {verdict.sentence}")
        elif isinstance(verdict, str):
            waits.append(f"{node} {verdict}")
        elif verdict is not None:
            pauses.append(verdict)
    if failures:
        name = deployment.scheme.show(version)
        sentence = f"the rollout of version {name} is halted, because {_list(failures)}"
        return Hold(ROLLOUT_HALTED, sentence)
    if waits:
        sentence = f"wave {turn.wave + 1} of {turn.waves} has not begun, because {_list(waits)}"
        return Hold(WAITS_FOR_WAVE, sentence)
    if pauses:
        pause = format_seconds(deployment.rollout.pause_seconds)
        sentence = (
            f"wave {turn.wave + 1} of {turn.waves} begins when the one before has served it for"
            f" {pause}"
        )
        return Hold(WAITS_FOR_WAVE, sentence, ends_in_seconds=max(pauses))
    return None


@dataclass(frozen=True, slots=True)
class _Failure:
    sentence: str


def _judge(
    deployment: Deployment, version: int, node: str, peers: Peers
) -> str | float | _Failure | None:
    """Return what the node lacks to let the next wave begin: words, or only seconds."""
    peer = peers.get(node)
    if peer is None:
        return "was not asked yet"
    if isinstance(peer, Unavailable):
        return f"cannot be asked: {peer.sentence}"
    model = peer.models.get(deployment.model)
    if model is not None and not model.ask:
        return NO_ASK
    if model is None or model.ask != ask_of(deployment):
        return "is not at the same commit yet"
    if model.phase is Phase.FAILED:
        return _Failure(model.sentence)
    if model.phase is not Phase.DEPLOYED or model.wanted != version:
        return f"does not serve it yet ({model.sentence})"
    left_seconds = deployment.rollout.pause_seconds - model.deployed_seconds
    return left_seconds if left_seconds > 0 else None


def _list(items: Sequence[str]) -> str:
    more = len(items) - _NAMED
    return join_words([*items[:_NAMED], *([f"{more} more nodes"] if more > 0 else [])])
