"""What the forges send to a webhook: the fields that their documentation names, and the headers."""

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

SECRET = b"a-webhook-secret-nobody-should-see"
OLD, NEW, GONE = "1" * 40, "2" * 40, "0" * 40


@dataclass(frozen=True)
class Delivery:
    """One request of a forge; header names in lower case."""

    headers: dict[str, str]
    body: bytes


def github(ref: str, *, is_gone: bool = False, event: str = "push") -> Delivery:
    """Return GitHub's push event (docs.github.com, webhook events and payloads)."""
    body = json.dumps(
        {
            "ref": ref,
            "before": OLD,
            "after": GONE if is_gone else NEW,
            "created": False,
            "deleted": is_gone,
            "forced": False,
            "repository": {"full_name": "acme/fleet", "default_branch": "main"},
            "pusher": {"name": "ada", "email": "ada@example.org"},
            "head_commit": None if is_gone else {"id": NEW, "message": "Change"},
            "commits": [],
        }
    ).encode()
    headers = {"x-github-event": event, "x-hub-signature-256": f"sha256={sign(body)}"}
    return Delivery(headers, body)


def gitlab(ref: str, *, is_gone: bool = False) -> Delivery:
    """Return GitLab's push event; a tag comes as an event of its own."""
    is_tag = ref.startswith("refs/tags/")
    body = json.dumps(
        {
            "object_kind": "tag_push" if is_tag else "push",
            "event_name": "tag_push" if is_tag else "push",
            "before": OLD,
            "after": GONE if is_gone else NEW,
            "ref": ref,
            "checkout_sha": None if is_gone else NEW,
            "project_id": 15,
            "project": {"path_with_namespace": "acme/fleet", "default_branch": "main"},
            "commits": [],
            "total_commits_count": 1,
        }
    ).encode()
    event = "Tag Push Hook" if is_tag else "Push Hook"
    return Delivery({"x-gitlab-event": event, "x-gitlab-token": SECRET.decode()}, body)


def gitlab_system(event_name: str) -> Delivery:
    """Return a system hook of GitLab, which names its event in the body."""
    content = {"event_name": event_name, "project_id": 15}
    if event_name == "push":
        content |= {"ref": "refs/heads/main", "before": OLD, "after": NEW}
    headers = {"x-gitlab-event": "System Hook", "x-gitlab-token": SECRET.decode()}
    return Delivery(headers, json.dumps(content).encode())


def gitea(ref: str, *, is_gone: bool = False) -> Delivery:
    """Return the push event of Gitea and Forgejo, with the headers of GitHub they send as well."""
    body = json.dumps(
        {
            "ref": ref,
            "before": OLD,
            "after": GONE if is_gone else NEW,
            "compare_url": "https://git.example.org/acme/fleet/compare/1...2",
            "commits": [],
            "repository": {"full_name": "acme/fleet"},
            "pusher": {"login": "ada"},
        }
    ).encode()
    headers = {
        "x-gitea-event": "push",
        "x-gogs-event": "push",
        "x-github-event": "push",
        "x-gitea-signature": sign(body),
        "x-gogs-signature": sign(body),
        "x-hub-signature-256": f"sha256={sign(body)}",
    }
    return Delivery(headers, body)


def bitbucket_cloud(*refs: str, is_gone: bool = False) -> Delivery:
    """Return Bitbucket Cloud's repo:push."""
    changes = []
    for ref in refs:
        _, kind, name = ref.split("/", 2)
        head = {"type": "branch" if kind == "heads" else "tag", "name": name}
        changes.append(
            {
                "old": {**head, "target": {"type": "commit", "hash": OLD}},
                "new": None if is_gone else {**head, "target": {"type": "commit", "hash": NEW}},
                "created": False,
                "closed": is_gone,
                "forced": False,
            }
        )
    return _bitbucket(
        "repo:push", {"push": {"changes": changes}, "repository": {"full_name": "acme/fleet"}}
    )


def bitbucket_server(*refs: str, is_gone: bool = False) -> Delivery:
    """Return Bitbucket Data Center's repo:refs_changed."""
    changes = []
    for ref in refs:
        _, kind, name = ref.split("/", 2)
        changes.append(
            {
                "ref": {
                    "id": ref,
                    "displayId": name,
                    "type": "BRANCH" if kind == "heads" else "TAG",
                },
                "refId": ref,
                "fromHash": OLD,
                "toHash": GONE if is_gone else NEW,
                "type": "DELETE" if is_gone else "UPDATE",
            }
        )
    return _bitbucket("repo:refs_changed", {"eventKey": "repo:refs_changed", "changes": changes})


def sign(body: bytes) -> str:
    """Return the HMAC of a body in hex."""
    return hmac.new(SECRET, body, hashlib.sha256).hexdigest()


def _bitbucket(event: str, content: dict[str, Any]) -> Delivery:
    body = json.dumps(content).encode()
    return Delivery({"x-event-key": event, "x-hub-signature": f"sha256={sign(body)}"}, body)


DELIVERIES = (github, gitlab, gitea, bitbucket_cloud, bitbucket_server)
