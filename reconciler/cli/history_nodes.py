"""Joins the audit trail with what nodes remember: when each of them served a change.

A node names with each of its changes the commit it saw, which is one of the branch: where two
commits arrive between two polls, the second. So a change belongs to the newest entry of its model
that had taken effect by then.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.config_repo.checkout import Checkout
from reconciler.history.read import Entry
from reconciler.model import Group
from reconciler.status.access import Access
from reconciler.status.changes import Result
from reconciler.status.client import NodeChange, StatusError, fetch_history
from reconciler.threads import run_beside

_DEADLINE_SECONDS = 5.0
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Node:
    """Where to ask, and for what."""

    name: str
    address: str
    group: str | None = None
    """None where it was given by its address alone."""


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one entry on one node."""

    node: str
    result: Result
    reason: str
    version: int | None
    name: str | None
    """What that version is called, where not simply by its number."""
    time_seconds: float
    seconds: float | None
    """From the commit to serving; None where nothing came to serve, or not for the first time."""


def find_nodes(groups: Mapping[str, Group], entries: Iterable[Entry]) -> list[Node]:
    """Return the nodes with a known address in the groups that the entries are about."""
    names = {state.group for entry in entries for state in (entry.before, entry.after) if state}
    return [
        Node(member.name, member.address, name)
        for name in sorted(names & groups.keys())
        for member in groups[name].nodes
        if member.address is not None
    ]


def fetch_all(
    nodes: Sequence[Node], access: Access
) -> tuple[dict[Node, list[NodeChange]], list[str]]:
    """Return what the nodes remember, and a sentence for each that could not be asked."""
    return asyncio.run(_fetch_all(nodes, access))


async def _fetch_all(
    nodes: Sequence[Node], access: Access
) -> tuple[dict[Node, list[NodeChange]], list[str]]:
    free = asyncio.Semaphore(_AT_ONCE)

    async def ask(node: Node) -> list[NodeChange] | StatusError:
        def fetch() -> list[NodeChange]:
            return fetch_history(node.address, _DEADLINE_SECONDS, access=access)

        async with free:
            try:
                # A name server that does not answer is not held to the deadline of the request.
                async with asyncio.timeout(_DEADLINE_SECONDS + 1):
                    return await run_beside(fetch, f"history of {node.name}")
            except TimeoutError:
                return StatusError(f"its name was not found within {_DEADLINE_SECONDS:g} s")
            except StatusError as error:
                return error

    answers = await asyncio.gather(*map(ask, nodes))
    pairs = list(zip(nodes, answers, strict=True))
    found = {node: answer for node, answer in pairs if not isinstance(answer, StatusError)}
    notes = [
        f"node {node.name} is left out: {answer}"
        for node, answer in pairs
        if isinstance(answer, StatusError)
    ]
    return found, notes


def join(
    checkout: Checkout, commit_id: str, entries: Sequence[Entry],
    histories: Mapping[Node, Sequence[NodeChange]],
) -> dict[int, list[Served]]:  # fmt: skip
    """Return for each entry, by its place in `entries`, what became of it on which node.

    `entries` are those of the branch up to `commit_id`, newest first.
    """
    positions = _find_positions(checkout, commit_id)
    by_model: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        for model in {state.model for state in (entry.before, entry.after) if state}:
            by_model.setdefault(model, []).append(number)
    joined: dict[int, list[Served]] = {}
    for node, changes in histories.items():
        for number, change in _assign(node, changes, entries, by_model, positions).items():
            joined.setdefault(number, []).append(_describe(node, change, entries[number]))
    return joined


def _find_positions(checkout: Checkout, commit_id: str) -> dict[str, int]:
    """Return how far back each commit of the branch is."""
    lines = checkout.git("rev-list", "--first-parent", commit_id).split()
    return {own: position for position, own in enumerate(lines)}


def _assign(
    node: Node,
    changes: Sequence[NodeChange],
    entries: Sequence[Entry],
    by_model: Mapping[str, list[int]],
    positions: Mapping[str, int],
) -> dict[int, NodeChange]:
    """Return for each entry the node's telling change: its first arrival, else what came last."""
    chosen: dict[int, NodeChange] = {}
    for change in reversed(changes):  # oldest first
        position = positions.get(change.commit_id)
        if position is None:
            continue  # of another branch, or the clone is older than the node
        for number in by_model.get(change.model, ()):
            entry = entries[number]
            if positions[entry.landed.id] >= position and _concerns(node, entry):
                if number not in chosen or chosen[number].result is not Result.DEPLOYED:
                    chosen[number] = change
                break
    return chosen


def _concerns(node: Node, entry: Entry) -> bool:
    groups = {state.group for state in (entry.before, entry.after) if state}
    return node.group is None or node.group in groups


def _describe(node: Node, change: NodeChange, entry: Entry) -> Served:
    first = change.commit_to_serving_seconds is not None
    waited = max(0.0, change.time_seconds - entry.landed.time_seconds)
    return Served(
        node=node.name,
        result=change.result,
        reason=change.reason,
        version=change.to_version,
        name=change.to_name,
        time_seconds=change.time_seconds,
        seconds=round(waited, 3) if first else None,
    )
