"""Webhooks without a server: whose they are, whether they are genuine, what they are about."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.status.limits import TokenBucket
from reconciler.status.pushes import (
    FORGES,
    Forge,
    Result,
    UnreadablePushError,
    find_forge,
    is_genuine,
    judge,
)
from tests.forges import (
    DELIVERIES,
    SECRET,
    bitbucket_cloud,
    bitbucket_server,
    github,
    gitlab,
    gitlab_system,
)

_BY_NAME = {forge.name: forge for forge in FORGES}


@pytest.mark.parametrize("make", DELIVERIES)
def test_a_push_to_the_branch_is_fetched_and_any_other_is_not(make: Any) -> None:
    for ref, is_gone, expected in (
        ("refs/heads/main", False, Result.FETCHING),
        ("refs/heads/main", True, Result.IGNORED),
        ("refs/heads/maintenance", False, Result.IGNORED),
        ("refs/heads/feature/main", False, Result.IGNORED),
        ("refs/tags/main", False, Result.IGNORED),
    ):
        delivery = make(ref, is_gone=is_gone)
        forge = find_forge(delivery.headers)
        assert forge is not None
        assert is_genuine(forge, delivery.headers[forge.secret_header], SECRET, delivery.body)
        event = delivery.headers[forge.event_header]
        verdict = judge(forge, event, delivery.body, "main")
        assert verdict.result is expected, (ref, is_gone, verdict)


def test_a_branch_may_have_slashes_in_its_name() -> None:
    body = github("refs/heads/release/2026").body
    assert judge(_BY_NAME["GitHub"], "push", body, "release/2026").result is Result.FETCHING
    assert judge(_BY_NAME["GitHub"], "push", body, "2026").result is Result.IGNORED


@pytest.mark.parametrize("make", [bitbucket_cloud, bitbucket_server])
def test_a_push_of_several_branches_counts_when_one_of_them_is_followed(make: Any) -> None:
    delivery = make("refs/heads/other", "refs/heads/main")
    forge = find_forge(delivery.headers)
    assert forge is not None
    event = delivery.headers[forge.event_header]
    assert judge(forge, event, delivery.body, "main").result is Result.FETCHING


def test_gitea_is_known_although_it_calls_itself_github_too() -> None:
    headers = {"x-github-event": "push", "x-gitea-event": "push"}
    assert find_forge(headers) is _BY_NAME["Gitea"]
    assert find_forge({"x-some-event": "push"}) is None


@pytest.mark.parametrize(
    ("forge", "event", "result"),
    [
        ("GitHub", "ping", Result.PONG),
        ("Bitbucket", "diagnostics:ping", Result.PONG),
        ("GitHub", "pull_request", Result.IGNORED),
        ("GitLab", "Tag Push Hook", Result.IGNORED),
        ("Gitea", "delete", Result.IGNORED),
        ("Bitbucket", "pullrequest:fulfilled", Result.IGNORED),
    ],
)
def test_other_events_are_told_apart_without_their_bodies(
    forge: str, event: str, result: Result
) -> None:
    assert judge(_BY_NAME[forge], event, b"not JSON", "main").result is result


def test_a_system_hook_of_gitlab_counts_for_pushes_alone() -> None:
    push, rename = gitlab_system("push"), gitlab_system("project_rename")
    assert judge(_BY_NAME["GitLab"], "System Hook", push.body, "main").result is Result.FETCHING
    assert judge(_BY_NAME["GitLab"], "System Hook", rename.body, "main").result is Result.IGNORED


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
_SHAPES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("ref", "after", "push", "changes", "event_name"), _JSON),
) | st.fixed_dictionaries({"push": st.fixed_dictionaries({"changes": st.lists(_JSON)})})


@given(
    st.sampled_from([(forge, event) for forge in FORGES for event in sorted(forge.pushes)]),
    st.binary() | (_JSON | _SHAPES).map(lambda value: json.dumps(value).encode()),
)
def test_no_body_does_worse_than_being_unreadable(sent: tuple[Forge, str], body: bytes) -> None:
    try:
        verdict = judge(*sent, body, "main")
    except UnreadablePushError as error:
        assert str(error).startswith("The body is signed but not")
    else:
        assert verdict.result is Result.IGNORED


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b'{"a":' * 100_000, b"9" * 100_000, b"\xff"])
def test_a_body_that_would_harm_a_parser_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadablePushError):
        judge(_BY_NAME["GitHub"], "push", body, "main")


@given(st.sampled_from(FORGES), st.binary(min_size=1).filter(lambda s: s == s.strip()), st.binary())
def test_only_who_knows_the_secret_is_genuine(forge: Forge, secret: bytes, body: bytes) -> None:
    digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
    right = (
        secret.decode("latin-1")
        if forge.digest_prefix is None
        else f"{forge.digest_prefix}{digest}"
    )
    # Header values are what HTTP leaves of them; str.strip would also take what bytes keep.
    if right != right.strip():
        return
    assert is_genuine(forge, right, secret, body)
    assert not is_genuine(forge, right + "0", secret, body)
    assert not is_genuine(forge, right[:-1], secret, body)
    assert not is_genuine(forge, right, secret + b"x", body)
    if forge.digest_prefix is not None:
        assert not is_genuine(forge, right, secret, body + b"x")


def test_gitlab_signs_nothing_so_its_token_is_all_that_counts() -> None:
    delivery = gitlab("refs/heads/main")
    assert delivery.headers["x-gitlab-token"].encode() == SECRET
    assert not is_genuine(_BY_NAME["GitLab"], "", SECRET, delivery.body)


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    now = 100.0
    bucket = TokenBucket(60, 3, lambda: now)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1.0]
    now += 0.5
    assert bucket.take() == 0.5
    now += 0.5
    assert [bucket.take(), bucket.take()] == [0, 1.0]
    now += 3600
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1.0]
