"""Requests that are sent before the ones before them are answered, on real sockets."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

import pytest
import trustme

from reconciler.errors import SourceError
from reconciler.model import Snapshot, StoredFile
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from reconciler.sources.gcs_http import BrokenAnswerError
from reconciler.sources.gcs_lines import Lines
from reconciler.sources.source import Halt, Part, SourceChangedError
from tests.lineserver import DEADLINE_SECONDS, Server, Talk, halt_read, open_lines, run_server

COUNT = 12
"""More than are asked ahead at once."""


def name(number: int) -> str:
    return f"/{number:02d}"


def body(target: str) -> bytes:
    return f"{target:*<40}".encode()


def answer(target: str, more: str = "", status: int = 206) -> bytes:
    content = body(target)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{more}\r\n".encode() + content


def take(server: Server, connection: socket.socket) -> str:
    """Return the target of the next request, nothing where the client has gone."""
    head = server.read_request(connection)
    return head.decode().split(" ")[1] if head else ""


def echo(server: Server, most: int = 1000) -> Talk:
    """Answer each request in turn, so many of them."""

    def talk(connection: socket.socket) -> None:
        for _ in range(most):
            target = take(server, connection)
            if not target:
                return
            connection.sendall(answer(target))

    return talk


def read_each(lines: Lines, targets: Sequence[str], halt: Halt | None = None) -> list[bytes]:
    requests = ((target, {"Range": "bytes=0-4"}) for target in targets)
    with contextlib.closing(lines.get_each(requests, halt or Halt())) as answers:
        return [b"".join(each.read_pieces()) for each in answers]


def targets(server: Server) -> list[str]:
    return [request.decode().split(" ")[1] for request in server.requests]


ALL = [name(number) for number in range(COUNT)]
BODIES = [body(target) for target in ALL]


@pytest.fixture
def server() -> Iterator[Server]:
    with run_server() as server:
        yield server


def count_more(connection: socket.socket) -> int:
    """Return 1 where something is here that was not read yet."""
    connection.setblocking(False)
    try:
        return len(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return 0
    finally:
        connection.settimeout(DEADLINE_SECONDS)


def hold(server: Server, count: int) -> Talk:
    """Answer the first request; the others once so many more of them are here."""

    def talk(connection: socket.socket) -> None:
        connection.settimeout(DEADLINE_SECONDS)
        connection.sendall(answer(take(server, connection)))
        waiting = [take(server, connection) for _ in range(count)]
        connection.sendall(b"".join(map(answer, waiting)))
        echo(server)(connection)

    return talk


def test_the_next_ones_are_asked_for_before_the_first_has_come(server: Server) -> None:
    server.talks = [hold(server, 8)]
    with open_lines(server.url) as lines:
        assert read_each(lines, ALL) == BODIES
        assert read_each(lines, ["/again"]) == [body("/again")], "the line is used again"
    assert targets(server) == [*ALL, "/again"]
    assert server.opened == 1


def test_over_tls_too(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            hold(server, 8)(secured)

    server.talks = [talk]
    with open_lines(f"https://localhost:{server.port}") as lines:
        assert read_each(lines, ALL) == BODIES
        assert read_each(lines, ["/again"]) == [body("/again")]
    assert server.opened == 1


def test_no_more_are_on_their_way_than_buffers_hold(server: Server) -> None:
    ahead: list[int] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(answer(take(server, connection)))
        waiting = [take(server, connection) for _ in range(8)]
        ahead.append(count_more(connection))  # they came by one sending, so a ninth would be here
        connection.sendall(b"".join(map(answer, waiting)))
        echo(server)(connection)

    server.talks = [talk]
    with open_lines(server.url) as lines:
        assert read_each(lines, ALL) == BODIES
    assert ahead == [0]


def test_what_a_line_did_not_answer_is_asked_on_another(server: Server) -> None:
    server.talks = [echo(server, 5), echo(server)]
    with open_lines(server.url) as lines:
        assert read_each(lines, ALL) == BODIES
    assert server.opened == 2


def test_what_a_closing_answer_leaves_is_asked_on_another(server: Server) -> None:
    def close(connection: socket.socket) -> None:
        echo(server, 3)(connection)
        connection.sendall(answer(take(server, connection), "Connection: close\r\n"))

    server.talks = [close, echo(server)]
    with open_lines(server.url) as lines:
        assert read_each(lines, ALL) == BODIES
    assert server.opened == 2


def test_who_closes_after_each_answer_is_never_asked_in_vain(server: Server) -> None:
    seen: SimpleQueue[int] = SimpleQueue()

    def once(connection: socket.socket) -> None:
        connection.sendall(answer(take(server, connection), "Connection: close\r\n"))
        connection.settimeout(DEADLINE_SECONDS)
        seen.put(len(connection.recv(65536)))

    server.talks = [once] * COUNT
    with open_lines(server.url) as lines:
        assert read_each(lines, ALL) == BODIES
        assert [seen.get(timeout=DEADLINE_SECONDS) for _ in ALL] == [0] * COUNT


def test_a_kept_line_that_was_closed_meanwhile_costs_nothing(server: Server) -> None:
    server.talks = [echo(server, 1), echo(server)]
    with open_lines(server.url) as lines:
        assert read_each(lines, ["/first"]) == [body("/first")]
        assert read_each(lines, ALL) == BODIES
    assert server.opened == 2


def answer_and_count(server: Server, counts: list[int]) -> Talk:
    """Answer all, and note whether more were here before each answer."""

    def talk(connection: socket.socket) -> None:
        while target := take(server, connection):
            counts.append(count_more(connection))
            connection.sendall(answer(target))

    return talk


def test_after_a_line_broke_nothing_is_asked_ahead_for_a_while(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[int] = []
    server.talks = [echo(server, 5), answer_and_count(server, ahead)]
    with open_lines(server.url) as lines:
        assert read_each(lines, ALL) == BODIES
        assert read_each(lines, ALL) == BODIES
        assert sum(ahead) == 0
        monkeypatch.setattr(lines, "_cautious_until", 0.0)
        assert read_each(lines, ALL) == BODIES
    assert sum(ahead) > 0


def test_a_new_line_that_answers_nothing_is_a_failure(server: Server) -> None:
    server.talks = [echo(server, 5), echo(server, 0)]
    with open_lines(server.url) as lines, pytest.raises((BrokenAnswerError, ConnectionError)):
        read_each(lines, ALL)
    assert server.opened == 2


def test_an_answer_that_was_not_read_does_not_come_in_the_nexts_place(server: Server) -> None:
    within = answer("/99")  # whose bytes look like another answer

    def nest(connection: socket.socket) -> None:
        echo(server, 4)(connection)
        take(server, connection)
        head = f"HTTP/1.1 206 X\r\nContent-Length: {len(within)}\r\n\r\n"
        connection.sendall(head.encode() + within)
        echo(server)(connection)

    server.talks = [nest, echo(server)]
    bodies = []
    with open_lines(server.url) as lines:
        requests: list[tuple[str, dict[str, str]]] = [(target, {}) for target in ALL]
        with contextlib.closing(lines.get_each(requests, Halt())) as answers:
            for number, each in enumerate(answers):
                if number != 4:
                    bodies.append(b"".join(each.read_pieces()))
    assert bodies == [*BODIES[:4], *BODIES[5:]]
    assert server.opened == 2


def test_a_line_with_answers_to_come_is_not_kept(server: Server) -> None:
    server.talks = [echo(server), echo(server)]
    with open_lines(server.url) as lines:
        requests: list[tuple[str, dict[str, str]]] = [(target, {}) for target in ALL]
        with contextlib.closing(lines.get_each(requests, Halt())) as answers:
            for _ in range(3):
                b"".join(next(answers).read_pieces())
        assert read_each(lines, ["/again"]) == [body("/again")]
    assert server.opened == 2


def test_a_halt_ends_all_that_is_asked_for(server: Server) -> None:
    waiting = threading.Event()

    def stall(connection: socket.socket) -> None:
        connection.settimeout(DEADLINE_SECONDS)
        connection.sendall(answer(take(server, connection)))
        take(server, connection)
        waiting.set()
        while connection.recv(65536):
            pass  # until it hangs up

    server.talks = [stall]
    with open_lines(server.url) as lines:
        halt_read(lambda halt: read_each(lines, ALL, halt), waiting)
    assert server.opened == 1, "nothing is asked again after a halt"


# --- the source on top of it ------------------------------------------------------------------


def listed(number: int) -> StoredFile:
    return StoredFile(f"{number:02d}", 40, 7, None, 0.0)


@contextlib.contextmanager
def open_source(server: Server) -> Iterator[GcsSource]:
    access = Access({"STORAGE_EMULATOR_HOST": server.url})
    try:
        yield GcsSource("acme", access)
    finally:
        access.close()


def serve_objects(server: Server, odd: str, reply: bytes) -> Talk:
    """Answer as a bucket does, but for the object whose name ends in `odd`."""

    def talk(connection: socket.socket) -> None:
        while target := take(server, connection):
            path = target.partition("?")[0]
            connection.sendall(
                reply
                if path.endswith(odd)
                else answer(path[-3:].replace("F", "/"), "Content-Range: bytes 0-39/40\r\n")
            )

    return talk


GONE = b"HTTP/1.1 412 X\r\nContent-Length: 3\r\n\r\nold"
OTHER = answer("/05", "Content-Range: bytes 0-39/40\r\nx-goog-generation: 8\r\n")
FORBIDDEN = b"HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (GONE, SourceChangedError),
        (OTHER, SourceChangedError),
        (FORBIDDEN, SourceError),
    ],
    ids=["gone", "another generation", "forbidden"],
)
def test_a_refusal_is_about_the_object_whose_turn_it_is(
    server: Server, reply: bytes, kind: type[SourceError]
) -> None:
    server.talks = [serve_objects(server, "05", reply)] * 2
    snapshot = Snapshot("gs://acme/ranker", 1, "1", tuple(map(listed, range(COUNT))))
    parts = [Part(file, 0, 40) for file in snapshot.files]
    came: list[bytes] = []
    with open_source(server) as source, pytest.raises(kind, match="acme"):
        for pieces in source.read(snapshot, parts, Halt()):
            came.append(b"".join(pieces))
    assert came == BODIES[:5]


def test_parts_are_read_in_their_order(server: Server) -> None:
    server.talks = [serve_objects(server, "none", GONE)]
    snapshot = Snapshot("gs://acme/ranker", 1, "1", tuple(map(listed, range(COUNT))))
    parts = [Part(file, 0, 40) for file in snapshot.files]
    with open_source(server) as source:
        data = b"".join(chain.from_iterable(source.read(snapshot, parts, Halt())))
    assert data == b"".join(BODIES)
    assert server.opened == 1


def test_a_name_that_cannot_be_sent_is_refused_by_name(server: Server) -> None:
    server.talks = [serve_objects(server, "none", GONE)]
    files = (*map(listed, range(3)), StoredFile("\ud800", 40, 7, None, 0.0))
    snapshot = Snapshot("gs://acme/ranker", 1, "1", files)
    with open_source(server) as source, pytest.raises(SourceError, match="cannot be read"):
        for pieces in source.read(snapshot, [Part(file, 0, 40) for file in files], Halt()):
            b"".join(pieces)
