"""A fleet in one process and in simulated time: events in, invariants held after each step.

A heap of moments drives it: an event of the schedule, a node that fetches a commit, ticks, asks
another node or hears its answer. A node with nothing to do sleeps until something it looks at has
changed, which is what makes ten thousand schedules a matter of minutes.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from reconciler.membership.tracker import MemberTracker
from reconciler.model import Desired, Group, Member, Membership, Phase, Registry, Unavailable
from reconciler.planning.peers import NO_ADDRESS, Peer
from reconciler.planning.steps import Plan
from tests.simulation.bucket import Bucket
from tests.simulation.events import (
    Commit,
    CrashServer,
    Event,
    Heal,
    Kill,
    LoseBucket,
    Part,
    Publish,
    Repair,
    RestartAgent,
    Stall,
    Start,
)
from tests.simulation.invariants import Promise, Watch
from tests.simulation.node import LISTING_SECONDS, Node, Troubles
from tests.simulation.repo import PORT, Repo
from tests.simulation.server import PacedServer
from tests.simulation.setup import Result, Setup

BUSY_TICK_SECONDS = 1.0
IDLE_TICK_SECONDS = 5.0
REPORT_SECONDS = 2.0
"""How old a node's status may be when somebody asks for it: the agent's tick at rest."""
ASK_SECONDS = 1.0
DEADLINE_SECONDS = 3.0
REGISTRY_SECONDS = 5.0
MAX_LAG_SECONDS = 8.0
"""How long after its push a node may see a commit."""
QUIET_SECONDS = 90.0
"""After so long without any change nothing will change any more: longer than every timeout."""
MAX_SETTLE_SECONDS = 900.0
"""After the last event, until all is quiet."""


@dataclass(slots=True)
class _Seat:
    """A machine's place in the simulation, whether it is on or off."""

    node: Node
    is_on: bool = True
    commit: int | None = None
    due_at: float | None = None
    wanted: frozenset[str] = frozenset()
    """The nodes that are asked."""
    tracker: MemberTracker = field(default_factory=MemberTracker)
    said: object = None
    """What its serving and its phases were at the last tick."""


