"""Which looks become a trace, what belongs to it, and that no other costs anything."""

import asyncio
import time
from collections.abc import Callable

import pytest

from reconciler.errors import SourceError
from reconciler.tracing import Tracing
from reconciler.tracing import passes as module
from reconciler.tracing.passes import Trace


@pytest.fixture
def sent() -> list[Trace]:
    return []


@pytest.fixture
def tracing(sent: list[Trace]) -> Tracing:
    return Tracing(sent.append)


def note(tracing: Tracing, name: str, **facts: str) -> None:
    """Note something that took a moment, so that no two things happen at the same time."""
    with tracing.span(name, **facts):
        _pass_time()


def _pass_time() -> None:
    before = time.time_ns()
    while time.time_ns() == before:
        pass


def look(tracing: Tracing, *steps: str, moving: bool = False, meanwhile: str = "") -> None:
    tracing.begin_look()
    note(tracing, "plan")
    if meanwhile:
        note(tracing, meanwhile)
    tracing.end_look(steps, is_moving=moving, commit="c1")
    _pass_time()


def names(trace: Trace) -> list[str]:
    return [span.name for span in trace.spans]


def test_looks_that_find_nothing_to_do_are_forgotten(tracing: Tracing, sent: list[Trace]) -> None:
    for _ in range(5):
        note(tracing, "fetch git")
        look(tracing)
    tracing.close()
    assert sent == []


def test_what_led_to_a_step_and_what_came_of_it_is_one_trace(
    tracing: Tracing, sent: list[Trace]
) -> None:
    note(tracing, "fetch git")
    look(tracing, moving=True)
    note(tracing, "list", source="gs://b/m")
    look(tracing, "fetch m 1", moving=True)
    note(tracing, "download")
    look(tracing, "configure", moving=True)
    look(tracing, moving=True)
    assert sent == []
    look(tracing)

    (trace,) = sent
    assert names(trace) == ["fetch git", "list", "plan", "download", "plan"]
    assert trace.facts == {"commit": "c1"}
    assert trace.begun_ns == trace.spans[0].begun_ns
    assert trace.ended_ns >= trace.spans[-1].ended_ns
    assert next(span.facts for span in trace.spans if span.name == "list") == {"source": "gs://b/m"}

    look(tracing)
    assert len(sent) == 1


def test_looks_that_come_to_the_same_plan_again_are_told_once(
    tracing: Tracing, sent: list[Trace]
) -> None:
    for _ in range(10):
        look(tracing, "fetch m 1", moving=True)
    look(tracing)
    assert [names(trace) for trace in sent] == [["plan"]]


def test_what_ends_during_the_last_look_belongs_to_what_comes_next(
    tracing: Tracing, sent: list[Trace]
) -> None:
    look(tracing, "remove m 1", moving=True)
    look(tracing, meanwhile="fetch git")
    look(tracing, "fetch m 2", moving=True)
    look(tracing)
    assert [names(trace) for trace in sent] == [["plan"], ["fetch git", "plan"]]


def test_a_failure_is_told_by_its_reason_and_passes_on(tracing: Tracing, sent: list[Trace]) -> None:
    errors: dict[str, Callable[[], BaseException]] = {
        "Forbidden": lambda: SourceError("the token s3cr3t was refused", "Forbidden"),
        "Cancelled": asyncio.CancelledError,
        "OSError": lambda: OSError("/a/path"),
    }
    for make in errors.values():
        error = make()
        with pytest.raises(type(error)), tracing.span("list"):
            raise error
    look(tracing, "step", moving=True)
    look(tracing)

    assert [span.failure for span in sent[0].spans] == [*errors, None]
    assert "s3cr3t" not in repr(sent)


def test_a_stretch_of_work_without_end_is_sent_in_parts_of_bounded_length(
    tracing: Tracing, sent: list[Trace], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3 * module._MAX_SPANS):
        tracing.begin_look()
        note(tracing, "fetch git")
        tracing.end_look(("a step that fails",), is_moving=True)
    assert [len(trace.spans) for trace in sent] == [module._MAX_SPANS] * 3

    monkeypatch.setattr(module, "_MAX_PASS_SECONDS", 0.0)
    look(tracing, "another step", moving=True, meanwhile="list")
    assert names(sent[-1]) == ["plan", "list"]


def test_waiting_without_a_step_is_not_told_however_long_it_takes(
    tracing: Tracing, sent: list[Trace]
) -> None:
    for _ in range(2 * module._MAX_SPANS):
        note(tracing, "fetch git")
        look(tracing, moving=True)
    look(tracing)
    assert sent == []


def test_what_was_begun_is_sent_at_the_end(sent: list[Trace]) -> None:
    stopped: list[bool] = []
    tracing = Tracing(sent.append, lambda: stopped.append(bool(sent)))
    look(tracing, "fetch m 1", moving=True)
    tracing.close()
    assert names(sent[0]) == ["plan"]
    assert sent[0].facts == {"commit": "c1"}
    assert stopped == [True]


def test_nothing_is_kept_where_nobody_wants_traces() -> None:
    tracing = Tracing()
    note(tracing, "fetch git")
    look(tracing, "fetch m 1", moving=True)
    assert not tracing._spans
    tracing.close()
