"""Folder names by TensorFlow Serving's rule, dangerous object names, whole SavedModels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Listing, Query, Rule, StoredFile, VersionScheme
from reconciler.planning.savedmodel import find_missing
from reconciler.planning.versions import check_path, group_versions, parse_version


def list_names(*names: str) -> Listing:
    files = [StoredFile(name, 1, 1, 1, 0.0) for name in names]
    return group_versions(Query("gs://acme/ranker"), files, 100.0)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("5", 5),
        ("0005", 5),
        ("+5", 5),
        ("-1", -1),
        (" 6", 6),
        ("6\t", 6),
        ("20260101120000", 20260101120000),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("-9223372036854775808", -(2**63)),
        ("9" * 20, None),
        ("9" * 5000, None),
        ("", None),
        ("+", None),
        ("- 1", None),
        ("v5", None),
        ("5.tmp", None),
        (".5", None),
        ("1e3", None),
        ("0x5", None),
        ("1_000", None),
        ("٣", None),
        ("\u00a05", None),
    ],
)
def test_parse_version(name: str, version: int | None) -> None:
    assert parse_version(name) == version


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 8))
def test_every_int64_is_a_version_however_padded(number: int, zeros: int) -> None:
    sign, digits = ("-", str(-number)) if number < 0 else ("", str(number))
    assert parse_version(f"{sign}{'0' * zeros}{digits}") == number


def test_group_versions_sorts_files_and_ignores_what_is_no_version() -> None:
    listing = list_names(
        "42/variables/", "42/saved_model.pb", "42/a", "43/", "README", "7", "v1/x", "0009/saved"
    )
    assert {version: snapshot.folder for version, snapshot in listing.snapshots.items()} == {
        42: "42",
        9: "0009",
    }
    assert [file.path for file in listing.snapshots[42].files] == ["a", "saved_model.pb"]
    assert listing.refused == {}


def test_of_two_folders_for_one_version_the_later_in_byte_order_counts() -> None:
    listing = list_names("2/new", "0002/old", "+2/older")
    assert listing.snapshots[2].folder == "2"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["1/../../etc/passwd"], "points elsewhere"),
        (["1/./a"], "points elsewhere"),
        (["1//etc/passwd"], "absolute path"),
        (["1/a//b"], "empty part"),
        (["1/a\\b"], "backslash"),
        (["1/a\nb"], "control character"),
        (["1/a\x00"], "control character"),
        (["1/a\u2028b"], "control character"),
        (["1/" + "x" * 256], "too long"),
        (["1/" + "ü" * 128], "too long"),
        (["1/" + "/".join(["x" * 200] * 6)], "too long"),
        (["1/Words.txt", "1/words.txt"], "case of letters"),
        (["1/Assets/a", "1/assets/b"], "case of letters"),
        (["1/a", "1/a/b"], "both a file and a folder"),
        (["\n1/saved_model.pb"], "control character"),
        (["-1/saved_model.pb"], "negative"),
    ],
)
def test_a_dangerous_name_refuses_its_version_alone(names: list[str], words: str) -> None:
    listing = list_names("7/saved_model.pb", *names)
    (sentence,) = listing.refused.values()
    assert words in sentence
    assert sentence.isprintable()
    assert set(listing.snapshots) == {7}


@given(st.text())
def test_a_path_that_passes_stays_inside_its_folder(path: str) -> None:
    if check_path(path) is None:
        parts = path.split("/")
        assert all(part not in ("", ".", "..") and len(part.encode()) < 256 for part in parts)
        assert "\0" not in path


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["saved_model.pb"], None),
        (["saved_model.pbtxt", "assets/words.txt"], None),
        ([], "saved_model.pb"),
        (["variables/variables.index"], "saved_model.pb"),
        (["x/saved_model.pb"], "saved_model.pb"),
        (["saved_model.pb", "variables/x"], "variables/variables.index"),
        (
            ["saved_model.pb", "variables/variables.index"],
            "variables/variables.data-00000-of-00001",
        ),
        (
            [
                "saved_model.pb",
                "variables/variables.index",
                "variables/variables.data-00000-of-00003",
                "variables/variables.data-00002-of-00003",
            ],
            "variables/variables.data-00001-of-00003",
        ),
        (
            [
                "saved_model.pb",
                "variables/variables.index",
                "variables/variables.data-00000-of-00001",
                "variables/variables.data-00000-of-00002",
                "variables/variables.data-00001-of-00002",
            ],
            "one set of variables (there are shards of sets of 1 and 2 files)",
        ),
        (
            [
                "saved_model.pb",
                "variables/variables.index",
                "variables/variables.data-00000-of-00001",
            ],
            None,
        ),
    ],
)
def test_find_missing(names: list[str], missing: str | None) -> None:
    assert find_missing(names) == missing


@given(st.integers(1, 20), st.data())
def test_a_savedmodel_without_any_one_of_its_shards_is_incomplete(
    count: int, data: st.DataObject
) -> None:
    shards = [f"variables/variables.data-{i:05}-of-{count:05}" for i in range(count)]
    whole = ["saved_model.pb", "variables/variables.index", *shards]
    assert find_missing(whole) is None
    lost = data.draw(st.sampled_from(whole))
    assert find_missing(name for name in whole if name != lost) == lost


def test_the_names_of_a_scheme_stand_in_the_place_of_numbers() -> None:
    """Folders, folders with an archive and archives alike; what is named otherwise is ignored."""
    paths = [
        "1.9.0/saved_model.pb",
        "1.10.0.zip",
        "1.11.0/export.tar.gz",
        "42/saved_model.pb",
        "v1.12.0/saved_model.pb",
        "1.12/saved_model.pb",
        "42.zip",
    ]
    query = Query("gs://acme/ranker", scheme=VersionScheme(Rule.SEMVER))
    found = group_versions(query, [StoredFile(path, 1, 1, 1, 0.0) for path in paths], 100.0)
    ascending = [each for _, each in sorted(found.snapshots.items())]
    assert [(each.title, each.folder, each.archive) for each in ascending] == [
        ("1.9.0", "1.9.0", None),
        ("1.10.0", "", "1.10.0.zip"),
        ("1.11.0", "1.11.0", "export.tar.gz"),
    ]
    assert found.refused == {}


def test_a_refusal_names_the_version_as_people_do() -> None:
    files = [StoredFile(path, 1, 1, 1, 0.0) for path in ("1.9.0/saved_model.pb", "1.9.0.zip")]
    query = Query("gs://acme/ranker", scheme=VersionScheme(Rule.SEMVER))
    (sentence,) = group_versions(query, files, 100.0).refused.values()
    assert sentence.startswith("version 1.9.0 of gs://acme/ranker is refused: it is there more")
