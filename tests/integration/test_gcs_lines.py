"""Lines to Cloud Storage on real sockets: kept ones, odd answers, halts, TLS and proxies."""

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from reconciler.sources import gcs_lines, gcs_route
from reconciler.sources.gcs_http import BrokenAnswerError
from reconciler.sources.gcs_lines import Lines
from reconciler.sources.source import Halt, HaltedError
from tests.lineserver import (
    DEADLINE_SECONDS,
    OK,
    Server,
    Talk,
    halt_read,
    open_lines,
    run_server,
)


@pytest.fixture
def server() -> Iterator[Server]:
    with run_server() as server:
        yield server


def get(lines: Lines, target: str = "/x") -> bytes:
    with lines.get(target, {"Range": "bytes=0-4"}, Halt()) as answer:
        return b"".join(answer.read_pieces())


def test_a_line_is_used_again_for_the_next_request(server: Server) -> None:
    server.talks = [server.answer(OK, OK)]
    with open_lines(server.url) as lines:
        with lines.get("/a?b=c", {"Range": "bytes=0-4"}, Halt()) as answer:
            assert (answer.status, answer.headers["x-odd"]) == (206, "a:b")
            assert b"".join(answer.read_pieces()) == b"hello"
        assert get(lines) == b"hello"
    assert server.opened == 1
    host = f"127.0.0.1:{server.port}"
    expected = f"GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nRange: bytes=0-4\r\n\r\n"
    assert server.requests[0] == expected.encode()


def test_a_line_that_was_closed_meanwhile_costs_no_attempt(server: Server) -> None:
    server.talks = [server.answer(OK), server.answer(OK)]
    with open_lines(server.url) as lines:
        assert get(lines) == b"hello"
        assert get(lines) == b"hello"
    assert server.opened == 2


def test_a_new_line_that_is_closed_at_once_is_a_failure(server: Server) -> None:
    server.talks = [server.answer(), server.answer()]
    with open_lines(server.url) as lines, pytest.raises((BrokenAnswerError, ConnectionError)):
        get(lines)
    assert server.opened == 1


def test_a_line_that_lay_idle_for_long_is_not_tried(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_lines, "_KEPT_SECONDS", 0.0)
    server.talks = [server.answer(OK, OK), server.answer(OK)]
    with open_lines(server.url) as lines:
        assert get(lines) == get(lines) == b"hello"
    assert (server.opened, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 P\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 206 P\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["close", "1.0"],
)
def test_a_line_that_ends_with_its_answer_is_not_kept(server: Server, answer: bytes) -> None:
    server.talks = [server.answer(answer, OK), server.answer(OK)]
    with open_lines(server.url) as lines:
        assert get(lines) == get(lines) == b"hello"
    assert server.opened == 2


def test_an_answer_that_was_not_read_to_its_end_takes_its_line_along(server: Server) -> None:
    server.talks = [server.answer(OK, OK), server.answer(OK)]
    with open_lines(server.url) as lines:
        with lines.get("/x", {}, Halt()) as answer:
            assert answer.status == 206
        assert get(lines) == b"hello"
    assert (server.opened, len(server.requests)) == (2, 2)


STALE = OK.replace(b"hello", b"stale")


def test_what_nobody_asked_for_is_not_the_next_answer(server: Server) -> None:
    server.talks = [server.answer(OK + STALE, OK), server.answer(OK)]
    with open_lines(server.url) as lines:
        assert get(lines) == get(lines) == b"hello"
    assert (server.opened, len(server.requests)) == (2, 2)


def test_what_nobody_asked_for_and_comes_late_is_not_the_next_answer(server: Server) -> None:
    may_go_on, was_said = threading.Event(), threading.Event()

    def add(connection: socket.socket) -> None:
        server.answer(OK)(connection)
        may_go_on.wait(DEADLINE_SECONDS)
        connection.sendall(STALE)
        was_said.set()
        server.answer(OK)(connection)

    server.talks = [add, server.answer(OK)]
    with open_lines(server.url) as lines:
        assert get(lines) == b"hello"
        may_go_on.set()
        assert was_said.wait(DEADLINE_SECONDS)
        assert get(lines) == b"hello"
    assert server.opened == 2


