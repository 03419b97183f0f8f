"""Status endpoints that say what a test wants them to say, as agents do."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from reconciler.model import Commit, Condition, Deployment, Outcome, Phase
from reconciler.status.report import NodeReport, render

COMMIT = Commit("1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d", "Ada Lovelace", "Roll out", 990.0)


def outcome(
    model: str, phase: Phase = Phase.DEPLOYED, reason: str = "Serving", *, serving: int | None = 1
) -> Outcome:
    """Return what an agent says of one deployment."""
    deployment = Deployment(model, "search", f"deployments/search/{model}.yaml", f"gs://b/{model}")
    versions = () if serving is None else (serving,)
    return Outcome(deployment, phase, reason, f"About {model}.", serving=versions)


def leaving(model: str, reason: str) -> Outcome:
    """Return what an agent says of a model that others are to serve."""
    return outcome(model, Phase.STOPPING, reason)


class StatusNode:
    """One node's status endpoint; what it says can be changed at any time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.body = b""
        self.code = 200
        self.delay = threading.Event()
        """Clear it to keep callers waiting."""
        self.delay.set()
        self.port = 0
        self.say()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def say(
        self,
        *outcomes: Outcome,
        removals: tuple[Outcome, ...] = (),
        conditions: tuple[Condition, ...] = (),
        commit: Commit | None = COMMIT,
        name: str | None = None,
    ) -> None:
        """Say this from now on."""
        report = NodeReport(
            name or self.name, "search", "0.1.0", 0, time.time(), True, "did this", commit, commit,
            outcomes, removals, conditions, instance=self.name,
        )  # fmt: skip
        self.body = json.dumps(render(report)).encode()


@contextmanager
def answering(node: StatusNode, port: int = 0) -> Iterator[StatusNode]:
    """Serve a node's status during the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            node.delay.wait(30)
            code, body = (node.code, node.body) if self.path == "/status" else (404, b"{}")
            self.send_response(code)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    node.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield node
    finally:
        node.delay.set()
        server.shutdown()
        thread.join()
        server.server_close()
