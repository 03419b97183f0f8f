"""A proxy that breaks HTTP on purpose: what networks, load balancers and full buckets do.

It stands between a client and a real server, counts what passes, and asks its rules about every
request; the first that answers with a Fault decides. Every connection carries one request.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_BLOCK_BYTES = 64 * 1024
_DRIP_SECONDS = 0.02


@dataclass
class Request:
    """One request as it passed, with what went back so far."""

    method: str
    target: str
    headers: dict[str, str]
    sent_bytes: int = 0
    """Bytes of the answer's body that went to the client."""

    @property
    def is_listing(self) -> bool:
        """Whether it lists a bucket."""
        return self.method == "GET" and urlsplit(self.target).path.endswith("/o")

    @property
    def is_read(self) -> bool:
        """Whether it reads an object's bytes."""
        return self.method == "GET" and self.target.startswith("/download/")

    @property
    def decoded(self) -> str:
        """The target as a person would write it."""
        return unquote(self.target)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    `status` answers instead of the server, with `body` of the type `kind`. Otherwise the body
    passes up to `after_bytes` and then `reset` (RST), `cut` (closed too early), `stall` (nothing
    more comes) or `flip` (one bit of the next byte) happens; `shorten` claims the shorter length,
    as if that were all. `drop` resets the connection before any answer. `delay_seconds` holds the
    answer back, `drip_bytes` sends only as many bytes at a time, with a short pause after each.
    """

    status: int = 0
    action: str = ""
    after_bytes: int = 0
    replace_headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    kind: str = "application/json"
    delay_seconds: float = 0.0
    drip_bytes: int = 0


Rule = Callable[[Request], Fault | None]


def once(fault: Fault, matches: Callable[[Request], bool], times: int = 1) -> Rule:
    """Return a rule that applies `fault` to the first `times` requests that match."""
    left = times

    def rule(request: Request) -> Fault | None:
        nonlocal left
        if left > 0 and matches(request):
            left -= 1
            return fault
        return None

    return rule


def always(fault: Fault, matches: Callable[[Request], bool]) -> Rule:
    """Return a rule that applies `fault` to every request that matches."""
    return lambda request: fault if matches(request) else None


class FaultProxy:
    """A running proxy; `requests` are those seen, in order."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self.stalled = asyncio.Event()
        """Set once an answer has stalled."""
        self.open_reads = 0
        self.most_open_reads = 0

    @property
    def environment(self) -> dict[str, str]:
        """What points a client at this proxy."""
        return {"STORAGE_EMULATOR_HOST": self.url}

    @property
    def reads(self) -> list[Request]:
        """The requests for bytes of objects."""
        return [request for request in self.requests if request.is_read]

    @property
    def listings(self) -> list[Request]:
        """The requests for a page of a listing."""
        return [request for request in self.requests if request.is_listing]

    @property
    def read_bytes(self) -> int:
        """How many bytes of objects went to clients."""
        return sum(request.sent_bytes for request in self.reads)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
        method, target, _ = line.split(" ", 2)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, target, headers)
        self.requests.append(request)
        fault = next((fault for rule in self.rules if (fault := rule(request))), Fault())
        if fault.delay_seconds:
            await asyncio.sleep(fault.delay_seconds)
        if fault.action == "drop":
            _reset(writer)
            return
        if fault.status:
            writer.write(
                f"HTTP/1.1 {fault.status} Made up\r\nContent-Length: {len(fault.body)}\r\n"
                f"Content-Type: {fault.kind}\r\nConnection: close\r\n\r\n".encode()
                + fault.body
            )
            await writer.drain()
            return
        self.open_reads += request.is_read
        self.most_open_reads = max(self.most_open_reads, self.open_reads)
        upstream_reader, upstream = await asyncio.open_connection(self._host, self._port)
        try:
            passed = {**headers, "host": f"{self._host}:{self._port}", "connection": "close"}
            upstream.write(_join_head(line, passed) + body)
            await upstream.drain()
            await self._answer(request, fault, upstream_reader, reader, writer)
        finally:
            self.open_reads -= request.is_read
            upstream.close()

    async def _answer(
        self,
        request: Request,
        fault: Fault,
        upstream: asyncio.StreamReader,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        line, headers = _parse_head(await upstream.readuntil(b"\r\n\r\n"))
        headers = {**headers, "connection": "close", **fault.replace_headers}
        if fault.action == "shorten":
            headers["content-length"] = str(fault.after_bytes)
        writer.write(_join_head(line, headers))
        while block := await upstream.read(fault.drip_bytes or _BLOCK_BYTES):
            at = fault.after_bytes - request.sent_bytes
            hit = bool(fault.action) and 0 <= at < len(block)
            if hit and fault.action == "flip":
                block = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
            elif hit:
                block = block[:at]
            writer.write(block)
            request.sent_bytes += len(block)
            await writer.drain()
            if fault.drip_bytes:
                await asyncio.sleep(_DRIP_SECONDS)
            if hit and fault.action == "stall":
                self.stalled.set()
                await reader.read()  # until the client has had enough
            if hit and fault.action == "reset":
                _reset(writer)
            if hit and fault.action != "flip":
                return

    async def close(self) -> None:
        """Drop all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def run_proxy(upstream: str) -> AsyncIterator[FaultProxy]:
    """Run a proxy in front of `upstream` in this event loop."""
    proxy = FaultProxy(upstream)
    server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()


def _parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    line, *rest = head.decode("latin-1").split("\r\n")
    pairs = (item.split(":", 1) for item in rest if item)
    return line, {name.lower(): value.strip() for name, value in pairs}


def _join_head(line: str, headers: dict[str, str]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
