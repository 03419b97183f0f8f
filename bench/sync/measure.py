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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from bench.sync.cases import Case
from bench.sync.tools import Setting

_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One cold sync.

    `seconds` is until the command ended, `durable_seconds` until what it wrote was on the disk:
    the agent sees to that itself, for its peers the file system is told to (syncfs).
    `peak_bytes` is of the largest process alone.
    """

    seconds: float
    durable_seconds: float
    cpu_seconds: float
    peak_bytes: int
    failure: str = ""


def run_once(
    setting: Setting,
    case: Case,
    endpoint: str,
    home: Path,
    limit_seconds: float,
    sums: Mapping[str, int] | None,
) -> Run:
    """Sync into a new folder in `home`, check what came and remove it.

    All sizes are checked every time, and where `sums` are given every byte.
    """
    target = Path(tempfile.mkdtemp(dir=home))
    _sync_disk(home)
    words = {"endpoint": endpoint}
    added = {name: value.format(**words) for name, value in setting.environment.items()}
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": endpoint, **added}
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            setting.fill(case, target, endpoint),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        killer = threading.Timer(limit_seconds, os.killpg, (child.pid, signal.SIGKILL))
        killer.start()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begun
        killer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        _sync_disk(home)
        durable_seconds = time.perf_counter() - begun
        failure = _find_failure(case, target, child.returncode, sums)
        if failure:
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
            print(f"{failure}\n{text[-2000:]}", file=sys.stderr)
    shutil.rmtree(target)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Run(seconds, durable_seconds, cpu_seconds, usage.ru_maxrss * 1024, failure)


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


def _sync_disk(folder: Path) -> None:
    """Bring all that was written to the folder's file system to its disk (syncfs(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed")
    finally:
        os.close(descriptor)
