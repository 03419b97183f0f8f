"""How the engine is called from the loop: beside it, and with a line in the log for a change."""

import logging
from collections.abc import Callable
from typing import TypeVar

from reconciler.threads import run_beside

_log = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")


async def ask(call: Callable[[], ResultT]) -> ResultT:
    """Return what the engine answers; raises EngineError."""
    return await run_beside(call, "supervision")


async def make_change(done: str, call: Callable[[], None]) -> None:
    """Make a change, and say what was done once it is; raises EngineError."""
    await ask(call)
    _log.info("%s", done)
