"""What is answered about the fleet, by any node's status endpoint and by `reconciler fleet serve`.

GET  /fleet          the page for people (its files are under /fleet/)
GET  /fleet.json     the view, as schema/fleet-view.schema.json describes it
GET  /livez          200: of `reconciler fleet serve` alone, a node has its own
"""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from reconciler.fleet.desk import FleetDesk
from reconciler.status.guard import Guard
from reconciler.status.web import (
    SecurityHeaders,
    StaticFiles,
    answer_json,
    answer_tagged,
    error_handlers,
)

_PAGE_FOLDER = Path(__file__).parent / "page"


def fleet_routes(desk: FleetDesk) -> list[BaseRoute]:
    """Return the routes that show what is on `desk`."""
    endpoints = _Endpoints(desk)
    return [
        Route("/fleet", endpoints.page),
        Route("/fleet.json", endpoints.view),
        Route("/fleet/{name}", endpoints.asset),
    ]


def make_fleet_app(desk: FleetDesk, read_token_file: Path | None = None) -> ASGIApp:
    """Return the ASGI application that shows `desk` and nothing else."""
    app = Starlette(
        routes=[Route("/", _redirect), Route("/livez", _livez), *fleet_routes(desk)],
        exception_handlers=error_handlers("/fleet, /fleet.json"),
    )
    return SecurityHeaders(Guard(app, read_token_file))


class _Endpoints:
    def __init__(self, desk: FleetDesk) -> None:
        self._desk = desk
        self._files = StaticFiles(_PAGE_FOLDER)

    async def page(self, request: Request) -> Response:
        return self._files.answer(request, "index.html")

    async def asset(self, request: Request) -> Response:
        return self._files.answer(request, request.path_params["name"])

    async def view(self, request: Request) -> Response:
        page = await self._desk.read_page()
        takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
        body = page.gzipped if takes_gzip else page.body
        response = answer_tagged(request, body, "application/json", page.etag)
        response.headers["vary"] = "accept-encoding"
        if takes_gzip and response.status_code == 200:
            response.headers["content-encoding"] = "gzip"
        return response


async def _redirect(request: Request) -> Response:
    return RedirectResponse("/fleet")


async def _livez(request: Request) -> Response:
    return answer_json({"live": True})
