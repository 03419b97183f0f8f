"""Which nodes a proxy sends a model's requests to: pure, from what each node says of itself.

A model answers wherever some version of it is loaded, but not every such node is a good place to
send people to: one that is about to unload it would soon answer that it has no such model. So the
nodes that mean to keep it come first, those that are on their way out only where there is no other,
and where no node that answers has it, those that cannot be asked now keep the place they had: a
node whose agent is silent may well serve, and an empty list certainly does not.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

from reconciler.fleet.answers import Answer, Telling
from reconciler.model import Member, Phase
from reconciler.planning.conditions import SERVING_REACHABLE
from reconciler.planning.handover import HANDING_OVER

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""As in schema/deployment.schema.json. What a node says may go into a proxy's config only so."""


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """One node's TensorFlow Serving, as a proxy reaches it."""

    node: str
    grpc: str
    """`host:port`"""
    rest: str
    """`host:port`"""


Routes: TypeAlias = Mapping[str, tuple[Server, ...]]
"""Model -> where it is served; both sorted, no list empty."""


class Fitness(IntEnum):
    """How good a place a node is for a model's requests; the best there is, is taken."""

    DOUBTFUL = 1
    """It cannot be known whether it serves the model."""
    LEAVING = 2
    """It serves the model, and is about to stop."""
    STAYING = 3


@dataclass(frozen=True, slots=True)
class Word:
    """What one node says of the models it serves."""

    server: Server
    models: Mapping[str, Fitness] = field(default_factory=dict)
    """Those that it serves."""
    is_blind: bool = False
    """Whether there may be more: it cannot be asked, has only just started, or cannot ask its
    TensorFlow Serving. What it served before is doubtful then."""


def find_routes(words: Iterable[Word], before: Routes) -> Routes:
    """Return where each model's requests are to go; `before` is where they went until now."""
    candidates: dict[str, list[tuple[Fitness, Server]]] = {}
    for word in words:
        if word.is_blind:
            for model, server in _doubted(word.server, before):
                candidates.setdefault(model, []).append((Fitness.DOUBTFUL, server))
        for model, fitness in word.models.items():
            candidates.setdefault(model, []).append((fitness, word.server))
    return {model: _choose(candidates[model]) for model in sorted(candidates)}


def read_word(server: Server, answer: Answer) -> Word:
    """Return what a node's /status says of its models."""
    # An agent that has just started has read nothing yet, while its server may serve all along.
    is_blind = answer.observed is None or any(
        condition.name == SERVING_REACHABLE for condition in answer.broken
    )
    models = {
        telling.model: fitness
        for fitness, tellings in _judge(answer)
        for telling in tellings
        if telling.serving and MODEL_NAME.fullmatch(telling.model)
    }
    return Word(server, models, is_blind)


def place(member: Member, grpc_port: int, rest_port: int) -> Server | None:
    """Return where a node of the config repo is reached; None where nothing says it."""
    host = member.host
    grpc = member.grpc or (f"{host}:{grpc_port}" if host else None)
    rest = member.rest or (f"{host}:{rest_port}" if host else None)
    return Server(member.name, grpc, rest) if grpc and rest else None


def _doubted(server: Server, before: Routes) -> Iterator[tuple[str, Server]]:
    """Yield what a node was known to serve: by its name or, where that is not known, address."""
    for model, servers in before.items():
        for known in servers:
            if known.node == server.node:
                yield model, server
            elif known.grpc == server.grpc:
                yield model, known


def _choose(candidates: list[tuple[Fitness, Server]]) -> tuple[Server, ...]:
    best = max(fitness for fitness, _ in candidates)
    return tuple(sorted({server for fitness, server in candidates if fitness is best}))


_STAYS = frozenset({Phase.DEPLOYED, Phase.DEPLOYING, Phase.FAILED})


def _judge(answer: Answer) -> Iterator[tuple[Fitness, list[Telling]]]:
    """Yield what the node has, the best last, so that of two words for one model that counts."""
    here, going = answer.deployments, answer.removals
    yield Fitness.LEAVING, [item for item in here if item.phase not in _STAYS]
    yield Fitness.LEAVING, [item for item in going if item.reason != HANDING_OVER]
    yield Fitness.STAYING, [item for item in going if item.reason == HANDING_OVER]
    yield Fitness.STAYING, [item for item in here if item.phase in _STAYS]
