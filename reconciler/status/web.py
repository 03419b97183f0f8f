"""What all HTTP answers here have in common: tags, JSON errors, files of a page, security headers.

An error is a JSON object `{"error": sentence}`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class StaticFiles:
    """The files of one page, read once."""

    def __init__(self, folder: Path) -> None:
        self._files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def answer(self, request: Request, name: str) -> Response:
        """Answer with a file; raises HTTPException 404 where there is none of that name."""
        body = self._files.get(name)
        content_type = _CONTENT_TYPES.get(Path(name).suffix)
        if body is None or content_type is None:
            raise HTTPException(404)
        return answer_tagged(request, body, content_type, make_etag(body))


def answer_tagged(request: Request, body: bytes, content_type: str, etag: str) -> Response:
    """Answer with `body`, or with 304 where the client has it already."""
    headers = {"etag": etag, "cache-control": "no-cache", "content-type": content_type}
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers)


def make_etag(body: bytes) -> str:
    """Return a weak tag that is the same for the same bytes."""
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


def answer_json(content: dict[str, object], status_code: int = 200) -> Response:
    """Answer with an object that nobody is to keep."""
    return Response(
        json.dumps(content).encode(),
        status_code,
        headers={"cache-control": "no-store", "content-type": "application/json"},
    )


def error_handlers(places: str) -> Mapping[Any, Callable[[Request, Exception], Any]]:
    """Return the handlers that put every error into a sentence; `places` is where to look."""

    async def explain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
        sentences = {
            404: f"There is no {request.url.path[:200]} here; see {places}.",
            405: f"{request.method} is not possible on {request.url.path[:200]}.",
        }
        response = answer_json(
            {"error": sentences.get(error.status_code, error.detail)}, error.status_code
        )
        response.headers.update(error.headers or {})
        return response

    return {HTTPException: explain, Exception: _apologise}


async def _apologise(request: Request, error: Exception) -> Response:
    return answer_json({"error": "The agent failed to answer; its log has the reason."}, 500)


class SecurityHeaders:
    """Adds the same security headers to every answer, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = [(k.encode(), v.encode()) for k, v in SECURITY_HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, with the headers added."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)
