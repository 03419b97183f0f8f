"""Changing the version in a file: that value alone, every other byte as it was."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ConfigError
from reconciler.rollback.edit import Version, set_version

PIECES = (
    "# a comment with version: 7 in it",
    "",
    "   # indented comment, ünïcode 🚀",
    'source: "gs://acme-models/ranker"  # quoted',
    "replicas:   2",
    "labels: {stable: 41, canary: 42}",
    "labels:\n    version: 41   # a label with that name\n    stable: 40",
    "description: 'version: 42 is what we like'",
    "description: |\n  version: 9\n  more",
    "description: >-\n  folded\n\n  version: 8",
    "metadata:\n  version: '3'",
    "group: 'a line \u2028 separator \x85 and another'",
    "stop: false   ",
    "'suspend' : true",
)
VALUES = ("41", "latest", '"latest"', "'latest'", "9223372036854775807", "0")
KEYS = ("version:", "version :", '"version":', "'version' : ", "version:\t", "version:\n  ")
versions: st.SearchStrategy[Version] = st.one_of(st.just("latest"), st.integers(0, 2**63 - 1))


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw what stands before and after the value of `version` in a valid file."""
    pieces = draw(
        st.lists(st.sampled_from(PIECES), max_size=6, unique_by=lambda p: p.split(":")[0])
    )
    split = draw(st.integers(0, len(pieces)))
    line_end = draw(st.sampled_from(("\n", "\r\n")))
    before = "".join(piece + "\n" for piece in pieces[:split]) + draw(st.sampled_from(KEYS)) + " "
    after = draw(st.sampled_from(("\n", "  # why\n", " #\n")))
    after += "\n".join(pieces[split:]) + draw(st.sampled_from(("", "\n", "\n\n# the end\n")))
    bom = draw(st.sampled_from((b"", b"\xef\xbb\xbf")))
    return bom + before.replace("\n", line_end).encode(), after.replace("\n", line_end).encode()


@given(files(), st.sampled_from(VALUES), versions)
def test_only_the_value_changes(file: tuple[bytes, bytes], old: str, new: Version) -> None:
    before, after = file
    assert set_version(before + old.encode() + after, new) == before + str(new).encode() + after


@given(
    st.dictionaries(
        st.sampled_from(("source", "labels", "description", "metadata", "group")),
        # Neither what is taken for a mistyped number nor what the quotes are taken from below.
        st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30).filter(
            lambda text: text != "true" and not text.lstrip("+-.")[:1].isdigit()
        ),
    ),
    st.sampled_from((None, True, False)),
    st.sampled_from((None, '"', "'")),
    st.integers(0, 10**18),
    versions,
)
def test_what_any_writer_wrote_says_the_same_beside_the_version(
    others: dict[str, str], flow: bool | None, style: str | None, old: int, new: Version
) -> None:
    fields = {**others, "version": old, "stop": True}
    # With a style every scalar is quoted, and a quoted number is text: no version to begin with.
    value = "latest" if style else old
    text = yaml.safe_dump(
        {**fields, "version": value}, default_flow_style=flow, default_style=style, width=20
    )
    if style:
        text = text.replace("!!bool ", "").replace(f"{style}true{style}", "true")
    edited = yaml.safe_load(set_version(text.encode(), new))
    assert edited == {**fields, "version": new}


@pytest.mark.parametrize(
    ("text", "version", "edited"),
    [
        ("{source: x, version: 4}", 5, "{source: x, version: 5}"),
        ("{version: latest, source: x}\n", 41, "{version: 41, source: x}\n"),
        ('{"version":4,"source":"x"}', "latest", '{"version":latest,"source":"x"}'),
        ("labels: {version: 1}\nversion: 1", 2, "labels: {version: 1}\nversion: 2"),
        ("description: 'ä\n\n  b'\r\nversion: 1", 2, "description: 'ä\n\n  b'\r\nversion: 2"),
        ("--- # head\nversion: 1\n...\n", 2, "--- # head\nversion: 2\n...\n"),
    ],
)
def test_layouts(text: str, version: Version, edited: str) -> None:
    assert set_version(text.encode(), version) == edited.encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: &v 1\nsource: x\n", "1:10: the version is written in a way that cannot be"),
        ("version: |-\n  latest\n", "1:10: the version is written in a way that cannot be"),
        ('version: "lat\\x65st"\n', "1:10: the version is written in a way that cannot be"),
        ("version:\n", "write `version: 2` there by hand"),
        ("version: {number: 1}\n", "write `version: 2` there by hand"),
        ("source: x\n", "1:1: there is no `version` to change"),
        ("- version: 1\n", "1:1: there is no `version` to change"),
        ("version: 1\nversion: 3\n", "is written twice; the first is in line 1; repair that first"),
        ("version: 1\nstop: yes\n", "repair that first"),
        ("<<<<<<< ours\nversion: 1\n", "a merge conflict was committed here"),
        ("", "the file is empty"),
        ("version: 1\n---\nversion: 1\n", "a second document begins here"),
    ],
)
def test_what_cannot_be_changed_alone_is_left_to_a_person(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^[0-9]+:[0-9]+: ") as raised:
        set_version(text.encode(), 2)
    assert message in str(raised.value)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ConfigError, match="not UTF-8"):
        set_version(b"version: 1\n# \xff\n", 2)