class Simulation:
    """One fleet from its first commit on."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.now = 0.0
        self.bucket = Bucket()
        groups = [
            Group(name, f"groups/{name}.yaml", (), membership=_membership(setup, name))
            for name in setup.groups
        ]
        self.repo = Repo(setup.policy, groups, with_addresses=setup.with_addresses)
        self.result = Result()
        self.changed_at = 0.0
        """When any node last said or served something else than before."""
        bad: dict[str, set[tuple[str, int]]] = {name: set() for name, _ in setup.machines}
        for model in setup.models:
            self.bucket.add_model(model.name, model.size_bytes, model.versions, -1000.0)
            for version, where in model.bad:
                for name in bad if where == "*" else [where]:
                    bad[name].add((model.name, version))
        self.seats = {
            name: _Seat(Node(name, traits, PacedServer(bad=bad[name])))
            for name, traits in setup.machines
        }
        self.watch = Watch(self)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._part: Part | None = None
        if setup.by_registry:
            self._at(0.0, self._ask_registry)

    # --- what tests and invariants ask ----------------------------------------------------

    @property
    def alive(self) -> dict[str, Node]:
        """The nodes that are on."""
        return {name: seat.node for name, seat in self.seats.items() if seat.is_on}

    @property
    def members(self) -> tuple[Member, ...]:
        """Who is in the group `g` by what a registry told the first node that is on; else empty."""
        trackers = [seat.tracker for seat in self.seats.values() if seat.is_on]
        return trackers[0].members if self.setup.by_registry and trackers else ()

    def holders(self, commit: int, model: str) -> tuple[str, ...]:
        """Return the nodes that are to serve a model by a commit."""
        return self.repo.holders(commit, model, self.members)

    def read(self, commit: int, node: str) -> Desired:
        """Return what a commit asks of a node, as the node sees its group."""
        members = self.seats[node].tracker.members if self.setup.by_registry else ()
        return self.repo.read(commit, node, members)

    # --- running --------------------------------------------------------------------------

    def run(self, events: Iterable[tuple[float, Event]]) -> Result:
        """Let everything happen, wait until all is quiet, and hold the end against git."""
        last = 0.0
        self._happen(Commit(self.setup.first))
        for at, event in events:
            last = max(last, at)
            self._at(at, lambda event=event: self._happen(event))  # type: ignore[misc]
        self._run_until(last)
        self._settle(last)
        return self.result

    def _settle(self, last: float) -> None:
        while self.now < max(last, self.changed_at) + QUIET_SECONDS:
            self._run_until(self.now + IDLE_TICK_SECONDS)
            if self.now > last + MAX_SETTLE_SECONDS:
                self.watch.fail(
                    Promise.REST, f"no rest {MAX_SETTLE_SECONDS:g} s after the last event"
                )
        self.result.settle_seconds = max(self.result.settle_seconds, self.changed_at - last)
        for _ in range(2):
            self._run_until(self.now + IDLE_TICK_SECONDS)
            for name, node in self.alive.items():
                if self.seats[name].commit is not None:
                    made = self._tick(name)
                    self.watch.check_rest(node, made)
        self.watch.check_end()

    def _run_until(self, end: float) -> None:
        while self._heap and self._heap[0][0] <= end:
            self.now, _, act = heapq.heappop(self._heap)
            act()
        self.now = max(self.now, end)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, act))

    # --- a node's moments -----------------------------------------------------------------

    def _poke(self, name: str, when: float) -> None:
        """Let a node tick at `when`, unless it does so before."""
        seat = self.seats[name]
        if seat.due_at is not None and self.now <= seat.due_at <= when:
            return
        seat.due_at = when

        def tick() -> None:
            if seat.due_at == when:
                seat.due_at = None
                if seat.is_on and seat.commit is not None:
                    self._tick(name)

        self._at(when, tick)

    def _tick(self, name: str) -> Plan:
        seat = self.seats[name]
        node = seat.node
        assert seat.commit is not None
        is_cut = self._part is not None and self._part.loses_git and name in self._part.nodes
        away = Unavailable("GitUnreachable", "the git server is away") if is_cut else None
        troubles = Troubles(git=away, members=seat.tracker.trouble)
        made = node.tick(self.read(seat.commit, name), troubles, self.bucket, self.now)
        self.result.plans += 1
        self.watch.after_tick(node, seat.commit, made)
        said = (
            sorted((model, sorted(found)) for model, found in node.server.serving.items() if found),
            [(o.deployment.model, o.phase, o.reason, o.wanted) for o in made.outcomes],
            [(o.deployment.model, o.reason) for o in made.removals],
        )
        if said != seat.said:
            seat.said, self.changed_at = said, self.now
        self._ask_peers(name, made)
        if made.in_motion or made.steps or node.is_busy:
            self._poke(name, self.now + BUSY_TICK_SECONDS)
        elif not made.converged or made.ask_peers or made.relist:
            self._poke(name, self.now + IDLE_TICK_SECONDS)
        return made

    def _ask_peers(self, name: str, made: Plan) -> None:
        seat = self.seats[name]
        wanted = frozenset(made.ask_peers)
        for gone in seat.wanted - wanted:
            seat.node.peers.pop(gone, None)
        fresh = wanted - seat.wanted
        seat.wanted = wanted
        for other in fresh:
            self._ask(name, other)

    def _ask(self, name: str, other: str) -> None:
        seat, there = self.seats[name], self.seats.get(other)
        if not self.setup.with_addresses:
            answer: Peer | Unavailable = Unavailable(NO_ADDRESS, "the group gives no address")
            delay_seconds = 0.0
        elif there is None or not there.is_on or not self._reaches(name, other):
            answer = Unavailable("NoStatus", f"{other} did not answer within 3 s")
            delay_seconds = DEADLINE_SECONDS
        else:
            if there.commit is not None and self.now >= there.node.made_at + REPORT_SECONDS:
                self._tick(other)  # an agent at rest looks every few seconds all the same
            answer = there.node.speak()
            delay_seconds = there.node.traits.answer_seconds

        def hear() -> None:
            if other not in seat.wanted or not seat.is_on:
                return
            if seat.node.peers.get(other) != answer:
                seat.node.peers[other] = answer
                self._poke(name, self.now)
            self._at(self.now + ASK_SECONDS, ask_again)

        def ask_again() -> None:
            if other in seat.wanted and seat.is_on:
                self._ask(name, other)

        self._at(self.now + delay_seconds, hear)

    def _reaches(self, one: str, other: str) -> bool:
        nodes = self._part.nodes if self._part else frozenset()
        return (one in nodes) == (other in nodes)

    def _fetch_later(self, name: str) -> None:
        """Let a node see the newest commit after a while, unless it cannot."""
        seat = self.seats[name]

        # Derived from the moment and the name, so that a schedule made smaller stays the same.
        chance = random.Random(f"{self.setup.seed} {self.now} {name}")
        lag_seconds = chance.choice([0.1, chance.uniform(0, MAX_LAG_SECONDS)])
        head = self.repo.head

        def fetch() -> None:
            is_cut = self._part is not None and self._part.loses_git and name in self._part.nodes
            if seat.is_on and not is_cut and (seat.commit is None or seat.commit < head):
                seat.commit = head
                self._poke(name, self.now)

        self._at(self.now + lag_seconds, fetch)

    def _ask_registry(self) -> None:
        """Let each node ask who is in the group: the registry lists the machines that are on."""
        timeout_seconds = self.setup.policy.member_timeout_seconds
        listed = [Member(name, f"{name}:{PORT}") for name in self.alive]
        for name, seat in self.seats.items():
            before = seat.tracker
            if self.setup.by_dns:
                found = [member for member in listed if self._reaches(name, member.name)]
                seat.tracker = before.take(found, self.now, timeout_seconds)
            elif self._part is not None and self._part.loses_git and name in self._part.nodes:
                seat.tracker = before.miss("RegistryUnreachable", "the registry is away")
            else:
                seat.tracker = before.take(listed, self.now, timeout_seconds)
            if (before.members, before.trouble) != (seat.tracker.members, seat.tracker.trouble):
                self._poke(name, self.now)
        self._at(self.now + REGISTRY_SECONDS, self._ask_registry)

    # --- what happens ---------------------------------------------------------------------

    def _happen(self, event: Event) -> None:
        self.result.events += 1
        match event:
            case Commit(edits):
                if self.repo.commit(edits):
                    self._all(self._fetch_later)
            case Publish(model, version):
                if self.bucket.publish(model, version, self.now):
                    self._all(self._list_later)
            case Kill(name) if self.seats[name].is_on:
                self.watch.disturb(name)
                self.seats[name].is_on = False
            case Start(name, is_empty) if not self.seats[name].is_on:
                seat = self.seats[name]
                seat.is_on, seat.wanted = True, frozenset()
                seat.node.restart_machine(self.now, is_empty=is_empty)
                seat.commit = None if is_empty else seat.commit
                self._wake(name)
            case RestartAgent(name) if self.seats[name].is_on:
                self.seats[name].node.restart_agent()
                self.seats[name].wanted = frozenset()
                self._wake(name)
            case CrashServer(name) if self.seats[name].is_on:
                self.watch.disturb(name)
                self.seats[name].node.crash_server(self.now)
                self._poke(name, self.now)
            case Stall(name, seconds):
                self.seats[name].node.server.stalled_until_seconds = self.now + seconds
                self._poke(name, self.now + seconds)
            case Part():
                self._part = event
                self._all(self._poke_soon)
            case LoseBucket():
                self.bucket.is_away = True
            case Heal():
                self._part, self.bucket.is_away = None, False
                self._all(self._wake)
            case Repair():
                for seat in self.seats.values():
                    seat.node.server.bad.clear()

    def _all(self, act: Callable[[str], None]) -> None:
        for name in self.seats:
            act(name)

    def _wake(self, name: str) -> None:
        self._poke(name, self.now)
        self._fetch_later(name)

    def _list_later(self, name: str) -> None:
        self._at(self.now + LISTING_SECONDS, lambda: self._poke(name, self.now))

    def _poke_soon(self, name: str) -> None:
        self._poke(name, self.now + BUSY_TICK_SECONDS)

    def is_failing(self, node: Node) -> bool:
        """Whether the node tries something again and again."""
        return any(o.phase is Phase.FAILED for o in (node.made.outcomes if node.made else ()))


def _membership(setup: Setup, group: str) -> Membership | None:
    if setup.by_registry and group == "g":
        return Membership(Registry.NOMAD, "", PORT)
    return None
