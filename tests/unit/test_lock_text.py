"""The text of a lock file: what is written reads back as the same lock, whatever the names."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from reconciler.config_repo.build import build_lock
from reconciler.config_repo.documents import Document, parse_document
from reconciler.config_repo.layout import Kind
from reconciler.config_repo.yaml_text import MAX_TEXT_BYTES
from reconciler.locking.text import render_lock, trim_lock
from reconciler.model import Lock, LockedVersion
from reconciler.planning.versions import check_path

PATH = "deployments/search/ranker.lock.yaml"
HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
TRICKY_SUMS = st.sampled_from(["1" * 64, "0" * 64, "1e" + "2" * 62, "0b" + "1" * 62])
MODELS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True) | st.sampled_from(
    ["42", "1.5", "yes", "No", "null", "true", "1e5", "0x1f", "2026-01-31", "12.", "on", "y"]
)
NAMES = st.text(min_size=1, max_size=30).filter(lambda path: check_path(path) is None)
TRICKY_NAMES = st.sampled_from(
    [
        "a: b",
        "- a",
        "#x",
        "? a",
        "a #b",
        " a ",
        "'a'",
        'a"b',
        "yes",
        "<<",
        "~",
        "*a",
        "\u00fc/\U0001f600",
        "\ufeffa",
        "\xa0",
        "\uffff",
        "/".join(["x" * 255] * 4),
        "a" * 200 + "/" + '"' * 250 + "/" + '"' * 250 + "/" + '"' * 250,
    ]
)
VERSIONS = st.integers(0, 2**63 - 1)


def locked_versions(version: int) -> st.SearchStrategy[LockedVersion]:
    return st.builds(
        LockedVersion,
        version=st.just(version),
        files=st.integers(1, 10**6),
        size_bytes=st.integers(0, 10**15),
        digest=HEX,
        sha256=st.dictionaries(NAMES | TRICKY_NAMES, HEX | TRICKY_SUMS, max_size=5),
        name=st.none() | st.just(f"1.{version}.0") | st.just(f"{version}"),
    )


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    numbers = draw(st.lists(VERSIONS, min_size=1, max_size=4, unique=True))
    tail = draw(st.from_regex(r"[^\x00-\x1f\x7f/]{1,20}", fullmatch=True).filter(_is_text))
    top = draw(st.sampled_from(["gs://acme-models/", "file:///mnt/"]))
    return Lock(
        path=PATH,
        model=draw(MODELS),
        source=top + tail,
        version=draw(st.sampled_from(numbers)),
        versions={number: draw(locked_versions(number)) for number in numbers},
    )


def _is_text(text: str) -> bool:
    return check_path(text) is None


def read(text: str) -> Lock:
    document = parse_document(Kind.LOCK, text.encode())
    assert isinstance(document, Document), document
    return build_lock(PATH, document)


def make_lock(sums: Mapping[int, Mapping[str, str]]) -> Lock:
    versions = {
        version: LockedVersion(version, 4, 12345, "ab" * 32, named)
        for version, named in sums.items()
    }
    return Lock(PATH, "ranker", "gs://acme-models/ranker", max(sums), versions)


@given(locks())
def test_what_is_written_reads_back_as_the_same_lock(lock: Lock) -> None:
    assert read(render_lock(lock)) == lock


@given(locks())
def test_the_same_lock_is_the_same_bytes(lock: Lock) -> None:
    versions = dict(reversed(list(lock.versions.items())))
    turned = {
        number: LockedVersion(
            locked.version,
            locked.files,
            locked.size_bytes,
            locked.digest,
            dict(reversed(list(locked.sha256.items()))),
            locked.name,
        )
        for number, locked in versions.items()
    }
    other = Lock(lock.path, lock.model, lock.source, lock.version, turned)
    assert render_lock(other) == render_lock(lock)


def test_a_lock_as_a_person_sees_it() -> None:
    lock = make_lock(
        {42: {"saved_model.pb": "ab" * 32, "assets/words \u00fc.txt": "1" * 64}, 41: {}}
    )
    assert render_lock(lock) == (
        "# Written by `reconciler lock`; do not edit it by hand.\n"
        "model: ranker\n"
        "source: gs://acme-models/ranker\n"
        "version: 42\n"
        "locked:\n"
        "  - version: 41\n"
        "    files: 4\n"
        "    bytes: 12345\n"
        f"    digest: sha256:{'ab' * 32}\n"
        "  - version: 42\n"
        "    files: 4\n"
        "    bytes: 12345\n"
        f"    digest: sha256:{'ab' * 32}\n"
        "    sha256:\n"
        f'      "assets/words \u00fc.txt": "{"1" * 64}"\n'
        f'      saved_model.pb: "{"ab" * 32}"\n'
    )


def test_sums_that_a_file_cannot_hold_are_left_out_by_whole_versions() -> None:
    many = {f"{number:04}/{'x' * 100}": "ab" * 32 for number in range(5000)}
    lock = make_lock({41: many, 42: {"saved_model.pb": "cd" * 32}, 43: many})
    trimmed = trim_lock(lock)
    assert len(render_lock(lock).encode()) > MAX_TEXT_BYTES
    assert {number: len(item.sha256) for number, item in trimmed.versions.items()} == {
        41: 5000,
        42: 1,
        43: 0,
    }
    assert read(render_lock(trimmed)) == trimmed


def test_sums_that_a_file_can_hold_stay() -> None:
    lock = make_lock({42: {"saved_model.pb": "cd" * 32}})
    assert trim_lock(lock) == lock
