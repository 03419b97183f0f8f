"""When changes are frozen: cron lines with a duration, each by the clock of its time zone."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from reconciler.policy import Freeze

MAX_DURATION_SECONDS = 366 * 86400.0
_A_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
_MAX_WINDOWS = 1000
"""So many windows without a gap, years of daily ones, are a freeze that never ends."""
_MINUTE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Frozen:
    """Nothing changes until then, and why."""

    until_seconds: float
    """Unix time."""
    timezone: str
    reason: str


def find_mistake(freeze: Freeze) -> tuple[str, str] | None:
    """Return the field of a freeze that cannot be meant and a sentence on it, None if all can."""
    try:
        ZoneInfo(freeze.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # "Europe" is a folder of time zones
        return "timezone", (
            f"{freeze.timezone} is no time zone; write a name such as Europe/Berlin or UTC"
        )
    try:
        start = next(_starts(freeze, _A_MOMENT), None)
    except CronSimError as error:
        return "start", (
            f"{freeze.start!r} is no cron line that ever comes ({error}); write minute, hour, day"
            ' of month, month and day of week, such as "0 18 * * fri"'
        )
    if start is None:
        return "start", (
            f"{freeze.start!r} never comes, so nothing would be frozen; choose a day that exists"
        )
    if freeze.duration_seconds <= 0:
        return "duration", "a freeze of no length freezes nothing; write one such as 62h"
    if freeze.duration_seconds > MAX_DURATION_SECONDS:
        return "duration", (
            "a freeze lasts 366d at most; for longer, write `suspend: true` in the groups that are"
            " meant"
        )
    if _find_end((freeze,), start.timestamp()) is None:
        return "duration", (
            "the freeze begins anew before it is over and so never ends; shorten it, or write"
            " `suspend: true` in the groups that are meant"
        )
    return None


def find_freeze(freezes: Iterable[Freeze], group: str, now_seconds: float) -> Frozen | None:
    """Return until when a group is frozen at `now_seconds` (Unix time), None if it is not."""
    meant = tuple(freeze for freeze in freezes if not freeze.groups or group in freeze.groups)
    ends = ((freeze, _end(freeze, now_seconds)) for freeze in meant)
    current = [(freeze, end) for freeze, end in ends if now_seconds < end]
    if not current:
        return None
    frozen_by, first_end_seconds = current[0]
    last_end_seconds = max(end for _, end in current)
    until_seconds = _find_end(meant, last_end_seconds) or first_end_seconds
    return Frozen(until_seconds, frozen_by.timezone, frozen_by.reason)


@lru_cache(maxsize=64)
def _find_end(freezes: tuple[Freeze, ...], moment_seconds: float) -> float | None:
    """Return the first moment from this one on that no freeze covers, None if there is none.

    Kept, because a tick asks the same again and again while a window lasts.
    """
    windows = heapq.merge(*(_windows(freeze, moment_seconds) for freeze in freezes))
    for start_seconds, end_seconds in islice(windows, _MAX_WINDOWS):
        if start_seconds > moment_seconds:
            return moment_seconds
        moment_seconds = max(moment_seconds, end_seconds)
    return None


def _windows(freeze: Freeze, moment_seconds: float) -> Iterator[tuple[float, float]]:
    """Yield when each window begins and ends, from the last that began by the moment on."""
    begun_seconds = _last_start(freeze, _minute(moment_seconds))
    if begun_seconds is not None:
        yield begun_seconds, begun_seconds + freeze.duration_seconds
    for start in _starts(freeze, datetime.fromtimestamp(moment_seconds, UTC)):
        yield start.timestamp(), start.timestamp() + freeze.duration_seconds


def _end(freeze: Freeze, now_seconds: float) -> float:
    """Return when the last window that began by now ends, or ended."""
    begun_seconds = _last_start(freeze, _minute(now_seconds))
    return -1.0 if begun_seconds is None else begun_seconds + freeze.duration_seconds


@lru_cache(maxsize=1024)
def _last_start(freeze: Freeze, minute: int) -> float | None:
    """Return when a freeze last began, at the latest at this minute (Unix time / 60).

    A window begins with a minute, so the answer holds for all of that minute and is kept: a year's
    search back for each of a hundred freezes at every tick would keep the agent from its work.
    """
    # A minute on, because the search back begins before the moment it is given.
    now = datetime.fromtimestamp((minute + 1) * _MINUTE_SECONDS, UTC)
    start = next(_starts(freeze, now, backward=True), None)
    return start.timestamp() if start else None


def _minute(moment_seconds: float) -> int:
    return int(moment_seconds // _MINUTE_SECONDS)


def _starts(freeze: Freeze, moment: datetime, *, backward: bool = False) -> Iterator[datetime]:
    return CronSim(freeze.start, moment.astimezone(ZoneInfo(freeze.timezone)), reverse=backward)
