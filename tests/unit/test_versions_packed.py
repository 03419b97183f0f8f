"""Which versions are packed, told from the names alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Listing, Query, StoredFile
from reconciler.planning.resolve import NotReady, Resolved, resolve
from reconciler.planning.versions import Names, check_path, group_versions

SOURCE = "gs://acme/ranker"
PARTS = st.text("aAbB./\\\n", max_size=4)


def list_names(*names: str) -> Listing:
    files = [StoredFile(name, 10, 1, 1, 0.0) for name in names]
    return group_versions(Query(SOURCE), files, 100.0)


@pytest.mark.parametrize(
    ("names", "archive"),
    [
        (["42/model.tar.gz"], "model.tar.gz"),
        (["42/model.tgz"], "model.tgz"),
        (["42/model.tar"], "model.tar"),
        (["42/anything.zip"], "anything.zip"),
        (["42/SHA256SUMS", "42/model.zip"], "model.zip"),
        (["42/", "42/model.zip"], "model.zip"),
        (["42.tar.gz"], "42.tar.gz"),
        (["42.tgz"], "42.tgz"),
        (["0042.tar"], "0042.tar"),
        (["42.zip", "42/"], "42.zip"),
        (["42/saved_model.pb", "42/model.tar.gz"], None),
        (["42/saved_model.pbtxt", "42/a.zip", "42/b.zip"], None),
        (["42/model.zip", "42/README.md"], None),
        (["42/assets/model.zip"], None),
        (["42/SHA256SUMS"], None),
        (["42/model.tar.bz2"], None),
    ],
)
def test_what_holds_a_version(names: list[str], archive: str | None) -> None:
    listing = list_names("7/saved_model.pb", *names)
    assert listing.refused == {}
    assert listing.snapshots[42].archive == archive
    assert listing.snapshots[7].archive is None
    places = {listing.snapshots[42].place_of(file) for file in listing.snapshots[42].files}
    assert places == {name for name in names if not name.endswith("/")}


@pytest.mark.parametrize("name", ["latest.zip", "42.tar.bz2", "42.zip.sha256", "v42.tgz", ".zip"])
def test_archives_that_are_no_version_are_ignored(name: str) -> None:
    assert set(list_names("7.zip", name).snapshots) == {7}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["42/saved_model.pb", "42.zip"], "more than once ('42/', '42.zip')"),
        (["42.zip", "42.tar.gz"], "more than once"),
        (["0042.zip", "42.zip"], "more than once"),
        (["0042/saved_model.pb", "42/saved_model.pb", "42.zip"], "'0042/', '42/', '42.zip'"),
        (["42/a.zip", "42/b.zip"], "2 archives ('a.zip', 'b.zip')"),
        (["42/a.zip", "42/b.tar", "42/c.tar", "42/d.tgz"], "'c.tar', 1 more"),
        (["-42.zip"], "negative"),
        (["42\n.zip"], "control character"),
        (["42/model\n.zip"], "control character"),
    ],
)
def test_what_nobody_can_tell_is_refused_alone(names: list[str], words: str) -> None:
    listing = list_names("7/saved_model.pb", *names)
    (sentence,) = listing.refused.values()
    assert words in sentence
    assert sentence.isprintable()
    assert set(listing.snapshots) == {7}


def test_an_archive_that_the_source_cannot_hand_out_is_refused() -> None:
    file = StoredFile("42.zip", 10, 1, 1, 0.0)
    listing = group_versions(Query(SOURCE), [file], 100.0, {"42.zip": "'42.zip' is a pipe"})
    assert "'42.zip' is a pipe" in listing.refused[42]


def test_a_packed_version_is_taken_by_number_and_as_the_latest() -> None:
    listing = list_names("41/saved_model.pb", "42/model.zip", "43/README.md")
    for version in (None, 42):
        answer = resolve(version, listing, settle_seconds=0)
        assert isinstance(answer, Resolved)
        assert answer.snapshot.version == 42
    assert isinstance(resolve(43, listing, settle_seconds=0), NotReady)


def test_the_digest_of_a_packed_version_is_that_of_its_archive() -> None:
    packed, again, other = (list_names(name) for name in ("42.zip", "42.zip", "42.tar"))
    assert packed.snapshots[42].digest == again.snapshots[42].digest
    assert packed.snapshots[42].digest != other.snapshots[42].digest
    assert packed.snapshots[42].size_bytes == 10


@given(st.lists(st.tuples(st.lists(PARTS, max_size=3).map("/".join), st.booleans()), max_size=6))
def test_names_that_pass_can_all_be_on_one_disk(entries: list[tuple[str, bool]]) -> None:
    """Whatever the order: every file has its place, even where case makes no difference."""
    names = Names()
    passed = [
        (path, is_folder) for path, is_folder in entries if not names.add(path, is_folder=is_folder)
    ]
    assert all(check_path(path) is None for path, _ in passed)
    files = [path.casefold() for path, is_folder in passed if not is_folder]
    assert len(set(files)) == len(files)
    folders = {path.casefold() for path, is_folder in passed if is_folder}
    for path in [*files, *folders]:
        parts = path.split("/")
        folders |= {"/".join(parts[:end]) for end in range(1, len(parts))}
    assert not folders & set(files)
