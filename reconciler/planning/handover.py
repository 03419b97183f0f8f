"""Giving a deployment up to other nodes of the group.

A node that loses a deployment, because nodes came, went or weigh otherwise now, goes on serving it
until all those that are to hold it say that they do. Then it stays a little longer, so that
every caller can learn where to go. A holder that never gets there must not keep the model here for
ever: after a timeout it is enough that one of them serves it. The last copy that is known of is
never given up.

The timeout is for holders that could and do not. While nothing may change, or one of them waits
for its wave of a rollout, it has not begun.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.model import Deployment, Desired, LocalVersion, Phase, Unavailable
from reconciler.planning.memory import Memory, ModelMemory, find_managed
from reconciler.planning.peers import NO_ADDRESS, NO_ASK, Peer, Peers, ask_of
from reconciler.planning.waves import ROLLOUT_HALTED, WAITS_FOR_WAVE
from reconciler.planning.wording import join_words
from reconciler.policy import Policy

HANDING_OVER = "HandingOver"
DRAINING = "Draining"
_HANDED_OVER = "HandedOver"
_TURN_REASONS = frozenset({WAITS_FOR_WAVE, ROLLOUT_HALTED})


@dataclass(frozen=True, slots=True)
class Handover:
    """How far one deployment is on its way from this node to others."""

    deployment: Deployment
    is_done: bool
    """Whether it may be unloaded here."""
    reason: str
    sentence: str
    asks: tuple[str, ...] = ()
    """The nodes that have to be asked to know more."""
    ends_in_seconds: float | None = None
    """When it ends by itself; None where others have to do something first."""


def find_handovers(
    desired: Desired,
    local: Mapping[str, Mapping[int, LocalVersion]],
    memory: Memory,
    peers: Peers | None,
    now: float,
    *,
    is_held: bool = False,
) -> tuple[dict[str, Handover], Memory]:
    """Return every deployment that is here and other nodes' to serve, and what to remember.

    `is_held` tells whether nothing may change on this node now.
    """
    handovers = {}
    managed = find_managed(memory, local)
    for deployment in desired.elsewhere:
        model = deployment.model
        if model in managed:
            holders, known = desired.holders.get(model, ()), memory.of(model)
            handovers[model], known = hand_over(
                deployment, holders, known, peers, desired.policy, now
            )
            memory = memory.with_model(model, known)
    for model, known in memory.models.items():
        # It came back, or it is no hand-over for now; the next one has its own time.
        if known.moved_at is not None and (is_held or model not in handovers):
            memory = memory.with_model(model, _forget_move(known))
    return handovers, memory


def _forget_move(known: ModelMemory) -> ModelMemory:
    return replace(known, moved_at=None, moved_to=frozenset(), relieved_at=None)


def hand_over(
    deployment: Deployment,
    holders: Sequence[str],
    known: ModelMemory,
    peers: Peers | None,
    policy: Policy,
    now: float,
) -> tuple[Handover, ModelMemory]:
    """Return how far the hand-over is, and what to remember of it.

    Without `peers` the others are taken to have done their part: a preview plays one node alone.
    """
    names = join_words(sorted(holders))
    if deployment.stop:
        sentence = "is stopped, and not this node's to start again"
        return Handover(deployment, True, _HANDED_OVER, sentence), known
    if peers is None:
        sentence = f"is served by {names} instead" if holders else "left this node"
        return Handover(deployment, True, _HANDED_OVER, sentence), known
    if deployment.suspend:
        sentence = f"suspend: true in {deployment.path}; it stays here instead of on {names}"
        return Handover(deployment, False, HANDING_OVER, sentence), _forget_move(known)

    moved_at = known.moved_at
    has_new_holders = not known.moved_to.issuperset(holders)
    if moved_at is None or has_new_holders or _awaits_turn(deployment, holders, peers):
        moved_at = now
    missing = {node: lack for node in holders if (lack := _find_lack(deployment, node, peers))}
    is_late = now - moved_at >= policy.handover_timeout_seconds
    is_relieved = bool(holders) and (
        not missing or (is_late and _is_served(deployment, holders, peers))
    )
    relieved_at = (known.relieved_at or now) if is_relieved else None
    known = replace(known, moved_at=moved_at, moved_to=frozenset(holders), relieved_at=relieved_at)
    asks = tuple(holders)
    if relieved_at is None:
        return _stay(deployment, names, missing, is_late, asks), known
    left_seconds = relieved_at + policy.drain_seconds - now
    if left_seconds > 0:
        sentence = (
            f"{names} {_verb(holders)} it now; goes on serving here for a moment, until callers"
            " have learnt of it"
        )
        return Handover(deployment, False, DRAINING, sentence, asks, left_seconds), known
    sentence = f"is served by {names} instead"
    return Handover(deployment, True, _HANDED_OVER, sentence, asks), known


def _stay(
    deployment: Deployment,
    names: str,
    missing: dict[str, str],
    is_late: bool,
    asks: tuple[str, ...],
) -> Handover:
    if not missing:
        sentence = "no node of the group is left to take it over; goes on serving here"
        return Handover(deployment, False, HANDING_OVER, sentence, asks)
    lacks = "; ".join(f"{node} {lack}" for node, lack in sorted(missing.items())[:3])
    what = "none of them is known to serve it yet" if is_late else "waits until all of them do"
    sentence = f"is to be served by {names} instead and {what} ({lacks}); goes on serving here"
    return Handover(deployment, False, HANDING_OVER, sentence, asks)


def _find_lack(deployment: Deployment, node: str, peers: Peers) -> str | None:
    """Return why the node does not relieve this one, None where it does."""
    peer = peers.get(node)
    if peer is None:
        return "was not asked yet"
    if isinstance(peer, Unavailable):
        return f"cannot be asked: {peer.sentence}"
    model = peer.models.get(deployment.model)
    if model is not None and not model.ask:
        return NO_ASK
    if model is None or model.ask != ask_of(deployment):
        return "has not begun with it yet"
    if model.phase is Phase.DEPLOYED:
        return None
    return f"says {model.phase}: {model.sentence}"


def _is_served(deployment: Deployment, holders: Sequence[str], peers: Peers) -> bool:
    """Whether some holder serves the model, or nobody has ever said where to ask them."""
    found = [peers.get(node) for node in holders]
    if all(isinstance(peer, Unavailable) and peer.reason == NO_ADDRESS for peer in found):
        return True
    models = (peer.models.get(deployment.model) for peer in found if isinstance(peer, Peer))
    return any(model is not None and model.serving for model in models)


def _awaits_turn(deployment: Deployment, holders: Sequence[str], peers: Peers) -> bool:
    """Whether a holder does not take the version for now, as its rollout asks."""
    found = (peers.get(node) for node in holders)
    models = (peer.models.get(deployment.model) for peer in found if isinstance(peer, Peer))
    return any(model is not None and model.reason in _TURN_REASONS for model in models)


def _verb(holders: Sequence[str]) -> str:
    return "serves" if len(holders) == 1 else "serve"
