"""How fleets behave in simulated time: many random schedules, and one fleet of 300 nodes.

    python -m bench.fleet_simulation [--schedules 10000] [--first 0] [--jobs 2] [--skip-large]

Every schedule is a fleet of 3 to 10 machines to which commits, deaths, restarts, partitions, bad
versions and full quotas happen. The plan, the placement, the members and the roll-up are the real
ones; servers, disks, network and clocks are simulated. The promises are held after every tick. A
schedule that breaks one is made small and printed, and the command ends with 1.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.simulation.invariants import BrokenError
from tests.simulation.large import make_large
from tests.simulation.schedules import make_schedule, run, shrink
from tests.simulation.setup import Result

_CHUNK = 50
LARGE_NODES = 300
LARGE_DEPLOYMENTS = 1000


@dataclass(slots=True)
class Total:
    """What came of many schedules."""

    schedules: int = 0
    events: int = 0
    plans: int = 0
    settle_seconds: float = 0.0
    failures: tuple[str, ...] = ()

    def add(self, result: Result) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.events += result.events
        self.plans += result.plans
        self.settle_seconds = max(self.settle_seconds, result.settle_seconds)


def play(seeds: range) -> Total:
    """Play the schedules of some numbers."""
    total = Total()
    for seed in seeds:
        schedule = make_schedule(seed)
        try:
            total.add(run(schedule))
        except BrokenError as error:
            small = shrink(schedule, error.promise)
            total.failures += (f"schedule {seed}, {error}\n  smallest: {small}",)
    return total


def play_all(first: int, count: int, jobs: int) -> Iterator[Total]:
    """Play in several processes, and yield what came of each part."""
    end = first + count
    parts = [range(seed, min(seed + _CHUNK, end)) for seed in range(first, end, _CHUNK)]
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(play, parts)


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first schedule")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--skip-large", action="store_true")
    options = parser.parse_args()
    begun = time.perf_counter()
    sums = Total()
    for part in play_all(options.first, options.schedules, options.jobs):
        sums.schedules += part.schedules
        sums.events += part.events
        sums.plans += part.plans
        sums.settle_seconds = max(sums.settle_seconds, part.settle_seconds)
        for failure in part.failures:
            print(failure, file=sys.stderr)
        sums.failures += part.failures
    seconds = time.perf_counter() - begun
    print(
        f"{options.schedules} schedules in {seconds:.0f} s ({options.schedules / seconds:.0f}/s,"
        f" {options.jobs} processes): {sums.events} events, {sums.plans} plans,"
        f" {len(sums.failures)} broken promises, at rest at most {sums.settle_seconds:.0f}"
        " simulated seconds after the last event"
    )
    if not options.skip_large:
        begun = time.perf_counter()
        result = run(make_large(1, LARGE_NODES, LARGE_DEPLOYMENTS))
        seconds = time.perf_counter() - begun
        print(
            f"{LARGE_NODES} nodes, {LARGE_DEPLOYMENTS} deployments in {seconds:.0f} s:"
            f" {result.events} events, {result.plans} plans ({result.plans / seconds:.0f}/s), at"
            f" rest {result.settle_seconds:.0f} simulated seconds after the last event"
        )
    sys.exit(1 if sums.failures else 0)


if __name__ == "__main__":
    main()
