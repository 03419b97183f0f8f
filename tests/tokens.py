"""Where Google's libraries get their tokens, played on 127.0.0.1: OAuth, STS, a metadata server.

What is asked is checked as Google does it: the signature and the times of a service account's
assertion, the subject token of a workload. Refusals have Google's own words.
"""

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from tests.faultproxy import Fault, Request, Rule

_TIMEFRAME_SECONDS = 300
_BAD_TIMES = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
    " Check your iat and exp values in the JWT claim."
)
_AUDIENCE = "https://oauth2.googleapis.com/token"
METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default"


def make_private_key() -> str:
    """Return a fresh RSA key as PEM."""
    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


@functools.cache
def _make_one_key() -> str:
    return make_private_key()  # takes a tenth of a second


class Issuer:
    """A running endpoint and what it gave out; its attributes decide what it answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.issued: list[str] = []
        self.is_revoked = False
        """Whether the newest token counts no more; the next one does."""
        self.lifetime_seconds = 3600
        self.clock_ahead_seconds = 0.0
        """How far the issuer's clock is before that of this machine."""
        self.subject_token = "a subject token"
        self.fault: Callable[[str], Fault | None] = lambda body: None
        """Answers instead, given what was sent."""
        self.private_key = _make_one_key()

    @property
    def host(self) -> str:
        """host:port, as GCE_METADATA_HOST has it."""
        return urlsplit(self.url).netloc

    def issue(self) -> dict[str, Any]:
        """Return a new token as an endpoint does."""
        # As long as real ones, so that a message that quotes one is found out.
        self.issued.append(f"ya29.{len(self.issued)}." + "secret" * 20)
        self.is_revoked = False
        return {
            "access_token": self.issued[-1],
            "expires_in": self.lifetime_seconds,
            "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        }

    def write_key(self, path: Path, **other: Any) -> Path:
        """Write a service account's key file; `other` fields replace its own."""
        key = {
            "type": "service_account",
            "project_id": "acme",
            "client_email": "node@acme.iam.gserviceaccount.com",
            "private_key_id": "1",
            "private_key": self.private_key,
            "token_uri": f"{self.url}/token",
        }
        path.write_text(json.dumps({**key, **other}))
        return path

    def write_workload(self, path: Path, token_file: Path) -> Path:
        """Write the configuration of a workload identity whose token is in a file."""
        config = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/locations/global/workloadIdentityPools/p/providers/n",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url}/sts",
            "credential_source": {"file": str(token_file)},
        }
        path.write_text(json.dumps(config))
        return path

    def admit(self, request: Request) -> Fault | None:
        """Refuse what does not bear the newest token, as a rule of the proxy."""
        given = request.headers.get("authorization")
        if self.issued and not self.is_revoked and given == f"Bearer {self.issued[-1]}":
            return None
        return Fault(status=401, body=b'{"error": {"code": 401, "message": "Invalid Credentials"}}')

    def revoke_after(self, reads: int) -> Rule:
        """Return a rule that lets the newest token count no more from the given read on."""
        seen = 0

        def rule(request: Request) -> None:
            nonlocal seen
            seen += request.is_read
            if request.is_read and seen == reads:
                self.is_revoked = True

        return rule

    def answer(self, method: str, path: str, body: str, headers: Message) -> tuple[int, Any]:
        """Return status and content of one answer."""
        form = {name: values[0] for name, values in parse_qs(body).items()}
        if method == "POST" and path == "/token":
            return self._answer_assertion(form["assertion"])
        if method == "POST" and path == "/sts":
            if form["subject_token"] != self.subject_token:
                return _refuse("The audience in ID Token does not match the expected audience.")
            return 200, self.issue()
        if headers.get("Metadata-Flavor") != "Google":
            return 403, {"error": "no flavor"}
        if path.removesuffix("/") in ("", "/computeMetadata/v1"):
            return 200, {}
        if path == f"{METADATA_PATH}/token":
            return 200, self.issue()
        if path.startswith(METADATA_PATH):
            return 200, {"email": "node@acme.iam.gserviceaccount.com", "scopes": []}
        return 404, {}

    def _answer_assertion(self, assertion: str) -> tuple[int, Any]:
        key = serialization.load_pem_private_key(self.private_key.encode(), None)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        claims = jwt.decode(assertion, verify=False)  # type: ignore[no-untyped-call]
        try:
            jwt.decode(  # type: ignore[no-untyped-call]
                assertion, certs=public, audience=_AUDIENCE
            )
        except ValueError:
            return _refuse("Invalid JWT Signature.")
        now = time.time() + self.clock_ahead_seconds
        if not claims["iat"] - _TIMEFRAME_SECONDS < now < claims["exp"]:
            return _refuse(_BAD_TIMES)
        return 200, self.issue()


def _refuse(description: str) -> tuple[int, Any]:
    return 400, {"error": "invalid_grant", "error_description": description}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    issuer: Issuer


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer("")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, body: str) -> None:
        assert isinstance(self.server, _Server)
        issuer = self.server.issuer
        fault = issuer.fault(body)
        kind = fault.kind if fault else "application/json"
        if fault:
            status, content = fault.status, fault.body
        else:
            path = urlsplit(self.path).path
            status, answer = issuer.answer(self.command, path, body, self.headers)
            content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Metadata-Flavor", "Google")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@contextlib.contextmanager
def run_issuer() -> Iterator[Issuer]:
    """Run an issuer in threads of this process."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.issuer
        finally:
            server.shutdown()
            thread.join()
