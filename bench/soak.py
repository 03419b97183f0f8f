"""An hour of commits: how long from a push to serving, and what the agent takes ever more of.

Real git over http, the real bucket emulator, the stand-in server and the agent, each a process of
its own. Every few seconds a commit moves a model to another version, most of which have to be
fetched, as a node keeps one version besides the one that serves; now and then a version is
published for `latest`, a label moves, or the last commit is reverted. Clients predict all the time.

The clock runs from the end of `git push` until the server has what the commit asks for, and
nothing else. In it are the agent's poll of git (there is no webhook here), the download, the
server's own poll of its folders and its load.

    python -m bench.soak [--minutes 60] [--seconds 3] [--json FILE]
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bucket import run_fake_gcs
from tests.callers import asking
from tests.chaos.callers import Caller
from tests.chaos.growth import Size, count_ticks, measure
from tests.e2e.stage import GROUP, Stage, deployment
from tests.gitserver import serve_http

MODELS = ("ranker", "speller", "similar", "topics", "titles")
VERSIONS = tuple(range(1, 7))
SETTINGS = {
    "RECONCILER_GIT_INTERVAL": "500ms",
    "RECONCILER_BUCKET_INTERVAL": "1s",
    "RECONCILER_TICK": "500ms",
}
_GIVE_UP_SECONDS = 60.0
_LOOK_SECONDS = 0.01
_MEASURE_SECONDS = 60.0
_SERVER = (sys.executable, "-m", "tests.chaos.recording_server")


@dataclass
class Soak:
    """One run; `latencies` are of the commits that were served."""

    stage: Stage
    dice: random.Random
    latencies: list[float] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    missed: int = 0
    wanted: dict[str, frozenset[int]] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MODELS, VERSIONS[-1]))
    before: tuple[str, frozenset[int]] | None = None
    """The model of the last commit, and what it served until then."""

    def begin(self) -> None:
        """Publish everything and have the first versions served."""
        for model in MODELS:
            for version in VERSIONS:
                self.stage.publish(model, version)
        first = [deployment(model, VERSIONS[0]) for model in MODELS]
        self.stage.commit({"groups/g.yaml": GROUP}, *first)
        self.stage.start()
        for model in MODELS:
            self.wanted[model] = frozenset({VERSIONS[0]})
            self.stage.wait_served(model, VERSIONS[0])

    def commit(self) -> None:
        """Make one change and wait until it is served."""
        model = self.dice.choice(MODELS)
        kind = self.dice.random()
        if kind < 0.1 and self.before is not None:
            model, wanted = self.before
            self._follow(model, wanted, deployment(model, min(wanted)), "Revert")
        elif kind < 0.2:
            self.newest[model] += 1
            self.stage.publish(model, self.newest[model])
            newest = frozenset({self.newest[model]})
            self._follow(model, newest, deployment(model, "latest"), "Follow the newest")
        elif kind < 0.3:
            main, other = sorted(self.dice.sample(VERSIONS, 2))
            files = deployment(model, main, labels={"canary": other})
            self._follow(model, frozenset({main, other}), files, "Move a label")
        else:
            version = self.dice.choice(VERSIONS)
            files = deployment(model, version)
            self._follow(model, frozenset({version}), files, "Pin")

    def _follow(
        self, model: str, wanted: frozenset[int], change: dict[str, str], subject: str
    ) -> None:
        self.before = (model, self.wanted[model])
        if len(self.before[1]) > 1:
            self.before = None  # a label went with it
        changes = wanted != self.wanted[model]
        self.wanted[model] = wanted
        self.stage.commit(change, subject=subject)
        begun_at = time.monotonic()
        while self.stage.serving(model) != wanted:
            if time.monotonic() > begun_at + _GIVE_UP_SECONDS:
                self.missed += 1
                return
            time.sleep(_LOOK_SECONDS)
        if changes:
            self.latencies.append(time.monotonic() - begun_at)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seconds", type=float, default=3.0, help="between two commits")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as text, run_fake_gcs() as endpoint:
        folder = Path(text)
        os.environ["CHAOS_LOADS"] = str(folder / "loads.jsonl")
        with serve_http(folder) as git_server:
            settings = {**SETTINGS, "RECONCILER_REPO": git_server.url}
            stage = Stage(folder, endpoint, settings=settings, server_command=_SERVER)
            try:
                figures = soak(stage, options.minutes * 60, options.seconds, options.seed)
            finally:
                stage.close()
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def soak(stage: Stage, seconds: float, pause_seconds: float, seed: int) -> dict[str, object]:
    """Commit for so long and return the figures."""
    run = Soak(stage, random.Random(seed))
    run.begin()
    callers = [Caller(stage.port, model, is_due=True) for model in MODELS]
    loops: list[Callable[[threading.Event], None]] = [caller.run for caller in callers]
    begun_at = time.monotonic()
    measured_at = begun_at - _MEASURE_SECONDS
    commits = 0
    with asking(*loops):
        while time.monotonic() < begun_at + seconds:
            due_at = time.monotonic() + pause_seconds
            run.commit()
            commits += 1
            if time.monotonic() >= measured_at + _MEASURE_SECONDS:
                measured_at = time.monotonic()
                run.sizes.append(measure(stage))
                _report(run, measured_at - begun_at)
            time.sleep(max(0.0, due_at - time.monotonic()))
    run.sizes.append(measure(stage))
    ordered = sorted(run.latencies)
    return {
        "minutes": round((time.monotonic() - begun_at) / 60, 1),
        "commits": commits,
        "commits_never_served": run.missed,
        "ticks": count_ticks(stage),
        "commit_to_served_seconds": {
            "median": round(statistics.median(ordered), 3),
            "p90": round(ordered[int(len(ordered) * 0.90)], 3),
            "p99": round(ordered[int(len(ordered) * 0.99)], 3),
            "worst": round(ordered[-1], 3),
        },
        "predictions": sum(caller.answers for caller in callers),
        "failed_predictions": [text for caller in callers for text in caller.failures],
        # The first minute fills caches.
        "size_after_a_minute": asdict(run.sizes[min(1, len(run.sizes) - 1)]),
        "size_at_the_end": asdict(run.sizes[-1]),
    }


def _report(run: Soak, seconds: float) -> None:
    size = run.sizes[-1]
    median = statistics.median(run.latencies) if run.latencies else 0.0
    print(
        f"{seconds / 60:5.1f} min: {len(run.latencies)} changes, median {median:.2f} s,"
        f" {size.memory_bytes / 1e6:.1f} MB, {size.descriptors} descriptors,"
        f" {size.threads} threads, state {size.state_bytes / 1e3:.0f} kB, mirror"
        f" {size.mirror_bytes / 1e3:.0f} kB, models {size.models_bytes / 1e3:.0f} kB",
        flush=True,
    )


if __name__ == "__main__":
    main()
