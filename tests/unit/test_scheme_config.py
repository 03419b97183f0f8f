"""Versions by name in the config repo: what fits which scheme, and the sentence where none does."""

import json

import pytest

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.build import build_deployment, build_lock
from reconciler.config_repo.documents import Broken, Document, parse_document
from reconciler.config_repo.layout import Kind, Place
from reconciler.config_repo.locks import find_misfits
from reconciler.config_repo.yaml_text import read_yaml, write_scalar
from reconciler.history.state import read_state
from reconciler.history.trail import Files
from reconciler.locking.text import render_lock
from reconciler.model import Deployment, Lock, LockedVersion
from reconciler.rollback.edit import set_version
from tests.unit.histories import History

PATH = "deployments/search/ranker.yaml"
LOCK = "deployments/search/ranker.lock.yaml"
SEMVER = "version_scheme: semver"
DAYS = "version_scheme: {dates: '%Y-%m-%d'}"
HASHES = "version_scheme: {names: {9f3c2ab: 1, 77ab01d: 2}}"


def parse(text: str) -> Document | Broken:
    return parse_document(Kind.DEPLOYMENT, f"source: gs://acme-models/ranker\n{text}\n".encode())


def build(text: str) -> Deployment:
    document = parse(text)
    assert isinstance(document, Document), document
    return build_deployment(PATH, Place(Kind.DEPLOYMENT, "search", "ranker"), document)


@pytest.mark.parametrize(
    ("text", "version", "name"),
    [
        (f"version: 1.43.13\n{SEMVER}", 1_000_043_000_013, "1.43.13"),
        (f"version: '2026-11-21'\n{DAYS}", 20_261_121_000_000, "2026-11-21"),
        (f"version: 77ab01d\n{HASHES}", 2, "77ab01d"),
        ("version: '20261121'\nversion_scheme: {dates: '%Y%m%d'}", 20_261_121_000_000, "20261121"),
        ("version: '1234567'\nversion_scheme: {names: {1234567: 9}}", 9, "1234567"),
        ("version: 42\nversion_scheme: number", 42, "42"),
        ("version: 42", 42, "42"),
    ],
)
def test_a_pin_is_written_by_name(text: str, version: int, name: str) -> None:
    deployment = build(text)
    assert deployment.version == version
    assert deployment.scheme.name(version) == name


