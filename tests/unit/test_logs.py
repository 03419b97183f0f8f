"""Log lines for machines: what each is about, and that text lines are as they were."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.options import start_logging
from reconciler.logs import JsonLines, about, turn_to

_log = logging.getLogger("reconciler.test")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
    yield stream
    _log.removeHandler(handler)
    _log.propagate = True


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_bad_what_and_about_what(lines: io.StringIO) -> None:
    with about(commit="c1"):
        with about(model="ranker", version=42):
            _log.warning("%s failed", "it")
        _log.info("inner facts are gone")
    _log.info("all are gone")

    first, second, third = read(lines)
    moment = datetime.fromisoformat(first.pop("time"))
    assert moment.utcoffset() == timedelta(0)
    assert first == {
        "level": "WARNING",
        "message": "it failed",
        "commit": "c1",
        "model": "ranker",
        "version": 42,
    }
    assert list(first) == ["level", "message", "commit", "model", "version"]
    assert (second["commit"], "model" in second, "version" in second) == ("c1", False, False)
    assert set(third) == {"time", "level", "message"}


async def test_a_task_begins_with_what_its_starter_was_about_and_keeps_it(
    lines: io.StringIO,
) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def download() -> None:
        with about(model="ranker"):
            started.set()
            await go_on.wait()
            _log.info("downloaded")

    turn_to(commit="c1")
    task = asyncio.create_task(download())
    await started.wait()
    turn_to(commit="c2")
    go_on.set()
    await task
    _log.info("ticked")
    turn_to(commit=None)
    _log.info("knows no commit")

    assert [(line.get("commit"), line.get("model")) for line in read(lines)] == [
        ("c1", "ranker"),
        ("c2", None),
        (None, None),
    ]


def test_a_fact_that_is_not_known_is_left_out(lines: io.StringIO) -> None:
    with about(model="ranker", version=None):
        _log.info("lists")
    assert "version" not in read(lines)[0]


def test_a_traceback_is_part_of_the_line(lines: io.StringIO) -> None:
    try:
        raise ValueError("what")
    except ValueError:
        _log.exception("a bug")
    (line,) = read(lines)
    assert line["traceback"].endswith("ValueError: what")


@given(st.text(), st.text())
def test_whatever_is_said_is_one_line_of_ascii(message: str, model: str) -> None:
    record = logging.LogRecord("n", logging.INFO, "p", 1, "%s", (message,), None)
    with about(model=model):
        line = JsonLines().format(record)
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == message
    assert json.loads(line)["model"] == model


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_setting_chooses_the_lines(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    try:
        start_logging(log_format)
        with about(commit="c1"):
            logging.getLogger("reconciler.other").info("said")
        said = capsys.readouterr().err
    finally:
        root.handlers = before
        root.setLevel(level)
    if log_format == "json":
        assert json.loads(said)["commit"] == "c1"
    else:
        time, milliseconds = said[:23].split(",")
        datetime.strptime(time, "%Y-%m-%d %H:%M:%S")
        assert milliseconds.isdecimal()
        assert said[23:] == " INFO said\n"
