"""The real roll-up on a simulated fleet: what people would be told of it at this moment.

Each node's report goes the whole way: rendered as /status, read as the view reads it, rolled up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reconciler.config_repo.members import with_members
from reconciler.fleet.answers import read_answer
from reconciler.fleet.expected import Expected, expect
from reconciler.fleet.nodes import Now
from reconciler.fleet.poll import Sighting, Target
from reconciler.fleet.roll_up import roll_up
from reconciler.fleet.view import DeploymentView, FleetPhase, FleetView, NodeState, Role
from reconciler.status.report import NodeReport, render
from tests.simulation.node import WALL_SECONDS, Node

if TYPE_CHECKING:
    from tests.simulation.fleet import Simulation


def see_fleet(simulation: Simulation, *, has_clone: bool) -> FleetView:
    """Return the view of the fleet, with a clone of the config repo at hand or without."""
    expected = _expect(simulation)
    alive = simulation.alive
    sightings = [
        _sight(simulation, target, alive.get(target.name or "")) for target in expected.targets
    ]
    now = Now(simulation.now, WALL_SECONDS + simulation.now)
    return roll_up(sightings, expected if has_clone else None, now, "simulation")


def find_view_mistakes(simulation: Simulation) -> Iterator[str]:
    """Yield what the view says otherwise than it is, once every node has seen the newest commit."""
    by_git = see_fleet(simulation, has_clone=True)
    by_nodes = {
        (view.group, view.model): view
        for view in see_fleet(simulation, has_clone=False).deployments
    }
    alive = simulation.alive
    for node in by_git.nodes:
        if (node.state is NodeState.DEAD) != (node.name not in alive):
            yield f"node {node.name} is shown as {node.state}"
    asked = {target.name for target in _expect(simulation).targets} & alive.keys()
    for view in by_git.deployments:
        name = f"{view.group}/{view.model}"
        yield from _find_mistakes(simulation, view, {str(node) for node in asked})
        other = by_nodes.get((view.group, view.model))
        if other is None:
            if {standing.node for standing in view.nodes} & alive.keys():
                yield f"{name} is not shown to who has no clone"
        elif _count(other) != _count(view):
            yield f"{name} counts {_count(other)} by the nodes and {_count(view)} by git"


def _find_mistakes(simulation: Simulation, view: DeploymentView, asked: set[str]) -> Iterator[str]:
    name, head = f"{view.group}/{view.model}", simulation.repo.head
    deployment = simulation.repo.find(head, view.model)
    is_in_git = deployment is not None and deployment.group == view.group
    holders = simulation.holders(head, view.model) if is_in_git else ()
    answering = {
        node: simulation.seats[node].node.server.serving.get(view.model) or set() for node in asked
    }
    told = {s.node for s in view.nodes if s.serving_versions}
    true = {node for node, versions in answering.items() if versions}
    # Two groups may each have a deployment of one name; a node tells only of its own.
    true &= {standing.node for standing in view.nodes}
    if told != true:
        yield f"{name} is shown on {sorted(told)} and answers on {sorted(true)}"
    available = sum(bool(answering[node] & set(view.wanted_versions)) for node in true)
    if view.available_replicas != available:
        yield f"{name} is shown with {view.available_replicas} available and has {available}"
    if view.wanted_replicas != len(holders):
        yield f"{name} is to have {len(holders)} replicas, shown are {view.wanted_replicas}"
    right = all(node in asked and answering[node] & set(view.wanted_versions) for node in holders)
    leaving = any(standing.role is Role.LEAVING for standing in view.nodes)
    if holders and view.phase is FleetPhase.DEPLOYED and not (right and not leaving):
        yield f"{name} is shown as Deployed and is not"


def _count(view: DeploymentView) -> tuple[int, int, int, FleetPhase]:
    return (view.wanted_replicas, view.available_replicas, view.serving_replicas, view.phase)


def _expect(simulation: Simulation) -> Expected:
    head = simulation.repo.head
    fleet = simulation.repo.fleet(head)
    if members := simulation.members:
        fleet = with_members(fleet, dict.fromkeys(fleet.groups, members))
    ids = [f"{commit:040x}" for commit in range(head, -1, -1)]
    return expect(fleet, {commit_id: position for position, commit_id in enumerate(ids)})


def _sight(simulation: Simulation, target: Target, node: Node | None) -> Sighting:
    if node is None or node.made is None:
        return Sighting(target, trouble="it did not answer within 3 s")
    report = NodeReport(
        node=node.name,
        group=node.desired.group.name if node.desired and node.desired.group else None,
        program_version="0",
        started_at_seconds=WALL_SECONDS + node.traits.skew_seconds,
        generated_at_seconds=WALL_SECONDS + node.made_at + node.traits.skew_seconds,
        ready=True,
        summary="",
        observed=node.desired.commit if node.desired else None,
        applied=node.applied,
        outcomes=node.made.outcomes,
        removals=node.made.removals,
        conditions=node.made.conditions,
        holders=node.desired.holders if node.desired else {},
        members=tuple(m.name for m in node.desired.group.nodes)
        if node.desired and node.desired.group
        else (),
        instance=node.name,
    )
    answer = read_answer(json.dumps(render(report)).encode())
    return Sighting(
        target,
        answer,
        answered_at=node.made_at,
        clock_ahead_seconds=node.traits.skew_seconds,
    )