def test_latest_and_labels_are_of_the_same_scheme() -> None:
    deployment = build(f"version: latest\nlabels: {{stable: 1.9.0, canary: 1.10.0}}\n{SEMVER}")
    assert deployment.version is None
    assert deployment.labels == {"stable": 1_000_009_000_000, "canary": 1_000_010_000_000}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            f"version: 1.4\n{SEMVER}",
            "2:10: version (1.4) must be latest or a version such as 1.43.13: three whole numbers"
            " with dots between, and nothing else (version_scheme: semver)",
        ),
        (
            f"version: 42\n{SEMVER}",
            "2:10: version (42) must be latest or a version such as 1.43.13: three whole numbers"
            " with dots between, and nothing else (version_scheme: semver)",
        ),
        (
            f"version: 1.4.0\nlabels: {{stable: v1.3.0}}\n{SEMVER}",
            "3:18: labels.stable (the text 'v1.3.0') must be a version such as 1.43.13: three"
            " whole numbers with dots between, and nothing else (version_scheme: semver)",
        ),
        (
            f"version: 9999999.0.0\n{SEMVER}",
            "2:10: version '9999999.0.0' is more than a version can be: its number would not fit"
            " in 64 bits",
        ),
        (
            f"version: 2026-11-21\n{DAYS}",
            "2:10: 2026-11-21 is a date to some YAML readers and text to others; write"
            ' "2026-11-21" in quotes if it is text',
        ),
        (
            f"version: '2026-11-31'\n{DAYS}",
            "2:10: version '2026-11-31' is no date as version_scheme writes it (dates %Y-%m-%d),"
            " such as '2026-11-21'",
        ),
        (
            "version: 20261121\nversion_scheme: {dates: '%Y%m%d'}",
            "2:10: version (20261121) must be latest or the name of a version, as text; write"
            ' "20261121" in quotes',
        ),
        (
            "version: latest\nversion_scheme: {dates: '%Y-%m'}",
            "3:25: the pattern '%Y-%m' lacks %d; write one such as '%Y-%m-%d', in quotes",
        ),
        (
            "version: latest\nversion_scheme: calver",
            "3:17: version_scheme (the text 'calver') must be number, semver, {dates: '%Y-%m-%d'}"
            " or {names: {9f3c2ab: 1}}",
        ),
        (
            f"version: 77ab01e\n{HASHES}",
            "2:10: version '77ab01e' is not among the names of version_scheme; did you mean"
            " 77ab01d? Else add it there: `77ab01e: 3`",
        ),
        (
            f"version: 77ab01d\nlabels: {{canary: zzz}}\n{HASHES}",
            "3:18: version 'zzz' is not among the names of version_scheme; add it there: `zzz: 3`",
        ),
        (
            "version: 77ab01d\nversion_scheme: {names: {9f3c2ab: 1, 77ab01d: 1}}",
            "3:47: number 1 stands for 9f3c2ab already; give 77ab01d one of its own that was never"
            " used",
        ),
        (
            "version: latest\nversion_scheme: {names: {a: 1}, dates: '%Y%m%d'}",
            "3:17: version_scheme (a mapping) must be one of {dates: '%Y-%m-%d'} and {names:"
            " {9f3c2ab: 1}}",
        ),
        (
            "version: 1.4",
            "2:10: version (1.4) must be latest or a whole number such as 42 (a name such as"
            " 1.43.13 needs a version_scheme)",
        ),
        (
            "version: '42'",
            "2:10: version (the text '42') must be latest or a whole number such as 42 (a name such"
            " as 1.43.13 needs a version_scheme); remove the quotes",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_what_would_be_right(text: str, complaint: str) -> None:
    broken = parse(text)
    assert isinstance(broken, Broken)
    assert [f"{item.line}:{item.column}: {item.message}" for item in broken.mistakes] == [complaint]


# --- locks ------------------------------------------------------------------------------------


def lock_of(version: int, name: str | None, source: str = "gs://acme-models/ranker") -> Lock:
    locked = LockedVersion(version, 4, 12345, "ab" * 32, name=name)
    return Lock(LOCK, "ranker", source, version, {version: locked})


@pytest.mark.parametrize(
    "name", ["1.43.13", "2026-11-21", "77ab01d", "1234567", "1e3", "y", "1_0+b"]
)
def test_a_lock_keeps_the_name_and_the_number(name: str) -> None:
    lock = lock_of(7, name)
    document = parse_document(Kind.LOCK, render_lock(lock).encode())
    assert isinstance(document, Document), document
    assert build_lock(LOCK, document) == lock
    assert document.fields["version"] == name
    assert document.fields["locked"][0]["number"] == 7


@pytest.mark.parametrize(
    ("text", "lock", "misfit"),
    [
        (f"version: latest\n{SEMVER}", lock_of(5, "0.0.5"), None),
        (f"version: latest\n{SEMVER}", lock_of(5, None), "version 5 is locked as number 5, which"),
        ("version: latest", lock_of(5, "0.0.5"), "version 0.0.5 is locked as number 5, which"),
        (f"version: latest\n{HASHES}", lock_of(2, "77ab01d"), None),
        (f"version: latest\n{HASHES}", lock_of(1, "77ab01d"), "77ab01d is locked as number 1"),
        (f"version: latest\n{DAYS}", lock_of(20261121000000, "20261121"), "20261121 is locked as"),
        (f"version: 1.9.0\n{SEMVER}", lock_of(5, "0.0.5"), "wants version 1.9.0, but 0.0.5 is"),
        (
            f"version: latest\nlabels: {{stable: 1.9.0}}\n{SEMVER}",
            lock_of(5, "0.0.5"),
            "version 1.9.0 is not locked",
        ),
    ],
)
def test_a_lock_fits_one_scheme(text: str, lock: Lock, misfit: str | None) -> None:
    document = parse_document(Kind.LOCK, render_lock(lock).encode())
    assert isinstance(document, Document)
    found = [item.message for item in find_misfits(build(text), lock, document)]
    assert len(found) == (misfit is not None)
    assert (misfit or "") in "".join(found)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("    number: 7\n", "", "6:14: version '1.2.3' has no number; run `reconciler lock` again"),
        (
            'version: "1.2.3"\nlocked',
            'version: "1.2.4"\nlocked',
            "4:10: version '1.2.4' is not locked; run `reconciler lock` again",
        ),
    ],
)
def test_a_lock_whose_names_have_no_numbers_is_broken(old: str, new: str, complaint: str) -> None:
    text = render_lock(lock_of(7, "1.2.3"))
    assert old in text
    broken = parse_document(Kind.LOCK, text.replace(old, new).encode())
    assert isinstance(broken, Broken)
    assert [f"{item.line}:{item.column}: {item.message}" for item in broken.mistakes] == [complaint]


