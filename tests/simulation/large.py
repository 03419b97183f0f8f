"""One fleet of the size that the system is made for, and a busy hour of it."""

import random

from reconciler.model import Wave
from reconciler.policy import Policy
from tests.simulation.events import (
    Add,
    Commit,
    Edit,
    Event,
    Heal,
    Kill,
    Part,
    Publish,
    RestartAgent,
    SetReplicas,
    SetVersion,
    SetWeight,
    Start,
    Unlist,
)
from tests.simulation.node import Traits
from tests.simulation.setup import Model, Schedule, Setup

_GROUP_NODES = 30
_WAVES = (Wave(1), Wave(50, is_percent=True), Wave(100, is_percent=True))


def make_large(seed: int, nodes: int = 300, deployments: int = 1000) -> Schedule:
    """Return a fleet in groups of thirty nodes; one node in ten is a spare at first."""
    chance = random.Random(seed)
    groups = tuple(f"g{number}" for number in range(max(1, nodes // _GROUP_NODES)))
    homes = {f"n{number}": groups[number % len(groups)] for number in range(nodes)}
    names = list(homes)
    spares = set(names[-nodes // 10 :])
    models = [f"m{number}" for number in range(deployments)]
    bad = dict.fromkeys(chance.sample(models, deployments // 50), (3, "*"))
    first: list[Edit] = [
        SetWeight(name, home, 1.0) for name, home in homes.items() if name not in spares
    ]
    for number, model in enumerate(models):
        waves = _WAVES if chance.random() < 0.2 else ()
        group = groups[number % len(groups)]
        first.append(Add(model, group, 1, chance.choice([1, 2, 2, 3]), waves, 5.0 if waves else 0))
    return Schedule(
        Setup(
            seed=seed,
            machines=tuple((name, _traits(chance)) for name in names),
            models=tuple(
                Model(model, 100, 3, (bad[model],) if model in bad else ()) for model in models
            ),
            first=tuple(first),
            policy=Policy(max_removals=1000, allow_empty=True, handover_timeout_seconds=60.0),
            groups=groups,
        ),
        tuple(_happenings(chance, homes, spares, models)),
    )


def _happenings(
    chance: random.Random, homes: dict[str, str], spares: set[str], models: list[str]
) -> list[tuple[float, Event]]:
    names = sorted(homes.keys() - spares)
    few = max(1, len(names) // 60)
    killed, left = chance.sample(names, few), chance.sample(names, few)
    moved = chance.sample(models, len(models) // 5)
    joining = [SetWeight(name, homes[name], 1.0) for name in sorted(spares)]
    cut = frozenset(chance.sample(names, len(names) // 2))
    return [
        (200.0, Commit(tuple(SetVersion(model, 2) for model in moved))),
        (230.0, Part(cut, loses_git=False)),
        (240.0, Commit(tuple(SetReplicas(model, 3) for model in models[::20]))),
        (290.0, Heal()),
        *((400.0, Kill(name)) for name in killed),
        *((430.0, Start(name)) for name in killed),
        (500.0, Commit(tuple(joining))),
        (520.0, Commit(tuple(SetVersion(model, 3) for model in models[::10]))),
        *((540.0, RestartAgent(name)) for name in names[::10]),
        (700.0, Commit(tuple(Unlist(name) for name in left))),
        *((720.0, Publish(model, 4)) for model in models[::50]),
        (730.0, Commit(tuple(SetVersion(model, None) for model in models[::50]))),
    ]


def _traits(chance: random.Random) -> Traits:
    return Traits(
        clock_seconds=chance.uniform(0, 100_000),
        skew_seconds=chance.choice([0.0, -3600.0, 3600.0]),
        fetch_seconds=chance.choice([0.5, 2.0, 8.0]),
        answer_seconds=chance.choice([0.0, 0.1, 2.0]),
    )
