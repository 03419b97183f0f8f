"""When a freeze is on, by the clock of its time zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning import freeze as freeze_module
from reconciler.planning.freeze import find_freeze, find_mistake
from reconciler.policy import Freeze

BERLIN = ZoneInfo("Europe/Berlin")
WEEKEND = Freeze("0 18 * * fri", 62 * 3600.0, "Europe/Berlin", "weekend")


def at(*moment: int, zone: ZoneInfo = BERLIN) -> float:
    return datetime(*moment, tzinfo=zone).timestamp()  # type: ignore[arg-type, misc]


def test_a_freeze_begins_and_ends_to_the_second() -> None:
    begin, end = at(2026, 11, 20, 18), at(2026, 11, 23, 8)
    assert find_freeze([WEEKEND], "g", begin - 1) is None
    for moment in (begin, begin + 1, end - 1):
        found = find_freeze([WEEKEND], "g", moment)
        assert found is not None
        assert found.until_seconds == end
    assert find_freeze([WEEKEND], "g", end) is None


def test_a_night_in_which_the_clocks_change_counts_real_hours() -> None:
    night = Freeze("0 22 * * sat", 12 * 3600.0, "Europe/Berlin", "night")
    found = find_freeze([night], "g", at(2026, 10, 25, 1))
    assert found is not None
    assert found.until_seconds == at(2026, 10, 25, 9)  # the hour from two to three comes twice


def test_freezes_that_follow_each_other_are_one() -> None:
    next_one = Freeze("0 7 * * mon", 3 * 3600.0, "Europe/Berlin", "monday morning")
    found = find_freeze([WEEKEND, next_one], "g", at(2026, 11, 21, 12))
    assert found is not None
    assert found.until_seconds == at(2026, 11, 23, 10)
    assert found.reason == "weekend"


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"start": "0 0 30 2 *"}, "start", "ever comes"),
        ({"start": "61 0 * * *"}, "start", "ever comes"),
        ({"start": "0 18 * * frei"}, "start", "ever comes"),
        ({"timezone": "Europe/Berlim"}, "timezone", "no time zone"),
        ({"timezone": "/etc/passwd"}, "timezone", "no time zone"),
        ({"timezone": "Europe"}, "timezone", "no time zone"),
        ({"duration_seconds": 0.0}, "duration", "no length"),
        ({"duration_seconds": 8 * 86400.0}, "duration", "never ends"),
        ({"start": "0 0 29 2 *", "duration_seconds": 367 * 86400.0}, "duration", "366d at most"),
        ({"duration_seconds": 300_000 * 86400.0}, "duration", "366d at most"),
    ],
)
def test_a_freeze_that_cannot_be_meant_is_named(
    change: dict[str, object], field: str, words: str
) -> None:
    values = {name: getattr(WEEKEND, name) for name in WEEKEND.__slots__}
    found = find_mistake(Freeze(**{**values, **change}))
    assert found is not None
    assert found[0] == field
    assert words in found[1]


def test_a_day_that_comes_every_four_years_comes() -> None:
    leap = Freeze("0 0 29 2 *", 86400.0, "UTC", "leap day")
    assert find_mistake(leap) is None
    assert find_freeze([leap], "g", datetime(2028, 2, 29, 12, tzinfo=UTC).timestamp()) is not None


@given(
    st.integers(0, 23),
    st.integers(1, 20),
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
def test_the_end_is_the_first_moment_that_is_free(
    hour: int, hours: int, moment: datetime, zone: str
) -> None:
    freeze = Freeze(f"0 {hour} * * *", hours * 3600.0, zone, "nightly")
    now = moment.replace(tzinfo=UTC).timestamp()
    found = find_freeze([freeze], "g", now)
    if found is not None:
        assert now < found.until_seconds <= now + hours * 3600
        assert find_freeze([freeze], "g", found.until_seconds) is None
        assert find_freeze([freeze], "g", found.until_seconds - 1) is not None


@given(
    st.lists(st.tuples(st.integers(0, 23), st.integers(0, 59), st.integers(1, 1300)), max_size=6),
    st.datetimes(datetime(2026, 3, 27), datetime(2026, 3, 31)),
)
def test_freezes_that_overlap_end_when_the_last_of_them_does(
    written: list[tuple[int, int, int]], moment: datetime
) -> None:
    freezes = [
        Freeze(f"{minute} {hour} * * sat", minutes * 60.0, "Europe/Berlin", "overlap")
        for hour, minute, minutes in written
    ]
    now = moment.replace(tzinfo=UTC).timestamp()
    found = find_freeze(freezes, "g", now)
    if found is None:
        return
    moments = [now, *(now // 60 * 60 + 60 * step for step in range(1, 4 * 24 * 60))]
    inside = [at for at in moments if at < found.until_seconds]
    assert all(find_freeze(freezes, "g", at) == found for at in inside[:: len(inside) // 20 + 1])
    assert find_freeze(freezes, "g", found.until_seconds) is None


def test_a_hundred_freezes_that_never_leave_a_gap_cost_a_tick_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searches: list[str] = []

    def count(start: str, *arguments: object, **options: object) -> object:
        searches.append(start)
        return CronSim(start, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(freeze_module, "CronSim", count)
    freezes = [
        Freeze(f"{number % 60} {number % 24} * * *", 3 * 3600.0, "UTC", "all day long")
        for number in range(100)
    ]
    now = at(2026, 11, 21, 12)
    assert find_freeze(freezes, "g", now) is not None
    assert len(searches) <= 3 * len(freezes)
    searches.clear()
    for seconds in range(60):
        assert find_freeze(freezes, "g", now + seconds) is not None
    assert searches == []
