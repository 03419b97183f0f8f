"""Credentials as a node has them: a service account's key, or none at all."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from reconciler.errors import SourceError
from reconciler.model import Query
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access


class TokenServer(HTTPServer):
    """Answers every request with the next token."""

    count = 0


class TokenHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, TokenServer)
        self.server.count += 1
        token = {"access_token": f"token-{self.server.count}", "expires_in": 3600}
        body = json.dumps({**token, "token_type": "Bearer"}).encode()
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@pytest.fixture
def token_server() -> Iterator[TokenServer]:
    with TokenServer(("127.0.0.1", 0), TokenHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def bare_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without any credentials of the machine, whose ways out all end at a closed port."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")


def write_key(path: Path, token_uri: str) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = {
        "type": "service_account",
        "project_id": "acme",
        "client_email": "node@acme.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "token_uri": token_uri,
    }
    path.write_text(json.dumps(key))


def test_a_service_accounts_token_is_fetched_once_while_it_lasts(
    tmp_path: Path, token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_key(tmp_path / "key.json", f"http://127.0.0.1:{token_server.server_port}/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    access = Access({})
    assert not access.anonymous
    first, second = access.provide_token(), access.provide_token()
    access.close()
    assert first == second
    assert first["token"] == "token-1"
    assert first["expires_at"] is not None
    assert first["expires_at"].tzinfo is not None
    assert token_server.count == 1


def test_without_credentials_requests_go_unsigned_and_failures_are_sentences() -> None:
    access = Access({})
    assert access.anonymous
    source = GcsSource("acme", access, retry_seconds=0.1)
    with pytest.raises(SourceError, match="listing gs://acme/ranker failed") as raised:
        source.list(Query("gs://acme/ranker"))
    access.close()
    assert raised.value.reason == "ListingFailed"


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [("127.0.0.1:4443", "http://127.0.0.1:4443"), ("https://emu/", "https://emu"), ("", None)],
)
def test_the_emulators_address(value: str, endpoint: str | None) -> None:
    access = Access({"STORAGE_EMULATOR_HOST": value})
    access.close()
    assert access.emulator == endpoint
