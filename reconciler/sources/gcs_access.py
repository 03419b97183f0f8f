"""How Cloud Storage is reached: endpoint, credentials, who pays, and the server's clock.

One `Access` is shared by all buckets, so that there is one token to renew and one set of kept
connections. STORAGE_EMULATOR_HOST is honoured as everywhere, and then nothing is signed.

The official client renews its token by itself. For the lines that bring bytes this module does: a
token is made sure of before each read and renewed when Cloud Storage refuses it before its time,
as it does where this node's clock went back.
"""

import os
import threading
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import google.auth
import requests
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud.storage import Client

from reconciler.settings import environment_name
from reconciler.sources.gcs_lines import GOOGLE, Lines
from reconciler.sources.gcs_trouble import PageError, explain_broken_credentials

READ_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
WRITE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
USER_PROJECT_VARIABLE = environment_name("user_project")
KEY_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"

_TOKEN_SECONDS = 20
"""How long one question to a token endpoint may take; the library's own limit is 120 s."""
_MIN_TOKEN_AGE_SECONDS = 10.0
"""A token younger than this is not renewed for being refused: the next would be refused too."""
_LOOK_AGAIN_SECONDS = 300.0
"""Between two searches for credentials; off Google's machines each takes some ten seconds."""
_NONE_FOUND = "credentials were not found"
"""What the library says where there are none; of a broken file of gcloud's it says otherwise."""


