"""Whose turn it is to handle bytes, of the threads that read from connections.

Python runs one thread at a time and hands on at every call that reads or writes. Where sixteen
threads have bytes to handle, each of these calls wakes another one on a core that sleeps, and what
the first had in the processor's cache is cold when it goes on. So only a few handle bytes at once,
each for as long as there are some; the others wait for bytes, or for their turn.
"""

import os
import threading

_MOST_TURNS = 4
"""On two cores four took as long as two; what more would bring on many was not measured."""
_PATIENCE_SECONDS = 1.0
"""Some may have their turn and hang, on a disk that does; then it is better to go on beside them
than to hang as well."""


def make_turns() -> threading.Semaphore:
    """Return the turns that some threads share."""
    return threading.Semaphore(max(2, min(_MOST_TURNS, os.cpu_count() or 1)))


class Turn:
    """The turn of one thread at a time, which may be taken and ended as often as one likes."""

    def __init__(self, turns: threading.Semaphore) -> None:
        self._turns = turns
        self._is_on = False
        self._is_counted = False

    def take(self) -> None:
        """Wait for a turn, yet not for ever; nothing where it is on already."""
        if not self._is_on:
            self._is_on = True
            self._is_counted = self._turns.acquire(timeout=_PATIENCE_SECONDS)

    def end(self) -> None:
        """Let another one have it."""
        self._is_on = False
        if self._is_counted:
            self._is_counted = False
            self._turns.release()
