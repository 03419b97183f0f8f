"""Runs one command and says what it took: seconds, processor seconds, memory."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import google_crc32c

from bench.sync.cases import Case, Server
from bench.sync.clock import READY
from bench.sync.tools import Setting

_BLOCK_BYTES = 1024 * 1024
_SPARE_BYTES = 256 * 1024 * 1024
_WARM_SECONDS = 120
_LEFT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One cold sync.

    All but `start_cpu_seconds` begins when the command is started, or is told to begin where it is
    a process that was there before. `seconds` is until the command ended, `durable_seconds` until
    what it wrote was on the disk: the agent sees to that itself, for its peers the file system is
    told to (syncfs). `server_cpu_seconds` is what the server took of the same cores meanwhile.
    `peak_bytes` is of the largest process alone.
    """

    seconds: float
    durable_seconds: float
    cpu_seconds: float
    start_cpu_seconds: float
    server_cpu_seconds: float
    peak_bytes: int
    failure: str = ""


def run_once(
    setting: Setting,
    case: Case,
    endpoint: str,
    home: Path,
    limit_seconds: float,
    server: Server,
    *,
    is_first: bool,
) -> Run:
    """Sync into a new folder in `home`, check what came and remove it.

    All sizes are checked every time, and every byte of a setting's first run. Small files are left
    there: ext4 goes around the inodes of files that were removed within the last five seconds, at
    the expense of whoever comes next.
    """
    target = Path(tempfile.mkdtemp(dir=home))
    if not setting.is_loaded:
        _make_ready(home, case.total_bytes)
    words = {"endpoint": endpoint}
    added = {name: value.format(**words) for name, value in setting.environment.items()}
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": endpoint, **added}
    with tempfile.TemporaryFile() as said:
        begun = time.perf_counter()
        child = subprocess.Popen(
            setting.fill(case, target, endpoint),
            stdin=subprocess.PIPE if setting.is_loaded else subprocess.DEVNULL,
            stdout=subprocess.PIPE if setting.is_loaded else said,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
        killer = threading.Timer(limit_seconds, os.killpg, (child.pid, signal.SIGKILL))
        killer.start()
        start_cpu_seconds = 0.0
        server_cpu_seconds = server.read_cpu_seconds()
        if setting.is_loaded:
            start_cpu_seconds = _let_go(child, partial(_make_ready, home, case.total_bytes))
            begun = time.perf_counter()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begun
        server_cpu_seconds = server.read_cpu_seconds() - server_cpu_seconds
        killer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        _sync_disk(home)
        durable_seconds = time.perf_counter() - begun
        failure = _find_failure(case, target, child.returncode, server.sums if is_first else None)
        if failure:
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
            print(f"{failure}\n{text[-2000:]}", file=sys.stderr)
    if case.total_bytes > _LEFT_BYTES:
        shutil.rmtree(target)
    return Run(
        seconds,
        durable_seconds,
        usage.ru_utime + usage.ru_stime - start_cpu_seconds,
        start_cpu_seconds,
        server_cpu_seconds,
        usage.ru_maxrss * 1024,
        failure,
    )


def _let_go(child: "subprocess.Popen[bytes]", make_ready: Callable[[], None]) -> float:
    """Wait until a child has loaded all, tell it to begin, and return what loading cost."""
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin, child.stdout:
        word, _, cpu_seconds = child.stdout.readline().decode().partition(" ")
        if word != READY:
            return 0.0  # it ended, which its return code tells
        make_ready()
        child.stdin.write(b"\n")
    return float(cpu_seconds)


def _find_failure(case: Case, target: Path, code: int, sums: Mapping[str, int] | None) -> str:
    if code == -signal.SIGKILL:
        return "took too long"
    if code != 0:
        return f"ended with {code}"
    for path, size_bytes in case.list_files():
        file = target / path
        if not file.is_file() or file.stat().st_size != size_bytes:
            return f"did not bring {path} in its size"
        if sums is not None and _sum(file) != sums[path]:
            return f"brought other bytes as {path}"
    return ""


def _sum(path: Path) -> int:
    crc = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_BLOCK_BYTES):
            crc = google_crc32c.extend(crc, piece)
    return crc


def _make_ready(home: Path, count_bytes: int) -> None:
    """Give everybody the same start: memory that was in use, and a disk that has nothing to do."""
    _warm_memory(count_bytes)
    _sync_disk(home)


def _warm_memory(count_bytes: int) -> None:
    """Touch as much memory as the files will fill.

    A virtual machine has to get each page from its host before it is used for the first time, or
    again after it lay idle for two seconds; that costs more than to write it, and would be at the
    expense of whoever comes first, or takes long to be loaded.
    """
    code = "import mmap; mmap.mmap(-1, {}, flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE)"
    command = [sys.executable, "-c", code.format(count_bytes + _SPARE_BYTES)]
    subprocess.run(command, timeout=_WARM_SECONDS, check=True)


def _sync_disk(folder: Path) -> None:
    """Bring all that was written to the folder's file system to its disk (syncfs(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed")
    finally:
        os.close(descriptor)
