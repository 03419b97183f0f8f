"""Writes a commit status: the mark that GitHub and GitLab show beside a commit.

    GitHub  POST {api}/repos/{owner}/{name}/statuses/{commit}             201
    GitLab  POST {api}/api/v4/projects/{project}/statuses/{commit}        201

The token goes to the API that was named and nowhere else: redirects are not followed, plain http
is taken for this machine alone, and no message repeats it. What may pass by itself (an overloaded
forge, a broken connection) is tried three times.
"""

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from reconciler.errors import ReconcilerError
from reconciler.status.client import printable
from reconciler.status.followers import Mark

CONTEXT: Final = "reconciler"
"""The name under which a forge keeps our status; a second one under it replaces the first."""

_DEADLINE_SECONDS = 15.0
_RETRY_AFTER_SECONDS = (1.0, 4.0)
_TAKEN = (200, 201)
_TRANSIENT = (None, 429, 500, 502, 503, 504)
_MAX_ANSWER_BYTES = 16 * 1024
_MAX_QUOTED_CHARACTERS = 200
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
_NAME = r"(?!\.\.?(?:/|$))[A-Za-z0-9_.-]+"
_PROJECT = re.compile(rf"{_NAME}(?:/{_NAME})+")
_GITLAB_WORDS = {Mark.FAILURE: "failed"}


class ForgeError(ReconcilerError):
    """A forge did not take a commit status."""

    reason = "ForgeFailed"


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What is said of a commit."""

    commit_id: str
    mark: Mark
    description: str
    target_url: str | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of one try."""

    code: int | None
    """None where there was no answer in time."""
    words: str


@dataclass(frozen=True, slots=True)
class Forge(ABC):
    """Where commit statuses of one project go."""

    name: str
    """What people call it."""
    api_url: str
    project: str

    def __post_init__(self) -> None:
        """Raises ForgeError for a place that no token should be sent to."""
        if not _PROJECT.fullmatch(self.project):
            raise ForgeError(f"{self.project!r} is not a project; write it as owner/name")
        _check_api_url(self.api_url)

    @abstractmethod
    def make_request(self, status: CommitStatus, token: str) -> urllib.request.Request:
        """Return the request that writes a status."""


class GitHub(Forge):
    """GitHub, or GitHub Enterprise Server with an API URL such as https://host/api/v3."""

    def make_request(self, status: CommitStatus, token: str) -> urllib.request.Request:
        """Return the request of api.github.com's `Create a commit status`."""
        return _make_request(
            f"{self.api_url.rstrip('/')}/repos/{self.project}/statuses/{status.commit_id}",
            {
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
            {
                "state": status.mark.value,
                "context": CONTEXT,
                "description": status.description,
                "target_url": status.target_url,
            },
        )


class GitLab(Forge):
    """GitLab, by the URL that people open it at."""

    def make_request(self, status: CommitStatus, token: str) -> urllib.request.Request:
        """Return the request of GitLab's `Set commit pipeline status`."""
        api_url = self.api_url.rstrip("/").removesuffix("/api/v4")
        project = quote(self.project, safe="")
        return _make_request(
            f"{api_url}/api/v4/projects/{project}/statuses/{status.commit_id}",
            {"PRIVATE-TOKEN": token, "Accept": "application/json"},
            {
                "state": _GITLAB_WORDS.get(status.mark, status.mark.value),
                "name": CONTEXT,
                "description": status.description,
                "target_url": status.target_url,
            },
        )


def open_forge(kind: str, project: str, api_url: str | None = None) -> Forge:
    """Return the forge of a kind, `github` or `gitlab`; raises ForgeError for a bad address."""
    if kind == "github":
        return GitHub("GitHub", api_url or "https://api.github.com", project)
    return GitLab("GitLab", api_url or "https://gitlab.com", project)


def check_token(token: str) -> str:
    """Return a token that may stand in a header; raises ForgeError, without it, for another."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ForgeError(
            "there is no usable token: it is empty, or holds spaces or line breaks; put it into"
            " the file of --token-file or into RECONCILER_FORGE_TOKEN"
        )
    return token


def send_status(forge: Forge, status: CommitStatus, token: str) -> None:
    """Write a commit status; raises ForgeError with a sentence."""
    answer = _post(forge.make_request(status, token))
    for pause_seconds in _RETRY_AFTER_SECONDS:
        if answer.code not in _TRANSIENT:
            break
        time.sleep(pause_seconds)
        answer = _post(forge.make_request(status, token))
    if answer.code in _TAKEN or _is_said_already(answer):
        return
    said = answer.words.replace(token, "***")[:_MAX_QUOTED_CHARACTERS]
    raise ForgeError(
        f"{forge.name} took no status: {_explain(forge, status, answer.code)} ({said})"
    )


def _explain(forge: Forge, status: CommitStatus, code: int | None) -> str:
    commit = status.commit_id[:10]
    match code:
        case None:
            return f"{_host(forge)} did not answer; check --api and the network"
        case 401:
            return "the token is not valid; make a new one"
        case 403:
            return (
                f"the token may not write statuses of {forge.project}; it needs `statuses: write`"
                " at GitHub, scope `api` and the role Developer at GitLab"
            )
        case 404:
            return (
                f"{_host(forge)} has no {forge.project}, or not commit {commit} in it, or the token"
                " may not see it; check --project and the token, and push the commit first"
            )
        case 422:
            return f"it does not take the status of commit {commit}; push the commit first"
        case 301 | 302 | 303 | 307 | 308:
            return f"{_host(forge)} answered {code}, a redirect; name the right --api"
    return f"{_host(forge)} answered {code}"


def _is_said_already(answer: _Answer) -> bool:
    """Tell whether the refusal says that the state is the same as before, as GitLab puts it."""
    return answer.code == 400 and "Cannot transition status" in answer.words


def _post(request: urllib.request.Request) -> _Answer:
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with closing(opener.open(request, timeout=_DEADLINE_SECONDS)) as response:
            return _Answer(response.status, "")
    except urllib.error.HTTPError as error:
        with closing(error):
            return _Answer(error.code, _read_message(error))
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        return _Answer(None, printable(str(cause) or type(cause).__name__))


def _read_message(error: urllib.error.HTTPError) -> str:
    """Return the forge's own words."""
    try:
        text = error.read1(_MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return "its answer broke off"
    try:
        content = json.loads(text)
        words = content.get("message") or content.get("error")
    except (ValueError, AttributeError, RecursionError):
        words = text
    return printable(" ".join(str(words).split())) or "no words"


def _make_request(
    url: str, headers: dict[str, str], body: dict[str, Any]
) -> urllib.request.Request:
    said = {name: value for name, value in body.items() if value is not None}
    return urllib.request.Request(  # noqa: S310 - _check_api_url has seen to the scheme
        url,
        json.dumps(said).encode(),
        {"Content-Type": "application/json", "User-Agent": "tfserving-reconciler", **headers},
        method="POST",
    )


def _check_api_url(url: str) -> None:
    # The URL stays out of the messages: someone may have put a password into it.
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ForgeError("--api is not a URL; write it as https://host") from None
    if not host or not host.isascii() or not url.isprintable() or " " in url:
        raise ForgeError("--api is not a URL; write it as https://host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ForgeError("--api has more in it than scheme, host and path; write https://host")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOCAL_HOSTS):
        raise ForgeError("--api must be https, or the token could be read on its way")


def _host(forge: Forge) -> str:
    return urlsplit(forge.api_url).netloc


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows none: the token would go along to wherever the answer points."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Return no request, so that the redirect itself is the answer."""
