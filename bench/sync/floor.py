"""How fast the server can be: all of a case is fetched and thrown away, by as little as can be.

It is the bound of what any client can reach on this machine, before it has summed up or written a
byte. Each connection asks for the next objects before it has the last, and large bodies are dropped
in the kernel.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from urllib.parse import quote

from bench.sync.cases import BUCKET, PREFIX, Case

_CONNECTIONS = 4
_AHEAD = 8
_CHUNK_BYTES = 16 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
_SECONDS = 60.0
_LENGTH = b"content-length:"


def measure_floor(case: Case, port: int) -> float:
    """Return the seconds until every byte of a case has come once."""
    requests = deque(_list_requests(case, port))
    readers = [threading.Thread(target=_drain, args=(requests, port)) for _ in range(_CONNECTIONS)]
    begun = time.perf_counter()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return time.perf_counter() - begun


def _list_requests(case: Case, port: int) -> Iterator[bytes]:
    for path, size_bytes in case.list_files():
        name = quote(f"{PREFIX}/{path}", safe="")
        for start in range(0, size_bytes, _CHUNK_BYTES):
            end = min(start + _CHUNK_BYTES, size_bytes)
            yield (
                f"GET /download/storage/v1/b/{BUCKET}/o/{name}?alt=media HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{port}\r\nAccept-Encoding: gzip\r\n"
                f"Range: bytes={start}-{end - 1}\r\n\r\n"
            ).encode()


def _drain(requests: deque[bytes], port: int) -> None:
    buffer = bytearray(_BUFFER_BYTES)
    rest, asked = b"", 0
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as line:
        while True:
            while asked < _AHEAD and requests:
                line.sendall(requests.popleft())
                asked += 1
            if not asked:
                return
            while (end := rest.find(b"\r\n\r\n") + 4) < 4:
                rest += line.recv(_BUFFER_BYTES)
            head = rest[:end].lower()
            length = head[head.index(_LENGTH) + len(_LENGTH) :].partition(b"\r")[0]
            left = int(length) - (len(rest) - end)
            rest = rest[end:][int(length) :]
            while left > 0:
                left -= line.recv_into(buffer, min(left, _BUFFER_BYTES), socket.MSG_TRUNC)
            asked -= 1
