"""How often somebody may ask: token buckets, one for all or one for each client address.

The limits are far above what pages, agents and scrapers ask together from behind one address. They
are there so that a loop that ran wild somewhere costs its owner, and not the node.
"""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 4096
"""How many are remembered; those that have been silent for longest are forgotten."""
_NETWORK_BITS = 64
"""What one customer of IPv6 has at least; more of an address anybody can change at will."""


class TokenBucket:
    """Lets `burst` through at once, then `per_minute`."""

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_minute / 60
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock()

    def take(self) -> float:
        """Take one token and return 0, or return in how many seconds there will be one."""
        now = self._clock()
        earned = (now - self._filled_at) * self._per_second
        self._tokens, self._filled_at = min(self._burst, self._tokens + earned), now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        return 0.0


class ClientLimits:
    """A bucket for each client address."""

    def __init__(
        self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_minute = per_minute
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str) -> float:
        """Count one request; return 0, or in how many seconds the next one is let through."""
        client = _name_client(address)
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = TokenBucket(self._per_minute, self._burst, self._clock)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(client)
        return bucket.take()

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._buckets)


def _name_client(address: str) -> str:
    """Return what is one client: an IPv4 address, or a network of IPv6."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(int(parsed) >> (128 - _NETWORK_BITS))
