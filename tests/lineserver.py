"""A server of raw sockets that says, connection by connection, exactly what a test tells it to."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from reconciler.sources.gcs_http import BrokenAnswerError
from reconciler.sources.gcs_lines import Lines
from reconciler.sources.source import Halt, HaltedError

DEADLINE_SECONDS = 10
"""Less than a line waits for an answer by itself."""
OK = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nX-Odd:  a:b \r\n\r\nhello"

Talk = Callable[[socket.socket], None]
"""What the server does with one connection."""


@dataclass
class Server:
    """A server that does as it is told with one connection after the other."""

    talks: list[Talk]
    port: int
    requests: list[bytes] = field(default_factory=list)
    opened: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def read_request(self, connection: socket.socket) -> bytes:
        """Return the head of the next request, nothing where the client has gone."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            letter = connection.recv(1)  # as the next request may be there already
            if not letter:
                return b""
            head += letter
        self.requests.append(head)
        return head

    def answer(self, *answers: bytes) -> Talk:
        """Return a talk of one answer for each request, and then the end."""

        def talk(connection: socket.socket) -> None:
            for answer in answers:
                if not self.read_request(connection):
                    return
                connection.sendall(answer)

        return talk


@contextlib.contextmanager
def run_server() -> Iterator[Server]:
    """Serve on a free port; as long as the test runs, and no longer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server([], listener.getsockname()[1])

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    talk = server.talks[server.opened]
                    server.opened += 1
                    with connection, contextlib.suppress(OSError):
                        talk(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


@contextlib.contextmanager
def open_lines(url: str) -> Iterator[Lines]:
    """Open connections to a server, and close them in the end."""
    lines = Lines(url)
    try:
        yield lines
    finally:
        lines.close()


def halt_read(read: Callable[[Halt], object], waiting: threading.Event) -> None:
    """Halt a read that waits, as is told by `waiting`; it must end by an error, and in time."""
    halt = Halt()
    failures: list[BaseException] = []

    def note_failure() -> None:
        try:
            read(halt)
        except (OSError, BrokenAnswerError, HaltedError) as error:
            failures.append(error)

    thread = threading.Thread(target=note_failure)
    thread.start()
    assert waiting.wait(DEADLINE_SECONDS)
    halt.call()
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert len(failures) == 1
