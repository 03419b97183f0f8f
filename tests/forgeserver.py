"""A server that plays what GitHub and GitLab have for comments under request 3 of acme/fleet."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

ME, ADA = 7, 8
LISTS = {
    "github": "/repos/acme/fleet/issues/3/comments",
    "gitlab": "/api/v4/projects/acme%2Ffleet/merge_requests/3/notes",
}
CHANGES = {"github": "/repos/acme/fleet/issues/comments", "gitlab": LISTS["gitlab"]}
VERBS = {"github": "PATCH", "gitlab": "PUT"}


@dataclass
class Forge:
    """One request at a forge, with its comments and what is wrong with the forge."""

    kind: str
    port: int
    comments: list[dict[str, Any]] = field(default_factory=list)
    me: int | None = ME
    """Whose the token is; None for an app's, which the forge does not tell."""
    page_length: int = 100
    """What a page holds at most, whatever was asked for: forges leave out what is hidden."""
    locked: set[int] = field(default_factory=set)
    """Ids of the comments that may not be changed."""
    troubles: list[tuple[str, int, bytes]] = field(default_factory=list)
    """A method, and what the next request by it is answered instead, after it was carried out."""
    trickles: bool = False
    """Whether an answer never ends, and comes byte by byte, each in good time."""
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def add(self, body: str, author: int = ME, *, kind: str = "User") -> int:
        """Write a comment and return its id."""
        number = 100 + len(self.comments)
        who = {"id": author, "type": kind} if self.kind == "github" else {"id": author}
        made: dict[str, Any] = {"id": number, "body": body}
        if self.kind == "github":
            link = f"https://github.example.org/acme/fleet/pull/3#issuecomment-{number}"
            made |= {"user": who, "html_url": link}
        else:
            made |= {"author": who, "system": False}
        self.comments.append(made)
        return number

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[str]:
        return [found["body"] for found in self.comments]

    @property
    def writes(self) -> list[str]:
        return [asked for asked in self.asked if not asked.startswith("GET")]

    # --- the server's side ------------------------------------------------------------------

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any, bool]:
        """Return the code, the content, and whether there is a next page."""
        url = urlsplit(target)
        if (method, url.path) == ("GET", "/user" if self.kind == "github" else "/api/v4/user"):
            if self.me is None:
                return 403, {"message": "Resource not accessible by integration"}, False
            return 200, {"id": self.me}, False
        if url.path == LISTS[self.kind] and method == "GET":
            query = parse_qs(url.query)
            assert query["per_page"] == ["100"]
            assert (query.get("sort") == ["asc"]) == (self.kind == "gitlab")
            begin = (int(query["page"][0]) - 1) * self.page_length
            page = self.comments[begin : begin + self.page_length]
            return 200, page, begin + self.page_length < len(self.comments)
        if url.path == LISTS[self.kind] and method == "POST":
            number = self.add(body["body"], self.me or ME, kind="User" if self.me else "Bot")
            return 201, next(found for found in self.comments if found["id"] == number), False
        folder, _, number_text = url.path.rpartition("/")
        if folder == CHANGES[self.kind] and method == VERBS[self.kind]:
            for found in self.comments:
                if found["id"] == int(number_text):
                    if found["id"] in self.locked:
                        return 403, {"message": "Must be the author"}, False
                    found["body"] = body["body"]
                    return 200, found, False
        return 404, {"message": "Not Found"}, False


@contextmanager
def serve_comments(kind: str) -> Iterator[Forge]:
    """Serve a forge of a kind, `github` or `gitlab`, for a block."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            playing.asked.append(f"{self.command} {self.path}")
            playing.headers.append({name.lower(): value for name, value in self.headers.items()})
            code, content, has_next = playing.answer(self.command, self.path, body)
            raw = json.dumps(content).encode()
            if playing.troubles and playing.troubles[0][0] == self.command:
                _, code, raw = playing.troubles.pop(0)
            if code == 0:  # no answer at all
                self.close_connection = True
                return
            self.send_response(code)
            if has_next:
                # A next page elsewhere: whoever follows it takes the token along.
                self.send_header("link", '<http://127.0.0.1:1/next>; rel="next"')
            self.send_header("content-length", str(10**6 if playing.trickles else len(raw)))
            self.end_headers()
            with suppress(OSError):  # until the other side has had enough
                while playing.trickles:
                    self.wfile.write(b" ")
                    time.sleep(0.01)
            if not playing.trickles:
                self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_PUT = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        playing = Forge(kind, server.server_port)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield playing
        finally:
            server.shutdown()
            thread.join()
