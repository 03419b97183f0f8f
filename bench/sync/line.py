"""A slow line: a proxy that gives each connection so many bytes a second and adds a delay.

    python -m bench.sync.line PORT SERVER_PORT BYTES_PER_SECOND DELAY_SECONDS

What the server sends is moved from socket to socket within the kernel (splice), so that the line
takes next to no processor time from those who are measured. Each thing a client sends, and so each
request and each new connection, is held for the delay.
"""

import contextlib
import fcntl
import os
import socket
import sys
import threading
import time

_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031
_DISCARD = socket.MSG_TRUNC


def run_line(port: int, server_port: int, bytes_per_second: float, delay_seconds: float) -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    while True:
        client, _ = listener.accept()
        ends = (client, server_port, bytes_per_second, delay_seconds)
        threading.Thread(target=_carry, args=ends, daemon=True).start()


def measure_line(port: int, target: str, connections: int, seconds: float) -> float:
    """Return the bytes a second that so many connections get together when nothing is done."""
    counts = [0] * connections

    def read(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            line.settimeout(seconds)
            deadline = time.monotonic() + seconds
            buffer = bytearray(_PIPE_BYTES)
            with contextlib.suppress(TimeoutError):
                while time.monotonic() < deadline:
                    got = line.recv_into(buffer, _PIPE_BYTES, _DISCARD)
                    if not got:
                        return
                    counts[number] += got

    readers = [threading.Thread(target=read, args=(number,)) for number in range(connections)]
    begun = time.monotonic()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return sum(counts) / (time.monotonic() - begun)


def _carry(
    client: socket.socket, server_port: int, bytes_per_second: float, delay_seconds: float
) -> None:
    try:
        server = socket.create_connection(("127.0.0.1", server_port))
    except OSError:
        client.close()
        return
    with client, server:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        up = threading.Thread(target=_carry_up, args=(client, server, delay_seconds), daemon=True)
        up.start()
        _carry_down(server, client, bytes_per_second)
        up.join()


def _carry_up(client: socket.socket, server: socket.socket, delay_seconds: float) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            time.sleep(delay_seconds)
            server.sendall(data)
    _hang_up(client, server)


def _carry_down(server: socket.socket, client: socket.socket, bytes_per_second: float) -> None:
    out, into = os.pipe()
    try:
        fcntl.fcntl(into, _F_SETPIPE_SZ, _PIPE_BYTES)
        due = time.monotonic()
        while count := os.splice(server.fileno(), into, _PIPE_BYTES):
            left = count
            while left:
                left -= os.splice(out, client.fileno(), left)
            now = time.monotonic()
            due = max(due, now - _PIPE_BYTES / bytes_per_second) + count / bytes_per_second
            if due > now:
                time.sleep(due - now)
    except OSError:
        pass
    finally:
        os.close(out)
        os.close(into)
        _hang_up(server, client)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    run_line(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
