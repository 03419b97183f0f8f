"""Clients that ask all the time, beside what a test does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def asking(*loops: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run each loop in a thread of its own, until the block ends and sets its event."""
    stop = threading.Event()
    threads = [threading.Thread(target=loop, args=(stop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
