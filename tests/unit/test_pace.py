"""How soon to look again while something is on its way."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.pace import FIRST_SECONDS, LAST_SECONDS, Pace
from tests.unit.test_rotation import Clock


def test_looks_come_close_together_at_first_then_further_apart_and_close_again() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.pause_seconds(0.0) == FIRST_SECONDS
    clock.now += 2
    assert FIRST_SECONDS < pace.pause_seconds(0.0) < LAST_SECONDS
    clock.now += 60
    assert pace.pause_seconds(0.0) == LAST_SECONDS
    pace.begin()
    assert pace.pause_seconds(0.0) == FIRST_SECONDS


@given(st.floats(0, 1e6), st.floats(0, 1e3))
def test_a_look_takes_a_quarter_of_the_time_at_most_and_comes_ten_times_a_second(
    waited_seconds: float, look_seconds: float
) -> None:
    clock = Clock()
    pace = Pace(clock)
    clock.now += waited_seconds
    pause_seconds = pace.pause_seconds(look_seconds)
    assert FIRST_SECONDS <= pause_seconds <= LAST_SECONDS
    assert pause_seconds == LAST_SECONDS or pause_seconds >= 3 * look_seconds
