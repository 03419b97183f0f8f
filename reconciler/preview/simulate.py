"""Plays what a node would do, by the agent's own plan, in a world where every step succeeds.

The plan is asked again and again, as on a node: a fetch is installed, a reload is taken, and by
the next look all of it has loaded. It ends when a look finds nothing left to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.model import (
    Available,
    Desired,
    Local,
    LocalVersion,
    Outcome,
    Quota,
    Served,
    ServerConfig,
    State,
    VersionStatus,
)
from reconciler.planning.events import Fetched, Reloaded, Tried, fold
from reconciler.planning.memory import Memory, is_available
from reconciler.planning.plan import plan
from reconciler.planning.steps import (
    Configure,
    Fetch,
    Limits,
    Plan,
    RemoveVersion,
    Step,
    Try,
    World,
    WriteConfig,
)
from reconciler.planning.trial_names import is_trial
from reconciler.preview.standing import CONNECTION, Standing

_LOOK_SECONDS = 30.0
"""Between two looks: longer than any time that a plan waits for the server to settle."""
_MAX_LOOKS = 200
"""A change takes six to ten; so many would be a plan that goes in circles."""

Versions = Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True)
class Look:
    """What is there at one moment: model -> versions."""

    loaded: Versions
    on_disk: Versions


@dataclass(frozen=True, slots=True)
class Course:
    """What happens on a node, from the first look to the last."""

    steps: tuple[Step, ...]
    looks: tuple[Look, ...]
    outcomes: tuple[Outcome, ...]
    removals: tuple[Outcome, ...]
    memory: Memory

    @property
    def fetches(self) -> list[Fetch]:
        """What is downloaded."""
        return [step for step in self.steps if isinstance(step, Fetch)]

    @property
    def deletions(self) -> list[RemoveVersion]:
        """What is deleted from disk."""
        return [step for step in self.steps if isinstance(step, RemoveVersion)]


@dataclass(slots=True)
class _Node:
    """The node that is played; changes with every step."""

    memory: Memory
    restart_config: ServerConfig
    on_disk: dict[str, dict[int, LocalVersion]]
    states: dict[str, dict[int, VersionStatus]]
    local: Local
    resting: Look
    """Models that are left out of the play, because they stay as they are."""
    now: float = _LOOK_SECONDS
    steps: list[Step] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def see(self, desired: Desired, available: Available) -> World:
        return World(
            desired=desired,
            available=available,
            local=replace(self.local, versions=self.on_disk),
            served=Served(CONNECTION, self.states),
            restart_config=self.restart_config,
        )

    def note(self) -> None:
        loaded = dict(self.resting.loaded) | {
            model: frozenset(v for v, status in states.items() if is_available(status))
            for model, states in self.states.items()
            if not is_trial(model)  # it makes room for what comes under the model's own name
        }
        on_disk = dict(self.resting.on_disk) | {
            model: frozenset(versions) for model, versions in self.on_disk.items()
        }
        self.looks.append(Look(loaded, on_disk))

    def carry_out(self, made: Plan) -> None:
        self.memory = made.memory
        for step in made.steps:
            match step:
                case Fetch(model, snapshot):
                    size_bytes, digest = snapshot.size_bytes, snapshot.digest
                    found = LocalVersion(
                        model, snapshot.version, size_bytes, digest, name=snapshot.name
                    )
                    self.on_disk.setdefault(model, {})[snapshot.version] = found
                    self.memory = fold(self.memory, Fetched(model, snapshot.version), self.now)
                case Configure(request):
                    self.memory = fold(self.memory, Reloaded(request), self.now)
                    self._serve(request.config)
                case Try(model, version, digest):
                    self.memory = fold(self.memory, Tried(model, version, digest, 1), self.now)
                case WriteConfig(config):
                    self.restart_config = config
                case RemoveVersion(model, version):
                    del self.on_disk[model][version]
                    if not self.on_disk[model]:
                        del self.on_disk[model]
        self.steps += made.steps
        self.now += _LOOK_SECONDS

    def _serve(self, config: ServerConfig) -> None:
        for model in self.states.keys() | config.keys():
            asked = config[model].versions if model in config else frozenset()
            held = self.states.get(model, {})
            states = dict.fromkeys(held, VersionStatus(State.END))
            self.states[model] = states | dict.fromkeys(asked, VersionStatus(State.AVAILABLE))


def simulate(
    standing: Standing,
    desired: Desired,
    available: Available,
    limits: Limits,
    scope: frozenset[str] | None = None,
) -> Course:
    """Return what a node that stands so does until it is as `desired`, or can do no more.

    With a `scope` only those models are played and the quota, which the others share, does not
    count (see usages.find_scope for when that makes no difference).
    """
    node, desired = _set_out(standing, desired, scope)
    node.note()
    for _ in range(_MAX_LOOKS):
        made = plan(node.see(desired, available), node.memory, limits, node.now)
        node.carry_out(made)
        if not made.steps:
            return Course(
                steps=tuple(node.steps),
                looks=tuple(node.looks),
                outcomes=made.outcomes,
                removals=made.removals,
                memory=made.memory,
            )
        node.note()
    raise AssertionError(f"the plan for node {desired.node} does not come to an end")


def _set_out(
    standing: Standing, desired: Desired, scope: frozenset[str] | None
) -> tuple[_Node, Desired]:
    everything = standing.local.versions.keys() | standing.memory.models.keys()
    played = everything if scope is None else scope
    if scope is not None and desired.group is not None:
        desired = replace(
            desired,
            group=replace(desired.group, quota=Quota()),
            deployments=tuple(item for item in desired.deployments if item.model in scope),
        )
    memory, served = standing.memory, standing.served.models
    resting = everything - played
    node = _Node(
        memory=replace(memory, models={m: k for m, k in memory.models.items() if m in played}),
        restart_config={m: ask for m, ask in standing.restart_config.items() if m in played},
        on_disk={m: dict(found) for m, found in standing.local.versions.items() if m in played},
        states={m: dict(states) for m, states in served.items() if m in played},
        local=standing.local,
        resting=Look(
            loaded={m: frozenset(served[m]) for m in resting if m in served},
            on_disk={
                m: frozenset(standing.local.versions[m])
                for m in resting
                if m in standing.local.versions
            },
        ),
    )
    return node, desired
