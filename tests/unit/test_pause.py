"""A node is paused by a command beside its agent, with a reason and an end."""

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reconciler import pause_file
from reconciler.cli.main import cli
from reconciler.model import Pause


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_a_pause_is_written_read_and_ended(tmp_path: Path) -> None:
    assert pause_file.load(tmp_path) is None
    state = ("--state-dir", str(tmp_path))
    result = run("pause", "--reason", "disk is being replaced", "--for", "2h", *state)
    assert result.exit_code == 0, result.output
    assert "paused for 2 h 0 min, until " in result.output
    pause = pause_file.load(tmp_path)
    assert pause is not None
    assert pause.reason == "disk is being replaced"
    assert pause.until_seconds == pytest.approx(time.time() + 7200, abs=60)
    assert "goes on" in run("resume", *state).output
    assert pause_file.load(tmp_path) is None
    assert "was not paused" in run("resume", *state).output


def test_the_state_folder_is_found_as_the_agent_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILER_STATE_DIR", str(tmp_path))
    assert run("pause", "--reason", "x", "--for", "1m").exit_code == 0
    assert pause_file.load(tmp_path) is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--for", "1h"], "--reason"),
        (["--reason", "x"], "--for"),
        (["--reason", "x", "--for", "8d"], "at most 7d"),
        (["--reason", "x", "--for", "0s"], "at most 7d"),
        (["--reason", " ", "--for", "1h"], "one line"),
        (["--reason", "a\nb", "--for", "1h"], "one line"),
        (["--reason", "x" * 301, "--for", "1h"], "300"),
    ],
)
def test_a_pause_without_a_reason_or_an_end_is_refused(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = run("pause", *arguments, "--state-dir", str(tmp_path))
    assert result.exit_code == 2
    assert words in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_no_agent_uses_is_named(tmp_path: Path) -> None:
    result = run("pause", "--reason", "x", "--for", "1h", "--state-dir", str(tmp_path / "none"))
    assert result.exception is not None
    assert "name the agent's state folder" in str(result.exception)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"reason": 1}',
        '{"reason": "x", "until_seconds": {}}',
        '{"reason": "x", "until_seconds": 1%s}' % ("0" * 400),
        '{"reason": "x", "until_seconds": 1e999}',
        '{"reason": "x", "until_seconds": NaN}',
        '{"reason": %s' % ("[" * 60_000),
    ],
)
def test_a_damaged_pause_is_none_and_said_once(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pause.json").write_text(text)
    assert pause_file.load(tmp_path) is None
    assert pause_file.load(tmp_path) is None
    assert caplog.text.count("so this node is not paused") == 1


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    pause = Pause("why", 12345.5)
    pause_file.save(tmp_path, pause)
    assert pause_file.load(tmp_path) == pause


def test_the_agent_can_read_what_another_user_wrote(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        pause_file.save(tmp_path, Pause("why", 12345.5))
    finally:
        os.umask(before)
    assert (tmp_path / "pause.json").stat().st_mode & 0o777 == 0o644
