"""Asks another node about itself, as little trusting as one should be of the network.

The answer is bounded in size and time, and held against the schema, so that whoever shows it need
not ask whether a key is there. Histories come from many nodes at once, for which validation by
schema is too slow: what is used of them is read out and checked here.
"""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from reconciler.errors import ReconcilerError
from reconciler.resources import read_schema
from reconciler.status.access import OPEN_ACCESS, Access, AccessError
from reconciler.status.changes import Result
from reconciler.status.journal import MAX_READ
from reconciler.status.report import Json

_MAX_BODY_BYTES = 16 * 1024 * 1024
"""Twice what a node of 10,000 models says of itself, each with some metadata."""
_CHUNK_BYTES = 64 * 1024
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_ADVICE = {
    # OpenSSL's X509_V_ERR numbers.
    10: "; it must be renewed there (RECONCILER_TLS_CERT_FILE)",
    **dict.fromkeys(
        (18, 19, 20, 21),
        "; name a file with the certificate that it was signed by (RECONCILER_TLS_CA_FILE)",
    ),
    **dict.fromkeys(
        (62, 64), "; ask the node by a name that is in its certificate, or put this one into it"
    ),
}
BADGE_HEADER = "x-reconciler-agent"
"""Of a question that an agent asks another: its node's name and its instance."""


class StatusError(ReconcilerError):
    """No status could be had from a URL."""

    reason = "NoStatus"


def check_url(url: str) -> None:
    """Raise StatusError, which does not repeat the URL, where it can lead to no node."""
    _parse_url(url, "/status")


def fetch_status(
    url: str, deadline_seconds: float, badge: str = "", access: Access = OPEN_ACCESS
) -> bytes:
    """Return the body of the node's /status; raises StatusError with a sentence.

    `badge` says which agent asks, if one does.
    """
    headers = {BADGE_HEADER: badge} if badge else {}
    return _read(_parse_url(url, "/status"), deadline_seconds, access, headers)


@dataclass(frozen=True, slots=True)
class NodeChange:
    """One line of a node's history: what became of a deployment there, and for which commit."""

    time_seconds: float
    """When the node found it so, Unix time."""
    commit_id: str
    model: str
    to_version: int | None
    result: Result
    reason: str
    commit_to_serving_seconds: float | None
    to_name: str | None = None
    """What that version is called, where not simply by its number."""