class Access:
    """The official client with application default credentials, or none where there are none.

    Without any credentials requests go unsigned, which is enough for public buckets; a private
    one then answers 401 and the message says so. Credentials that are there but cannot be used are
    no reason to go unsigned: SourceError, reason Unauthenticated.

    `user_project` is billed for what requester-pays buckets cost; the commands, which have no
    settings, leave it to the environment. `endpoint` stands in for Google's and is reached with
    credentials, other than an emulator.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        scope: str = READ_SCOPE,
        *,
        user_project: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        self._answer = threading.local()
        self._key_file = _find_key_file()
        self._key_mark = _mark(self._key_file)
        emulator = _read_emulator(environment)
        self.user_project = (
            environment.get(USER_PROJECT_VARIABLE, "") if user_project is None else user_project
        )
        self.endpoint = endpoint or emulator
        self._request = _Request()
        self._credentials = _go_unsigned() if emulator else find_credentials(scope, self._request)
        self.anonymous = isinstance(self._credentials, AnonymousCredentials)
        self._renewing = threading.Lock()
        self._asked = 0
        self._failure: Exception | None = None
        self._renewed_at = -_MIN_TOKEN_AGE_SECONDS
        self._refused: object = None
        self._looked_at = time.monotonic()
        self._is_unwelcome = False
        self.lines = Lines(self.endpoint or GOOGLE)
        session = _open_session(self._credentials, self._request)
        session.hooks["response"] += [self._note_clock, self._note_refusal]
        options = {"api_endpoint": self.endpoint} if self.endpoint else None
        # A project is asked for only by calls that create buckets; None is "no project".
        self.client = Client(
            project=None, credentials=self._credentials, _http=session, client_options=options
        )

    def close(self) -> None:
        """Let go of the kept connections."""
        self.client.close()
        self.lines.close()

    @property
    def outdated(self) -> bool:
        """Whether to look for credentials again: the key file was exchanged, or none were found.

        The second because a node may start before its metadata server; only after a refusal, as
        public buckets need none.
        """
        if self._is_unwelcome:
            return time.monotonic() - self._looked_at > _LOOK_AGAIN_SECONDS
        return _mark(self._key_file) != self._key_mark

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

    def renew_token(self) -> None:
        """See to it that there is a token that lasts; blocking, raises GoogleAuthError.

        Whoever waited while another asked has that answer, be it a bad one: if each reader asked
        again, an endpoint that hangs would hold up the last of them for as many deadlines.
        """
        asked_before = self._asked
        with self._renewing:
            if self._has_token:
                return
            if self._failure is not None and self._asked != asked_before:
                raise self._failure
            try:
                self._ask_for_token()
            except Exception as error:
                self._failure = error
                raise
            finally:
                self._asked += 1
            self._failure = None

    def _ask_for_token(self) -> None:
        try:
            self._credentials.refresh(self._request)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # An answer that is no token's: the library looks into it without looking at it.
            words = f"the answer was no token ({type(error).__name__})"
            raise RefreshError(words) from error  # type: ignore[no-untyped-call]
        self._renewed_at, self._refused = time.monotonic(), None

    def make_headers(self) -> dict[str, str]:
        """Return what a read says of itself, with the token as `renew_token` left it."""
        headers = {"User-Agent": "tfserving-reconciler"}
        if self.user_project:
            headers["x-goog-user-project"] = self.user_project
        if not self.anonymous:
            headers["Authorization"] = f"Bearer {self._credentials.token}"
        return headers

    def refuse_token(self) -> None:
        """Have the token replaced before the next read, because Cloud Storage did not take it.

        Where there are no credentials, they are looked for again after a while.
        """
        self._is_unwelcome |= self.anonymous
        if time.monotonic() - self._renewed_at >= _MIN_TOKEN_AGE_SECONDS:
            self._refused = self._credentials.token

    @property
    def _has_token(self) -> bool:
        if self.anonymous:
            return True
        return bool(self._credentials.valid) and self._credentials.token != self._refused

    def _note_clock(self, response: requests.Response, *_: Any, **__: Any) -> None:
        if self.clock_seconds is None and "Date" in response.headers:
            try:
                self._answer.seconds = parsedate_to_datetime(response.headers["Date"]).timestamp()
            except ValueError:
                self._answer.seconds = None

    def _note_refusal(self, response: requests.Response, *_: Any, **__: Any) -> None:
        if self.anonymous and response.status_code == 401:
            self._is_unwelcome = True


class _Request(Request):
    """A question to where tokens are given, with a deadline of our own and no patience for pages.

    The library takes whatever comes with status 200 for a token's answer and stumbles over HTML.
    """

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Any = _TOKEN_SECONDS,
        **options: Any,
    ) -> Any:
        answer = super().__call__(  # type: ignore[no-untyped-call]
            url, method=method, body=body, headers=headers, timeout=timeout, **options
        )
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            words = f"HTTP {answer.status} with a web page"
            raise PageError(words)  # type: ignore[no-untyped-call]
        return answer


def find_credentials(scope: str, request: Request | None = None) -> Any:
    """Return the application default credentials, anonymous ones where there are none; blocking.

    Raises SourceError, Unauthenticated, where there are some that cannot be used.
    """
    key_file = _find_key_file()
    try:
        credentials, _ = google.auth.default(scopes=[scope], request=request or _Request())
    except DefaultCredentialsError as error:
        if key_file is None and _NONE_FOUND in str(error):
            return _go_unsigned()
        raise explain_broken_credentials(key_file, KEY_VARIABLE, error) from error
    except Exception as error:
        # A file that is no key makes the library stumble in ways that it does not foresee.
        raise explain_broken_credentials(key_file, KEY_VARIABLE, error) from error
    return credentials


def _find_key_file() -> Path | None:
    named = os.environ.get(KEY_VARIABLE, "")
    return Path(named) if named else None


def _mark(path: Path | None) -> tuple[int, int, int] | None:
    """Return what changes with a file's content; None where there is no file."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else None


def _go_unsigned() -> Any:
    return AnonymousCredentials()  # type: ignore[no-untyped-call]


def _open_session(credentials: Any, request: Request) -> requests.Session:
    return AuthorizedSession(  # type: ignore[no-untyped-call]
        credentials, refresh_timeout=_TOKEN_SECONDS, auth_request=request
    )


def _read_emulator(environment: Mapping[str, str]) -> str | None:
    host = environment.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if not host:
        return None
    return host if "://" in host else f"http://{host}"
