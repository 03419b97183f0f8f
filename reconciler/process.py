"""The only place that runs a command.

Every command has a deadline, its own process group and a bounded output, so that a hanging git,
or the ssh it started, can neither hold the agent up nor outlive it.
"""

import atexit
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import DeadlineError

_children: set[int] = set()
"""Process groups that run now. They outlive this process unless it kills them at its end."""

_PATIENCE_SECONDS = 1.0
"""How long a command that must stop may take to remove its lock files, as git does at SIGTERM."""
_MAX_STDERR_BYTES = 16 * 1024
_MAX_STDOUT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left behind: its exit code and both outputs, cut at their bounds."""

    code: int
    stdout: bytes
    stderr: str


def run(
    command: Sequence[str],
    *,
    deadline_seconds: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
) -> Completed:
    """Run `command` to its end and return what it printed; a non-zero code is not an error here.

    `env` is the whole environment of the command, nothing is inherited beside it.

    Raises DeadlineError when the command does not end in time; it and everything it started has
    then been killed.
    """
    with subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env) if env is not None else None,
        cwd=cwd,
        start_new_session=True,
    ) as child:
        _children.add(child.pid)
        try:
            stdout, stderr = child.communicate(stdin, timeout=deadline_seconds)
        except BaseException as error:
            _stop(child)
            if isinstance(error, subprocess.TimeoutExpired):
                raise DeadlineError(
                    f"{Path(command[0]).name} did not end within {deadline_seconds:g} s"
                    " and was stopped"
                ) from None
            raise
        finally:
            _children.discard(child.pid)
    return Completed(
        child.returncode,
        stdout[:_MAX_STDOUT_BYTES],
        stderr[-_MAX_STDERR_BYTES:].decode("utf-8", "replace").strip(),
    )


def _stop(child: "subprocess.Popen[bytes]") -> None:
    _kill(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=_PATIENCE_SECONDS)
    _kill(child.pid)  # what is left of the group, whether or not its first process has ended
    child.communicate()


def _kill(group: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


@atexit.register
def _kill_children() -> None:
    for group in tuple(_children):
        _kill(group)
