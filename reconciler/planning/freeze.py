"""When changes are frozen: cron lines with a duration, each by the clock of its time zone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from reconciler.policy import Freeze

_A_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
_MAX_WINDOWS = 400
"""So many windows without a gap, a year of daily ones, are a freeze that never ends."""


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
    except (ZoneInfoNotFoundError, ValueError):
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
    if _find_end([freeze], start.timestamp()) is None:
        return "duration", (
            "the freeze begins anew before it is over and so never ends; shorten it, or write"
            " `suspend: true` in the groups that are meant"
        )
    return None


def find_freeze(freezes: Iterable[Freeze], group: str, now_seconds: float) -> Frozen | None:
    """Return until when a group is frozen at `now_seconds` (Unix time), None if it is not."""
    meant = [freeze for freeze in freezes if not freeze.groups or group in freeze.groups]
    frozen_by = next((freeze for freeze in meant if _end(freeze, now_seconds) is not None), None)
    if frozen_by is None:
        return None
    until_seconds = _find_end(meant, now_seconds)
    if until_seconds is None:
        until_seconds = _end(frozen_by, now_seconds) or now_seconds
    return Frozen(until_seconds, frozen_by.timezone, frozen_by.reason)


def _find_end(freezes: list[Freeze], now_seconds: float) -> float | None:
    """Return when the first moment after `now_seconds` is that no freeze covers, if any is."""
    end_seconds = now_seconds
    for _ in range(_MAX_WINDOWS):
        ends = [end for freeze in freezes if (end := _end(freeze, end_seconds)) is not None]
        if not ends:
            return end_seconds
        end_seconds = max(ends)
    return None


def _end(freeze: Freeze, now_seconds: float) -> float | None:
    """Return the end of the freeze's window that `now_seconds` is in, None if it is in none."""
    # A minute on, because the search back begins before the moment it is given.
    now = datetime.fromtimestamp(now_seconds, UTC) + timedelta(minutes=1)
    for start in _starts(freeze, now, backward=True):
        if start.timestamp() <= now_seconds:
            end_seconds = start.timestamp() + freeze.duration_seconds
            return end_seconds if now_seconds < end_seconds else None
    return None


def _starts(freeze: Freeze, moment: datetime, *, backward: bool = False) -> Iterator[datetime]:
    return CronSim(freeze.start, moment.astimezone(ZoneInfo(freeze.timezone)), reverse=backward)
