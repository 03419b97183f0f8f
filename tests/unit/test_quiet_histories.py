"""Whatever happens to a node, a plan comes to the same with and without the one before.

Histories like those of test_quiet, of which more can happen: what holds a node, who else there is,
what a version must pass, a server that falls silent, a disk that is damaged or full, files written
by others. Now and then all that is asked is carried out, so that models come to rest again.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.model import (
    Ask,
    Deployment,
    Golden,
    LocalVersion,
    Lock,
    Pause,
    Phase,
    Progress,
    Quota,
    Rollout,
    Staged,
    State,
    Unavailable,
    VersionStatus,
    Wave,
)
from reconciler.planning.events import Fetched, Reloaded, ReloadFailed, ReloadStarted, Tried, fold
from reconciler.planning.locks import lock_snapshot
from reconciler.planning.memory import Memory
from reconciler.planning.plan import plan
from reconciler.planning.steps import (
    Configure,
    Fetch,
    Limits,
    Plan,
    RemoveVersion,
    Try,
    World,
    WriteConfig,
)
from reconciler.policy import Freeze, Policy
from tests.unit.test_quiet import MODELS, resting_world
from tests.unit.worlds import LIMITS, NOW, SIZE, listing, peer, snapshot, source

UP = State.AVAILABLE
GOLDEN = Golden("assets.extra/golden_requests", 1.0)
WEEKEND = Freeze("0 18 * * fri", 3600.0, "UTC", "Weekend")
FRIDAY = datetime(2026, 11, 20, 17, 59, tzinfo=UTC).timestamp()
ROLLOUTS = (
    Rollout(),
    Rollout(golden=GOLDEN),
    Rollout(waves=(Wave(1), Wave(100, is_percent=True)), pause_seconds=5.0),
)
CODES = ("INVALID_ARGUMENT", "UNAVAILABLE", "DEADLINE_EXCEEDED")


@dataclass
class Story:
    """A node to which anything may happen; `what` is from 0 to 2 and says which of it."""

    world: World
    memory: Memory
    limits: Limits
    now: float = NOW
    made: Plan | None = None
    taken_over: int = 0

    def look(self) -> None:
        """Plan both ways."""
        last = self.made.calm if self.made else None
        made = plan(self.world, self.memory, self.limits, self.now, last)
        assert made == plan(self.world, self.memory, self.limits, self.now)
        self.made, self.memory = made, made.memory
        self.taken_over += len(made.calm.models)

    def pass_time(self, seconds: float) -> None:
        """Let both clocks go on."""
        self.now += seconds
        self.world = replace(self.world, wall_seconds=self.world.wall_seconds + seconds)

    # --- what git says ----------------------------------------------------------------------

    def ask_for(self, model: str, what: int) -> None:
        """A pin, or the newest."""
        self._change(model, version=what or None)

    def label(self, model: str, what: int) -> None:
        """A label, or none."""
        self._change(model, labels={"stable": what} if what else {})

    def stop(self, model: str, what: int) -> None:
        """Stopped, or suspended, or neither."""
        self._change(model, stop=what == 1, suspend=what == 2)

    def roll_out(self, model: str, what: int) -> None:
        """At once, after golden requests, or in waves."""
        self._change(model, rollout=ROLLOUTS[what])

    def lock(self, model: str, what: int) -> None:
        """A lock, of these or of other bytes, or none."""
        locked = lock_snapshot(snapshot(model, 1, generation=what), {})
        path = f"deployments/g/{model}.lock.yaml"
        lock = Lock(path, model, source(model), 1, {1: locked}) if what else None
        self._change(model, lock=lock)

    def move(self, model: str, _what: int) -> None:
        """To another node of the group, or back."""
        now = self.world.desired
        here = [item for item in now.deployments if item.model == model]
        there = [item for item in now.elsewhere if item.model == model]
        node = "other" if here else now.node
        moved = replace(
            now,
            deployments=_sort(now.deployments, model, there),
            elsewhere=_sort(now.elsewhere, model, here),
            holders={**now.holders, model: (node,)},
        )
        self.world = replace(self.world, desired=moved)

    def regroup(self, _model: str, what: int) -> None:
        """A group that is suspended, or has a quota, or neither."""
        now = self.world.desired
        assert now.group is not None
        quota = Quota(models=2) if what == 1 else Quota(disk_bytes=3 * SIZE) if what else Quota()
        group = replace(now.group, quota=quota, suspend=what == 2)
        self.world = replace(self.world, desired=replace(now, group=group))

    def rule(self, _model: str, what: int) -> None:
        """Another number of versions to keep, and a freeze or none."""
        policy = Policy(keep=what, freezes=(WEEKEND,) if what else ())
        self.world = replace(self.world, desired=replace(self.world.desired, policy=policy))

    def lose_git(self, _model: str, what: int) -> None:
        """Git is away, or there again."""
        trouble = Unavailable("Timeout", "no answer") if what else None
        self.world = replace(self.world, git_trouble=trouble)

    # --- what else there is -----------------------------------------------------------------

    def pause(self, _model: str, what: int) -> None:
        """Somebody works on the node, for a while or not any more."""
        until = self.world.wall_seconds + 50 * what
        self.world = replace(self.world, pause=Pause("by hand", until) if what else None)

    def set_clock(self, _model: str, what: int) -> None:
        """A wall clock that jumps."""
        self.world = replace(self.world, wall_seconds=FRIDAY + (0, 90, -5000)[what])

    def hear(self, _model: str, what: int) -> None:
        """Say what the other node says."""
        now = self.world.desired
        all_models = (*now.deployments, *now.elsewhere)
        failed = peer("other", *all_models, phase=Phase.FAILED)
        said = (peer("other", *all_models, seconds=99.0), failed, Unavailable("NoAddress", "no"))
        self.world = replace(self.world, peers={"other": said[what]})

    def list_bucket(self, model: str, what: int) -> None:
        """These bytes or others, of a pin or of all."""
        found = listing(model, 1, 2, pin=what or None, generation=1 + what)
        listings = {**self.world.available.listings, found.query: found}
        self.world = replace(self.world, available=replace(self.world.available, listings=listings))

    def damage(self, model: str, what: int) -> None:
        """A version on disk is damaged, or well again, or gone."""
        found = self.world.local.versions.get(model, {}).get(1)
        if found is not None:
            self._put(model, 1, replace(found, intact=not found.intact) if what else None)

    def stage(self, model: str, what: int) -> None:
        """A begun download, which runs or not."""
        staged = (Staged(model, 2, snapshot(model, 2).digest, 5),) if what else ()
        fetching = {(model, 2): Progress(0, 9)} if what == 2 else None
        self.world = replace(
            self.world, local=replace(self.world.local, staged=staged), fetching=fetching
        )

    def fill_disk(self, _model: str, what: int) -> None:
        """No room, some, or a lot."""
        free_bytes = (0, SIZE // 2, 10**9)[what]
        self.world = replace(self.world, local=replace(self.world.local, free_bytes=free_bytes))

    def write_config(self, model: str, what: int) -> None:
        """Somebody writes the server's config file."""
        config = dict(self.world.restart_config or {})
        config[model] = Ask(frozenset({1, what}))
        if what == 0:
            del config[model]
        self.world = replace(self.world, restart_config=config if what < 2 else None)

    # --- the server -------------------------------------------------------------------------

    def fall_silent(self, _model: str, what: int) -> None:
        """It does not answer, or is down."""
        reason = "ServerSilent" if what else "ServerUnreachable"
        self.world = replace(self.world, served=Unavailable(reason, "no answer"))

    def answer(self, model: str, what: int) -> None:
        """It answers, on a new connection or the old one; or for one model only."""
        served = resting_world()[0].served
        assert not isinstance(served, Unavailable)
        if not isinstance(self.world.served, Unavailable):
            served = self.world.served
        fresh = frozenset({model}) if what == 2 else None
        connection = served.connection + (what == 1)
        self.world = replace(self.world, served=replace(served, connection=connection, fresh=fresh))

    def say(self, model: str, what: int, state: State) -> None:
        """It says something of a version."""
        if not isinstance(self.world.served, Unavailable):
            seen = self.world.served.models.get(model, {})
            self._see(model, {**seen, what: VersionStatus(state)})

    def refuse(self, model: str, what: int) -> None:
        """A reload fails."""
        for step in self.made.steps if self.made else ():
            if isinstance(step, Configure):
                self.memory = fold(self.memory, ReloadStarted(), self.now)
                event = ReloadFailed(step.request, CODES[what], f"model {model}")
                self.memory = fold(self.memory, event, self.now)

    def settle(self, _model: str = "", _what: int = 0) -> None:
        """All that is asked is carried out, again and again."""
        for _ in range(5):
            for step in self.made.steps if self.made else ():
                self._carry_out(step)
            self.pass_time(1.0)
            self.look()

    def _carry_out(self, step: object) -> None:
        match step:
            case Configure(request) if not isinstance(self.world.served, Unavailable):
                for event in (ReloadStarted(), Reloaded(request)):
                    self.memory = fold(self.memory, event, self.now)
                for model in self.world.served.models.keys() | request.config.keys():
                    asked = request.config.get(model, Ask(frozenset())).versions
                    seen = self.world.served.models.get(model, {}).keys() | asked
                    states = {v: VersionStatus(UP if v in asked else State.END) for v in seen}
                    self._see(model, states)
                if self.limits.is_file_driven:
                    self.world = replace(self.world, restart_config=dict(request.config))
            case WriteConfig(config):
                self.world = replace(self.world, restart_config=dict(config))
            case Fetch(model, found):
                fetched = LocalVersion(model, found.version, found.size_bytes, found.digest)
                self._put(model, found.version, fetched)
                self.memory = fold(self.memory, Fetched(model, found.version), self.now)
            case RemoveVersion(model, version):
                self._put(model, version, None)
            case Try(model, version, digest):
                self.memory = fold(self.memory, Tried(model, version, digest, 1), self.now)

    def _see(self, model: str, states: dict[int, VersionStatus]) -> None:
        served = self.world.served
        if not isinstance(served, Unavailable) and served.models.get(model) != states:
            served = replace(served, models={**served.models, model: states})
            self.world = replace(self.world, served=served)

    def _put(self, model: str, version: int, found: LocalVersion | None) -> None:
        versions = dict(self.world.local.versions)
        here = {v: item for v, item in versions.pop(model, {}).items() if v != version}
        if found is not None:
            here[version] = found
        if here:
            versions[model] = here
        self.world = replace(self.world, local=replace(self.world.local, versions=versions))

    def _change(self, model: str, **changes: object) -> None:
        now = self.world.desired
        deployments = tuple(
            replace(item, **changes) if item.model == model else item  # type: ignore[arg-type]
            for item in now.deployments
        )
        self.world = replace(self.world, desired=replace(now, deployments=deployments))


