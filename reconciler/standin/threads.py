"""The few threading parts that TensorFlow Serving's behaviour rests on.

Sleeps here cannot be interrupted and executors finish what they were given before they close,
because theirs do: a reload after a failed first config takes a whole file-system poll just for
that. The process ends by signal, so nothing has to wait for them.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

_LOG = logging.getLogger(__name__)


class PeriodicFunction:
    """Runs a function at once and then every interval, counted from the start of the last run."""

    def __init__(self, function: Callable[[], None], interval_seconds: float, name: str) -> None:
        self._function = function
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the end of the running call and of the sleep after it."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            begin = time.monotonic()
            try:
                self._function()
            except Exception:
                # A loop that died would look like a hang of the real server.
                _LOG.exception("%s failed; it runs again", self._thread.name)
            time.sleep(max(0.0, begin + self._interval_seconds - time.monotonic()))


class Executor(Protocol):
    """Runs tasks: at once in the caller's thread, or later in its own."""

    def schedule(self, task: Callable[[], None]) -> None:
        """Run or queue `task`."""

    def close(self) -> None:
        """Finish every task that was scheduled."""


class InlineExecutor:
    """The executor of a server with 0 threads: the caller waits for each task."""

    def schedule(self, task: Callable[[], None]) -> None:
        """Run `task` to its end."""
        task()

    def close(self) -> None:
        """Do nothing; no task is ever left."""


class PoolExecutor:
    """An executor with threads of its own."""

    def __init__(self, threads: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def schedule(self, task: Callable[[], None]) -> None:
        """Queue `task`; an exception in it is logged."""
        self._pool.submit(_logged, task)

    def close(self) -> None:
        """Finish every queued task."""
        self._pool.shutdown(wait=True)


def make_executor(threads: int, name: str) -> Executor:
    """Return the executor that a `--num_..._threads` flag asks for."""
    return PoolExecutor(threads, name) if threads > 0 else InlineExecutor()


def _logged(task: Callable[[], None]) -> None:
    try:
        task()
    except Exception:
        _LOG.exception("a task failed")


class FairLock:
    """A mutex that is handed on in the order of asking.

    Reloads that nobody waits for any more are applied later in the order in which they were sent;
    threading.Lock promises no order.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the turn and keep the lock for the block."""
        with self._guard:
            turn = threading.Event() if self._held else None
            if turn:
                self._waiting.append(turn)
            self._held = True
        if turn:
            turn.wait()
        try:
            yield
        finally:
            with self._guard:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._held = False
