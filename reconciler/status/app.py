"""What the status endpoint answers.

    GET  /               the page for people (its files are under /assets)
    GET  /livez          200 while the loop moves, else 503: restart this process
    GET  /readyz         200 once the node has applied a commit since its start, else 503
    GET  /status         the newest report, as schema/status.schema.json describes it
    GET  /history        the newest changes, newest first; ?limit=1..1000, default 50
    GET  /metrics        Prometheus text format
    POST /sync           look at git and the buckets now; needs the bearer token
    POST /hooks/git      a forge's webhook: look at git now; needs its signature

Where there is a read token, every GET but the two probes needs it (guard.py).

Handlers hand out what lies ready on the board and never wait for a disk, a lock or a thread (the
secret files apart, a few local bytes), so that they answer while the node is busy. An error is a
JSON object `{"error": sentence}`. No request body is read but that of a webhook (hooks.py).
"""

import json
from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from reconciler.status import metrics
from reconciler.status.board import StatusBoard
from reconciler.status.client import BADGE_HEADER
from reconciler.status.guard import Guard
from reconciler.status.hooks import HookSettings, HookTaker
from reconciler.status.journal import MAX_READ, render_change
from reconciler.status.pushes import Result
from reconciler.status.secret import NO_SECRET, is_among, read_tokens
from reconciler.status.web import (
    SecurityHeaders,
    StaticFiles,
    answer_json,
    answer_tagged,
    error_handlers,
    make_etag,
)

_DEFAULT_LIMIT = 50

_PAGE_FOLDER = Path(__file__).parent / "page"


def make_app(
    board: StatusBoard,
    token_file: Path | None,
    hooks: HookSettings,
    others: Sequence[BaseRoute] = (),
    read_token_file: Path | None = None,
) -> ASGIApp:
    """Return the ASGI application that shows `board`, and answers on `others` as well."""
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
            *others,
        ],
        exception_handlers=error_handlers("/, /status, /fleet, /history, /metrics"),
    )
    return SecurityHeaders(Guard(app, read_token_file))


class _Endpoints:
    def __init__(self, board: StatusBoard, token_file: Path | None, hooks: HookTaker) -> None:
        self._board = board
        self._token_file = token_file
        self._hooks = hooks
        self._files = StaticFiles(_PAGE_FOLDER)

    async def page(self, request: Request) -> Response:
        return self._files.answer(request, "index.html")

    async def asset(self, request: Request) -> Response:
        return self._files.answer(request, request.path_params["name"])

    async def livez(self, request: Request) -> Response:
        silence, limit = self._board.silence_seconds, self._board.heartbeat_limit_seconds
        if silence < limit:
            return answer_json({"live": True, "silence_seconds": round(silence, 3)})
        raise HTTPException(
            503,
            f"The agent's loop has not moved for {silence:.0f} s (limit {limit:g} s);"
            " restart the agent. What is served goes on being served.",
        )

    async def readyz(self, request: Request) -> Response:
        if self._board.ready:
            return answer_json({"ready": True})
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
        return answer_tagged(request, page.body, "application/json", page.etag)

    async def history(self, request: Request) -> Response:
        changes = self._board.journal.read(_limit(request))
        body = json.dumps({"changes": [render_change(change) for change in changes]}).encode()
        return answer_tagged(request, body, "application/json", make_etag(body))

    async def metrics(self, request: Request) -> Response:
        body = self._board.metrics.render()
        return Response(body, headers={"content-type": metrics.CONTENT_TYPE})

    async def sync(self, request: Request) -> Response:
        _check_token(request.headers.get("authorization"), self._token_file)
        self._board.wake()
        return answer_json({"sync": "started; /status shows what comes of it"}, 202)

    async def hook(self, request: Request) -> Response:
        verdict = await self._hooks.take(request)
        status_code = 202 if verdict.result is Result.FETCHING else 200
        return answer_json({"hook": verdict.result, "sentence": verdict.sentence}, status_code)


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
    tokens = read_tokens(token_file)
    if not tokens:
        raise HTTPException(403, f"The token file of this node is {NO_SECRET}; nobody is let in.")
    # Starlette decodes headers as latin-1, so this gives back the bytes that were sent.
    if not is_among(given.strip().encode("latin-1"), tokens):
        raise HTTPException(
            401,
            "The token is not the one in this node's token file.",
            headers={"www-authenticate": 'Bearer error="invalid_token"'},
        )
