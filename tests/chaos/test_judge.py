"""What the judge of a run notices, of entries as the agent and the server write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Ask
from reconciler.serving.config_file import write_config
from tests.bucket import write_files
from tests.chaos.judge import BrokenError, Judge, Lines
from tests.chaos.recording_server import sum_up
from tests.chaos.script import BROKEN

WANTED = {"ranker": frozenset({5})}
GONE = {"4": "END", "5": "AVAILABLE"}


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """A judge of a node that has ranker 4 and 5 on disk and serves 5."""
    judge = Judge(tmp_path / "models", Lines(tmp_path / "loads"), Lines(tmp_path / "journal"))
    for version in (4, 5):
        folder = write_files(tmp_path / "models" / "ranker" / str(version), {"a": b"%d" % version})
        judge.published["ranker", version] = sum_up(folder)
    config = {"ranker": Ask(frozenset({5}))}
    write_config(tmp_path / "models" / "models.config", config, str(tmp_path / "models"))
    return judge


def note(judge: Judge, *entries: dict[str, Any]) -> None:
    with judge.journal.path.open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def removal(version: int, states: dict[str, str] | None, config: str = "") -> dict[str, Any]:
    return {"removed": ["ranker", version], "config": config, "at": 0.0, "states": states}


def test_what_is_right_is_counted(judge: Judge) -> None:
    note(judge, {"point": "x"}, {"died_at": "x"}, removal(4, GONE), removal(BROKEN, {"5": "END"}))
    judge.loads.path.write_text(
        json.dumps({"model": "ranker", "version": 5, "files": judge.published["ranker", 5]}) + "\n"
    )
    judge.check(WANTED)
    judge.check(WANTED)  # what was judged once is not judged again
    assert (judge.loaded, judge.removed) == (1, 2)
    assert (judge.points, judge.deaths) == ({"x": 1}, {"x": 1})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (removal(5, {"5": "END", "6": "AVAILABLE"}), "every commit asks for it"),
        (removal(4, None), "did not answer"),
        (removal(4, {"4": "UNLOADING", "5": "AVAILABLE"}), "the server has it"),
        (removal(4, {"4": "END"}), "the last good one"),
        ({"touched": "/models/ranker/4/a"}, "changed where the server reads it"),
    ],
)
def test_what_is_wrong_is_noticed(judge: Judge, entry: dict[str, Any], words: str) -> None:
    note(judge, entry)
    with pytest.raises(BrokenError, match=words):
        judge.check(WANTED)


def test_a_deletion_that_a_restart_would_wait_for_is_noticed(judge: Judge) -> None:
    config = (judge.models_dir / "models.config").read_text()
    note(judge, removal(5, {"6": "AVAILABLE"}, config))
    with pytest.raises(BrokenError, match=r"models\.config names it"):
        judge.check({})


def test_half_a_version_is_noticed_in_the_server_and_on_disk(judge: Judge) -> None:
    half = {"model": "ranker", "version": 5, "files": {}}
    judge.loads.path.write_text(json.dumps(half) + "\n")
    with pytest.raises(BrokenError, match="the server loaded"):
        judge.check(WANTED)
    (judge.models_dir / "ranker" / "4" / "a").write_bytes(b"other")
    with pytest.raises(BrokenError, match="other bytes than were published: a"):
        judge.check(WANTED)


def test_a_file_that_names_what_is_not_there_is_noticed(judge: Judge) -> None:
    write_config(
        judge.models_dir / "models.config", {"ranker": Ask(frozenset({6}))}, str(judge.models_dir)
    )
    with pytest.raises(BrokenError, match="which is not there"):
        judge.check(WANTED)
