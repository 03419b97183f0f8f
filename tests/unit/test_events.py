"""What the end of a reload means, by the server's answer."""

import pytest

from reconciler.model import Ask
from reconciler.planning.events import FetchFailed, ReloadFailed, ReloadStarted, fold
from reconciler.planning.memory import Memory
from reconciler.planning.rollout import Request
from tests.unit.worlds import remembered

REQUEST = Request({"a": Ask(frozenset({1, 2})), "b": Ask(frozenset({1}))})
NOT_LOADED = (
    "1 model(s) did not become available: {{{name: b version: 1} due to error: NOT_FOUND: x}, }"
)


def failed(code: str, message: str) -> Memory:
    memory = fold(remembered({"a": [1]}), ReloadStarted(), 100.0)
    memory = fold(memory, ReloadFailed(REQUEST, code, message), 101.0)
    assert memory.reload_started_at is None
    return memory


def test_a_new_model_that_failed_leaves_the_config_applied() -> None:
    memory = failed("UNKNOWN", NOT_LOADED)
    assert memory.asked_config == dict(REQUEST.config)
    assert memory.confirmed


@pytest.mark.parametrize(
    "message",
    [
        "Request to assign label to version 2 of model a, which is not currently available",
        "For model a platform was x and new platform requested is y",
    ],
)
def test_a_refusal_that_names_a_model_holds_up_that_model_only(message: str) -> None:
    memory = failed("FAILED_PRECONDITION", message)
    assert memory.of("a").refusal is not None
    assert memory.of("b").refusal is None
    assert memory.reload_failure is None
    assert memory.asked_config == {"a": Ask(frozenset({1}))}


def test_a_refusal_that_names_no_model_holds_up_that_config_only() -> None:
    memory = failed("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
    assert memory.reload_failure is not None
    assert memory.reload_failure.digest == REQUEST.fingerprint


def test_a_poisoned_server_is_not_taken_for_one_models_trouble() -> None:
    memory = failed("INVALID_ARGUMENT", "Illegal setting neither ..., model name is a")
    assert memory.of("a").refusal is None
    assert memory.reload_failure is not None


def test_no_answer_leaves_open_what_the_server_will_do() -> None:
    memory = failed("DEADLINE_EXCEEDED", "Deadline Exceeded")
    assert not memory.confirmed
    assert memory.reload_failure is not None
    assert memory.reload_failure.retry_at >= 101.0 + 60


def test_versions_under_way_when_the_server_went_away_are_suspected() -> None:
    memory = failed("UNAVAILABLE", "Socket closed")
    assert memory.of("a").load_failures.keys() == {2}
    assert memory.of("b").load_failures.keys() == {1}


def test_a_server_that_was_not_there_is_no_reason_to_suspect_a_version() -> None:
    memory = failed("UNAVAILABLE", "failed to connect to all addresses")
    assert not memory.of("a").load_failures
    assert not memory.of("b").load_failures


@pytest.mark.parametrize(
    ("reason", "longest_seconds"),
    [("ReadFailed", 30.0), ("DiskFull", 30.0), ("WriteFailed", 30.0), ("ChecksumMismatch", 300.0)],
)
def test_a_download_is_tried_soon_after_an_outage_and_bad_bytes_are_tried_rarely(
    reason: str, longest_seconds: float
) -> None:
    memory, now, waits = Memory(), 100.0, []
    for _ in range(20):
        memory = fold(memory, FetchFailed("a", 1, "digest", reason, "it failed"), now)
        waits.append(memory.of("a").fetch_failures[1].retry_at - now)
        now += waits[-1]
    assert waits[0] == 1.0
    assert max(waits) == longest_seconds
