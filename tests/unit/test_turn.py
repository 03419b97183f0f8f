"""Threads that read from real sockets take turns, and nobody waits for one who waits for bytes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from reconciler.sources import turn
from reconciler.sources.gcs_http import Line
from reconciler.sources.turn import Turn, make_turns

_SECONDS = 10.0


class Turns(threading.Semaphore):
    """One turn, and word of whoever would like to have it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked = threading.Event()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        self.asked.set()
        return super().acquire(blocking, timeout)

    @property
    def are_free(self) -> bool:
        """Whether there is exactly one turn to be had."""
        got = [self.acquire(blocking=False), self.acquire(blocking=False)]
        if got[0]:
            self.release()
        return got == [True, False]


class Reader:
    """A line on which `peer` says what it says; `pieces` are what a thread read from it."""

    def __init__(self, turns: Turns, own: socket.socket, peer: socket.socket) -> None:
        self.line = Line(own, _SECONDS, Turn(turns))
        self.peer = peer
        self.pieces: list[bytes] = []
        self._thread = threading.Thread(target=self.read)

    def read(self) -> None:
        """Read one piece."""
        self.pieces.append(self.line.read_piece(100))

    def start(self) -> None:
        """Read one piece in a thread."""
        self._thread.start()

    def wait(self) -> None:
        """Wait for what the thread reads."""
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive()


@contextmanager
def _connect(turns: Turns) -> Iterator[tuple[Reader, Reader]]:
    pairs = [socket.socketpair(), socket.socketpair()]
    readers = [Reader(turns, *pair) for pair in pairs]
    try:
        yield readers[0], readers[1]
    finally:
        for reader in readers:
            reader.line.hang_up()
            reader.line.close()
            reader.peer.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives up waiting for a turn, before the test does."""
    monkeypatch.setattr(turn, "_PATIENCE_SECONDS", 2 * _SECONDS)


@pytest.mark.usefixtures("patient")
def test_who_waits_for_bytes_leaves_the_turn_to_others() -> None:
    turns = Turns()
    with _connect(turns) as (one, other):
        one.start()
        assert turns.asked.wait(_SECONDS)
        other.peer.send(b"other")
        other.start()
        other.wait()
        other.line.end_turn()
        one.peer.send(b"one")
        one.wait()
        one.line.end_turn()
        assert (one.pieces, other.pieces) == ([b"one"], [b"other"])
    assert turns.are_free


@pytest.mark.usefixtures("patient")
def test_bytes_wait_while_another_handles_its_own() -> None:
    turns = Turns()
    with _connect(turns) as (one, other):
        one.peer.send(b"one")
        other.peer.send(b"other")
        one.read()
        turns.asked.clear()
        other.start()
        assert turns.asked.wait(_SECONDS)
        one.peer.send(b"more")
        one.read()
        assert (one.pieces, other.pieces) == ([b"one", b"more"], [])
        one.line.end_turn()
        other.wait()
        assert other.pieces == [b"other"]
        other.line.end_turn()
    assert turns.are_free


def test_who_has_waited_too_long_goes_on_beside_the_one_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "_PATIENCE_SECONDS", 0.01)
    turns = Turns()
    with _connect(turns) as (one, other):
        one.peer.send(b"one")
        other.peer.send(b"other")
        one.read()
        other.read()
        assert (one.pieces, other.pieces) == ([b"one"], [b"other"])
        other.line.end_turn()
        assert not turns.acquire(blocking=False), "the other one had none to give back"
        one.line.end_turn()
    assert turns.are_free


def test_there_are_turns_for_some_and_not_for_all() -> None:
    turns = make_turns()
    count = 0
    while turns.acquire(blocking=False):
        count += 1
    assert 2 <= count <= 4
