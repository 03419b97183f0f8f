"""Takes turns over many names: a share at a time, and each of them within one round.

What is looked at every other second must not cost more than that is worth. A node with 10,000
models does not ask for all of them at every look; those that something is about to happen to come
each time, the others in turn. A few are all looked at every time.

Where something is about to happen, somebody waits for the look. Then only a few of the others come
along, and the rest of their share is made up for in the looks behind it.
"""

import math
from collections.abc import Callable, Collection
from itertools import islice

ROUND_SECONDS = 120.0
"""How old what is known of a name can become: a fault that nobody announces is seen by then."""
ALL_AT_ONCE = 64
"""So many names cost nothing worth saving."""
MOST_URGENT = 1000
"""When more than these are urgent, as while a new node loads everything, they come in turns too."""
ALONG = 16
"""So many of the others come along with urgent ones."""
LONGEST_DELAY_SECONDS = 5.0
"""So late a share may become, as on a node where something is always urgent."""


class Rotation:
    """Remembers whose turn it is."""

    def __init__(self, clock: Callable[[], float], all_at_once: int = ALL_AT_ONCE) -> None:
        self._clock = clock
        self._all_at_once = all_at_once
        self._queue: dict[str, None] = {}
        """The names, the one whose turn was longest ago first."""
        self._taken_at = -math.inf
        self._owed_seconds = 0.0
        """The time whose share was put off."""

    def take(self, names: Collection[str], urgent: Collection[str]) -> set[str]:
        """Return those of `names` to look at now: the `urgent` ones, new ones and a share."""
        now = self._clock()
        passed_seconds, self._taken_at = now - self._taken_at, now
        if self._queue.keys() != set(names):
            self._queue = {name: None for name in self._queue if name in names}
        due = set(names) - self._queue.keys()
        pressing = set(urgent)
        due.update(islice((name for name in self._queue if name in pressing), MOST_URGENT))
        owed_seconds = passed_seconds + self._owed_seconds
        self._owed_seconds = 0.0
        if len(names) <= self._all_at_once or passed_seconds >= ROUND_SECONDS:
            due = set(names)
        else:
            share = math.ceil(len(names) * owed_seconds / ROUND_SECONDS)
            if due and share > ALONG and owed_seconds < LONGEST_DELAY_SECONDS:
                share = ALONG
                self._owed_seconds = owed_seconds - ALONG * ROUND_SECONDS / len(names)
            due.update(islice(self._queue, share))
        for name in due:
            self._queue.pop(name, None)
            self._queue[name] = None
        return due

    def forget(self, names: Collection[str]) -> None:
        """Take `names` for new ones: what was to be learnt of them could not be."""
        for name in names:
            self._queue.pop(name, None)
