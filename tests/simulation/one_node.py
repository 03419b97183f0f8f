"""One node's whole loop as a state machine: the real plan() in a world of hypothesis' choosing.

Fleets have their own simulation, whose promises are about nodes together. Here it is about what a
node deletes, and what it stops serving: each deletion is held against the world as somebody sees it
who stands outside and knows nothing of the plan's reasons. What broke it, hypothesis makes small.

    python -m tests.simulation.one_node --histories 10000
"""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reconciler.model import (
    Ask,
    Commit,
    Deployment,
    Desired,
    Group,
    LocalVersion,
    Member,
    Problem,
    Rollout,
    ServerConfig,
    State,
    Strategy,
    Unavailable,
)
from reconciler.planning.steps import Plan, RemoveVersion
from reconciler.policy import Policy
from tests.simulation.bucket import Bucket
from tests.simulation.node import Node, Traits, Troubles
from tests.simulation.repo import source
from tests.simulation.server import PacedServer

MODELS = ("a", "b", "c", "d")
VERSIONS = 5
FOREIGN = 9
"""A version that somebody copied into the models folder, which is in no bucket."""
_TICK_SECONDS = 0.5
_STEPS = 25
_FEW = 1000
"""So many histories are the same in each run of the suite."""
_REST_SECONDS = 900.0
"""After which everything that failed has been tried again: no back-off is longer than 5 min."""
_EXCUSE_SECONDS = 60.0
"""For how long what was under way when git changed its mind may still come about."""
_GONE = (State.END, State.START)

models = st.sampled_from(MODELS)
versions = st.integers(1, VERSIONS)


