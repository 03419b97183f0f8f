"""What the APIs of GitHub and GitLab have in common, and how they differ.

              GitHub {api}                                   GitLab {api}/api/v4
    status    POST  /repos/{project}/statuses/{commit}       POST /projects/{project}/statuses/{commit}
    who am I  GET   /user                                    GET  /user
    comments  GET   /repos/{project}/issues/{n}/comments     GET  …/merge_requests/{n}/notes
    make      POST  the same                                 POST the same
    change    PATCH /repos/{project}/issues/comments/{id}    PUT  …/merge_requests/{n}/notes/{id}

To GitHub a pull request is an issue, and the comments under it are the issue's.
"""  # noqa: E501

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlsplit

from reconciler.forge.requests import Call, ForgeError
from reconciler.status.followers import Mark

CONTEXT: Final = "reconciler"
"""The name under which a forge keeps our status; a second one under it replaces the first."""

_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
_NAME = r"(?!\.\.?(?:/|$))[A-Za-z0-9_.-]+"
_PROJECT = re.compile(rf"{_NAME}(?:/{_NAME})+")
_GITLAB_WORDS = {Mark.FAILURE: "failed"}
_PAGE_LENGTH = 100


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What is said of a commit."""

    commit_id: str
    mark: Mark
    description: str
    target_url: str | None = None


@dataclass(frozen=True, slots=True)
class Forge(ABC):
    """One project at a forge, and the token that speaks for us there."""

    name: ClassVar[str]
    """What people call it."""
    has_apps: ClassVar[bool]
    """Whether a token may be that of an app, which cannot ask who it is (403)."""

    api_url: str
    project: str
    token: str | None = field(repr=False)
    """None where nothing is to be asked or said."""

    def __post_init__(self) -> None:
        """Raises ForgeError for a place that no token should be sent to, or what cannot be one."""
        if not _PROJECT.fullmatch(self.project):
            raise ForgeError(f"{self.project!r} is not a project; write it as owner/name")
        _check_api_url(self.api_url)
        if self.token is not None:
            _check_token(self.token)

    @property
    def host(self) -> str:
        """Where it is, for messages."""
        return urlsplit(self.api_url).netloc

    @abstractmethod
    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Call:
        """Return a call of a path of the API."""

    @abstractmethod
    def set_status(self, status: CommitStatus) -> Call:
        """Return the call that writes a commit's status."""

    def ask_who(self) -> Call:
        """Return the call that says whose the token is."""
        return self.call("GET", "/user")

    @abstractmethod
    def list_comments(self, request: int, page: int) -> Call:
        """Return the call that lists a page of a request's comments, the oldest first."""

    @abstractmethod
    def make_comment(self, request: int, text: str) -> Call:
        """Return the call that writes a new comment."""

    @abstractmethod
    def change_comment(self, request: int, comment_id: int, text: str) -> Call:
        """Return the call that writes another text into a comment."""

    @abstractmethod
    def author(self, comment: dict[str, Any]) -> Any:
        """Return the account that wrote a comment, as the forge describes it."""


class GitHub(Forge):
    """GitHub, or GitHub Enterprise Server with an API URL such as https://host/api/v3."""

    name = "GitHub"
    has_apps = True

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Call:
        """Return a call with GitHub's headers."""
        headers = {
            "Authorization": f"Bearer {self.token or ''}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        return Call(method, f"{self.api_url.rstrip('/')}{path}", headers, body)

    def set_status(self, status: CommitStatus) -> Call:
        """Return the call of `Create a commit status`."""
        body = {
            "state": status.mark.value,
            "context": CONTEXT,
            "description": status.description,
            **_link(status),
        }
        return self.call("POST", f"{self._home}/statuses/{status.commit_id}", body)

    def list_comments(self, request: int, page: int) -> Call:
        """Return the call of `List issue comments`, which are in the order they were made."""
        query = f"per_page={_PAGE_LENGTH}&page={page}"
        return self.call("GET", f"{self._home}/issues/{request}/comments?{query}")

    def make_comment(self, request: int, text: str) -> Call:
        """Return the call of `Create an issue comment`."""
        return self.call("POST", f"{self._home}/issues/{request}/comments", {"body": text})

    def change_comment(self, request: int, comment_id: int, text: str) -> Call:
        """Return the call of `Update an issue comment`."""
        return self.call("PATCH", f"{self._home}/issues/comments/{comment_id}", {"body": text})

    def author(self, comment: dict[str, Any]) -> Any:
        """Return the user; a bot's has the type `Bot`."""
        return comment.get("user")

    @property
    def _home(self) -> str:
        return f"/repos/{self.project}"


class GitLab(Forge):
    """GitLab, by the URL that people open it at."""

    name = "GitLab"
    has_apps = False

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Call:
        """Return a call with GitLab's headers."""
        api_url = self.api_url.rstrip("/").removesuffix("/api/v4")
        headers = {"PRIVATE-TOKEN": self.token or "", "Accept": "application/json"}
        return Call(method, f"{api_url}/api/v4{path}", headers, body)

    def set_status(self, status: CommitStatus) -> Call:
        """Return the call of `Set commit pipeline status`."""
        body = {
            "state": _GITLAB_WORDS.get(status.mark, status.mark.value),
            "name": CONTEXT,
            "description": status.description,
            **_link(status),
        }
        return self.call("POST", f"{self._home}/statuses/{status.commit_id}", body)

    def list_comments(self, request: int, page: int) -> Call:
        """Return the call of `List all merge request notes`."""
        query = f"sort=asc&order_by=created_at&per_page={_PAGE_LENGTH}&page={page}"
        return self.call("GET", f"{self._notes(request)}?{query}")

    def make_comment(self, request: int, text: str) -> Call:
        """Return the call of `Create new merge request note`."""
        return self.call("POST", self._notes(request), {"body": text})

    def change_comment(self, request: int, comment_id: int, text: str) -> Call:
        """Return the call of `Modify existing merge request note`."""
        return self.call("PUT", f"{self._notes(request)}/{comment_id}", {"body": text})

    def author(self, comment: dict[str, Any]) -> Any:
        """Return the author."""
        return comment.get("author")

    @property
    def _home(self) -> str:
        return f"/projects/{quote(self.project, safe='')}"

    def _notes(self, request: int) -> str:
        return f"{self._home}/merge_requests/{request}/notes"


def open_forge(kind: str, project: str, api_url: str | None, token: str | None) -> Forge:
    """Return the forge of a kind, `github` or `gitlab`.

    Raises ForgeError for an address that cannot be right, and for a token that cannot be one.
    """
    if kind == "github":
        return GitHub(api_url or "https://api.github.com", project, token)
    return GitLab(api_url or "https://gitlab.com", project, token)


def _link(status: CommitStatus) -> dict[str, str]:
    return {"target_url": status.target_url} if status.target_url is not None else {}


def _check_token(token: str) -> None:
    """Raise ForgeError, without the token, for one that may not stand in a header."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ForgeError(
            "there is no usable token: it is empty, or holds spaces or line breaks; put it into"
            " the file of --token-file or into RECONCILER_FORGE_TOKEN"
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
