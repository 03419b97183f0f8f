"""How often somebody may ask, by a clock that goes where it is told."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.status.limits import MAX_CLIENTS, ClientLimits


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def let_through(limits: ClientLimits, address: str, count: int) -> int:
    return sum(limits.take(address) == 0 for _ in range(count))


def test_a_client_has_a_burst_and_then_a_rate() -> None:
    clock = Clock()
    limits = ClientLimits(60, 3, clock)
    assert let_through(limits, "10.0.0.1", 5) == 3
    assert limits.take("10.0.0.1") == 1.0
    clock.seconds += 2
    assert let_through(limits, "10.0.0.1", 5) == 2
    clock.seconds += 3600
    assert let_through(limits, "10.0.0.1", 5) == 3


def test_one_client_does_not_use_up_what_another_is_allowed() -> None:
    limits = ClientLimits(60, 3, Clock())
    let_through(limits, "10.0.0.1", 5)
    assert let_through(limits, "10.0.0.2", 5) == 3
    assert let_through(limits, "", 5) == 3


def test_who_has_a_network_of_addresses_is_one_client() -> None:
    limits = ClientLimits(60, 3, Clock())
    assert let_through(limits, "2001:db8:1:2::1", 2) == 2
    assert let_through(limits, "2001:db8:1:2:ffff::9", 5) == 1
    assert let_through(limits, "2001:db8:1:3::1", 5) == 3
    assert let_through(limits, "::ffff:10.0.0.1", 2) == 2
    assert let_through(limits, "10.0.0.1", 5) == 1, "by IPv4, or by IPv6 on the same socket"
    assert let_through(limits, "fe80::1%eth0", 5) == 3


def test_no_more_than_so_many_clients_are_remembered() -> None:
    limits = ClientLimits(60, 1, Clock())
    limits.take("first")
    for number in range(MAX_CLIENTS - 1):
        limits.take(str(number))
    assert limits.take("first") > 0, "who asks on is not forgotten"
    for number in range(MAX_CLIENTS, MAX_CLIENTS + 10):
        limits.take(str(number))
    assert len(limits) == MAX_CLIENTS
    assert limits.take("first") > 0
    assert limits.take("0") == 0, "who was silent for longest is"


@given(
    st.lists(
        st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "::1"]), st.floats(0, 3)), max_size=60
    )
)
def test_nobody_is_ever_let_through_more_often_than_burst_and_rate_allow(
    asked: list[tuple[str, float]],
) -> None:
    clock = Clock()
    limits = ClientLimits(60, 3, clock)
    times: dict[str, list[float]] = {}
    for address, pause_seconds in asked:
        clock.seconds += pause_seconds
        if limits.take(address) == 0:
            times.setdefault(address, []).append(clock.seconds)
    for seconds in times.values():
        for first in range(len(seconds)):
            for last in range(first, len(seconds)):
                allowed = 3 + (seconds[last] - seconds[first]) * 1.0
                assert last - first + 1 <= allowed + 1e-6
