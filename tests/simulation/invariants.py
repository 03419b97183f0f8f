"""What must hold at every moment, whatever happens; told from outside the nodes' own minds.

A node is judged by what its server answers and what its agent does, not by what it says. A moment
that a fault excuses is excused as shortly as the promise allows: a holder that lost its power a
few seconds ago may still be counted on by others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn

from reconciler.model import Deployment
from reconciler.planning.goals import fingerprint
from reconciler.planning.peers import ask_of
from reconciler.planning.steps import Configure, Fetch, Plan
from reconciler.planning.waves import find_turn
from tests.simulation.convergence import find_divergences
from tests.simulation.node import Node
from tests.simulation.roll_up import find_view_mistakes

if TYPE_CHECKING:
    from tests.simulation.fleet import Simulation

STALE_SECONDS = 20.0
"""For how long another node may count on one that has just been lost: its answers are seconds
old, and a drain that has begun ends."""
_ROUNDING_SECONDS = 1e-6


class Promise(StrEnum):
    """What the system promises of a fleet."""

    FLOOR = "replica floor"
    QUOTA = "quota"
    WAVES = "waves"
    REST = "no flapping"
    CONVERGENCE = "convergence"
    ROLL_UP = "roll-up"


class BrokenError(AssertionError):
    """An invariant does not hold."""

    def __init__(self, promise: Promise, sentence: str) -> None:
        super().__init__(f"{promise}: {sentence}")
        self.promise = promise


@dataclass(frozen=True, slots=True)
class _Decision:
    """A node's decision to stop serving a model."""

    commit: int
    at: float
    is_late: bool
    """Whether the handover timeout had passed."""


@dataclass
class _Truth:
    """What is known of one node from outside."""

    since: dict[tuple[str, int], float] = field(default_factory=dict)
    """(model, version) -> since when it answers."""
    answering_since: dict[str, float] = field(default_factory=dict)
    """Model -> since when any version of it answers without a break."""
    decisions: dict[str, _Decision] = field(default_factory=dict)
    begun: set[tuple[str, int, str]] = field(default_factory=set)
    """(model, version, ask) that the node has begun to bring up."""
    served: set[tuple[str, int]] = field(default_factory=set)
    """(model, version) that have answered here at any time."""
    disturbed_at: float = -1e9


