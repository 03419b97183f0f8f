"""models.config: what we write is what we read, and what others wrote is understood."""

import string
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Ask
from reconciler.serving import config_file
from reconciler.serving.config_file import (
    OwnFile,
    parse,
    read_own,
    render,
    to_message,
    write_config,
)

names = st.text(string.ascii_letters + string.digits + "_.-", min_size=1)
versions = st.integers(0, 2**63 - 1)
asks = st.builds(Ask, st.frozensets(versions), st.dictionaries(names, versions))


@given(st.dictionaries(names, asks))
def test_what_is_written_is_read(config: dict[str, Ask]) -> None:
    assert parse(render(config, "/models")) == config


@given(st.dictionaries(st.text(min_size=1), asks), st.text())
def test_it_is_word_for_word_what_protobuf_writes(config: dict[str, Ask], base: str) -> None:
    by_protobuf = text_format.MessageToString(to_message(config, base))
    assert render(config, base).split("\n", 1)[1] == by_protobuf


def test_the_own_file_is_parsed_only_when_somebody_else_wrote_it(tmp_path: Path) -> None:
    file = OwnFile(tmp_path / "models.config", "/models")
    assert file.read() is None
    config = {"a": Ask(frozenset({1}), {"stable": 1})}
    with patch("reconciler.serving.config_file.parse") as parsing:
        file.write(config)
        assert file.read() is config
        assert file.read() is config
    parsing.assert_not_called()
    other = {"a": Ask(frozenset({2}))}
    write_config(file.path, other, "/models")
    assert file.read() == other
    assert file.read() is file.read()
    file.path.write_text(file.path.read_text() + "# by hand\n")
    assert file.read() is None
    file.path.unlink()
    assert file.read() is None


def test_an_empty_config_still_has_its_list() -> None:
    """A server that starts from a config without the list never takes a reload properly."""
    assert "model_config_list" in render({}, "/models")
    assert to_message({}, "/models").WhichOneof("config") == "model_config_list"


def test_an_empty_set_of_versions_is_said_and_not_left_to_the_default() -> None:
    """The default is the latest version, the opposite of none."""
    assert "specific" in render({"a": Ask(frozenset())}, "/models")


def test_a_config_that_somebody_else_wrote() -> None:
    text = """
    # ours since 2019
    model_config_list: {
      config { name: 'a', base_path: "/old/a", model_platform: "tensorflow",
               model_version_policy { latest { num_versions: 2 } } };
      config { name: "b" base_path: "/old/b" model_platform: "tensorflow"
               model_version_policy { specific { versions: [3, 4] } }
               version_labels { key: "stable" value: 3 } }
    }
    """
    assert parse(text) == {"a": Ask(frozenset()), "b": Ask(frozenset({3, 4}), {"stable": 3})}


@pytest.mark.parametrize("text", ["model_config_lst {}", "{", "\0", "model_config_list { x: 1 }"])
def test_what_cannot_be_parsed_is_none(text: str) -> None:
    assert parse(text) is None


@given(st.dictionaries(names, asks, min_size=1))
def test_our_own_words_are_understood_without_protobuf(config: dict[str, Ask]) -> None:
    with tempfile.TemporaryDirectory() as folder, patch(f"{config_file.__name__}.parse") as parsing:
        path = Path(folder) / "models.config"
        write_config(path, config, "/models")
        assert read_own(path, "/models") == config
    parsing.assert_not_called()


@given(st.dictionaries(st.text(min_size=1), asks), st.text())
def test_our_own_words_are_understood_whatever_the_names(config: dict[str, Ask], base: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "models.config"
        write_config(path, config, base)
        assert read_own(path, base) == config


def test_only_our_own_words_count_as_written_by_us(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    config = {"a": Ask(frozenset({1}), {"stable": 1})}
    assert read_own(path, "/models") is None
    write_config(path, config, "/models")
    assert read_own(path, "/models") == config
    assert read_own(path, "/elsewhere") is None
    path.write_text(path.read_text() + "# by hand\n")
    assert read_own(path, "/models") is None