def _sort(
    deployments: Collection[Deployment], gone: str, come: Collection[Deployment]
) -> tuple[Deployment, ...]:
    stay = (item for item in deployments if item.model != gone)
    return tuple(sorted((*stay, *come), key=lambda item: item.model))


EVENTS = (
    *(Story.ask_for, Story.label, Story.stop, Story.roll_out, Story.lock, Story.move),
    *(Story.regroup, Story.rule, Story.lose_git, Story.pause, Story.set_clock, Story.hear),
    *(Story.list_bucket, Story.damage, Story.stage, Story.fill_disk, Story.write_config),
    *(Story.fall_silent, Story.answer, Story.refuse),
)
models, choices = st.sampled_from(MODELS), st.integers(0, 2)
events: st.SearchStrategy[Callable[[Story], None]] = st.one_of(
    st.builds(
        lambda do, model, what: lambda story: do(story, model, what),
        st.sampled_from(EVENTS),
        models,
        choices,
    ),
    st.builds(
        lambda model, version, state: lambda story: story.say(model, version, state),
        models,
        choices,
        st.sampled_from(State),
    ),
    st.just(Story.settle),
)


@settings(max_examples=150)
@given(
    history=st.lists(st.tuples(events, st.sampled_from([0.0, 1.0, 10.0, 70.0])), max_size=15),
    has_peers=st.booleans(),
    is_file_driven=st.booleans(),
)
def test_whatever_happens_the_plan_before_changes_nothing(
    history: list[tuple[Callable[[Story], None], float]], has_peers: bool, is_file_driven: bool
) -> None:
    world, memory = resting_world()
    world = replace(world, peers={} if has_peers else None, wall_seconds=FRIDAY)
    story = Story(world, memory, replace(LIMITS, is_file_driven=is_file_driven))
    story.look()
    assert story.taken_over == len(MODELS)
    for event, seconds in history:
        event(story)
        story.pass_time(seconds)
        story.look()
        story.pass_time(0.1)
        story.look()