def test_a_change_of_scheme_needs_another_lock_and_the_old_pair_stays_in_force() -> None:
    history = History()
    source = "source: gs://acme-models/ranker\nversion: latest\n"
    lock = render_lock(lock_of(5, None))
    files = {"groups/search.yaml": "nodes: [s1]", PATH: source, LOCK: lock}
    assert history.commit(files).problems == []
    fleet = history.commit({PATH: f"{source}{SEMVER}\n"})
    assert "version 5 is locked as number 5" in "".join(map(str, fleet.problems))
    assert _in_force(fleet).scheme.show(5) == "5"
    fleet = history.commit({LOCK: render_lock(lock_of(5, "0.0.5"))})
    assert fleet.problems == []
    assert _in_force(fleet).scheme.show(5) == "0.0.5"


def _in_force(fleet: Fleet) -> Deployment:
    return fleet.deployments[PATH]


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("1.43.13", "1.43.13"),
        ("77ab01d", "77ab01d"),
        ("latest", "latest"),
        ("2026-11-21", '"2026-11-21"'),
        ("1234567", '"1234567"'),
        ("1e3", '"1e3"'),
        ("1_000", '"1_000"'),
        ("yes", '"yes"'),
        ("+1.2", '"+1.2"'),
    ],
)
def test_a_name_is_written_so_that_it_stays_a_name(name: str, written: str) -> None:
    assert write_scalar(name) == written
    assert read_yaml(f"version: {written}".encode()).value == {"version": name}
    before = f"# why\nversion: 1.2.3 # pinned\nsource: {json.dumps('x')}\n"
    after = before.replace("1.2.3", written).encode()
    assert set_version(before.encode(), name) == after


# --- history ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "version", "title"),
    [
        ("semver", "1.9.0", "1.9.0"),
        ("{dates: '%Y-%m-%d'}", "'2026-11-21'", "2026-11-21"),
        ("{names: {a: 1, b: 2}}", "b", "b"),
        ("number", "41", "41"),
        ("semver", "41", None),
        ("semver", "v1", None),
        ("calver", "1.9.0", None),
        ("[dates]", "1.9.0", None),
        ("7", "1.9.0", None),
        ("{}", "1.9.0", None),
        ("{dates: 5}", "'2026-11-21'", None),
        ("{dates: '%Y-%j'}", "'2026-11-21'", None),
        ("{dates: '%Y-%m-%d-%Y'}", "'2026-11-21'", None),
        ("{names: [a]}", "a", None),
        ("{names: {a: x}}", "a", None),
        ("{names: {a: [1]}}", "a", None),
        ("{names: {a: 1, b: 1}}", "a", None),
        ("number", "1.9.0", None),
    ],
)
def test_an_audit_reads_what_it_can_and_calls_the_rest_broken(
    scheme: str, version: str, title: str | None
) -> None:
    text = f"source: gs://acme-models/ranker\nversion: {version}\nversion_scheme: {scheme}\n"
    state = read_state(Files(PATH, "b" * 40), text.encode(), None)
    assert (state.is_readable, state.title) == (title is not None, title)


def test_an_audit_reads_the_name_in_a_lock() -> None:
    text = b"source: gs://acme-models/ranker\nversion: latest\nversion_scheme: semver\n"
    files = Files(PATH, "b" * 40, "c" * 40)
    lock = render_lock(lock_of(10**12, "1.0.0"))
    state = read_state(files, text, lock.encode())
    assert (state.serves, state.title, state.locked_digest) == (10**12, "1.0.0", "ab" * 32)
    without = lock.replace(f"    number: {10**12}\n", "")
    assert not read_state(files, text, without.encode()).is_readable