class OneNode(RuleBasedStateMachine):
    """A node, its repository, its bucket, its server, and whoever does things to them."""

    counts: ClassVar[dict[str, int]] = {"histories": 0, "plans": 0, "deletions": 0}

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.bucket = Bucket()
        for model in MODELS:
            self.bucket.add_model(model, 100, VERSIONS, self.now)
        self.node = Node("n", Traits(fetch_seconds=1.0), PacedServer())
        self.wanted: dict[str, Deployment] = {}
        self.broken: frozenset[str] = frozenset()
        self.troubles = Troubles()
        self.keep = 1
        self.commits = 0
        self.last_served: dict[str, int] = {}
        self.excused_until = dict.fromkeys(MODELS, 0.0)
        """Until when a model may stop to serve: git wanted that, or the server was killed."""
        self.counts["histories"] += 1

    # --- what people commit -----------------------------------------------------------------

    @initialize(first=st.sets(models, min_size=2))
    def begin(self, first: set[str]) -> None:
        for model in first:
            self.wanted[model] = self._deployment(model, 1)
        self.pass_time(12.0)

    @rule(model=models, version=versions, label=st.none() | versions, recreate=st.booleans())
    def pin(self, model: str, version: int, label: int | None, recreate: bool) -> None:
        labels = {} if label is None else {"stable": label}
        strategy = Strategy.RECREATE if recreate else Strategy.OVERLAP
        changed = self._deployment(model, version)
        self._commit(replace(changed, labels=labels, rollout=Rollout(strategy)))

    @rule(model=models)
    def follow(self, model: str) -> None:
        self._commit(self._deployment(model, None))

    @rule(model=models, stop=st.booleans(), suspend=st.booleans())
    def hold(self, model: str, stop: bool, suspend: bool) -> None:
        if model in self.wanted:
            self._commit(replace(self.wanted[model], stop=stop, suspend=suspend))

    @rule(gone=st.sets(models, min_size=1))
    def remove(self, gone: set[str]) -> None:
        self.wanted = {m: item for m, item in self.wanted.items() if m not in gone}
        self._excuse(*gone)
        self.broken -= gone
        self.commits += 1

    @rule(model=models, keeps=st.booleans())
    def break_file(self, model: str, keeps: bool) -> None:
        """A file that cannot be followed, with or without a last good text."""
        self.broken |= {model}
        if not keeps:
            self.wanted.pop(model, None)
            self._excuse(model)
        self.commits += 1

    @rule(keep=st.integers(0, 2))
    def keep_versions(self, keep: int) -> None:
        self.keep = keep
        self.commits += 1

    # --- what happens -----------------------------------------------------------------------

    @rule(model=models)
    def publish(self, model: str) -> None:
        newest = self.bucket.newest(model)
        self.bucket.publish(model, newest + 1 + (newest + 1 == FOREIGN), self.now)

    @rule(away=st.booleans())
    def lose_bucket(self, away: bool) -> None:
        self.bucket.is_away = away

    @rule(away=st.booleans())
    def lose_git(self, away: bool) -> None:
        trouble = Unavailable("GitUnreachable", "the git server does not answer")
        self.troubles = replace(self.troubles, git=trouble if away else None)

    @rule(model=models, version=versions, is_bad=st.booleans())
    def spoil(self, model: str, version: int, is_bad: bool) -> None:
        """From now on the version cannot be loaded, or can again."""
        (self.node.server.bad.add if is_bad else self.node.server.bad.discard)((model, version))

    @rule()
    def crash_server(self) -> None:
        bad = set(self.node.server.bad)
        self.node.server.bad.clear()  # what is in its file has loaded before, and does so now
        self.node.crash_server(self.now)
        self.node.server.bad |= bad
        self._excuse(*MODELS)

    @rule()
    def restart_agent(self) -> None:
        # What an agent had just begun to add, and no status mentions yet, its successor cannot know
        # of: it says again what serves, by which the new model is dropped and added once more.
        serving = self.node.server.serving
        self._excuse(*(model for model in MODELS if not serving.get(model)))
        self.node.restart_agent()

    @rule(seconds=st.floats(5.0, 20.0))
    def stall_server(self, seconds: float) -> None:
        self.node.server.stalled_until_seconds = self.now + seconds

    @precondition(lambda self: any(self.node.disk.values()))
    @rule(model=models)
    def copy_by_hand(self, model: str) -> None:
        """Somebody puts a version there that this agent did not install."""
        if model in self.node.disk:
            self.node.disk[model][FOREIGN] = LocalVersion(model, FOREIGN, 100, None)
            self.node.server.on_disk[model].add(FOREIGN)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 4.0, 12.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.tick()

    # --- what must hold ---------------------------------------------------------------------

    def tick(self) -> None:
        """Let the node look once, and judge what it does."""
        self.now += _TICK_SECONDS
        desired = self._read()
        self.node.server.advance(self.now)
        states = {m: dict(found) for m, found in self.node.server.states.items()}
        disk = {m: dict(found) for m, found in self.node.disk.items()}
        restart_config = dict(self.node.restart_config)
        serving = {m: set(found) for m, found in self.node.server.serving.items()}
        made = self.node.tick(desired, self.troubles, self.bucket, self.now)
        self.counts["plans"] += 1
        config = self.node.server.config
        for step in made.steps:
            if isinstance(step, RemoveVersion):
                self.counts["deletions"] += 1
                model, version = step.model, step.version
                where = f"{model} {version} is deleted at {self.now} ({step.reason})"
                status = states.get(model, {}).get(version)
                assert status is None or status.state in _GONE, f"{where} while it is {status}"
                assert version not in _named(restart_config, model), f"{where}: a restart hangs"
                assert version not in _named(config, model), f"{where}: the server is asked for it"
                found = disk.get(model, {}).get(version)  # none: it has only just come
                assert found is None or found.digest is not None, f"{where}, and is not ours"
                self._check_wish(desired, made, model, version, where)
                is_excused = self.now < self.excused_until[model]
                if model in self.wanted and not serving.get(model) and not is_excused:
                    last = self.last_served.get(model)
                    assert version != last, f"{where}, the last that served, and none does"
        self._check_service()

    def _check_wish(
        self, desired: Desired, made: Plan, model: str, version: int, where: str
    ) -> None:
        assert self.troubles.git is None, f"{where} while git is away"
        wanted = self.wanted.get(model)
        if wanted is None:
            assert model not in self.broken, f"{where} while nobody knows what git says of it"
            assert not desired.problems, f"{where} while something in git is broken"
            assert self.wanted, f"{where}: an empty commit emptied the node"
            return
        assert not wanted.suspend, f"{where} while it is suspended"
        assert version != wanted.version, f"{where}, which git pins"
        assert version not in wanted.labels.values(), f"{where}, which git labels"
        if wanted.version is None:
            assert version != self.bucket.newest(model), f"{where}, which is the newest"
            assert not self.bucket.is_away, f"{where} while nobody knows what is the newest"

    def _check_service(self) -> None:
        """What serves and is wanted goes on, other than by a change that says so."""
        server = self.node.server
        lost, server.lost = list(server.lost), []
        for model in lost:
            wanted = self.wanted.get(model)
            is_meant = wanted is None or wanted.stop or wanted.rollout.strategy is Strategy.RECREATE
            is_excused = is_meant or self.now < self.excused_until[model]
            assert is_excused, f"{model} stopped to serve at {self.now}"
        for model, found in server.serving.items():
            if found:
                self.last_served[model] = max(found)

    def teardown(self) -> None:
        """Once nothing goes wrong any more, the node comes to be as git says, by itself."""
        self.bucket.is_away, self.troubles, self.broken = False, Troubles(), frozenset()
        self.node.server.bad.clear()
        # A failure that interrupted service is tried again on a change in git alone. One that is
        # under way goes on interrupting it.
        self._excuse(
            *(m for m, w in self.wanted.items() if w.rollout.strategy is Strategy.RECREATE)
        )
        again = Rollout(Strategy.OVERLAP)
        self.wanted = {
            m: replace(item, suspend=False, rollout=again) for m, item in self.wanted.items()
        }
        end = self.now + _REST_SECONDS
        while self.now < end and (self._find_lack() or self.node.is_busy):
            self.tick()
        lack = self._find_lack()
        assert not lack, f"{lack}, {_REST_SECONDS:g} s after everything was mended"
        for _ in range(20):
            self.tick()
        assert not self._find_lack(), "it did not stay so"

    def _find_lack(self) -> str:
        for model in MODELS:
            wanted = self.wanted.get(model)
            serving = self.node.server.serving.get(model, set())
            if wanted is None:
                if serving and self.wanted:  # an empty commit is refused
                    return f"{model} goes on serving {sorted(serving)}"
                continue
            main = wanted.version or self.bucket.newest(model)
            named = set() if wanted.stop else {main, *wanted.labels.values()}
            if serving != named:
                return f"{model} serves {sorted(serving)} of {sorted(named)}"
        return ""

    # --- the repository ---------------------------------------------------------------------

    def _deployment(self, model: str, version: int | None) -> Deployment:
        return Deployment(model, "g", f"deployments/g/{model}.yaml", source(model), version)

    def _excuse(self, *gone: str) -> None:
        self.excused_until |= dict.fromkeys(gone, self.now + _EXCUSE_SECONDS)

    def _commit(self, changed: Deployment) -> None:
        if changed.model not in self.wanted:
            # It may be on its way out just now, long after the commit: an empty one waits for more.
            self._excuse(changed.model)
        before = self.wanted.get(changed.model, changed)
        if before.stop or changed.stop or before.rollout.strategy is Strategy.RECREATE:
            self._excuse(changed.model)
        self.wanted[changed.model] = changed
        self.broken -= {changed.model}
        self.commits += 1

    def _read(self) -> Desired:
        problems = {m: Problem(f"deployments/g/{m}.yaml", 1, 1, "no YAML") for m in self.broken}
        return Desired(
            Commit(f"{self.commits:040x}", "Ada", "Change", self.commits),
            "n",
            Group("g", "groups/g.yaml", (Member("n"),)),
            tuple(self.wanted[model] for model in sorted(self.wanted)),
            Policy(keep=self.keep, max_removals=1000),
            tuple(problems.values()),
            problems,
        )


def _named(config: ServerConfig, model: str) -> frozenset[int]:
    ask: Mapping[str, Ask] = config
    return ask[model].versions if model in ask else frozenset()


def run(histories: int, *, shrinks: bool = True) -> Mapping[str, int]:
    """Play so many histories; return how much was judged in them."""
    OneNode.counts.update(dict.fromkeys(OneNode.counts, 0))
    chosen = settings(
        max_examples=histories,
        stateful_step_count=_STEPS,
        derandomize=histories <= _FEW,
        phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(OneNode, settings=chosen)
    return dict(OneNode.counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--histories", type=int, default=10_000)
    options = parser.parse_args()
    begun_at = time.monotonic()
    counts = run(options.histories)
    took_seconds = time.monotonic() - begun_at
    text = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    sys.stdout.write(f"{text}, 0 wrong, {took_seconds:.0f} s\n")


if __name__ == "__main__":
    main()
