"""Kills between any two steps of something, without a line of it being other than in production."""

import os
import sys
import time
from collections.abc import Callable


def die_before_step(number: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that ends itself before its n-th change of the file system.

    Returns whether the child came to its end before that.
    """
    child = os.fork()
    if child == 0:
        steps = 0

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal steps
            writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
            opens = event == "open" and arguments[1] is None
            named = event in (
                "os.rename",
                "os.link",
                "os.remove",
                "os.mkdir",
                "os.rmdir",
                "os.chmod",
            )
            if writes or opens or named or event.startswith("ctypes."):
                steps += 1
                if steps == number:
                    os._exit(9)

        sys.addaudithook(count)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            assert code in (0, 9), f"the step failed by itself ({code})"
            return code == 0
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the child did not end")
