"""A group's nodes by Nomad's HTTP API: all clients that are ready and may be given work.

`GET /v1/nodes?filter=…` needs Nomad 1.3 and, where ACLs are on, a token with `node:read`. The
token is read anew for each request, so that it can be rotated; it goes to the named address alone
(redirects are not followed) and into no message.
"""

import http.client
import json
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from reconciler.membership.registry import (
    MAX_MEMBERS,
    NONSENSE,
    REFUSED,
    RegistryError,
    build_member,
)
from reconciler.model import Member, Membership
from reconciler.status.client import printable
from reconciler.status.secret import read_secret
from reconciler.threads import run_beside

_DEADLINE_SECONDS = 5.0
_MAX_BODY_BYTES = 64 * 1024 * 1024
"""A client is listed in 2 to 6 kB, most of it about its drivers."""
_CHUNK_BYTES = 64 * 1024
_MAX_QUOTED_CHARACTERS = 200


class NomadRegistry:
    """Asks one Nomad agent, client or server."""

    def __init__(self, address: str, token_file: Path | None) -> None:
        self._address = address
        self._token_file = token_file

    async def list(self, membership: Membership) -> tuple[Member, ...]:
        """Return the clients that the filter lets through; see RegistryClient."""
        return await run_beside(lambda: self._list(membership), "nomad")

    def _list(self, membership: Membership) -> tuple[Member, ...]:
        place = _parse_address(self._address)
        token = _read_token(self._token_file) if self._token_file else None
        code, body = _get(place, membership.query, token)
        if code != http.client.OK:
            words = printable(" ".join(body.decode("utf-8", "replace").split()))
            quoted = words.replace(token or "***", "***")[:_MAX_QUOTED_CHARACTERS]
            raise RegistryError(f"{place} answered {code}: {quoted}{_advise(code)}", REFUSED)
        return _read_nodes(body, membership)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where Nomad is; says itself without what else the setting may hold."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"Nomad at {self.scheme}://{host}:{self.port}"


def _parse_address(address: str) -> _Place:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_plain = parts.path in ("", "/") and not (parts.query or parts.username or parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise RegistryError(
            "RECONCILER_NOMAD_ADDRESS is not a plain URL; write it as http://host:4646"
        )
    return _Place(parts.scheme, parts.hostname, port or 4646)


def _read_token(file: Path) -> str:
    token = read_secret(file).decode("utf-8", "replace")
    # A character that no header takes would have http.client quote the token in its complaint.
    if not token or not token.isascii() or not token.isprintable():
        raise RegistryError(
            f"{file} (RECONCILER_NOMAD_TOKEN_FILE) holds no Nomad token: it is missing, empty or"
            " not one line of plain characters",
            REFUSED,
        )
    return token


def _advise(code: int) -> str:
    match code:
        case 401 | 403:
            return "; name a token with node:read in RECONCILER_NOMAD_TOKEN_FILE"
        case 400:
            return "; check the filter expression"
        case 301 | 302 | 307 | 308:
            return "; a redirect is not followed, name the right RECONCILER_NOMAD_ADDRESS"
    return ""


def _get(place: _Place, filter_expression: str, token: str | None) -> tuple[int, bytes]:
    """Ask once, within the deadline; raises RegistryError."""
    end = time.monotonic() + _DEADLINE_SECONDS
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    headers = {"Accept": "application/json"} | ({"X-Nomad-Token": token} if token else {})
    target = "/v1/nodes?" + urlencode({"filter": filter_expression})
    try:
        with closing(kind(place.host, place.port, timeout=_DEADLINE_SECONDS)) as connection:
            connection.connect()
            socket = connection.sock
            socket.settimeout(_left(end))
            connection.request("GET", target, headers=headers)
            with closing(connection.getresponse()) as response:
                body = bytearray()
                while True:
                    # The socket's timeout is for one read; a body that drips must end as well.
                    socket.settimeout(_left(end))
                    chunk = response.read1(_CHUNK_BYTES)
                    if not chunk:
                        break
                    body += chunk
                    if len(body) > _MAX_BODY_BYTES:
                        raise RegistryError(
                            f"{place} answered with more than 64 MiB, which no list of nodes has",
                            NONSENSE,
                        )
                if response.length:
                    raise http.client.IncompleteRead(bytes(body), response.length)
                return response.status, bytes(body)
    except TimeoutError:
        raise RegistryError(
            f"{place} did not answer within {_DEADLINE_SECONDS:g} s; is it running there?"
        ) from None
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        words = printable(str(error) or type(error).__name__)
        raise RegistryError(f"{place} cannot be asked: {words}") from None


def _left(end: float) -> float:
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _read_nodes(body: bytes, membership: Membership) -> tuple[Member, ...]:
    try:
        nodes = json.loads(body)
        if not isinstance(nodes, list) or len(nodes) > MAX_MEMBERS:
            raise TypeError
        return tuple(_build(node, membership) for node in nodes if _may_work(node))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RegistryError("the answer is not Nomad's list of nodes", NONSENSE) from None


def _may_work(node: Any) -> bool:
    return (
        node["Status"] == "ready"
        and not node["Drain"]
        and node["SchedulingEligibility"] == "eligible"
    )


def _build(node: Any, membership: Membership) -> Member:
    host = node["Address"]
    if not isinstance(host, str):
        raise TypeError
    return build_member(node["Name"], host or None, membership)
