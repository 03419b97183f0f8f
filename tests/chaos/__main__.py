"""Chaos by hand: `make chaos SEED=7 ROUNDS=50`, or several seeds for a while.

python -m tests.chaos --seed 7 --rounds 50
python -m tests.chaos --seed 1 --minutes 20      seeds 1, 2, 3, ... of 40 rounds each
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.bucket import run_fake_gcs
from tests.chaos.judge import BrokenError
from tests.chaos.play import play, set_up
from tests.chaos.points import POINTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each seed")
    parser.add_argument("--minutes", type=float, help="go on with further seeds for so long")
    parser.add_argument("--quiet", action="store_true", help="say only what it came to")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes if options.minutes else None
    seed, broken, total = options.seed, 0, Counter[str]()
    converged: list[float] = []
    points, deaths, spoilt = Counter[str](), Counter[str](), Counter[str]()
    while True:
        say = (lambda text: None) if options.quiet else _print
        with tempfile.TemporaryDirectory() as folder, run_fake_gcs() as endpoint:
            with set_up(Path(folder), endpoint, seed, say) as player:
                try:
                    play(player, options.rounds, deadline)
                except BrokenError as error:
                    broken += 1
                    _print(f"BROKEN at seed {seed}\n{error}")
                if not player.disk.is_mounted:
                    _print("NOT COVERED: a full and a read-only disk; mounting one needs root")
            figures, judge = player.figures, player.judge
            converged += figures.converge_seconds
            points += judge.points
            deaths += judge.deaths
            for sky in (player.bucket_sky, player.git_sky):
                spoilt += sky.spoilt
            total += Counter(
                seeds=1, rounds=figures.rounds, commits=figures.commits, kills=figures.kills,
                server_deaths=figures.server_deaths, loads_checked=judge.loaded,
                deletions_checked=judge.removed,
                predictions=sum(caller.answers for caller in player.callers.values()),
                refusals_not_due=sum(caller.refused for caller in player.callers.values()),
            )  # fmt: skip
            _print(f"seed {seed}: {figures.rounds} rounds, {broken} broken so far")
        seed += 1
        if deadline is None or time.monotonic() > deadline:
            break
    ordered = sorted(converged)
    _print(
        json.dumps(
            {
                **total,
                "broken": broken,
                "spoilt_answers": sum(spoilt.values()),
                "kinds_of_faults": len(spoilt),
                "points_met": len(points),
                "points_of_death": len(deaths),
                "deaths_at_points": sum(deaths.values()),
                "rest_after_seconds_median": round(statistics.median(ordered), 2),
                "rest_after_seconds_p99": round(ordered[int(len(ordered) * 0.99) - 1], 2),
                "rest_after_seconds_worst": round(ordered[-1], 2),
            },
            indent=1,
        )
    )
    for name in sorted(points.keys() - set(POINTS)):
        _print(f"met, and not among the points where it is killed: {name}")
    for name in sorted(set(POINTS) - points.keys()):
        _print(f"never met: {name}")
    sys.exit(1 if broken else 0)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
