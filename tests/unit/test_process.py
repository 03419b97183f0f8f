"""The one place that runs a command."""

import asyncio
import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from reconciler.errors import DeadlineError
from reconciler.process import run
from reconciler.threads import run_beside

PATH = {"PATH": os.environ["PATH"]}


def is_running(command_line: bytes) -> bool:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            if command_line in process.read_bytes():
                return True
    return False


def test_output_and_code_come_back() -> None:
    done = run(
        ["sh", "-c", "cat; echo out; echo err >&2; exit 3"], deadline_seconds=10, stdin=b"in\n"
    )
    assert (done.code, done.stdout, done.stderr) == (3, b"in\nout\n", "err")


def test_nothing_of_this_environment_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKS", "yes")
    assert b"LEAKS" not in run(["env"], deadline_seconds=10, env=PATH).stdout


def test_a_command_that_hangs_is_killed_with_all_it_started() -> None:
    script = "sleep 1000 & echo $!; exec sleep 1000"
    with pytest.raises(DeadlineError, match=r"sh did not end within .* and was stopped"):
        run(["sh", "-c", script], deadline_seconds=0.3, env=PATH)
    assert not is_running(b"sleep\x001000")


def test_what_runs_when_the_program_ends_is_killed() -> None:
    program = (
        "import threading, time\n"
        "from reconciler.process import run\n"
        "work = lambda: run(['sleep', '998'], deadline_seconds=900)\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.5)\n"
    )
    assert run([sys.executable, "-c", program], deadline_seconds=20).code == 0
    deadline = time.monotonic() + 10
    while is_running(b"sleep\x00998"):
        assert time.monotonic() < deadline


async def test_work_beside_the_loop_gives_its_result_or_its_error() -> None:
    assert await run_beside(lambda: 7, "seven") == 7
    with pytest.raises(ValueError, match="x"):
        await run_beside(lambda: int("x"), "fails")


async def test_work_beside_the_loop_can_be_left_behind() -> None:
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(10)
        ended.set()

    task = asyncio.create_task(run_beside(work, "slow"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert await asyncio.to_thread(ended.wait, 10)


def test_a_command_that_must_stop_may_clean_up_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"trap 'rm {lock}; exit 1' TERM; touch {lock}; while :; do sleep 0.02; done"
    with pytest.raises(DeadlineError):
        run(["sh", "-c", script], deadline_seconds=0.5, env=PATH)
    assert not lock.exists()


def test_a_command_that_does_not_want_to_stop_is_killed() -> None:
    with pytest.raises(DeadlineError):
        run(["sh", "-c", "trap '' TERM; sleep 997; :"], deadline_seconds=0.3, env=PATH)
    assert not is_running(b"sleep\x00997")
