"""Giving a deployment up to other nodes.

A node that loses a deployment, because nodes came, went or weigh otherwise now, or because it goes
to another group, goes on serving it until all those that are to hold it say that they do. Then it
stays a little longer, so that every caller can learn where to go. A holder that never gets there
must not keep the model here for ever: after a timeout it is enough that one of them serves it. The
last copy that is known of is never given up.

The timeout is for holders that could and do not. While nothing may change, or one of them waits
for its wave of a rollout, it has not begun.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.model import Deployment, Desired, LocalVersion, Phase, Unavailable
from reconciler.planning.memory import Memory, ModelMemory, find_managed
from reconciler.planning.peers import NO_ADDRESS, NO_ASK, PeerModel, Peers, ask_of
from reconciler.planning.placement import find_holders
from reconciler.planning.waves import ROLLOUT_HALTED, WAITS_FOR_WAVE
from reconciler.planning.wording import join_words
from reconciler.policy import Policy

HANDING_OVER = "HandingOver"
DRAINING = "Draining"
_HANDED_OVER = "HandedOver"
_TURN_REASONS = frozenset({WAITS_FOR_WAVE, ROLLOUT_HALTED})


@dataclass(frozen=True, slots=True)
class Heirs:
    """The nodes of one group that are to serve a model instead of this one."""

    deployment: Deployment
    """The model's in that group."""
    nodes: tuple[str, ...]
    is_abroad: bool = False
    """Whether it is another group than this node's."""

    @property
    def names(self) -> str:
        """The nodes in words."""
        names = join_words(sorted(self.nodes)) if self.nodes else "no node yet"
        return f"{names} of group {self.deployment.group}" if self.is_abroad else names


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
    """Return every model that is here and other nodes' to serve, and what to remember.

    `is_held` tells whether nothing may change on this node now.
    """
    handovers = {}
    is_elsewhere = bool(desired.elsewhere or desired.abroad)
    managed = find_managed(memory, local) if is_elsewhere else frozenset()
    for model, heirs in _find_heirs(desired, managed):
        item, known = hand_over(heirs, memory.of(model), peers, desired.policy, now)
        # Until it is gone it is something that this node's group has, also where others take it.
        group = desired.group.name if desired.group else item.deployment.group
        handovers[model] = replace(item, deployment=replace(item.deployment, group=group))
        memory = memory.with_model(model, known)
    for model, known in memory.models.items():
        # It came back, or it is no hand-over for now; the next one has its own time.
        if known.moved_at is not None and (is_held or model not in handovers):
            memory = memory.with_model(model, _forget_move(known))
    return handovers, memory


def _find_heirs(
    desired: Desired, managed: frozenset[str]
) -> Iterator[tuple[str, tuple[Heirs, ...]]]:
    for deployment in desired.elsewhere:
        if deployment.model in managed:
            nodes = desired.holders.get(deployment.model, ())
            yield deployment.model, (Heirs(deployment, nodes),)
    for model in sorted(managed & desired.abroad.keys() - desired.broken.keys()):
        yield (
            model,
            tuple(
                Heirs(item, find_holders(item, desired.groups[item.group]), is_abroad=True)
                for item in desired.abroad[model]
            ),
        )


def _forget_move(known: ModelMemory) -> ModelMemory:
    return replace(known, moved_at=None, moved_to=frozenset(), relieved_at=None)


