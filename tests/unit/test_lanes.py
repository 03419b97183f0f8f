"""Reads take turns: as many at once as there are connections, none lost by those who give up."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from reconciler.sources.source import Halt
from reconciler.store.lanes import Lanes, Patience

_SECONDS = 10.0


class Reads:
    """Reads that go on until they are let go; `running` is who is at it."""

    def __init__(self, lanes: Lanes) -> None:
        self.running: list[str] = []
        self._lanes = lanes
        self._ends: dict[str, threading.Event] = {}

    def start(self, *names: str) -> list[asyncio.Task[None]]:
        """Begin reads in this order."""
        return [asyncio.create_task(self.read(name)) for name in names]

    async def read(self, name: str) -> None:
        """Read until it is let go."""
        self._ends[name] = threading.Event()
        await self._lanes.read(self._make(name))

    def end(self, *names: str) -> None:
        """Let reads come to their end."""
        for name in names:
            self._ends[name].set()

    async def wait_for(self, *names: str) -> None:
        """Wait until exactly these are at it."""
        async with asyncio.timeout(_SECONDS):
            while sorted(self.running) != sorted(names):
                await asyncio.sleep(0.005)

    def _make(self, name: str) -> Callable[[Halt], None]:
        def read(halt: Halt) -> None:
            self.running.append(name)
            with halt.ending(self._ends[name].set):
                assert self._ends[name].wait(_SECONDS)
            self.running.remove(name)

        return read


@asynccontextmanager
async def _open_lanes(connections: int) -> AsyncIterator[Reads]:
    lanes = Lanes(connections, Patience())
    try:
        yield Reads(lanes)
    finally:
        lanes.close()


async def test_reads_go_in_the_order_in_which_they_came() -> None:
    async with _open_lanes(2) as reads:
        tasks = reads.start("a", "b", "c", "d", "e")
        await reads.wait_for("a", "b")
        reads.end("a")
        await reads.wait_for("b", "c")
        reads.end("b", "c")
        await reads.wait_for("d", "e")
        reads.end("d", "e")
        await asyncio.gather(*tasks)


async def test_who_gives_up_takes_nobodys_turn() -> None:
    async with _open_lanes(2) as reads:
        a, b, c, d, e = reads.start("a", "b", "c", "d", "e")
        await reads.wait_for("a", "b")
        c.cancel()  # it waits
        await asyncio.wait([c])
        reads.end("a")
        await reads.wait_for("b", "d")
        b.cancel()  # it reads
        await reads.wait_for("d", "e")
        reads.end("d", "e")
        await asyncio.gather(a, d, e)
        assert b.cancelled()
        assert c.cancelled()


async def test_who_gives_up_when_it_is_its_turn_passes_it_on() -> None:
    following: list[asyncio.Task[None]] = []

    async def read_and_cancel_next(reads: Reads) -> None:
        await reads.read("a")
        following[0].cancel()  # in the very step that gave it its turn

    async with _open_lanes(1) as reads:
        a = asyncio.create_task(read_and_cancel_next(reads))
        await reads.wait_for("a")
        b, c = reads.start("b", "c")
        following.append(b)
        await asyncio.sleep(0)
        reads.end("a")
        await reads.wait_for("c")
        reads.end("c")
        await asyncio.gather(a, c)
        assert b.cancelled()
