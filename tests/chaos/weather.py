"""Two proxies on a loop of their own, before the bucket and before git, and what they spoil.

Which answer is spoilt, and how, follows from the seed, the request and how often it was seen; not
from when it came, so that a run can be repeated as far as two processes can be.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from urllib.parse import urlsplit

from tests.chaos.script import Weather
from tests.faultproxy import Fault, FaultProxy, Request, run_proxy

_PLACES_BYTES = (0, 3, 30, 150, 1000, 5000, 30_000)
"""Where in an answer it goes wrong; the tests' models have files of very different lengths."""


class Sky:
    """The weather in front of one server."""

    def __init__(self, proxy: FaultProxy, seed: int) -> None:
        self.proxy = proxy
        self.spoilt: Counter[str] = Counter()
        self._seed = seed
        self._seen: Counter[str] = Counter()
        self._weather: Weather | None = None
        proxy.rules.append(self._spoil)

    def turn(self, weather: Weather | None) -> None:
        """Let this be the weather; None for a calm."""
        self._weather = weather

    def _spoil(self, request: Request) -> Fault | None:
        weather = self._weather
        if weather is None:
            return None
        place = f"{request.method} {urlsplit(request.target).path} {request.headers.get('range')}"
        self._seen[place] += 1
        dice = random.Random(f"{self._seed} {place} {self._seen[place]}")
        kind = dice.choice(weather.faults)
        if dice.random() >= weather.share or (kind == "flip" and not request.is_read):
            return None  # a flipped bit of a listing is for TLS to find
        self.spoilt[kind] += 1
        return _make(kind, dice)


def _make(kind: str, dice: random.Random) -> Fault:
    at = dice.choice(_PLACES_BYTES)
    match kind:
        case "late":
            return Fault(delay_seconds=dice.uniform(0.05, 1.0))
        case "too many":
            return Fault(status=429)
        case "unavailable":
            return Fault(status=503)
        case "gone":
            return Fault(action="drop")
        case "garbage":
            return Fault(status=200, body=b"<html>Please log in</html>", kind="text/html")
        case "longer":
            return Fault(replace_headers={"content-length": "1000000"})
        case "drip":
            return Fault(drip_bytes=dice.choice([50, 500, 5000]))
        case _:
            return Fault(action=kind, after_bytes=at)


@contextmanager
def run_skies(seed: int, *upstreams: str) -> Iterator[list[Sky]]:
    """Put a proxy before each server during the block."""
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()
    skies: list[Sky] = []

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for upstream in upstreams:
                skies.append(Sky(await stack.enter_async_context(run_proxy(upstream)), seed))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(10), "the proxies did not start"
        yield skies
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
