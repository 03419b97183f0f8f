"""The image: all that its Dockerfile names exists, and its health check tells good from bad."""

import fnmatch
import os
import re
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from reconciler.demo.services import free_port
from reconciler.settings import environment_name, setting_fields

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LIVEZ = ROOT / "deploy/image/livez.py"


@contextmanager
def serve_livez(code: int, certificate: trustme.LeafCert | None = None) -> Iterator[int]:
    """Serve /livez with an answer for a block and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code if self.path == "/livez" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


def check(listen: str, **environment: str) -> int:
    """Return the exit code of the health check, run as the image runs it."""
    return subprocess.run(
        [sys.executable, "-I", str(LIVEZ)],
        env={**os.environ, "RECONCILER_LISTEN": listen, **environment},
        capture_output=True,
        timeout=30,
        check=False,
    ).returncode


@pytest.mark.parametrize(("code", "expected"), [(200, 0), (503, 1)])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_check_says_what_the_agent_says(host: str, code: int, expected: int) -> None:
    with serve_livez(code) as port:
        assert check(f"{host}:{port}") == expected


def test_an_agent_that_is_not_there_is_not_live() -> None:
    assert check(f"127.0.0.1:{free_port()}") == 1


def test_the_check_speaks_tls_where_the_agent_does() -> None:
    certificate = trustme.CA().issue_cert("search-1")
    with serve_livez(200, certificate) as port:
        listen = f"127.0.0.1:{port}"
        assert check(listen, RECONCILER_TLS_CERT_FILE="/run/secrets/certificate") == 0


def copied() -> list[str]:
    """Return what the Dockerfile copies out of this repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [path for line in lines for path in line.split()[:-1]]


def test_what_is_copied_exists_and_is_let_through_to_the_build() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split()
    assert patterns[0] == "*"
    allowed = [pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")]
    assert len(copied()) >= 6
    for path in copied():
        assert (ROOT / path).exists()
        assert any(fnmatch.fnmatch(path, a) or path.startswith(f"{a}/") for a in allowed), path
    for pattern in allowed:
        assert (ROOT / pattern).exists()


def test_the_wheel_finds_all_that_it_is_made_of() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for path in wheel["targets"]["wheel"]["force-include"]:
        assert path in copied()


def test_the_extras_of_the_image_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = re.search(r'for name in \(("\w+"(?:, "\w+")*)\)', DOCKERFILE)
    assert named
    assert {name.strip('"') for name in named[1].split(", ")} <= set(extras)


def test_its_settings_and_folders_are_the_agents() -> None:
    settings = {environment_name(item.name): item.default for item in setting_fields()}
    assert set(re.findall(r"\b(RECONCILER_\w+)=", DOCKERFILE)) <= set(settings)
    for name in ("RECONCILER_MODELS_DIR", "RECONCILER_STATE_DIR"):
        assert f'"{settings[name]}"' in DOCKERFILE
        assert f"{settings[name]} " in DOCKERFILE or f"{settings[name]}\n" in DOCKERFILE
