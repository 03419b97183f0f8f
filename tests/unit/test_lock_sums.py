"""SHA256SUMS: written, read, and read from a source that holds something else."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import SourceError
from reconciler.model import Query, Snapshot
from reconciler.planning.versions import check_path
from reconciler.sources import sums as sums_module
from reconciler.sources.file import FileSource
from reconciler.sources.sums import parse_sums, read_sums, render_sums, sum_files
from tests.bucket import WHOLE, write_files

NAMES = st.text(min_size=1, max_size=30).filter(
    lambda path: check_path(path) is None and not path.startswith("./")
)
TRUE_SUMS = {path: hashlib.sha256(content).hexdigest() for path, content in WHOLE.items()}


@given(st.dictionaries(NAMES, st.binary(max_size=8)))
def test_what_is_written_reads_back(contents: Mapping[str, bytes]) -> None:
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    assert parse_sums(render_sums(sums)) == sums


def test_the_forms_of_sha256sum_are_read() -> None:
    value = "ab" * 32
    text = f"{value}  ./a\n{value} *b\n{value.upper()}  c d"
    assert parse_sums(text.encode()) == {"a": value, "b": value, "c d": value}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff", "not UTF-8"),
        (b"ab" * 32 + b"  a\nb\n", "line 2 is not"),
        (b"ab" * 32 + b" a\n", "line 1 is not"),
        (b"ab" * 31 + b"  a\n", "line 1 is not"),
        (b"\n", "line 1 is not"),
        ((b"ab" * 32 + b"  a\n") * 2, "line 2 names 'a' a second time"),
    ],
)
def test_anything_else_is_refused_with_its_line(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_sums(data)


def take(folder: Path, files: Mapping[str, bytes]) -> Snapshot:
    write_files(folder / "1", files)
    return FileSource().list(Query(f"file://{folder}")).snapshots[1]


async def test_the_sums_of_a_version_name_every_file(tmp_path: Path) -> None:
    data = render_sums(TRUE_SUMS)
    snapshot = take(tmp_path, {**WHOLE, "SHA256SUMS": data})
    sums = await read_sums(FileSource(), snapshot)
    assert sums == {**TRUE_SUMS, "SHA256SUMS": hashlib.sha256(data).hexdigest()}
    assert sums == sum_files(tmp_path / "1", [file.path for file in snapshot.files])


async def test_a_version_without_sums_has_none(tmp_path: Path) -> None:
    assert await read_sums(FileSource(), take(tmp_path, WHOLE)) == {}


async def test_a_version_with_more_files_than_a_lock_lists_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(tmp_path, {**WHOLE, "SHA256SUMS": render_sums(TRUE_SUMS)})
    monkeypatch.setattr(sums_module, "MAX_FILES", len(snapshot.files))
    assert len(await read_sums(FileSource(), snapshot)) == len(snapshot.files)
    monkeypatch.setattr(sums_module, "MAX_FILES", len(snapshot.files) - 1)
    assert await read_sums(FileSource(), snapshot) == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"junk", "line 1 is not a sha256 sum"),
        (render_sums({"saved_model.pb": "0" * 64}), "does not name 'assets/empty', .* 1 more"),
        (render_sums({**TRUE_SUMS, "b": "0" * 64}), "it names 'b', which it cannot vouch for"),
        (render_sums({**TRUE_SUMS, "SHA256SUMS": "0" * 64}), "it names 'SHA256SUMS'"),
        (b"0" * (8 * 1024 * 1024 + 1), "8,388,609 bytes"),
    ],
    ids=["junk", "too few", "too many", "itself", "too large"],
)
async def test_sums_that_are_not_about_the_files_are_refused(
    tmp_path: Path, data: bytes, words: str
) -> None:
    snapshot = take(tmp_path, {**WHOLE, "SHA256SUMS": data})
    with pytest.raises(SourceError, match=words) as raised:
        await read_sums(FileSource(), snapshot)
    assert raised.value.reason == "BadSums"
    assert f"file://{tmp_path}/1/SHA256SUMS" in str(raised.value)
