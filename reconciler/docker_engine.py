"""The Docker engine's API by the docker SDK, with an end to every answer.

The SDK reads answers without a bound and counts its timeout from one read to the next, so an
engine that drips a byte a second would hold its caller for ever. Imported only by what talks to
Docker: the SDK is an extra, and slow to import.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from typing import Any

import requests
from docker import APIClient

from reconciler.errors import ReconcilerError

UNIX = "unix://"
_CHUNK_BYTES = 64 * 1024


class AnswerTooLargeError(ReconcilerError):
    """An engine's answer is longer than any that it gives."""

    reason = "AnswerTooLarge"


def try_socket(path: str, deadline_seconds: float) -> None:
    """Raise OSError where nobody listens at `path`.

    The SDK would leave its socket to the garbage collector: one more file open with each question
    for as long as Docker is away.
    """
    with socket.socket(socket.AF_UNIX) as attempt:
        attempt.settimeout(deadline_seconds)
        attempt.connect(path)


def socket_path(host: str) -> str:
    """Return the path in a `unix://` address, which people write with two or three slashes."""
    return "/" + host.removeprefix(UNIX).lstrip("/")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield `error` and what it came from; the SDK wraps an error in up to four others."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Engine(APIClient):  # type: ignore[misc]
    """The SDK's client, with a bound to the size and the time of all its answers together."""

    def __init__(self, host: str, deadline_seconds: float, max_body_bytes: int) -> None:
        self._end = time.monotonic() + deadline_seconds
        self._max_body_bytes = max_body_bytes
        # Without a version it asks for the engine's, which is right for old and new ones.
        super().__init__(host, timeout=deadline_seconds)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send one request and return its whole answer; overrides requests.Session."""
        kwargs |= {"stream": True, "timeout": self._left(), "proxies": {}}
        with closing(super().send(request, **kwargs)) as response:
            body = bytearray()
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                body += chunk
                if len(body) > self._max_body_bytes:
                    raise AnswerTooLargeError(
                        f"Docker answered with more than {self._max_body_bytes >> 20} MiB"
                    )
                self._left()
        whole = requests.Response()
        whole.status_code, whole.reason = response.status_code, response.reason
        whole.headers, whole.encoding, whole.url = response.headers, "utf-8", response.url
        whole.raw = BytesIO(bytes(body))
        return whole

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return nothing, so that no redirect is followed; overrides requests.Session."""

    def _left(self) -> float:
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise requests.Timeout
        return seconds
