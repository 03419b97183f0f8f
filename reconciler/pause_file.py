"""The break-glass pause of one node: a small file that an operator's command writes.

It has a reason and an end, and ends by itself: a pause that somebody forgot would keep a node from
every change for ever. It is read at every tick, so that it holds across restarts of the agent.
"""

import json
import logging
import math
from functools import lru_cache
from pathlib import Path

from reconciler.files import sync_folder, write_atomically
from reconciler.model import Pause

_log = logging.getLogger(__name__)

MAX_PAUSE_SECONDS = 7 * 86400.0
_MAX_BYTES = 64 * 1024


def save(state_dir: Path, pause: Pause) -> None:
    """Pause the node whose state is in `state_dir`; raises OSError."""
    content = {"reason": pause.reason, "until_seconds": pause.until_seconds}
    write_atomically(_path(state_dir), json.dumps(content).encode())
    # Whoever pauses may be another user than the agent, which must be able to read it.
    _path(state_dir).chmod(0o644)


def load(state_dir: Path) -> Pause | None:
    """Return the pause, which may be over, or None where there is none that can be read."""
    path = _path(state_dir)
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_BYTES))
        until_seconds = float(content["until_seconds"])
        if not math.isfinite(until_seconds):
            raise ValueError("it names no end")
        return Pause(str(content["reason"]), until_seconds)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        _warn_once(path, f"{error}")
        return None


def remove(state_dir: Path) -> bool:
    """End the pause and return whether there was one; raises OSError."""
    path = _path(state_dir)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True


@lru_cache(maxsize=8)
def _warn_once(path: Path, error: str) -> None:
    # It is read at every tick; what is wrong with it is said once.
    _log.warning("%s cannot be read, so this node is not paused: %s", path, error)


def _path(state_dir: Path) -> Path:
    return state_dir / "pause.json"
