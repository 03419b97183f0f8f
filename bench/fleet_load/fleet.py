"""A thousand such nodes: how what they ask is spread over the seconds."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from bench.fleet_load.node import MODELS, Node, Peer

LISTING_SECONDS = 60.0
_JITTER = 0.1
_REST_SECONDS = 3600
_RESTS = 16
_COMMITS = 200


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of a fleet at rest: a second in the mean, and in the busiest second."""

    mean: float = 0.0
    busiest: int = 0


@dataclass(frozen=True, slots=True)
class Rush:
    """Requests of a fleet for one commit: of all nodes together, and in the busiest second."""

    total: int = 0
    busiest: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A way to follow, and what comes of it."""

    way: str
    git_at_rest: Load
    bucket_at_rest: Load
    git_at_commit: Rush
    bucket_at_commit: Rush
    seen_within_seconds: float


def find_busiest(times: Iterator[float]) -> int:
    """Return how many of these times fall into the second that has most of them."""
    return max(Counter(int(at) for at in times).values())


def play_rest(nodes: int, interval_seconds: float, requests: int, seed: int) -> Load:
    """Return the load of nodes at rest; the busiest second of many hours."""
    if not requests:
        return Load()
    chance = random.Random(seed)

    def looks() -> Iterator[float]:
        for _ in range(nodes):
            at = chance.uniform(0, interval_seconds)
            while at < _REST_SECONDS:
                yield at
                at += interval_seconds * chance.uniform(1 - _JITTER, 1 + _JITTER)

    busiest = max(find_busiest(looks()) for _ in range(_RESTS))
    return Load(nodes * requests / interval_seconds, busiest * requests)


def play_commit(nodes: int, interval_seconds: float, requests: int, seed: int) -> Rush:
    """Return the rush of a commit that each node finds at its next look; 0 s: all at once."""
    if not requests:
        return Rush()
    chance = random.Random(seed)

    def looks() -> Iterator[float]:
        for _ in range(nodes):
            longest_seconds = interval_seconds * chance.uniform(1 - _JITTER, 1 + _JITTER)
            yield chance.uniform(0, longest_seconds)

    busiest = max(find_busiest(looks()) for _ in range(_COMMITS))
    return Rush(nodes * requests, busiest * requests)


def play(way: str, node: Node, nodes: int, look_seconds: float, find_seconds: float) -> Row:
    """Return what a fleet asks that looks this often, and finds a commit within this time."""
    # Nodes list or look, never both in one fleet; else the busiest seconds would not add up.
    assert not (node.listings and node.look.bucket)
    return Row(
        way=way,
        git_at_rest=play_rest(nodes, look_seconds, node.look.git, seed=2),
        bucket_at_rest=play_rest(nodes * MODELS, LISTING_SECONDS, node.listings // MODELS, seed=1)
        if node.listings
        else play_rest(nodes, look_seconds, node.look.bucket, seed=2),
        git_at_commit=play_commit(nodes, find_seconds, node.commit.git, seed=3),
        bucket_at_commit=play_commit(nodes, find_seconds, node.commit.bucket, seed=3),
        seen_within_seconds=round(find_seconds * (1 + _JITTER), 1),
    )


def play_cron(peer: Peer, nodes: int) -> Row:
    """Return what a peer asks that cron starts everywhere when a minute begins."""
    every_minute, at_commit = nodes * peer.at_rest, nodes * peer.at_change
    return Row(
        way=f"{peer.name}, cron every minute",
        git_at_rest=Load(),
        bucket_at_rest=Load(every_minute / 60, every_minute),
        git_at_commit=Rush(),
        bucket_at_commit=Rush(at_commit, at_commit),
        seen_within_seconds=60.0,
    )
