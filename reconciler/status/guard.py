"""Who is let in to read: those who know the read token, and nobody too often.

The two probes are open to all and never refused, or a flood could have the agent restarted. The
two POSTs have secrets of their own, and here only a stricter limit. All else is behind the read
token where there is one, also what does not exist: a path that is added later is not forgotten.

Agents and tools bring the token as a bearer. A browser cannot, so it may bring it as the password
of HTTP's basic authentication, for which it asks once by itself; a token in a URL would be in
every log and history on its way, so none is taken there.
"""

import base64
import binascii
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from reconciler.status.limits import ClientLimits
from reconciler.status.secret import NO_SECRET, is_among, read_tokens
from reconciler.status.web import answer_json

READS_PER_MINUTE = 6000
READ_BURST = 500
WRITES_PER_MINUTE = 120
WRITE_BURST = 60
MAX_UNDER_WAY = 256
"""Requests that are being answered at the same time, the probes apart."""
_PROBES = frozenset({"/livez", "/readyz"})
_OWN_SECRETS = frozenset({"/sync", "/hooks/git"})
_CHALLENGES = (b"Bearer", b'Basic realm="reconciler", charset="UTF-8"')


class Guard:
    """Answers in an application's place where somebody is not to be let in."""

    def __init__(self, app: ASGIApp, read_token_file: Path | None) -> None:
        """Without `read_token_file` everybody may read."""
        self._app = app
        self._read_token_file = read_token_file
        self._reads = ClientLimits(READS_PER_MINUTE, READ_BURST)
        self._writes = ClientLimits(WRITES_PER_MINUTE, WRITE_BURST)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, or refuse."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        refusal = self._find_refusal(scope)
        self._under_way += 1
        try:
            await (refusal or self._app)(scope, receive, send)
        finally:
            self._under_way -= 1

    def _find_refusal(self, scope: Scope) -> Response | None:
        if self._under_way >= MAX_UNDER_WAY:
            return _close(answer_json({"error": "Too many requests at once; ask again."}, 503))
        limits = self._reads if scope["method"] in ("GET", "HEAD") else self._writes
        wait_seconds = limits.take(scope["client"][0] if scope["client"] else "")
        if wait_seconds:
            return _refuse_flood(wait_seconds)
        if self._read_token_file is None or scope["path"] in _OWN_SECRETS:
            return None
        given = _read_token(Headers(scope=scope).get("authorization", ""))
        return _check(given, self._read_token_file)


def _check(given: bytes, read_token_file: Path) -> Response | None:
    tokens = read_tokens(read_token_file)
    if not tokens:
        sentence = (
            f"The read token file of this node is {NO_SECRET}; nobody is let in"
            " but to /livez and /readyz."
        )
        return answer_json({"error": sentence}, 403)
    if given and is_among(given, tokens):
        return None
    wrong = "That is not this node's read token: it" if given else "This node's read token"
    sentence = (
        f"{wrong} must come as `Authorization: Bearer <token>`"
        " (RECONCILER_READ_TOKEN_FILE for reconciler's commands), or in a browser as the password,"
        " with any user name."
    )
    refusal = answer_json({"error": sentence}, 401)
    refusal.raw_headers.extend((b"www-authenticate", value) for value in _CHALLENGES)
    return refusal


def _read_token(authorization: str) -> bytes:
    """Return the token in the header, as a bearer's or as a password; empty where there is none."""
    scheme, _, given = authorization.partition(" ")
    # Starlette decodes headers as latin-1, so this gives back the bytes that were sent.
    token = given.strip().encode("latin-1")
    if scheme.lower() == "bearer":
        return token
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(token, validate=True).partition(b":")[2].strip()
    except binascii.Error:
        return b""


def _refuse_flood(wait_seconds: float) -> Response:
    refusal = answer_json({"error": "Too many requests from one address; ask less often."}, 429)
    refusal.headers["retry-after"] = str(int(wait_seconds) + 1)
    return _close(refusal)


def _close(refusal: Response) -> Response:
    """Have the connection end: a body that may follow is not read, so what follows it is none."""
    refusal.headers["connection"] = "close"
    return refusal
