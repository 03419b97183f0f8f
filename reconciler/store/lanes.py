"""What all downloads of a node share: the connections, the threads, the patience.

One budget of connections over all models, because it is the node's line and the bucket's request
rate that are limited, not a model's. Each connection has a thread, which takes bytes from the line,
sums them up and writes them while they are still in the processor's cache; a hop to another thread
for each piece would cost more than all of that. What else the disk is asked runs in a few threads
of its own: a slow disk must not hold up the event loop, nor the threads that git and listings use.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ParamSpec, TypeVar

from reconciler.sources.source import Halt
from reconciler.threads import run_beside

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 16
_BATCH_ITEMS = 16
_READ_SECONDS = 900.0
"""A chunk on a slow line may take minutes; a line that stalls is given up by its source."""
_END_SECONDS = 0.5
"""How long a cancelled read is waited for, so that it does not write beside its successor."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often one chunk is tried, and how long between: doubling, with jitter."""

    attempts: int = 6
    first_seconds: float = 0.5
    longest_seconds: float = 30.0

    def delay_seconds(self, attempt: int) -> float:
        """Return how long to wait after the attempt of this number, counted from 1.

        Half of it is chance, so that a fleet which was refused together does not return together.
        """
        whole = min(self.first_seconds * 2 ** (attempt - 1), self.longest_seconds)
        return random.uniform(whole / 2, whole)  # noqa: S311 - spreads load, guards nothing


async def work_off(items: Iterable[T], work: Callable[[T], Awaitable[None]], workers: int) -> None:
    """Do `work` for all items, `workers` of them at a time; the first failure stops the others.

    However many items there are, there are only as many tasks as workers.
    """
    pending = iter(items)

    async def work_on() -> None:
        for item in pending:
            await work(item)

    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work_on())
    except BaseExceptionGroup as errors:
        failure = errors.exceptions[0]  # the others were stopped by it and have nothing to add
    if failure is not None:
        raise failure


def make_batches(items: Iterable[T], most: int) -> Iterator[list[T]]:
    """Yield all items in lists of at most so many."""
    pending = iter(items)
    while batch := list(islice(pending, most)):
        yield batch


class Lanes:
    """`connections` reads at once, and threads for the disk."""

    def __init__(self, connections: int, patience: Patience) -> None:
        self.count = connections
        self.connections = asyncio.Semaphore(connections)
        self.patience = patience
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a short blocking function in a thread.

        On cancellation the caller goes on at once and the function ends by itself.
        """
        call = asyncio.get_running_loop().run_in_executor
        return await call(self._threads, lambda: function(*args, **kwargs))

    async def finish(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function that must not be left half observed.

        On cancellation the caller still waits for its end, so that nobody starts the same thing
        beside it.
        """
        task = asyncio.ensure_future(self.run(function, *args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise

    async def run_all(self, function: Callable[[T], None], items: Iterable[T]) -> None:
        """Run a blocking function for all items, in as many threads as there are."""

        def run_batch(batch: list[T]) -> None:
            for item in batch:
                function(item)

        async def work(batch: list[T]) -> None:
            await self.run(run_batch, batch)

        await work_off(make_batches(items, _BATCH_ITEMS), work, _THREADS)

    async def read(self, function: Callable[[Halt], None]) -> None:
        """Run a function that reads from a source on a connection of its own.

        On cancellation its read is ended, and the caller goes on as soon as the function has.
        """
        async with self.connections:
            halt = Halt()
            # In a thread that nobody has to wait for: the search for a name may hang for long.
            reading = asyncio.ensure_future(run_beside(partial(function, halt), "read"))
            try:
                done, _ = await asyncio.wait([reading], timeout=_READ_SECONDS)
            except asyncio.CancelledError:
                halt.call()
                await asyncio.wait([reading], timeout=_END_SECONDS)
                if reading.done() and not reading.cancelled():
                    reading.exception()  # nobody asks what came of it
                reading.cancel()
                raise
            if not done:
                halt.call()
            await reading

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=True, cancel_futures=True)
