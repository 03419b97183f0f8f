"""Blocking calls that may hang, each in a thread of its own.

asyncio's shared pool has few threads and the program cannot end before all of them are idle. A
listing or a fetch that hangs until its deadline must neither keep the tick from reading the disk
nor keep SIGTERM from ending the process, so such calls get a thread that nobody waits for.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

ResultT = TypeVar("ResultT")


async def run_beside(work: Callable[[], ResultT], name: str) -> ResultT:
    """Return what `work` returns or raise what it raises; cancelled, the thread goes on alone."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ResultT] = loop.create_future()

    def succeed(result: ResultT) -> None:
        if not future.done():
            future.set_result(result)

    def fail(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def run() -> None:
        # The loop may be closed by the time a call that nobody waits for comes back.
        with suppress(RuntimeError):
            try:
                result = work()
            except Exception as error:
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(succeed, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
