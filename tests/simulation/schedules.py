"""Random schedules: a number gives one, always the same, and a failing one is made small.

Most fleets are small, because what goes wrong between three hundred nodes goes wrong between
five, and in a schedule that a person can read.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from reconciler.model import Quota, Wave
from reconciler.policy import Policy
from tests.simulation.events import (
    Add,
    Commit,
    CrashServer,
    Edit,
    Event,
    Heal,
    Kill,
    LoseBucket,
    Part,
    Publish,
    Remove,
    Repair,
    RestartAgent,
    SetEnabled,
    SetLabel,
    SetQuota,
    SetReplicas,
    SetStop,
    SetSuspend,
    SetVersion,
    SetWeight,
    Stall,
    Start,
    Unlist,
)
from tests.simulation.fleet import Simulation
from tests.simulation.invariants import BrokenError, Promise
from tests.simulation.node import Traits
from tests.simulation.setup import Model, Result, Schedule, Setup

HANDOVER_TIMEOUT_SECONDS = 60.0
MEMBER_TIMEOUT_SECONDS = 20.0
_HOUR_SECONDS = 3600.0
_WAVES = (
    (Wave(1), Wave(100, is_percent=True)),
    (Wave(1), Wave(50, is_percent=True), Wave(100, is_percent=True)),
    (Wave(2), Wave(100, is_percent=True)),
)


def run(schedule: Schedule) -> Result:
    """Play a schedule; raises BrokenError where an invariant does not hold."""
    return Simulation(schedule.setup).run(schedule.events)


def make_schedule(seed: int) -> Schedule:
    """Return the schedule of a number."""
    return _Dice(seed).throw()


def shrink(schedule: Schedule, promise: Promise) -> Schedule:
    """Return a schedule that breaks the promise still, of which nothing can be left out."""
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for index in reversed(range(len(schedule.events))):
            fewer = schedule.events[:index] + schedule.events[index + 1 :]
            if find_broken(smaller := replace(schedule, events=fewer)) is promise:
                schedule, is_smaller = smaller, True
        for index in reversed(range(len(schedule.setup.first))):
            first = schedule.setup.first[:index] + schedule.setup.first[index + 1 :]
            smaller = replace(schedule, setup=replace(schedule.setup, first=first))
            if find_broken(smaller) is promise:
                schedule, is_smaller = smaller, True
    return schedule


def find_broken(schedule: Schedule) -> Promise | None:
    """Return the promise that a schedule breaks, None where all are kept."""
    try:
        run(schedule)
    except BrokenError as error:
        return error.promise
    return None


class _Dice:
    """Draws one schedule."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        count = self._random.randint(3, 8)
        self._listed = [f"n{number}" for number in range(count)]
        spare = [f"n{number}" for number in range(count, count + self._random.randint(0, 2))]
        self._machines = self._listed + spare
        self._models = [f"m{number}" for number in range(self._random.randint(2, 6))]
        self._by_registry = self._chance(0.2)
        self._groups = ("g", "h") if not self._by_registry and self._chance(0.2) else ("g",)
        self._home = {name: self._random.choice(self._groups) for name in self._machines}

    def throw(self) -> Schedule:
        events: list[tuple[float, Event]] = []
        at = self._random.uniform(30.0, 60.0) if self._chance(0.8) else 0.0
        for _ in range(self._random.randint(1, 8)):
            events.append((at, self._event()))
            at += self._random.choice([0.0, 1.0, 5.0, 15.0, 40.0, 90.0]) * self._random.random()
        events += self._end(at)
        return Schedule(self._setup(), tuple((round(when, 2), event) for when, event in events))

    def _setup(self) -> Setup:
        return Setup(
            seed=self._seed,
            machines=tuple((name, self._traits()) for name in self._machines),
            models=tuple(self._model(name) for name in self._models),
            first=(*self._members(), *(self._add(name) for name in self._models[:-1])),
            policy=Policy(
                max_removals=1000,
                allow_empty=True,
                handover_timeout_seconds=HANDOVER_TIMEOUT_SECONDS,
                member_timeout_seconds=MEMBER_TIMEOUT_SECONDS,
            ),
            groups=self._groups,
            by_registry=self._by_registry,
            with_addresses=self._chance(0.95),
            by_dns=self._by_registry and self._chance(0.5),
        )

    def _members(self) -> list[Edit]:
        if self._by_registry:
            return []
        return [SetWeight(name, self._home[name], 1.0) for name in self._listed]

    def _traits(self) -> Traits:
        return Traits(
            clock_seconds=self._random.uniform(0, 100_000),
            skew_seconds=self._random.choice([0.0, -_HOUR_SECONDS, _HOUR_SECONDS]),
            fetch_seconds=self._random.choice([0.5, 2.0, 8.0]),
            answer_seconds=self._random.choice([0.0, 0.1, 2.0]),
            disk_bytes=self._random.choice([10**9, 10**9, 1500]),
        )

    def _model(self, name: str) -> Model:
        bad: tuple[tuple[int, str], ...] = ()
        if self._chance(0.25):
            where = "*" if self._chance(0.5) else self._random.choice(self._machines)
            bad = ((self._random.randint(2, 3), where),)
        return Model(name, self._random.choice([100, 200, 400]), 3, bad)

    def _add(self, name: str) -> Add:
        waves = self._random.choice(_WAVES) if self._chance(0.4) else ()
        return Add(
            model=name,
            group=self._random.choice(self._groups),
            version=None if self._chance(0.2) else 1,
            replicas=self._replicas(),
            waves=waves,
            pause_seconds=self._random.choice([0.0, 5.0, 15.0]) if waves else 0.0,
        )

    def _replicas(self) -> int | None:
        return self._random.choice([1, 1, 2, 2, 3, None])

    def _event(self) -> Event:
        node, model = self._random.choice(self._machines), self._random.choice(self._models)
        draws: list[tuple[int, Callable[[], Event]]] = [
            (
                50,
                lambda: Commit(tuple(self._edit() for _ in range(self._random.choice([1, 1, 2])))),
            ),
            (5, lambda: Publish(model, self._random.randint(4, 5))),
            (6, lambda: Kill(node)),
            (6, lambda: Start(node, is_empty=self._chance(0.3))),
            (6, lambda: RestartAgent(node)),
            (5, lambda: CrashServer(node)),
            (4, lambda: Stall(node, self._random.uniform(5, 30))),
            (6, lambda: Part(self._half(), loses_git=self._chance(0.5))),
            (4, LoseBucket),
            (5, Heal),
            (2, Repair),
        ]
        (chosen,) = self._random.choices(
            [draw for _, draw in draws], [weight for weight, _ in draws]
        )
        return chosen()

    def _half(self) -> frozenset[str]:
        count = self._random.randint(1, max(1, len(self._machines) // 2))
        return frozenset(self._random.sample(self._machines, count))

    def _edits(self) -> tuple[Edit, ...]:
        return tuple(self._edit() for _ in range(self._random.choice([1, 1, 2])))

    def _edit(self) -> Edit:
        node, model = self._random.choice(self._machines), self._random.choice(self._models)
        group = self._random.choice(self._groups)
        draws: list[tuple[int, Callable[[], Edit]]] = [
            (8, lambda: SetVersion(model, self._random.choice([1, 2, 3, 3, None]))),
            (6, lambda: SetReplicas(model, self._replicas())),
            (2, lambda: SetLabel(model, self._random.choice([1, 2, 3, None]))),
            (2, lambda: SetStop(model, self._chance(0.5))),
            (1, lambda: SetSuspend(model, self._chance(0.5))),
            (2, lambda: self._add(model)),
            (1, lambda: Remove(model)),
            (1, lambda: SetQuota(group, self._quota())),
            (1, lambda: SetEnabled(group, self._chance(0.8))),
        ]
        if not self._by_registry:
            draws += [
                (8, lambda: SetWeight(node, self._home[node], self._weight())),
                (2, lambda: SetWeight(node, group, self._weight())),
                (4, lambda: Unlist(node)),
            ]
        (chosen,) = self._random.choices(
            [draw for _, draw in draws], [weight for weight, _ in draws]
        )
        return chosen()

    def _weight(self) -> float:
        return self._random.choice([0.0, 0.5, 1.0, 1.0, 3.0])

    def _quota(self) -> Quota:
        return self._random.choice(
            [Quota(), Quota(models=2), Quota(disk_bytes=600), Quota(models=3, disk_bytes=1000)]
        )

    def _end(self, at: float) -> list[tuple[float, Event]]:
        """Let all come back to order, or most of it: some machines stay away for good."""
        events: list[tuple[float, Event]] = [(at, Heal())]
        gone = {self._random.choice(self._machines)} if self._chance(0.3) else set()
        events += [(at, Start(name)) for name in self._machines if name not in gone]
        return events

    def _chance(self, share: float) -> bool:
        return self._random.random() < share
