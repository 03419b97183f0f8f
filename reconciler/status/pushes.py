"""What the webhooks of the forges say: who sent one, whether it is genuine, what it is about.

    forge                event                secret
    GitHub               X-GitHub-Event       X-Hub-Signature-256: sha256=<hex>, HMAC of the body
    GitLab               X-Gitlab-Event       X-Gitlab-Token: the secret itself
    Gitea, Forgejo       X-Gitea-Event        X-Gitea-Signature: <hex>, HMAC of the body
    Bitbucket            X-Event-Key          X-Hub-Signature: sha256=<hex>, HMAC of the body

Pure: bytes and headers in, a verdict out. Nothing that a body says is believed beyond one thing,
whether the branch that the node follows has moved; what it moved to is asked of git.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_BRANCH = "refs/heads/"


@dataclass(frozen=True, slots=True)
class Forge:
    """How one forge marks and signs what it sends."""

    name: str
    event_header: str
    secret_header: str
    digest_prefix: str | None
    """What stands before the hex digest; None where the header holds the secret itself."""
    pushes: frozenset[str]
    """The events that may have moved a branch."""
    pings: frozenset[str] = frozenset()
    """The events by which a person tries a hook out."""


FORGES = (
    # Gitea and Forgejo call themselves GitHub as well, so they are looked for first.
    Forge("Gitea", "x-gitea-event", "x-gitea-signature", "", frozenset({"push"})),
    Forge(
        "GitHub",
        "x-github-event",
        "x-hub-signature-256",
        "sha256=",
        frozenset({"push"}),
        frozenset({"ping"}),
    ),
    Forge(
        "GitLab", "x-gitlab-event", "x-gitlab-token", None, frozenset({"Push Hook", "System Hook"})
    ),
    Forge(
        "Bitbucket",
        "x-event-key",
        "x-hub-signature",
        "sha256=",
        frozenset({"repo:push", "repo:refs_changed"}),
        frozenset({"diagnostics:ping"}),
    ),
)


class Result(StrEnum):
    """What a genuine webhook leads to."""

    FETCHING = "fetching"
    IGNORED = "ignored"
    PONG = "pong"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result, and a sentence for whoever looks at the forge's list of deliveries."""

    result: Result
    sentence: str


class UnreadablePushError(Exception):
    """A genuine push whose body is not what its forge sends; the message is a sentence."""


def find_forge(headers: Mapping[str, str]) -> Forge | None:
    """Return who sent a request with these headers (names in lower case), None if nobody known."""
    return next((forge for forge in FORGES if forge.event_header in headers), None)


def is_genuine(forge: Forge, given: str, secret: bytes, body: bytes) -> bool:
    """Tell whether who sent `given` in the forge's secret header knows the secret."""
    # Headers arrive decoded as latin-1, so this gives back the bytes that were sent.
    sent = given.strip().encode("latin-1")
    if forge.digest_prefix is None:
        return hmac.compare_digest(sent, secret)
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(sent, f"{forge.digest_prefix}{digest}".encode())


def judge(forge: Forge, event: str, body: bytes, branch: str) -> Verdict:
    """Return what a genuine webhook means for a node that follows `branch`.

    Raises UnreadablePushError.
    """
    if event in forge.pings:
        return Verdict(Result.PONG, f"{forge.name} reaches this node and knows its secret.")
    if event not in forge.pushes:
        return Verdict(Result.IGNORED, "Only pushes are of interest here; leave the others out.")
    branches = _moved_branches(forge, event, _parse(forge, body))
    if branch in branches:
        return Verdict(Result.FETCHING, f"{branch} is fetched now; /status shows what comes of it.")
    return Verdict(Result.IGNORED, f"This node follows {branch}, which did not move.")


def _parse(forge: Forge, body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise UnreadablePushError(
            "The body is signed but not JSON; set the hook's content type to application/json."
        ) from None
    if not isinstance(content, dict):
        raise _unlike(forge)
    return content


def _moved_branches(forge: Forge, event: str, content: dict[str, Any]) -> set[str]:
    """Return the branches that point to another commit now; a deleted one points to none."""
    try:
        match event:
            case "repo:push":
                heads = [change["new"] for change in content["push"]["changes"]]
                return {head["name"] for head in heads if head and head["type"] == "branch"}
            case "repo:refs_changed":
                moved = [c["ref"]["id"] for c in content["changes"] if c["type"] != "DELETE"]
            case "System Hook" if content["event_name"] != "push":
                moved = []  # a system hook brings every event under one name
            case _:
                is_deletion = not content["after"].strip("0")
                moved = [] if is_deletion else [content["ref"]]
        return {ref.removeprefix(_BRANCH) for ref in moved if ref.startswith(_BRANCH)}
    except (KeyError, TypeError, AttributeError):
        raise _unlike(forge) from None


def _unlike(forge: Forge) -> UnreadablePushError:
    return UnreadablePushError(
        f"The body is signed but not what {forge.name} sends for a push; nothing was done."
    )
