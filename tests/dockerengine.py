"""A small Docker engine: its HTTP API on a unix socket, with processes for containers.

It plays the calls that the agent makes, as the Docker Engine API reference (1.47) has them, and
can be made to fail at any of them. An image is a command line, so that a container is a real
process with real ports; an image without one makes containers that only say that they run.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Fault = Literal["refused", "lost", "died", "halved"]
"""500 and nothing done; done, but no answer comes; neither done nor answered; a restart that only
stops."""


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of the test
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Image:
    """What can be pulled; `command` is put before the container's own."""

    reference: str
    command: Sequence[str] | None = None
    starts: bool = True
    """False: the engine refuses to start a container of it."""
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"sha256:{self.reference.encode().hex()}"


@dataclass
class Box:
    """A container."""

    id: str
    name: str
    image: Image
    body: dict[str, Any]
    status: str = "created"
    process: "Popen[bytes] | None" = None
    exit_code: int = 0
    restarts: int = 0
    started_at: str = "0001-01-01T00:00:00Z"
    networks: dict[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return self.image.reference

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body.get("Labels") or {})

    def refresh(self) -> None:
        if self.status == "running" and self.process is not None:
            code = self.process.poll()
            if code is not None:
                self.status, self.exit_code, self.process = "exited", code, None

    def start(self, log: Path) -> None:
        self.refresh()
        if self.status == "running":
            return
        if not self.image.starts:
            raise Refusal(500, "driver failed programming external connectivity")
        if self.image.command is not None:
            command = [*self.image.command, *(self.body.get("Cmd") or ())]
            with log.open("ab") as output:
                self.process = Popen(command, stdin=DEVNULL, stdout=output, stderr=output)
        self.status = "running"
        self.started_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")

    def stop(self) -> None:
        self.refresh()
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
            self.process = None
        if self.status in ("running", "restarting"):
            self.status, self.exit_code = "exited", 143

    def describe(self) -> dict[str, Any]:
        self.refresh()
        config = {**self.image.config, **self.body, "Image": self.body["Image"]}
        config["Env"] = [*self.image.config.get("Env", ()), *(self.body.get("Env") or ())]
        config["Labels"] = {**self.image.config.get("Labels", {}), **self.labels}
        host = config.pop("HostConfig", {})
        config.pop("NetworkingConfig", None)
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Image": self.image.id,
            "RestartCount": self.restarts,
            "State": {
                "Status": self.status,
                "Running": self.status == "running",
                "ExitCode": self.exit_code,
                "StartedAt": self.started_at,
            },
            "Config": {"Hostname": self.id[:12], "Cmd": None, "User": "", **config},
            "HostConfig": {"NetworkMode": "default", "Binds": None, "AutoRemove": False, **host},
            "NetworkSettings": {"Networks": self.networks},
            "Mounts": [],
        }


