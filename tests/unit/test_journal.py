"""The history is durable, bounded and readable after whatever a crash leaves behind."""

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from reconciler.model import Commit
from reconciler.resources import data_folder
from reconciler.status.changes import Change, Result
from reconciler.status.journal import MAX_READ, Journal, render_change

COMMIT = Commit("1a2b3c4d", "Ada Lovelace", "Roll ranker out", 990.0)


def change(version: int, model: str = "ranker", why: str = "serves") -> Change:
    return Change(
        1000.0 + version, COMMIT, model, None, version, Result.DEPLOYED, "Serving", why, 4.5
    )


def versions(journal: Journal, limit: int = MAX_READ) -> list[int | None]:
    return [entry.to_version for entry in journal.read(limit)]


def test_changes_come_back_newest_first_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    journal = Journal(path)
    for version in (1, 2, 3):
        journal.append(change(version))

    assert journal.read(2) == (change(3), change(2))
    assert Journal(path).read(MAX_READ) == journal.read(MAX_READ)


def test_a_file_cut_anywhere_loses_the_cut_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    Journal(path).append(change(1))
    first = path.stat().st_size
    Journal(path).append(change(2))
    content = path.read_bytes()

    for cut in range(first - 2, len(content)):
        path.write_bytes(content[:cut])
        before = [1] if cut >= first else []

        journal = Journal(path)
        assert versions(journal) == before
        journal.append(change(9))

        assert versions(Journal(path)) == [9, *before]
        assert [json.loads(line)["to"] for line in path.read_text().splitlines()] == [*before, 9]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b"\0" * 300 + b"\n", id="zeros-after-a-power-cut"),
        pytest.param(b"[]\n", id="other-json"),
        pytest.param(b'{"time": "yesterday"}\n', id="fields-missing"),
        pytest.param(b"\xff\xfe\n", id="not-utf-8"),
        pytest.param(b"x" * 200_000 + b"\n", id="a-line-without-end"),
    ],
)
def test_a_damaged_line_hides_no_other(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "history.jsonl"
    Journal(path).append(change(1))
    with path.open("ab") as file:
        file.write(damage)
    Journal(path).append(change(2))

    assert versions(Journal(path)) == [2, 1]


def test_the_history_never_takes_more_than_two_files(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    journal = Journal(path, max_file_bytes=2000)
    for version in range(50):
        journal.append(change(version))

    assert sorted(file.name for file in tmp_path.iterdir()) == ["history.jsonl", "history.jsonl.1"]
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    kept = versions(Journal(path, max_file_bytes=2000))
    assert kept == list(range(49, 49 - len(kept), -1))
    assert len(kept) > 5


def test_what_is_kept_in_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    line = json.dumps(render_change(change(7))) + "\n"
    path.write_text(line * (MAX_READ + 5))

    journal = Journal(path)
    journal.append(change(8))

    assert len(journal.read(MAX_READ + 5)) == MAX_READ
    assert versions(journal, 2) == [8, 7]


def test_the_last_change_of_each_model_is_known_until_the_model_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    journal = Journal(path)
    journal.append(change(1, "spell"))
    journal.append(change(2))
    gone = Change(1, COMMIT, "spell", 1, None, Result.REMOVED, "Removed", "gone")
    journal.append(gone)

    assert journal.last == {"ranker": change(2)}
    assert Journal(path).last == {"ranker": change(2)}


def test_the_changes_of_one_commit_share_what_is_kept_of_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "history.jsonl")
    for model in ("ranker", "suggest"):
        journal.append(change(1, model))
    kept = Journal(tmp_path / "history.jsonl").last
    assert kept["ranker"].commit is kept["suggest"].commit


def test_long_texts_are_cut_and_the_line_fits_the_schema(tmp_path: Path) -> None:
    schema = json.loads((data_folder("schema") / "status.schema.json").read_text())
    path = tmp_path / "history.jsonl"

    Journal(path).append(change(1, why="x" * 100_000 + "\n"))

    line = path.read_text()
    assert len(line) < 4000
    change_schema = {**schema["$defs"]["change"], "$defs": schema["$defs"]}
    jsonschema.Draft202012Validator(change_schema).validate(json.loads(line))
    assert set(json.loads(line)) == set(change_schema["properties"])
    assert Journal(path).read(1)[0].why.endswith("…")


def test_an_append_that_fails_half_way_records_nothing_and_the_next_one_heals(
    tmp_path: Path,
) -> None:
    path = tmp_path / "history.jsonl"
    journal = Journal(path)
    journal.append(change(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # The kernel cuts the write at this size, as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"history\.jsonl"):
            journal.append(change(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)

    assert versions(journal) == [1]
    assert versions(Journal(path)) == [1]
    journal.append(change(3))
    assert versions(journal) == versions(Journal(path)) == [3, 1]


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    script = (
        "import sys, pathlib\n"
        "from reconciler.model import Commit\n"
        "from reconciler.status.changes import Change, Result\n"
        "from reconciler.status.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "for version in range(1, 10**9):\n"
        "    journal.append(Change(0, Commit('a', 'b', 'c', 0), 'ranker', None, version,\n"
        "                          Result.DEPLOYED, 'Serving', 'serves'))\n"
        "    print(version, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 25:
                os.kill(child.pid, signal.SIGKILL)
                break
        rest = child.stdout.read().split()
        acknowledged = int(rest[-1]) if rest else 25

    newest = versions(Journal(path))
    assert newest[-1] == 1
    assert newest[0] in (acknowledged, acknowledged + 1)
    assert newest == list(range(len(newest), 0, -1))


def test_names_of_versions_are_kept_and_older_lines_are_read_without(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    journal = Journal(path)
    named = replace(change(42), from_name="1.9.0", to_name="1.10.0")
    journal.append(change(41))
    journal.append(named)
    text = path.read_text()
    plain = ',"from_name":null,"to_name":null'
    assert plain in text
    path.write_text(text.replace(plain, ""))
    assert list(Journal(path).read(9)) == [named, change(41)]