def fetch_history(
    url: str, deadline_seconds: float, limit: int = MAX_READ, access: Access = OPEN_ACCESS
) -> list[NodeChange]:
    """Return the newest changes that the node at `url` remembers, newest first.

    Raises StatusError with a sentence.
    """
    place = _parse_url(url, "/history", f"?limit={limit}")
    body = _read(place, deadline_seconds, access)
    try:
        return [_read_change(change) for change in json.loads(body)["changes"][:limit]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise StatusError(f"the answer of {place} is not a reconciler's history") from None


def _read_change(change: Any) -> NodeChange:
    seconds, version = change["commit_to_serving_seconds"], change["to"]
    return NodeChange(
        time_seconds=datetime.fromisoformat(change["time"]).timestamp(),
        commit_id=str(change["commit"]["id"]),
        model=str(change["model"]),
        to_version=None if version is None else int(version),
        result=Result(change["result"]),
        reason=str(change["reason"]),
        commit_to_serving_seconds=None if seconds is None else float(seconds),
        to_name=str(change["to_name"]) if change.get("to_name") else None,
    )


def fetch_fleet(url: str, deadline_seconds: float, access: Access = OPEN_ACCESS) -> bytes:
    """Return the body of the node's /fleet.json; raises StatusError with a sentence."""
    return _read(_parse_url(url, "/fleet.json"), deadline_seconds, access)


def request_sync(
    url: str, token: str, deadline_seconds: float, access: Access = OPEN_ACCESS
) -> None:
    """Have the node look at git and the buckets now; raises StatusError with a sentence.

    `token` is that of POST /sync, which does not take the read token.
    """
    place = _parse_url(url, "/sync")
    if not token.isascii() or not token.isprintable():
        # http.client would quote the whole header in its error.
        raise StatusError("the token has characters in it that no token has")
    headers = {"authorization": f"Bearer {token}"}
    _fetch(place, deadline_seconds, access, headers, method="POST")


def _read(
    place: "_Place",
    deadline_seconds: float,
    access: Access,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> bytes:
    try:
        token = access.headers()
    except AccessError as error:
        raise StatusError(f"{place} is not asked: {error}") from None
    return _fetch(place, deadline_seconds, access, {**headers, **token})


def _fetch(
    place: "_Place",
    deadline_seconds: float,
    access: Access,
    headers: Mapping[str, str],
    method: str = "GET",
) -> bytes:
    try:
        code, body = _ask(place, time.monotonic() + deadline_seconds, access, headers, method)
    except AccessError as error:
        raise StatusError(f"{place} is not asked: {error}") from None
    except ssl.SSLCertVerificationError as error:
        raise StatusError(
            f"{place} shows a certificate that is not accepted: {printable(error.verify_message)}"
            f"{_ADVICE.get(error.verify_code, '')}"
        ) from None
    except TimeoutError:
        raise StatusError(
            f"{place} did not answer within {deadline_seconds:g} s; is the agent running there?"
        ) from None
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        words = str(error) or type(error).__name__
        hint = _find_hint(error)
        raise StatusError(f"{place} cannot be asked: {printable(words)}{hint}") from None
    if code not in (http.client.OK, http.client.ACCEPTED):
        raise StatusError(f"{place} answered {code}: {_error_in(body)}")
    return body


def _find_hint(error: Exception) -> str:
    """Return what may be wrong with the URL's scheme, if it may."""
    if isinstance(error, ssl.SSLError):
        return "; if it does not speak TLS, write http://host:port"
    is_cut = isinstance(error, ConnectionResetError | http.client.BadStatusLine)
    return "; if it speaks TLS, write https://host:port" if is_cut else ""


def parse_status(body: bytes) -> Json:
    """Return the status in `body`; raises StatusError where it is not one."""
    import jsonschema  # takes a while, and an agent starts without asking anybody

    schema = json.loads(read_schema("status"))
    try:
        report: Json = json.loads(body)
        jsonschema.Draft202012Validator(schema).validate(report)
    except (ValueError, RecursionError):
        raise StatusError(
            "the answer is not JSON; does the URL lead to a reconciler's status endpoint?"
        ) from None
    except jsonschema.ValidationError as error:
        raise StatusError(
            f"the answer is not a reconciler's status: at {error.json_path},"
            f" {printable(error.message[:200])}"
        ) from None
    return report


def printable(text: str) -> str:
    """Return `text` without what would steer a terminal: it came from commits and servers."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to ask; says itself without what else the URL held."""

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def _parse_url(url: str, endpoint: str, query: str = "") -> _Place:
    # The URL itself stays out of the messages: someone may have put a password into it.
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.hostname.isascii():
        raise StatusError("this is not a URL of a node; write it as http://host:port")
    if parts.username is not None or parts.password is not None or parts.query:
        raise StatusError(
            "the URL has a user name, password or query in it, which the status endpoint does not"
            " take; write it as http://host:port"
        )
    default_port = 443 if parts.scheme == "https" else 80
    path = parts.path.rstrip("/").removesuffix(endpoint) + endpoint
    if not path.isascii() or not path.isprintable() or " " in path:
        raise StatusError("the URL's path has characters in it that no URL has")
    return _Place(parts.scheme, parts.hostname, port or default_port, path, query)


def _ask(
    place: _Place, end: float, access: Access, headers: Mapping[str, str], method: str
) -> tuple[int, bytes]:
    """Ask once; redirects are not followed. Raises TimeoutError when `end` (monotonic) is past."""
    with closing(_open(place, end, access)) as connection:
        connection.connect()
        tcp = connection.sock
        tcp.settimeout(_left(end))
        connection.request(
            method, place.path + place.query, headers={"accept": "application/json", **headers}
        )
        with closing(connection.getresponse()) as response:
            return response.status, _read_body(response, tcp, end, place)


def _open(place: _Place, end: float, access: Access) -> http.client.HTTPConnection:
    if place.scheme == "https":
        return http.client.HTTPSConnection(
            place.host, place.port, timeout=_left(end), context=access.tls()
        )
    return http.client.HTTPConnection(place.host, place.port, timeout=_left(end))


def _read_body(
    response: http.client.HTTPResponse, tcp: socket.socket, end: float, place: _Place
) -> bytes:
    body = bytearray()
    while True:
        # A socket's timeout is for one read; a body that drips must not outlive the deadline.
        tcp.settimeout(_left(end))
        chunk = response.read1(_CHUNK_BYTES)
        if not chunk:
            break
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise StatusError(
                f"{place} answered with more than 16 MiB, which no status or history has"
            )
    if response.length:
        raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)


def _left(end: float) -> float:
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _error_in(body: bytes) -> str:
    try:
        return printable(str(json.loads(body)["error"])[:500])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "which is not how a reconciler's status endpoint answers"
