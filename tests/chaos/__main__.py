"""Chaos by hand: `make chaos SEED=7 ROUNDS=50`, several seeds for a while, or every point once.

python -m tests.chaos --seed 7 --rounds 50
python -m tests.chaos --seed 1 --minutes 20     seeds 1, 2, 3, ... with as many rounds each
python -m tests.chaos --sweep                   kills at every named point, one a round
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bucket import run_fake_gcs
from tests.chaos.judge import BrokenError
from tests.chaos.play import Figures, Player, play, set_up
from tests.chaos.points import FIRST_LEADS, LEADS, POINTS, SET_BACK_LEADS
from tests.chaos.script import Dice, Kill, Round


@dataclass
class Total:
    """What all seeds came to."""

    counts: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    spoilt: Counter[str] = field(default_factory=Counter)
    rest_seconds: list[float] = field(default_factory=list)

    def add(self, player: Player) -> None:
        """Count what was seen in one run."""
        figures, judge = player.figures, player.judge
        self.counts.update(
            seeds=1,
            rounds=figures.rounds,
            commits=figures.commits,
            kills=figures.kills,
            server_deaths=figures.server_deaths,
            loads_checked=judge.loaded,
            deletions_checked=judge.removed,
            predictions=sum(caller.answers for caller in player.callers.values()),
            refused_while_due=sum(len(caller.failures) for caller in player.callers.values()),
        )
        self.points += judge.points
        self.deaths += judge.deaths
        self.spoilt += player.bucket_sky.spoilt + player.git_sky.spoilt
        self.rest_seconds += figures.converge_seconds

    @property
    def unmet(self) -> list[str]:
        """The named points at which no agent was killed so far."""
        return [point for point in POINTS if point not in self.deaths]

    def describe(self) -> str:
        """Return the figures, and what the list of points lacks."""
        ordered = sorted(self.rest_seconds) or [0.0]
        figures = {
            **self.counts,
            "spoilt_answers": self.spoilt.total(),
            "kinds_of_spoilt_answers": len(self.spoilt),
            "points_named": len(POINTS),
            "points_met": len(self.points.keys() & set(POINTS)),
            "points_of_death": len(self.deaths),
            "rest_after_seconds_median": round(statistics.median(ordered), 2),
            "rest_after_seconds_p99": round(ordered[int(len(ordered) * 0.99)], 2),
            "rest_after_seconds_worst": round(ordered[-1], 2),
        }
        unnamed = sorted(self.points.keys() - set(POINTS))
        return "\n".join(
            [
                json.dumps(figures, indent=1),
                *(f"met, and not in the list of points: {name}" for name in unnamed),
                f"not killed at: {'; '.join(self.unmet) or 'none is left'}",
            ]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each seed")
    parser.add_argument("--minutes", type=float, help="go on with further seeds for so long")
    parser.add_argument("--sweep", action="store_true", help="kill at every named point in turn")
    parser.add_argument("--quiet", action="store_true", help="say only what it came to")
    options = parser.parse_args()
    total, say = Total(), _ignore if options.quiet else _say
    if options.sweep:
        _sweep(options.seed, say, total)
    else:
        seed = options.seed
        until = time.monotonic() + 60 * options.minutes if options.minutes else None
        while seed == options.seed or (until is not None and time.monotonic() < until):
            _run(seed, say, total, partial(play, rounds=options.rounds, until=until))
            seed += 1
    _say(total.describe())
    sys.exit(1 if total.counts["broken"] else 0)


def _sweep(seed: int, say: Callable[[str], None], total: Total) -> None:
    """Kill at each point once, as far as it can be brought about."""

    def play_on(draw: Callable[[Dice, list[Kill]], Iterator[Round]], lead: str = "") -> None:
        kills = [_kill(lead, point) for point in total.unmet]
        rounds = partial(play, rounds=len(kills), draw=lambda dice: draw(dice, kills))
        _run(seed, say, total, rounds)

    for lead in LEADS:
        play_on(Dice.sweep, lead)
    for lead in FIRST_LEADS:
        # On an empty machine the agent does what it never does again.
        for point in total.unmet:
            _run(seed, say, total, partial(play, rounds=0, first=_kill(lead, point)))
    # Last, as what is left by now is what commits alone do not bring about.
    for lead in SET_BACK_LEADS:
        play_on(Dice.set_back, lead)
    play_on(Dice.hinder)


def _kill(lead: str, point: str) -> Kill:
    return Kill(lead, point) if lead else Kill(point)


def _run(
    seed: int, say: Callable[[str], None], total: Total, play_on: Callable[[Player], Figures]
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        run_fake_gcs() as endpoint,
        set_up(Path(folder), endpoint, seed, say) as player,
    ):
        try:
            play_on(player)
        except BrokenError as error:
            total.counts["broken"] += 1
            _say(f"BROKEN at seed {seed}\n{error}")
        if not player.disk.is_mounted:
            _say("NOT COVERED: a full and a read-only disk; to mount one needs root")
    total.add(player)
    _say(f"seed {seed}: {player.figures.rounds} rounds, {total.counts['broken']} broken so far")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _ignore(text: str) -> None:
    pass


if __name__ == "__main__":
    main()
