"""Nodes for tests of the fleet's view: reports as agents make them, and servers that show them."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from reconciler.fleet.answers import read_answer
from reconciler.fleet.poll import Sighting, Target
from reconciler.model import Commit, Condition, Deployment, Outcome, Phase
from reconciler.status.report import Disk, NodeReport, render

WALL_SECONDS = 1_772_357_412.0
"""2026-03-01 09:30:12 UTC."""
OLD = Commit("a" * 40, "Ada Lovelace", "Roll ranker out to 41", WALL_SECONDS - 700)
NEW = Commit("b" * 40, "Grace Hopper", "Roll ranker out to 42", WALL_SECONDS - 360)


def outcome(
    model: str,
    phase: Phase = Phase.DEPLOYED,
    wanted: int | None = 42,
    serving: tuple[int, ...] | None = None,
    group: str = "search",
    reason: str = "",
    sentence: str = "",
    stop: bool = False,
) -> Outcome:
    """One model on a node; what serves is what is wanted, unless told otherwise."""
    path = f"deployments/{group}/{model}.yaml"
    deployment = Deployment(model, group, path, f"gs://acme/{model}", stop=stop)
    if serving is None:
        serving = (wanted,) if phase is Phase.DEPLOYED and wanted is not None else ()
    words = sentence or f"{model} is {phase}"
    return Outcome(deployment, phase, reason or phase.value, words, wanted, serving)


def report(
    node: str,
    outcomes: Iterable[Outcome] = (),
    holders: Mapping[str, Sequence[str]] | None = None,
    *,
    group: str | None = "search",
    observed: Commit | None = NEW,
    applied: Commit | None = NEW,
    removals: Iterable[Outcome] = (),
    broken: Iterable[Condition] = (),
    members: tuple[str, ...] = (),
    instance: str = "",
    generated_at_seconds: float = WALL_SECONDS,
) -> NodeReport:
    """What a node's agent says of it."""
    return NodeReport(
        node=node,
        group=group,
        program_version="0.1.0",
        started_at_seconds=generated_at_seconds - 60,
        generated_at_seconds=generated_at_seconds,
        ready=True,
        summary="",
        observed=observed,
        applied=applied,
        outcomes=tuple(outcomes),
        removals=tuple(removals),
        conditions=tuple(broken),
        disk=Disk(80, 100, 12),
        holders=holders or {},
        members=members,
        instance=instance or f"instance of {node}",
    )


def body(made: NodeReport) -> bytes:
    """The report as /status has it."""
    return json.dumps(render(made)).encode()


def seen(
    made: NodeReport,
    *,
    name: str | None = None,
    address: str | None = None,
    trouble: str | None = None,
    answered_at: float = 100.0,
    ahead_seconds: float = 0.0,
    **more: Any,
) -> Sighting:
    """The sighting of a node that gave this report, and since then `trouble`."""
    target = Target(address or f"{made.node}:8080", name or made.node, made.group)
    answer = read_answer(body(made))
    return Sighting(target, answer, answered_at, trouble, clock_ahead_seconds=ahead_seconds, **more)


Answer = Callable[[BaseHTTPRequestHandler], None]


def saying(content: bytes, code: int = 200) -> Answer:
    """Answer with these bytes."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("content-length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


@contextmanager
def serving(answers: Sequence[Callable[[str], Answer]]) -> Iterator[list[str]]:
    """One server per answer, each told the path it is asked for; yields their addresses."""
    with_threads = [_start(find) for find in answers]
    try:
        yield [f"127.0.0.1:{server.server_port}" for server, _ in with_threads]
    finally:
        for server, _ in with_threads:
            server.shutdown()
        for server, thread in with_threads:
            thread.join()
            server.server_close()


def node_saying(made: Callable[[], NodeReport]) -> Callable[[str], Answer]:
    """A node that gives the report of the moment, and has no history."""

    def find(path: str) -> Answer:
        if path.startswith("/status"):
            return saying(body(made()))
        return saying(b'{"changes": []}')

    return find


def _start(find: Callable[[str], Answer]) -> tuple[ThreadingHTTPServer, threading.Thread]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            find(self.path)(self)

        def do_POST(self) -> None:
            find(self.path)(self)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 512  # hundreds are asked at once here

        def handle_error(self, *args: object) -> None:
            pass  # a client that leaves an endless answer is what the tests are about

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    return server, thread