class Watch:
    """Looks on, and raises BrokenError with a sentence as soon as something is wrong."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._truths = {name: _Truth() for name in simulation.seats}

    def fail(self, promise: Promise, sentence: str) -> NoReturn:
        """Say which promise is broken, and how."""
        raise BrokenError(promise, f"at {self._simulation.now:.1f} s, {sentence}")

    def disturb(self, name: str) -> None:
        """Note that a node is struck by something that is not its doing."""
        truth = self._truths[name]
        truth.disturbed_at = self._simulation.now
        truth.since.clear()
        truth.answering_since.clear()
        truth.decisions.clear()

    def after_tick(self, node: Node, commit: int, made: Plan) -> None:
        """Hold one tick of a node against everything."""
        truth = self._truths[node.name]
        self._see_serving(node, truth)
        for model in node.server.lost:
            self._check_floor(node, model, truth.decisions.pop(model, None))
        node.server.lost.clear()
        self._note_decisions(node, commit, made, truth)
        self._check_quota(node, made)
        self._check_waves(node, made, truth)

    def _see_serving(self, node: Node, truth: _Truth) -> None:
        answering = {(m, v) for m, found in node.server.serving.items() for v in found}
        for gone in truth.since.keys() - answering:
            del truth.since[gone]
        for new in answering - truth.since.keys():
            truth.since[new] = self._simulation.now
        truth.served |= answering
        models = {model for model, _ in answering}
        truth.answering_since = {
            model: truth.answering_since.get(model, self._simulation.now) for model in models
        }

    # --- replica floor --------------------------------------------------------------------

    def _note_decisions(self, node: Node, commit: int, made: Plan, truth: _Truth) -> None:
        simulation = self._simulation
        for step in made.steps:
            if not isinstance(step, Configure):
                continue
            for model, serving in node.server.serving.items():
                ask = step.request.config.get(model)
                if not serving or (ask is not None and ask.versions & serving):
                    truth.decisions.pop(model, None)
                    continue
                if model in truth.decisions:
                    continue  # it is on its way out; a newer commit does not hold that up
                moved_at = made.memory.of(model).moved_at
                waited = simulation.now + node.traits.clock_seconds - (moved_at or 0.0)
                timeout_seconds = simulation.setup.policy.handover_timeout_seconds
                is_late = moved_at is not None and waited >= timeout_seconds
                truth.decisions[model] = _Decision(commit, simulation.now, is_late)

    def _check_floor(self, node: Node, model: str, decision: _Decision | None) -> None:
        simulation = self._simulation
        if decision is None:
            self.fail(Promise.FLOOR, f"{node.name} lost {model} without having decided so")
        members = simulation.seats[node.name].tracker.members
        head = simulation.repo.head
        if simulation.repo.find(decision.commit, model) is None:
            return  # it left the repo
        holders = [
            simulation.repo.holders(commit, model, members)
            for commit in range(decision.commit, head + 1)
        ]
        if not all(holders) or node.name in holders[-1] + holders[0]:
            if all(holders) and node.name in holders[0]:
                self.fail(
                    Promise.FLOOR,
                    f"{node.name} holds {model} by commit {decision.commit} and gave it up",
                )
            return
        if not simulation.setup.with_addresses and decision.is_late:
            return
        concerned = {name for names in holders for name in names} & self._truths.keys()
        if any(simulation.now - self._truths[n].disturbed_at < STALE_SECONDS for n in concerned):
            return
        if not decision.is_late:
            self._check_drain(node, model, decision, holders[0])
        wanted = 1 if decision.is_late else min(len(names) for names in holders)
        others = [
            other
            for name, other in simulation.alive.items()
            if name != node.name and other.serves(model)
        ]
        if len(others) < wanted:
            self.fail(
                Promise.FLOOR,
                f"{node.name} gave {model} up (decided at {decision.at:.1f} s by commit"
                f" {decision.commit}) and {len(others)} of {wanted} others serve it:"
                f" {', '.join(other.name for other in others)}; holders were {holders[0]}",
            )

    def _check_drain(
        self, node: Node, model: str, decision: _Decision, holders: tuple[str, ...]
    ) -> None:
        """Hold a decision against the time that callers need to learn where to go."""
        drain_seconds = self._simulation.setup.policy.drain_seconds - _ROUNDING_SECONDS
        for name in holders:
            since = self._truths[name].answering_since.get(model, decision.at)
            if decision.at - since < drain_seconds:
                self.fail(
                    Promise.FLOOR,
                    f"{node.name} gave {model} up at {decision.at:.1f} s, and {name} serves it"
                    f" since {since:.1f} s only",
                )

    # --- quota ----------------------------------------------------------------------------

    def _check_quota(self, node: Node, made: Plan) -> None:
        """Hold what is here and on its way against the quota, where a fetch makes it more."""
        keys = [(s.model, s.snapshot.version) for s in made.steps if isinstance(s, Fetch)]
        if node.desired is None or node.desired.group is None or not keys:
            return
        before = self._use(node, made, frozenset(keys))
        after = self._use(node, made, frozenset())
        quota = node.desired.group.quota
        limits = (quota.models, quota.disk_bytes)
        for what, was, becomes, limit in zip(
            ("models", "bytes"), before, after, limits, strict=True
        ):
            if limit is not None and becomes > limit and becomes > was:
                self.fail(
                    Promise.QUOTA,
                    f"{node.name} fetches {keys}: {becomes} {what} after {was}, of {limit}",
                )

    def _use(self, node: Node, made: Plan, but: frozenset[tuple[str, int]]) -> tuple[int, int]:
        """Return how many models and bytes of what is wanted are here, or on their way."""
        models = used_bytes = 0
        for outcome in made.outcomes:
            model = outcome.deployment.model
            coming = {v for m, v in node.fetching.keys() - but if m == model}
            here = node.disk.get(model, {}).keys() | coming
            if outcome.deployment.stop or not here:
                continue
            wanted = {outcome.wanted, *outcome.deployment.labels.values()} & here
            models += 1
            used_bytes += self._simulation.bucket.size_bytes(model) * max(1, len(wanted))
        return models, used_bytes

    # --- waves ----------------------------------------------------------------------------

    def _check_waves(self, node: Node, made: Plan, truth: _Truth) -> None:
        for outcome in made.outcomes:
            deployment, version = outcome.deployment, outcome.wanted
            if version is None or deployment.stop:
                continue
            if not _has_begun(deployment, version, made):
                continue
            key = (deployment.model, version, ask_of(deployment))
            is_way_back = (deployment.model, version) in truth.served
            if deployment.rollout.waves and key not in truth.begun and not is_way_back:
                self._check_turn(node, deployment, version)
            truth.begun.add(key)

    def _check_turn(self, node: Node, deployment: Deployment, version: int) -> None:
        desired = node.desired
        assert desired is not None
        holders = desired.holders.get(deployment.model, ())
        turn = find_turn(deployment.rollout.waves, holders, node.name)
        now, pause_seconds = self._simulation.now, deployment.rollout.pause_seconds
        for name in turn.before:
            truth = self._truths.get(name)
            if truth is None or now - truth.disturbed_at < STALE_SECONDS:
                continue
            since = truth.since.get((deployment.model, version))
            if since is None or now - since < pause_seconds - _ROUNDING_SECONDS:
                self.fail(
                    Promise.WAVES,
                    f"{node.name} begins with {deployment.model} {version} before {name} has"
                    f" served it for {pause_seconds:g} s (since {since})",
                )

    # --- the end --------------------------------------------------------------------------

    def check_rest(self, node: Node, made: Plan) -> None:
        """Hold a node against this: after a long quiet time nothing is done any more."""
        if made.steps and not self._simulation.is_failing(node):
            self.fail(Promise.REST, f"{node.name} goes on doing things at rest: {made.steps}")

    def check_end(self) -> None:
        """Hold every node that is on against the newest commit, and the view against them."""
        for mistake in find_divergences(self._simulation):
            self.fail(Promise.CONVERGENCE, mistake)
        if self._simulation.setup.with_addresses and self._simulation.repo.head:
            for mistake in find_view_mistakes(self._simulation):
                self.fail(Promise.ROLL_UP, mistake)


def _has_begun(deployment: Deployment, version: int, made: Plan) -> bool:
    """Whether a node does anything for a version, or has resolved to and only lacks the bucket."""
    model, known = deployment.model, made.memory.of(deployment.model)
    is_named = deployment.named_version is not None
    if known.admitted == fingerprint(deployment) and (
        is_named or known.resolved.get(deployment.source) == version
    ):
        return True
    for step in made.steps:
        if isinstance(step, Fetch) and (step.model, step.snapshot.version) == (model, version):
            return True
        if isinstance(step, Configure) and model in step.request.config:
            before = known.asked.versions if known.asked else frozenset()
            if version in step.request.config[model].versions - before:
                return True
    return False