def hand_over(
    heirs: Sequence[Heirs],
    known: ModelMemory,
    peers: Peers | None,
    policy: Policy,
    now: float,
) -> tuple[Handover, ModelMemory]:
    """Return how far the hand-over of a model is, and what to remember of it.

    `heirs` has at least one group. Without `peers` the others are taken to have done their part: a
    preview plays one node alone.
    """
    deployment, nodes = heirs[0].deployment, tuple(node for heir in heirs for node in heir.nodes)
    names = join_words([heir.names for heir in heirs])
    if deployment.stop:
        sentence = "is stopped, and not this node's to start again"
        return Handover(deployment, True, _HANDED_OVER, sentence), known
    if peers is None:
        sentence = f"is served by {names} instead" if nodes else "left this node"
        return Handover(deployment, True, _HANDED_OVER, sentence), known
    if deployment.suspend and not heirs[0].is_abroad:
        sentence = f"suspend: true in {deployment.path}; it stays here instead of on {names}"
        return Handover(deployment, False, HANDING_OVER, sentence), _forget_move(known)

    found = list(_find_words(heirs, peers))
    moved_at = known.moved_at
    if moved_at is None or not known.moved_to.issuperset(nodes) or _await_turn(found):
        moved_at = now
    missing = {word.node: word.lack for word in found if word.lack}
    is_late = now - moved_at >= policy.handover_timeout_seconds
    is_relieved = all(heir.nodes for heir in heirs) and (
        not missing or (is_late and _is_served(found))
    )
    relieved_at = (known.relieved_at or now) if is_relieved else None
    known = replace(known, moved_at=moved_at, moved_to=frozenset(nodes), relieved_at=relieved_at)
    if relieved_at is None:
        return _stay(heirs, names, missing, is_late, nodes), known
    left_seconds = relieved_at + policy.drain_seconds - now
    if left_seconds > 0:
        verb = "serves" if len(nodes) == 1 else "serve"
        sentence = (
            f"{names} {verb} it now; goes on serving here for a moment, until callers have learnt"
            " of it"
        )
        return Handover(deployment, False, DRAINING, sentence, nodes, left_seconds), known
    sentence = f"is served by {names} instead"
    return Handover(deployment, True, _HANDED_OVER, sentence, nodes), known


def _stay(
    heirs: Sequence[Heirs],
    names: str,
    missing: dict[str, str],
    is_late: bool,
    asks: tuple[str, ...],
) -> Handover:
    deployment = heirs[0].deployment
    if not missing:
        where = f"group {heirs[0].deployment.group}" if heirs[0].is_abroad else "the group"
        sentence = f"no node of {where} is left to take it over; goes on serving here"
        return Handover(deployment, False, HANDING_OVER, sentence, asks)
    lacks = "; ".join(f"{node} {lack}" for node, lack in sorted(missing.items())[:3])
    what = "none of them is known to serve it yet" if is_late else "waits until all of them do"
    sentence = f"is to be served by {names} instead and {what} ({lacks}); goes on serving here"
    return Handover(deployment, False, HANDING_OVER, sentence, asks)


@dataclass(frozen=True, slots=True)
class _Word:
    """What is known of one heir."""

    node: str
    lack: str | None
    """Why it does not relieve this node, None where it does."""
    model: PeerModel | None = None
    has_address: bool = True


def _find_words(heirs: Sequence[Heirs], peers: Peers) -> Iterator[_Word]:
    for heir in heirs:
        for node in heir.nodes:
            peer = peers.get(node)
            if peer is None:
                yield _Word(node, "was not asked yet")
            elif isinstance(peer, Unavailable):
                lack = f"cannot be asked: {peer.sentence}"
                yield _Word(node, lack, has_address=peer.reason != NO_ADDRESS)
            else:
                model = peer.models.get(heir.deployment.model)
                yield _Word(node, _find_lack(heir.deployment, model), model)


def _find_lack(deployment: Deployment, model: PeerModel | None) -> str | None:
    if model is not None and not model.ask:
        return NO_ASK
    if model is None or model.ask != ask_of(deployment):
        return "has not begun with it yet"
    if model.phase is Phase.DEPLOYED:
        return None
    return f"says {model.phase}: {model.sentence}"


def _is_served(words: Sequence[_Word]) -> bool:
    """Whether some heir serves the model, or nobody has ever said where to ask them."""
    if not any(word.has_address for word in words):
        return True
    return any(word.model is not None and word.model.serving for word in words)


def _await_turn(words: Sequence[_Word]) -> bool:
    """Whether an heir does not take the version for now, as its rollout asks."""
    return any(word.model is not None and word.model.reason in _TURN_REASONS for word in words)
