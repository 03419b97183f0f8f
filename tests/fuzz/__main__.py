"""Fuzzing for as long as one likes.

    python -m tests.fuzz --seconds 600 [--seed 1] [--target listing]

Each target has its turn, again and again. An input that breaks something is written to the folder
given by --out, with the error; one that takes longer than the bound ends the run with the stack of
all threads.
"""

import argparse
import faulthandler
import logging
import random
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutations import apply, draw
from tests.fuzz.target import Target
from tests.fuzz.targets import open_targets

_HANG_SECONDS = 30.0
_TURN_SECONDS = 2.0
_KEPT = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", help="only targets whose name has this in it")
    parser.add_argument("--out", type=Path, default=Path("fuzz-found"))
    options = parser.parse_args()
    logging.disable()  # the agent would log each file that it cannot use
    dice = random.Random(options.seed)
    tally = Tally(options.out)
    end = time.monotonic() + options.seconds
    with open_targets() as targets:
        chosen = [target for target in targets if (options.target or "") in target.name]
        while time.monotonic() < end:
            for target in chosen:
                turn_end = min(end, time.monotonic() + _TURN_SECONDS)
                while time.monotonic() < turn_end:
                    tally.run(target, apply(dice.choice(target.corpus), draw(dice)))
    for target in chosen:
        _say(tally.describe(target.name))
    _say(f"{tally.inputs.total():,} inputs, {tally.broken.total()} broken")
    sys.exit(1 if tally.broken else 0)


@dataclass
class Tally:
    """What came of each target's inputs."""

    out: Path
    inputs: Counter[str] = field(default_factory=Counter)
    slowest_ms: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)

    def run(self, target: Target, data: bytes) -> None:
        """Give one input to one target."""
        name = target.name
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        begun_at = time.monotonic()
        try:
            target.run(data)
        except Exception:
            self.broken[name] += 1
            if self.broken[name] <= _KEPT:
                self._keep(name, data)
        faulthandler.cancel_dump_traceback_later()
        self.inputs[name] += 1
        took_ms = int(1000 * (time.monotonic() - begun_at))
        self.slowest_ms[name] = max(self.slowest_ms[name], took_ms)

    def _keep(self, name: str, data: bytes) -> None:
        self.out.mkdir(exist_ok=True)
        file = self.out / f"{name.replace(' ', '-')}-{self.broken[name]}"
        file.write_bytes(data)
        _say(f"BROKEN {name}, input in {file}\n{traceback.format_exc()}")

    def describe(self, name: str) -> str:
        """Return a line about one target."""
        return (
            f"{name:24} {self.inputs[name]:9,} inputs, slowest {self.slowest_ms[name]:6,} ms,"
            f" broken {self.broken[name]}"
        )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
