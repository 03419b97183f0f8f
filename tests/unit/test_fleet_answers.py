"""Reading a node's answer: what an agent says comes out as it is, and nothing else gets through."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.fleet.answers import read_answer
from reconciler.model import Condition, Phase
from reconciler.status.client import StatusError
from tests.fleetnodes import NEW, OLD, WALL_SECONDS, body, outcome, report

BROKEN = Condition("GitReachable", False, "Timeout", "github.com did not answer")
HOLDS = Condition("ConfigValid", True, "AsExpected", "every file is valid")
WHOLE = report(
    "search-1",
    [outcome("ranker", Phase.DEPLOYING, 42, (41,))],
    {"ranker": ["search-2", "search-1"]},
    applied=OLD,
    removals=[outcome("speller", Phase.STOPPING, None, (7,))],
    broken=[BROKEN, HOLDS],
    members=("search-1", "search-2"),
    instance="5f1c",
)


def test_what_an_agent_says_comes_out_as_it_is() -> None:
    answer = read_answer(body(WHOLE))
    assert (answer.node, answer.group, answer.instance) == ("search-1", "search", "5f1c")
    assert answer.members == ("search-1", "search-2")
    assert (answer.observed, answer.applied) == (NEW, OLD)
    assert answer.generated_at_seconds == WALL_SECONDS
    assert answer.broken == (BROKEN,)
    assert answer.disk == WHOLE.disk
    (ranker,) = answer.deployments
    assert (ranker.model, ranker.phase, ranker.wanted) == ("ranker", Phase.DEPLOYING, 42)
    assert (ranker.serving, ranker.holders) == ((41,), ("search-2", "search-1"))
    assert [telling.model for telling in answer.tellings] == ["ranker", "speller"]


def test_an_agent_that_is_older_than_the_fleet_view_is_read_as_well() -> None:
    old = json.loads(body(WHOLE))
    for name in ("instance", "members"):
        del old[name]
    for item in old["deployments"]:
        for name in ("ask", "holders", "deployed_seconds"):
            del item[name]
    answer = read_answer(json.dumps(old).encode())
    assert (answer.instance, answer.members, answer.deployments[0].holders) == ("", (), ())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("node",), 7),
        (("members",), "search-1"),
        (("uptime_seconds",), float("nan")),
        (("generated_at",), "yesterday"),
        (("observed",), "b" * 40),
        (("conditions", 0, "holds"), "no"),
        (("deployments", 0, "phase"), "Dancing"),
        (("deployments", 0, "wanted_version"), -1),
        (("deployments", 0, "wanted_version"), 2**63),
        (("deployments", 0, "serving_versions"), [True]),
        (("deployments", 0, "labels"), ["stable"]),
        (("deployments",), [{}]),
        (("members",), ["search-1"] * 20_000),
        (("disk", "free_bytes"), 1.5),
    ],
)
def test_a_field_of_the_wrong_kind_makes_it_no_status(
    path: tuple[str | int, ...], value: object
) -> None:
    spoilt = json.loads(body(WHOLE))
    place: Any = spoilt
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(StatusError, match="is not a reconciler's status"):
        read_answer(json.dumps(spoilt).encode())


@pytest.mark.parametrize(
    "garbage", [b"", b"<html>", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff", b"9" * 5000]
)
def test_garbage_is_no_status(garbage: bytes) -> None:
    with pytest.raises(StatusError):
        read_answer(garbage)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.sampled_from(sorted(json.loads(body(WHOLE)))), value=_json)
def test_whatever_a_field_holds_it_is_read_or_refused(name: str, value: object) -> None:
    spoilt = json.dumps({**json.loads(body(WHOLE)), name: value}).encode()
    try:
        answer = read_answer(spoilt)
    except StatusError:
        return
    assert isinstance(answer.node, str)
    answer.node.encode()  # half a character would end the view of all


def test_texts_are_cut_and_cannot_steer_a_terminal() -> None:
    spoilt = outcome("ranker", sentence="\x1b[2J" + "x" * 10_000)
    (telling,) = read_answer(body(report("search-1", [spoilt]))).deployments
    assert "\x1b" not in telling.sentence
    assert len(telling.sentence) == 500
