"""Whose turn it is: everybody's within a round, and at once where that was asked for."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.rotation import (
    ALONG,
    LONGEST_DELAY_SECONDS,
    MOST_URGENT,
    ROUND_SECONDS,
    Rotation,
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def make(clock: Clock, *, all_at_once: int = 0) -> Rotation:
    return Rotation(clock, all_at_once)


NAMES = [f"model-{number:03d}" for number in range(300)]


@given(st.lists(st.tuples(st.floats(0.1, 10), st.booleans()), min_size=1, max_size=200))
def test_everybody_comes_up_within_a_round(looks: list[tuple[float, bool]]) -> None:
    clock = Clock()
    rotation = make(clock)
    seen = dict.fromkeys(rotation.take(NAMES, ()), 0.0)
    assert seen.keys() == set(NAMES)
    for pause, has_urgent in looks:
        clock.now += pause
        seen |= dict.fromkeys(rotation.take(NAMES, NAMES[:1] if has_urgent else ()), clock.now)
        late_seconds = pause + LONGEST_DELAY_SECONDS
        assert all(clock.now - at <= ROUND_SECONDS + late_seconds for at in seen.values())


def test_what_is_urgent_does_not_wait_for_a_whole_share_which_is_made_up_for_later() -> None:
    clock = Clock()
    rotation = make(clock)
    names = [f"model-{number}" for number in range(12_000)]
    rotation.take(names, ())
    clock.now += 4
    assert len(rotation.take(names, names[-1:])) == ALONG + 1
    clock.now += 0.1
    assert len(rotation.take(names, ())) == 410 - ALONG
    clock.now += LONGEST_DELAY_SECONDS
    assert len(rotation.take(names, names[-1:])) == 501


def test_a_look_takes_the_share_of_the_time_that_has_passed() -> None:
    clock = Clock()
    rotation = make(clock)
    rotation.take(NAMES, ())
    clock.now += ROUND_SECONDS / 100
    first = rotation.take(NAMES, ())
    clock.now += ROUND_SECONDS / 100
    second = rotation.take(NAMES, ())
    assert len(first) == len(second) == 3
    assert not first & second


def test_urgent_and_new_names_come_at_once_and_gone_ones_never() -> None:
    clock = Clock()
    rotation = make(clock)
    rotation.take(NAMES, ())
    assert rotation.take([*NAMES[:10], "new"], ["model-007", "gone"]) == {"model-007", "new"}
    rotation.take(NAMES[200:], ())
    clock.now += ROUND_SECONDS / 4
    assert len(rotation.take(NAMES[200:], ()) & set(NAMES[200:])) == 25
    assert rotation.take(NAMES[:10], NAMES) == set(NAMES[:10])


def test_a_few_names_all_come_each_time_and_so_do_all_after_a_long_pause() -> None:
    clock = Clock()
    few = make(clock, all_at_once=300)
    many = make(clock)
    for rotation in (few, many):
        rotation.take(NAMES, ())
    assert few.take(NAMES, ()) == set(NAMES)
    clock.now += ROUND_SECONDS
    assert many.take(NAMES, ()) == set(NAMES)


def test_when_nearly_everything_is_urgent_it_comes_in_turns() -> None:
    clock = Clock()
    rotation = make(clock)
    names = [f"model-{number}" for number in range(2 * MOST_URGENT)]
    rotation.take(names, ())
    first, second = rotation.take(names, names), rotation.take(names, names)
    assert len(first) == len(second) == MOST_URGENT
    assert first | second == set(names)


def test_what_could_not_be_learnt_comes_again_at_once() -> None:
    rotation = make(Clock())
    rotation.take(NAMES, ())
    rotation.forget(NAMES[:100])
    assert rotation.take(NAMES, ()) == set(NAMES[:100])
