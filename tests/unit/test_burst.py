"""Many reasons to look, one look: by a clock that the test moves."""

import asyncio
import itertools
from collections.abc import Callable, Set
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reconciler.triggers.burst import LONGEST_SECONDS, QUIET_SECONDS, Burst


class MovedLoop(asyncio.SelectorEventLoop):
    """An event loop of which only the clock and the timers are used."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        self.timers = [timer for timer in self.timers if not timer.cancelled()]
        self.timers.append(asyncio.TimerHandle(when, callback, args, self))
        return self.timers[-1]

    def move(self, seconds: float) -> None:
        """Let time pass, timers going off on the way."""
        end = self.now + seconds
        while due := [t for t in self.timers if t.when() <= end and not t.cancelled()]:
            first = min(due, key=lambda timer: timer.when())
            self.timers.remove(first)
            self.now = first.when()
            first._run()
        self.now = end


@given(st.lists(st.tuples(st.floats(0, 3), st.sets(st.sampled_from("abc"))), max_size=60))
def test_everything_is_told_in_time_and_seldom(steps: list[tuple[float, set[str]]]) -> None:
    loop = MovedLoop()
    told: list[tuple[float, Set[str]]] = []
    burst = Burst(lambda names: told.append((loop.now, names)), loop)
    added: list[tuple[float, str]] = []
    for gap_seconds, names in steps:
        loop.move(gap_seconds)
        burst.add(names)
        added += [(loop.now, name) for name in names]
    loop.move(LONGEST_SECONDS)
    loop.close()
    for at, name in added:
        assert any(at <= when <= at + LONGEST_SECONDS and name in names for when, names in told)
    for (earlier, _), (later, _) in itertools.pairwise(told):
        assert later - earlier >= QUIET_SECONDS
    assert all(names for _, names in told)
    assert {name for _, names in told for name in names} == {name for _, name in added}


def test_what_comes_close_together_is_told_once_and_after_it_has_ended() -> None:
    loop = MovedLoop()
    told: list[tuple[float, Set[str]]] = []
    burst = Burst(lambda names: told.append((loop.now, names)), loop)
    for _ in range(8):
        burst.add({"a"})
        loop.move(0.5)
    burst.add({"b"})
    loop.move(60)
    loop.close()
    assert told == [(1000 + 4 + QUIET_SECONDS, {"a", "b"})]


def test_a_bucket_that_never_rests_is_told_all_the_same() -> None:
    loop = MovedLoop()
    told: list[float] = []
    burst = Burst(lambda names: told.append(loop.now), loop)
    for _ in range(50):
        burst.add({"a"})
        loop.move(QUIET_SECONDS / 2)
    loop.close()
    assert told == [1000 + LONGEST_SECONDS, 1000 + 2 * LONGEST_SECONDS]


def test_what_is_closed_tells_nothing() -> None:
    loop = MovedLoop()
    told: list[Set[str]] = []
    burst = Burst(told.append, loop)
    burst.add({"a"})
    burst.close()
    loop.move(60)
    loop.close()
    assert told == []
