"""Asks a forge something: one request with a deadline, a bounded answer, and no redirects.

The token goes to the API that was named and nowhere else: redirects are not followed, plain http
is taken for this machine alone (`forges.py`), and no message repeats it. What may pass by itself
(an overloaded forge, a broken connection) is tried three times.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from reconciler.errors import ReconcilerError
from reconciler.status.client import printable

ResultT = TypeVar("ResultT")

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A hundred comments as long as GitHub takes them fit in."""

_DEADLINE_SECONDS = 15.0
_RETRY_AFTER_SECONDS = (1.0, 4.0)
_TRANSIENT = (None, 429, 500, 502, 503, 504)
_CHUNK_BYTES = 64 * 1024
_MAX_QUOTED_CHARACTERS = 200


class ForgeError(ReconcilerError):
    """A forge did not do what it was asked for."""

    reason = "ForgeFailed"


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a forge's API."""

    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    """The token is among them."""
    body: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call."""

    code: int | None
    """None where there was no answer in time."""
    content: bytes = b""
    has_next_page: bool = False
    trouble: str = ""
    """Why there was none."""

    @property
    def is_good(self) -> bool:
        """Whether the forge did it."""
        return self.code in (200, 201)

    def read_json(self) -> Any:
        """Return the content, None where it is not JSON."""
        try:
            return json.loads(self.content)
        except (ValueError, RecursionError):
            return None

    def quote(self, token: str | None) -> str:
        """Return the forge's own words in one line, without the token."""
        content = self.read_json()
        words = content.get("message") or content.get("error") if isinstance(content, dict) else ""
        words = (
            words
            or self.trouble
            or self.content[: 4 * _MAX_QUOTED_CHARACTERS].decode("utf-8", "replace")
        )
        line = printable(" ".join(str(words).split())).replace(token or "***", "***")
        return line[:_MAX_QUOTED_CHARACTERS] or "no words"


class RefusedError(Exception):
    """A call was not answered as it must be; whoever made it knows the sentence to say."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.code)
        self.answer = answer


def ask(call: Call) -> Answer:
    """Make one call, once."""
    body = None if call.body is None else json.dumps(call.body).encode()
    kind = {} if body is None else {"Content-Type": "application/json"}
    request = urllib.request.Request(  # noqa: S310 - forges.py has seen to the scheme
        call.url,
        body,
        {"User-Agent": "tfserving-reconciler", **kind, **call.headers},
        method=call.method,
    )
    opener = urllib.request.build_opener(_NoRedirects)
    end = time.monotonic() + _DEADLINE_SECONDS
    try:
        try:
            response = opener.open(request, timeout=_DEADLINE_SECONDS)
        except urllib.error.HTTPError as error:
            response = error
        with closing(response):
            has_next = 'rel="next"' in response.headers.get("Link", "")
            return Answer(response.status, _read(response, end), has_next)
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        return Answer(None, trouble=str(cause) or type(cause).__name__)


def demand(call: Call) -> Answer:
    """Make one call, once; raises RefusedError when the forge does not do it."""
    answer = ask(call)
    if not answer.is_good:
        raise RefusedError(answer)
    return answer


def repeat(attempt: Callable[[], ResultT]) -> ResultT:
    """Make an attempt up to three times, as long as what stopped it may pass by itself.

    Raises RefusedError as the last attempt did.
    """
    for pause_seconds in _RETRY_AFTER_SECONDS:
        try:
            return attempt()
        except RefusedError as error:
            if error.answer.code not in _TRANSIENT:
                raise
        time.sleep(pause_seconds)
    return attempt()


def explain(answer: Answer, host: str) -> str:
    """Return why a forge did not do it, for the codes that mean the same for every call."""
    match answer.code:
        case None:
            return f"{host} did not answer; check --api and the network"
        case 401:
            return "the token is not valid; make a new one"
        case 301 | 302 | 303 | 307 | 308:
            return f"{host} answered {answer.code}, a redirect; name the right --api"
    return f"{host} answered {answer.code}"


def _read(response: Any, end: float) -> bytes:
    """Return the whole body; raises OSError when it is too long in bytes or in time."""
    content = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise OSError(f"its answer is longer than {MAX_ANSWER_BYTES // 1024**2} MiB")
        if time.monotonic() > end:
            raise TimeoutError(f"its answer was not complete within {_DEADLINE_SECONDS:g} s")
    return bytes(content)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows none: the token would go along to wherever the answer points."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Return no request, so that the redirect itself is the answer."""
