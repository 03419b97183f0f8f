"""Makes one call of many: an upload of a thousand files is one reason to look, not a thousand.

The call comes when nothing was added for a moment, so that it finds the upload whole, and after a
longer while even if more keeps coming, so that a bucket that never rests is looked at all the same.
"""

import asyncio
from collections.abc import Callable, Set

QUIET_SECONDS = 1.0
LONGEST_SECONDS = 10.0


class Burst:
    """What was added since the last call. Belongs to one event loop."""

    def __init__(self, tell: Callable[[Set[str]], None], loop: asyncio.AbstractEventLoop) -> None:
        self._tell = tell
        self._loop = loop
        self._added: set[str] = set()
        self._begun_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, names: Set[str]) -> None:
        """Have `names` told soon, together with what else is added meanwhile."""
        if not names:
            return
        now = self._loop.time()
        if self._timer is None:
            self._begun_at = now
        else:
            self._timer.cancel()
        self._added |= names
        due_at = min(now + QUIET_SECONDS, self._begun_at + LONGEST_SECONDS)
        self._timer = self._loop.call_at(due_at, self._end)

    def close(self) -> None:
        """Forget what was added."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._added = set()

    def _end(self) -> None:
        added, self._added, self._timer = self._added, set(), None
        self._tell(added)
