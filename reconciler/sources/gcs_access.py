"""How Cloud Storage is reached: endpoint, credentials and the server's clock.

One `Access` is shared by all buckets, so that there is one token to renew and one set of kept
connections. STORAGE_EMULATOR_HOST is honoured as everywhere, and then nothing is signed.
"""

import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import google.auth
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud.storage import Client

if TYPE_CHECKING:
    from obstore.store import GCSCredential

READ_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
WRITE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


class Access:
    """The official client with application default credentials, or none where there are none.

    Without any credentials requests go unsigned, which is enough for public buckets; a private
    one then answers 401 and the message says so.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, scope: str = READ_SCOPE):
        self._lock = threading.Lock()
        self._answer = threading.local()
        self.emulator = _read_emulator(environment)
        self._credentials = _go_unsigned() if self.emulator else _find_credentials(scope)
        self.anonymous = isinstance(self._credentials, AnonymousCredentials)
        session = _open_session(self._credentials)
        session.hooks["response"].append(self._note_clock)
        options = {"api_endpoint": self.emulator} if self.emulator else None
        # A project is asked for only by calls that create buckets; None is "no project".
        self.client = Client(
            project=None, credentials=self._credentials, _http=session, client_options=options
        )

    def close(self) -> None:
        """Let go of the kept connections."""
        self.client.close()

    def forget_clock(self) -> None:
        """Start a new measurement of the server's clock in this thread."""
        self._answer.seconds = None

    @property
    def clock_seconds(self) -> float | None:
        """The server's Unix time at the first answer since `forget_clock`, in this thread.

        The first, because an object written while later pages were read must look new.
        """
        seconds: float | None = getattr(self._answer, "seconds", None)
        return seconds

    def provide_token(self) -> "GCSCredential":
        """Return a bearer token for the bulk reader, renewed when it is about to expire."""
        with self._lock:
            if not self._credentials.valid:
                self._credentials.refresh(Request())
            expiry: datetime | None = self._credentials.expiry
            return {
                "token": str(self._credentials.token),
                "expires_at": expiry.replace(tzinfo=UTC) if expiry else None,
            }

    def _note_clock(self, response: requests.Response, *_: Any, **__: Any) -> None:
        if self.clock_seconds is None and "Date" in response.headers:
            try:
                self._answer.seconds = parsedate_to_datetime(response.headers["Date"]).timestamp()
            except ValueError:
                self._answer.seconds = None


def _find_credentials(scope: str) -> Any:
    try:
        credentials, _ = google.auth.default(scopes=[scope])
    except DefaultCredentialsError:
        return _go_unsigned()
    return credentials


def _go_unsigned() -> Any:
    return AnonymousCredentials()  # type: ignore[no-untyped-call]


def _open_session(credentials: Any) -> requests.Session:
    return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]


def _read_emulator(environment: Mapping[str, str]) -> str | None:
    host = environment.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if not host:
        return None
    return host if "://" in host else f"http://{host}"
