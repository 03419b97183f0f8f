"""How soon the agent looks again while something loads, unloads or downloads.

TensorFlow Serving tells nobody when a version has come to answer; it has to be asked. Most loads
end within a second or two of the reload, and a step that waits for one, as the second half of a
rollback does, should not wait for the next look as well. So looks come close together at first and
then ever further apart: by what has been waited already, of which a look may add but a little. And
a node with so many models that its looks take long rests between them all the same.
"""

from collections.abc import Callable

FIRST_SECONDS = 0.02
LAST_SECONDS = 0.1
_SHARE = 0.02
"""Of the time that was waited for something: so much may be added to it by seeing it late."""
_REST = 3.0
"""How much longer than a look the pause behind it is, as far as that goes."""


class Pace:
    """Says how long to pause behind each look."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begun_at = clock()

    def begin(self) -> None:
        """Note that something was begun just now whose end is to be seen."""
        self._begun_at = self._clock()

    def pause_seconds(self, look_seconds: float) -> float:
        """Return how long to pause behind a look that took so long."""
        waited_seconds = self._clock() - self._begun_at
        wished_seconds = max(FIRST_SECONDS, _SHARE * waited_seconds, _REST * look_seconds)
        return min(wished_seconds, LAST_SECONDS)