CHUNKED = b"HTTP/1.1 206 P\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n") + b"5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 206\r\ncontent-length:5\r\nX-None:\r\n\r\nhello",
        b"HTTP/1.1 206 P\r\n\r\nhello",
    ],
    ids=["chunked", "continue", "chunked with a length", "terse", "to the end"],
)
def test_other_forms_of_an_answer(server: Server, answer: bytes) -> None:
    server.talks = [server.answer(answer)]
    with open_lines(server.url) as lines:
        assert get(lines) == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 P\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 206 P\r\nContent-Le",
        b"HTTP/1.1 206 P\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 206 P\r\nContent-Length: -5\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"9\r\nhello",
        CHUNKED + b"hello\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 206 P\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
    ids=[
        "short",
        "half a head",
        "no number",
        "negative",
        "no last chunk",
        "half a chunk",
        "no chunk",
        "not HTTP",
        "endless head",
    ],
)
def test_an_answer_that_is_none(server: Server, answer: bytes) -> None:
    server.talks = [server.answer(answer)]
    with open_lines(server.url) as lines, pytest.raises((BrokenAnswerError, ConnectionError)):
        get(lines)
    assert server.opened == 1


def test_a_head_that_comes_letter_by_letter(server: Server) -> None:
    def drip(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.read_request(connection)
        for at in range(len(OK)):
            connection.sendall(OK[at : at + 1])

    server.talks = [drip]
    with open_lines(server.url) as lines:
        assert get(lines) == b"hello"


def test_a_refusals_text_is_read_only_so_far(server: Server) -> None:
    head = b"HTTP/1.1 403 F\r\nContent-Length: 1000000\r\n\r\n"
    server.talks = [server.answer(head + b"x" * 1_000_000)]
    with open_lines(server.url) as lines, lines.get("/x", {}, Halt()) as answer:
        assert answer.read_text() == "x" * 64 * 1024


@pytest.mark.parametrize(
    "answer", [OK, OK[:-2], b"", b"nonsense\r\n\r\n"], ids=["whole", "cut", "none", "odd"]
)
def test_whatever_comes_of_a_read_its_turn_ends(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    turns = threading.Semaphore(1)
    monkeypatch.setattr(gcs_lines, "make_turns", lambda: turns)
    server.talks = [server.answer(answer)]
    with open_lines(server.url) as lines, contextlib.suppress(BrokenAnswerError):
        get(lines)
    assert turns.acquire(blocking=False)


def test_who_stops_reading_ends_its_turn(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = threading.Semaphore(1)
    monkeypatch.setattr(gcs_lines, "make_turns", lambda: turns)
    server.talks = [server.answer(OK)]
    with open_lines(server.url) as lines:
        with lines.get("/x", {}, Halt()):
            assert not turns.acquire(blocking=False), "what came is being handled"
        assert turns.acquire(blocking=False)


# --- halts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", OK[:-2]], ids=["before the answer", "within the answer"])
def test_a_halt_ends_a_read_that_waits(server: Server, sent: bytes) -> None:
    waiting = threading.Event()

    def stall(connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(sent)
        waiting.set()
        connection.settimeout(DEADLINE_SECONDS)
        connection.recv(1)

    server.talks = [stall]
    with open_lines(server.url) as lines:

        def read(halt: Halt) -> None:
            with lines.get("/x", {}, halt) as answer:
                b"".join(answer.read_pieces())

        halt_read(read, waiting)


def test_after_a_halt_nothing_is_asked_any_more(server: Server) -> None:
    server.talks = [server.answer(OK)]
    halt = Halt()
    halt.call()
    with (
        open_lines(server.url) as lines,
        pytest.raises(HaltedError),
        lines.get("/x", {}, halt),
    ):
        pass
    assert server.requests == []


def test_a_late_halt_leaves_the_next_read_on_that_line_alone(server: Server) -> None:
    server.talks = [server.answer(OK, OK)]
    halt = Halt()
    with open_lines(server.url) as lines:
        with lines.get("/x", {}, halt) as answer:
            assert b"".join(answer.read_pieces()) == b"hello"
        with lines.get("/x", {}, Halt()) as answer:
            halt.call()
            assert b"".join(answer.read_pieces()) == b"hello"
    assert server.opened == 1


# --- TLS and proxies --------------------------------------------------------------------------


@pytest.fixture
def secure(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Have the node trust an authority; return what a server with its certificate needs."""
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def wrapped(context: ssl.SSLContext, talk: Talk) -> Talk:
    def talk_securely(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            talk(secured)

    return talk_securely


def test_tls(server: Server, secure: ssl.SSLContext) -> None:
    server.talks = [wrapped(secure, server.answer(OK, OK))]
    with open_lines(f"https://localhost:{server.port}") as lines:
        assert get(lines) == get(lines) == b"hello"
    assert server.opened == 1


def test_another_names_certificate_is_refused(server: Server, secure: ssl.SSLContext) -> None:
    server.talks = [wrapped(secure, server.answer(OK))]
    with (
        open_lines(f"https://127.0.0.1:{server.port}") as lines,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        get(lines)
    assert server.requests == []


def test_an_authority_that_nobody_named_is_refused(
    server: Server, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    server.talks = [wrapped(secure, server.answer(OK))]
    with (
        open_lines(f"https://localhost:{server.port}") as lines,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        get(lines)


def test_a_proxy_passes_tls_on_and_never_sees_the_request(
    server: Server, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://ada:s%40fe@127.0.0.1:{server.port}")

    def tunnel(connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        wrapped(secure, server.answer(OK))(connection)

    server.talks = [tunnel]
    # Nothing listens there: whoever answers is the proxy.
    with open_lines("https://localhost:9") as lines:
        assert get(lines) == b"hello"
    asked, seen_behind = server.requests
    assert asked.startswith(b"CONNECT localhost:9 HTTP/1.")
    login = base64.b64encode(b"ada:s@fe")
    assert b"Proxy-Authorization: Basic " + login in asked
    assert b"Proxy-Authorization" not in seen_behind


def test_a_host_that_needs_no_proxy_is_reached_without(
    server: Server, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost")
    server.talks = [wrapped(secure, server.answer(OK))]
    with open_lines(f"https://localhost:{server.port}") as lines:
        assert get(lines) == b"hello"


def test_an_endpoint_without_tls_is_reached_without_a_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.talks = [server.answer(OK)]
    with open_lines(server.url) as lines:
        assert get(lines) == b"hello"


def test_a_proxy_that_refuses(
    server: Server, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{server.port}")
    server.talks = [server.answer(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")]
    with (
        open_lines("https://localhost:9") as lines,
        pytest.raises(OSError, match=r"refused to connect \(HTTP 407\)"),
    ):
        get(lines)


def test_the_next_address_is_tried_where_one_does_not_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def find(host: str, port: int, **options: int) -> list[object]:
        return [*real("127.0.0.1", 9, **options), *real(host, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", find)
    server.talks = [server.answer(OK)]
    with open_lines(server.url) as lines:
        assert get(lines) == b"hello"


def test_an_address_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs_route, "_CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for connection in waiting:  # more than it keeps: from then on nobody gets an answer
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
        with open_lines(f"http://127.0.0.1:{port}") as lines, pytest.raises(TimeoutError):
            get(lines)
        for connection in waiting:
            connection.close()


def test_over_tls_too_what_nobody_asked_for_is_not_the_next_answer(
    server: Server, secure: ssl.SSLContext
) -> None:
    server.talks = [
        wrapped(secure, server.answer(OK + STALE, OK)),
        wrapped(secure, server.answer(OK)),
    ]
    with open_lines(f"https://localhost:{server.port}") as lines:
        assert get(lines) == get(lines) == b"hello"
    assert server.opened == 2


@pytest.mark.parametrize("scheme", ["https", "socks5"])
def test_a_proxy_of_another_kind_is_told_no_password(
    scheme: str, server: Server, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://ada:s3cret@127.0.0.1:{server.port}")
    with open_lines("https://localhost:9") as lines, pytest.raises(OSError, match="by HTTP"):
        get(lines)
    assert server.opened == 0


@pytest.mark.parametrize("proxy", ["http://ada:s3cret@[bad", "http://ada:s3cret@x:many"])
def test_a_proxy_without_an_address(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with open_lines("https://localhost:9") as lines, pytest.raises(OSError) as raised:
        get(lines)
    assert "HTTPS_PROXY" in str(raised.value)
    assert "s3cret" not in str(raised.value)
