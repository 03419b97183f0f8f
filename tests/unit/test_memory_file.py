"""What the agent keeps on disk between two runs."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import memory_file
from reconciler.model import Ask, Commit
from reconciler.planning.memory import Memory, ModelMemory

versions = st.integers(0, 2**60)
asks = st.builds(Ask, st.frozensets(versions), st.dictionaries(st.text(), versions))
known = st.builds(
    ModelMemory,
    admitted=st.text(),
    proven=st.lists(versions, max_size=16, unique=True).map(tuple),
    good=st.none() | asks,
    resolved=st.dictionaries(st.text(), versions),
)
commits = st.builds(Commit, st.text(), st.text(), st.text(), st.floats(0, 1e10))


@given(st.dictionaries(st.text(), known), st.none() | commits)
def test_what_was_saved_is_loaded(models: dict[str, ModelMemory], applied: Commit | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.json"
        memory_file.MemoryFile(path).save(Memory(models=models), applied)
        loaded, commit = memory_file.load(path)
    assert commit == applied
    for model, item in models.items():
        assert loaded.of(model).admitted == item.admitted
        assert loaded.of(model).proven == item.proven
        assert loaded.of(model).good == item.good
        assert dict(loaded.of(model).resolved) == dict(item.resolved)


def test_the_file_is_written_only_when_it_would_say_something_else(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    memory = Memory(models={"a": ModelMemory(proven=(1,))})
    file = memory_file.MemoryFile(path)
    file.save(memory, None)
    path.unlink()
    file.save(memory, None)
    file.save(memory.with_model("a", ModelMemory(proven=(1,), nudges=3)), None)
    assert not path.exists()
    file.save(memory.with_model("a", ModelMemory(proven=(1, 2))), None)
    assert memory_file.load(path)[0].of("a").proven == (1, 2)
    file.save(Memory(), None)
    assert memory_file.load(path) == (Memory(), None)


def test_a_file_that_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    file = memory_file.MemoryFile(tmp_path / "absent" / "memory.json")
    memory = Memory(models={"a": ModelMemory(proven=(1,))})
    with pytest.raises(OSError, match="absent"):
        file.save(memory, None)
    file.path.parent.mkdir()
    file.save(memory, None)
    assert memory_file.load(file.path)[0].of("a").proven == (1,)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"models": 1}',
        '{"models": {"a": {}}}',
        "\0",
        "[" * 60_000,
        '{"models": {"a": {"good": null, "proven": [1e999], "resolved": {}}}, "applied": null}',
    ],
)
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "memory.json"
    path.write_text(content)
    assert memory_file.load(path) == (Memory(), None)


def test_no_file_is_an_empty_memory(tmp_path: Path) -> None:
    assert memory_file.load(tmp_path / "memory.json") == (Memory(), None)


async def test_it_is_written_beside_the_loop_and_to_the_end_before_the_program_ends(
    tmp_path: Path,
) -> None:
    file = memory_file.MemoryFile(tmp_path / "memory.json")
    first = Memory(models={"a": ModelMemory(proven=(1,))})
    second = first.with_model("a", ModelMemory(proven=(1, 2)))
    assert not file.keep(first, None)
    assert not file.keep(second, None), "one is being written"
    await file.close()
    assert memory_file.load(file.path)[0].of("a").proven == (1, 2)
    assert file.keep(second, None)
    assert not file.keep(first, None)
    await file.close()
    assert memory_file.load(file.path)[0].of("a").proven == (1,)


async def test_a_disk_that_takes_nothing_is_said_once_and_tried_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = memory_file.MemoryFile(tmp_path / "absent" / "memory.json")
    memory = Memory(models={"a": ModelMemory(proven=(1,))})
    for _ in range(3):
        assert not file.keep(memory, None)
        await file.close()
    assert len(caplog.records) == 1
    assert "memory.json cannot be written, trying on" in caplog.text
    file.path.parent.mkdir()
    await file.close()
    assert memory_file.load(file.path)[0].of("a").proven == (1,)


async def test_a_file_that_was_never_to_say_anything_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text("of a disk that could not be read for a moment")
    await memory_file.MemoryFile(path).close()
    assert path.read_text() == "of a disk that could not be read for a moment"