class DockerEngine:
    """The engine's state; `changes` are the calls that changed something, as (verb, name)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.images: dict[str, Image] = {}
        self.registry: dict[str, Image] = {}
        self.boxes: dict[str, Box] = {}
        self.changes: list[tuple[str, str]] = []
        self.touched: list[dict[str, str]] = []
        """The labels of each container that was changed, as they were."""
        self._faults: dict[int, Fault] = {}
        self.refuse_all: Refusal | None = None
        self.before_answer: Callable[[str], object] = lambda path: None
        """Called with a call's path when all is done and nobody has been told yet."""
        self.lock = threading.RLock()
        self._count = 0
        self._made = 0

    # --- what a test does -----------------------------------------------------------------

    def add_image(self, image: Image, *, here: bool = True) -> None:
        self.registry[image.reference] = image
        if here:
            self.images[image.reference] = image

    def run(self, name: str, image: str, body: Mapping[str, Any] | None = None) -> Box:
        """Do as `docker run -d`."""
        with self.lock:
            box = self.create(name, {"Image": image, **(body or {})})
            box.start(self.folder / "containers.log")
            return box

    def plan_faults(self, faults: Mapping[int, Fault]) -> None:
        """Let changes fail: number of a change, counted from now -> how."""
        with self.lock:
            self._faults = {self._count + number: fault for number, fault in faults.items()}

    def labelled(self, label: str) -> list[Box]:
        with self.lock:
            found = [box for box in self.boxes.values() if label in box.labels]
            for box in found:
                box.refresh()
            return found

    def close(self) -> None:
        with self.lock:
            for box in self.boxes.values():
                box.stop()

    # --- the API --------------------------------------------------------------------------

    def create(self, name: str, body: dict[str, Any]) -> Box:
        if any(box.name == name for box in self.boxes.values()):
            raise Refusal(409, f'Conflict. The container name "/{name}" is already in use')
        if body["Image"] not in self.images:
            raise Refusal(404, f"No such image: {body['Image']}")
        self._made += 1
        box = Box(f"{self._made:064x}", name, self.images[body["Image"]], body)
        endpoints = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
        box.networks = {key: dict(value) for key, value in endpoints.items()} or {"bridge": {}}
        self.boxes[box.id] = box
        return box

    def answer(self, verb: str, path: str, query: Mapping[str, str], body: Any) -> Any:
        if self.refuse_all is not None:
            raise self.refuse_all
        match (verb, *path.strip("/").split("/", 1)):
            case ("GET", "containers", "json"):
                wanted = json.loads(query.get("filters", "{}")).get("label", [])
                return [{"Id": b.id} for b in self.boxes.values() if _has_labels(b, wanted)]
            case ("GET", "containers", rest):
                return self._find(rest.removesuffix("/json")).describe()
            case ("GET", "images", rest):
                return self._inspect_image(unquote(rest.removesuffix("/json")))
            case _:
                return self._change(verb, path.strip("/"), query, body)

    def _change(self, verb: str, path: str, query: Mapping[str, str], body: Any) -> Any:
        number, self._count = self._count, self._count + 1
        fault = self._faults.get(number)
        if fault == "refused":
            raise Refusal(500, "the test's fault")
        if fault == "died":
            raise ConnectionAbortedError
        if fault == "halved":
            self._carry_out(verb, path.replace("/restart", "/stop"), query, body)
            raise Refusal(500, "the test's fault")
        answer = self._carry_out(verb, path, query, body)
        if fault == "lost":
            raise ConnectionAbortedError
        return answer

    def _carry_out(self, verb: str, path: str, query: Mapping[str, str], body: Any) -> Any:
        kind, _, rest = path.partition("/")
        if path == "containers/create":
            self.changes.append(("create", query["name"]))
            return {"Id": self.create(query["name"], body).id, "Warnings": []}
        if path == "images/create":
            return self._pull(f"{query['fromImage']}:{query['tag']}")
        if kind == "networks":
            box = self._find(body["Container"])
            box.networks[rest.removesuffix("/connect")] = body["EndpointConfig"]
            return ""
        key, _, action = rest.partition("/")
        box = self._find(key)
        self.changes.append((action or "remove", box.name))
        self.touched.append(box.labels)
        log = self.folder / "containers.log"
        if verb == "DELETE":
            box.refresh()
            if box.status == "running":
                raise Refusal(409, "You cannot remove a running container")
            del self.boxes[box.id]
        elif action == "start":
            box.start(log)
        elif action == "stop":
            box.stop()
        elif action == "restart":
            box.stop()
            box.start(log)
        elif action == "rename":
            if any(other.name == query["name"] for other in self.boxes.values()):
                raise Refusal(409, f'Conflict. The container name "/{query["name"]}" is in use')
            box.name = query["name"]
        else:
            raise Refusal(404, "page not found")
        return ""

    def _pull(self, reference: str) -> bytes:
        self.changes.append(("pull", reference))
        lines: list[dict[str, Any]] = [{"status": f"Pulling from {reference}"}]
        if reference in self.registry:
            self.images[reference] = self.registry[reference]
            lines.append({"status": f"Status: Downloaded newer image for {reference}"})
        else:
            lines.append({"errorDetail": {}, "error": f"manifest for {reference} not found"})
        return "\r\n".join(map(json.dumps, lines)).encode()

    def _find(self, key: str) -> Box:
        if key not in self.boxes:
            raise Refusal(404, f"No such container: {key}")
        return self.boxes[key]

    def _inspect_image(self, key: str) -> dict[str, Any]:
        for image in self.images.values():
            if key in (image.reference, image.id):
                return {"Id": image.id, "Config": dict(image.config)}
        raise Refusal(404, f"No such image: {key}")


def _has_labels(box: Box, wanted: Sequence[str]) -> bool:
    labels = {**box.labels, **{f"{key}={value}": "" for key, value in box.labels.items()}}
    return all(label in labels for label in wanted)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        engine: DockerEngine = self.server.engine  # type: ignore[attr-defined]
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        url = urlsplit(self.path)
        with suppress(OSError):
            if url.path == "/version":
                self._reply(200, {"Version": "27.3.1", "ApiVersion": "1.47"})
                return
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            path = url.path.removeprefix("/v1.47")
            body = json.loads(content) if content else None
            try:
                with engine.lock:
                    answer = engine.answer(self.command, path, query, body)
            except Refusal as refusal:
                self._reply(refusal.code, {"message": str(refusal)})
            except ConnectionAbortedError:
                self.close_connection = True
            else:
                engine.before_answer(path)
                self._reply(200 if answer != "" else 204, answer)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - named by http.server

    def _reply(self, code: int, answer: Any) -> None:
        if answer == "":
            body = b""
        else:
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def docker_engine(folder: Path) -> Iterator[DockerEngine]:
    """Run an engine during the block; its containers end with it."""
    engine = DockerEngine(folder)
    serve: Callable[..., None]
    with _Server(str(engine.socket), _Handler) as server:
        server.engine = engine  # type: ignore[attr-defined]
        serve = server.serve_forever
        thread = threading.Thread(target=serve, args=(0.02,))
        thread.start()
        try:
            yield engine
        finally:
            server.shutdown()
            thread.join()
            engine.close()
