"""What other machines say: nodes, forges, Nomad, and the bucket of its listings."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from threading import Thread

from reconciler.errors import ReconcilerError
from reconciler.fleet.answers import read_answer
from reconciler.membership import dns, nomad
from reconciler.model import Membership, Phase, Query, Registry, Snapshot, StoredFile
from reconciler.planning.versions import check_path
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from reconciler.sources.source import Halt, Part
from reconciler.status import peers
from reconciler.status.client import StatusError, parse_status
from reconciler.status.pushes import (
    FORGES,
    Forge,
    UnreadablePushError,
    find_forge,
    is_genuine,
    judge,
)
from reconciler.status.report import NodeReport, render
from tests.bucket import WHOLE
from tests.forges import SECRET, Delivery, bitbucket_cloud, bitbucket_server, gitea, github, gitlab
from tests.fuzz.target import Target, allow
from tests.statuses import COMMIT, outcome

_NODES = [
    {
        "ID": "1",
        "Name": "n",
        "Status": "ready",
        "SchedulingEligibility": "eligible",
        "Drain": False,
        "Address": "10.0.0.1",
    }
]
_PUSHES = (github, gitlab, gitea, bitbucket_cloud, bitbucket_server)
_RETRY_SECONDS = 0.05
_WEIGHTS = StoredFile("variables/x", 10, 17, 7, 0.0)
_RANGE = b"Content-Range: bytes 0-9/10\r\nX-Goog-Generation: 17\r\n"
_PART = b"HTTP/1.1 206 Partial Content\r\n" + _RANGE
_READS = (
    _PART + b"Content-Length: 10\r\n\r\n0123456789",
    _PART + b"Transfer-Encoding: chunked\r\n\r\n4;a=b\r\n0123\r\n6\r\n456789\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + _PART + b"Connection: close\r\n\r\n0123456789",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nForbidden",
)


def make_targets() -> Iterator[Target]:
    """Yield a target for each kind of answer, listings apart."""
    outcomes = (outcome("ranker"), outcome("speller", Phase.FAILED, "LoadFailed"))
    report = NodeReport(
        "search-1", "search", "0.1.0", 0, 1e9, True, "did this", COMMIT, COMMIT, outcomes,
        (outcome("old"),), (), instance="1",
    )  # fmt: skip
    status = (json.dumps(render(report)).encode(),)
    task = partial(dns._read, "tasks.agent")
    membership = Membership(Registry.NOMAD, 'NodeClass == "search"', 8080)
    nodes = partial(nomad._read_nodes, membership=membership)
    yield Target("a peer's status", status, partial(allow, peers._read_answer, StatusError))
    yield Target("a status for the fleet", status, partial(allow, read_answer, StatusError))
    yield Target("a status for a person", status, partial(allow, parse_status, StatusError), True)
    yield Target("a task's status", status, partial(allow, task, StatusError))
    yield Target(
        "Nomad's nodes", (json.dumps(_NODES).encode(),), partial(allow, nodes, ReconcilerError)
    )
    yield Target("a webhook", tuple(_dump(push("refs/heads/main")) for push in _PUSHES), _take_push)


def _dump(delivery: Delivery) -> bytes:
    lines = "".join(f"{name}: {value}\n" for name, value in delivery.headers.items())
    return f"{lines}\n".encode() + delivery.body


def _take_push(data: bytes) -> None:
    head, _, body = data.partition(b"\n\n")
    pairs = (line.partition(": ") for line in head.decode("latin-1").split("\n"))
    headers = {name.lower(): value for name, _, value in pairs}
    sender = find_forge(headers)
    if sender is None:
        return
    assert isinstance(is_genuine(sender, headers.get(sender.secret_header, ""), SECRET, body), bool)
    for forge in FORGES:
        for event in {*forge.pushes, headers[sender.event_header]}:
            allow(partial(_judge, forge, event), UnreadablePushError, body)


def _judge(forge: Forge, event: str, body: bytes) -> None:
    judge(forge, event, body, "main")


def list_whole(*folders: str) -> bytes:
    """Return a page of a listing with a whole version in each folder."""
    items = [
        {
            "name": f"ranker/{folder}/{path}",
            "size": str(len(content)),
            "generation": "17",
            "crc32c": "AAAAAA==",
            "md5Hash": "1B2M2Y8AsgTpgAmY7PhCfg==",
            "updated": "2026-01-31T10:00:00.000Z",
        }
        for folder in folders
        for path, content in WHOLE.items()
    ]
    return json.dumps({"kind": "storage#objects", "items": items}).encode()


@contextmanager
def serve_listings() -> Iterator[Target]:
    """Let a bucket answer with given bytes, and give the target that lists it."""
    answer = b""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    access = Access({"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_port}"})
    source = GcsSource("acme", access, _RETRY_SECONDS)

    def take(data: bytes) -> None:
        nonlocal answer
        answer = data
        allow(lambda _: _check(source), ReconcilerError, data)

    try:
        yield Target(
            "a listing",
            (list_whole("4"), list_whole("4", "5", "06"), list_whole("4", "5/..")),
            take,
            True,
        )
    finally:
        access.close()
        server.shutdown()
        thread.join(10)
        server.server_close()


def _check(source: GcsSource) -> None:
    listing = source.list(Query("gs://acme/ranker"))
    for version, snapshot in listing.snapshots.items():
        assert version >= 0
        for file in snapshot.files:
            assert check_path(file.path) is None, f"{file.path!r} must not become a file"
            assert file.size_bytes >= 0


@contextmanager
def serve_reads() -> Iterator[Target]:
    """Let a bucket answer with given bytes, head and all, and give the target that reads it."""
    answer = b""

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    while not connection.recv(65536).endswith(b"\r\n\r\n"):
                        pass
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)  # until the other side has read it

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        access = Access({"STORAGE_EMULATOR_HOST": url})
        source = GcsSource("acme", access)

        def take(data: bytes) -> None:
            nonlocal answer
            answer = data
            allow(lambda _: _read(source), ReconcilerError, data)
            access.lines.close()  # what was kept is closed over there

        try:
            yield Target("a read", _READS, take)
        finally:
            access.close()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _read(source: GcsSource) -> None:
    snapshot = Snapshot("gs://acme/ranker", 4, "4", (_WEIGHTS,))
    with closing(source.read(snapshot, [Part(_WEIGHTS, 0, 10)], Halt())) as parts:
        for piece in chain.from_iterable(parts):
            assert piece, "a piece of nothing would be asked for without an end"
