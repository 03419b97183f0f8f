"""What the status endpoint answers.

    GET  /               the page for people (its files are under /assets)
    GET  /livez          200 while the loop moves, else 503: restart this process
    GET  /readyz         200 once the node has applied a commit since its start, else 503
    GET  /status         the newest report, as schema/status.schema.json describes it
    GET  /history        the newest changes, newest first; ?limit=1..1000, default 50
    GET  /metrics        Prometheus text format
    POST /sync           look at git and the buckets now; needs the bearer token
    POST /hooks/git      a forge's webhook: look at git now; needs its signature

Handlers hand out what lies ready on the board and never wait for a disk, a lock or a thread (the
secret files apart, a few local bytes), so that they answer while the node is busy. An error is a
JSON object `{"error": sentence}`. No request body is read but that of a webhook (hooks.py).
"""

import hashlib
import hmac
import json
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.status import metrics
from reconciler.status.board import StatusBoard
from reconciler.status.client import BADGE_HEADER
from reconciler.status.hooks import HookSettings, HookTaker
from reconciler.status.journal import MAX_READ, render_change
from reconciler.status.pushes import Result
from reconciler.status.secret import read_secret

_DEFAULT_LIMIT = 50

_PAGE_FOLDER = Path(__file__).parent / "page"
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def make_app(board: StatusBoard, token_file: Path | None, hooks: HookSettings) -> ASGIApp:
    """Return the ASGI application that shows `board`."""
    endpoints = _Endpoints(board, token_file, HookTaker(board.wake_git, hooks))
    app = Starlette(
        routes=[
            Route("/", endpoints.page),
            Route("/assets/{name}", endpoints.asset),
            Route("/livez", endpoints.livez),
            Route("/readyz", endpoints.readyz),
            Route("/status", endpoints.status),
            Route("/history", endpoints.history),
            Route("/metrics", endpoints.metrics),
            Route("/sync", endpoints.sync, methods=["POST"]),
            Route("/hooks/git", endpoints.hook, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _explain, Exception: _apologise},
    )
    return _SecurityHeaders(app)


class _Endpoints:
    def __init__(self, board: StatusBoard, token_file: Path | None, hooks: HookTaker) -> None:
        self._board = board
        self._token_file = token_file
        self._hooks = hooks
        self._files = {path.name: path.read_bytes() for path in _PAGE_FOLDER.iterdir()}

    async def page(self, request: Request) -> Response:
        return self._file(request, "index.html")

    async def asset(self, request: Request) -> Response:
        return self._file(request, request.path_params["name"])

    async def livez(self, request: Request) -> Response:
        silence, limit = self._board.silence_seconds, self._board.heartbeat_limit_seconds
        if silence < limit:
            return _json({"live": True, "silence_seconds": round(silence, 3)})
        raise HTTPException(
            503,
            f"The agent's loop has not moved for {silence:.0f} s (limit {limit:g} s);"
            " restart the agent. What is served goes on being served.",
        )

    async def readyz(self, request: Request) -> Response:
        if self._board.ready:
            return _json({"ready": True})
        raise HTTPException(
            503,
            "This node has not applied a commit since the agent started;"
            " /status says what it is waiting for.",
        )

    async def status(self, request: Request) -> Response:
        self._board.meet(request.headers.get(BADGE_HEADER, ""))
        page = self._board.status
        if page is None:
            raise HTTPException(
                503, "There is no report yet: the agent's first tick is still under way."
            )
        return _tagged(request, page.body, "application/json", page.etag)

    async def history(self, request: Request) -> Response:
        changes = self._board.journal.read(_limit(request))
        body = json.dumps({"changes": [render_change(change) for change in changes]}).encode()
        return _tagged(request, body, "application/json", _etag(body))

    async def metrics(self, request: Request) -> Response:
        body = self._board.metrics.render()
        return Response(body, headers={"content-type": metrics.CONTENT_TYPE})

    async def sync(self, request: Request) -> Response:
        _check_token(request.headers.get("authorization"), self._token_file)
        self._board.wake()
        return _json({"sync": "started; /status shows what comes of it"}, 202)

    async def hook(self, request: Request) -> Response:
        verdict = await self._hooks.take(request)
        status_code = 202 if verdict.result is Result.FETCHING else 200
        return _json({"hook": verdict.result, "sentence": verdict.sentence}, status_code)

    def _file(self, request: Request, name: str) -> Response:
        body = self._files.get(name)
        content_type = _CONTENT_TYPES.get(Path(name).suffix)
        if body is None or content_type is None:
            raise HTTPException(404)
        return _tagged(request, body, content_type, _etag(body))


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(_DEFAULT_LIMIT))
    # isdecimal is true of other scripts' digits too, and a huge number is slow to convert.
    if text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_READ:
        return int(text)
    raise HTTPException(
        400, f"limit must be a whole number from 1 to {MAX_READ}, for example /history?limit=50."
    )


def _check_token(authorization: str | None, token_file: Path | None) -> None:
    """Let through who knows the content of `token_file`, read anew so that it can be rotated."""
    if token_file is None:
        raise HTTPException(
            403,
            "POST /sync is off on this node: no token file is set"
            " (--sync-token-file or RECONCILER_SYNC_TOKEN_FILE).",
        )
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise HTTPException(
            401,
            "POST /sync needs the header `Authorization: Bearer <token>`.",
            headers={"www-authenticate": "Bearer"},
        )
    wanted = read_secret(token_file)
    if not wanted:
        raise HTTPException(
            403, "The token file of this node is missing, unreadable or empty; nobody is let in."
        )
    # Starlette decodes headers as latin-1, so this gives back the bytes that were sent.
    if not hmac.compare_digest(given.strip().encode("latin-1"), wanted):
        raise HTTPException(
            401,
            "The token is not the one in this node's token file.",
            headers={"www-authenticate": 'Bearer error="invalid_token"'},
        )


def _tagged(request: Request, body: bytes, content_type: str, etag: str) -> Response:
    """Answer with `body`, or with 304 where the client has it already."""
    headers = {"etag": etag, "cache-control": "no-cache", "content-type": content_type}
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers)


def _etag(body: bytes) -> str:
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


def _json(content: dict[str, object], status_code: int = 200) -> Response:
    return Response(
        json.dumps(content).encode(),
        status_code,
        headers={"cache-control": "no-store", "content-type": "application/json"},
    )


async def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    sentences = {
        404: f"There is no {request.url.path[:200]} here; see /, /status, /history, /metrics.",
        405: f"{request.method} is not possible on {request.url.path[:200]}.",
    }
    response = _json({"error": sentences.get(error.status_code, error.detail)}, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _apologise(request: Request, error: Exception) -> Response:
    return _json({"error": "The agent failed to answer; its log has the reason."}, 500)


class _SecurityHeaders:
    """Adds the same security headers to every answer, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(k.encode(), v.encode()) for k, v in _SECURITY_HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)
