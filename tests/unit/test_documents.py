"""One file of the config repo: what is taken, and the sentence for everything that is not."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.config_repo.documents import Broken, Document, DocumentCache, parse_document
from reconciler.config_repo.layout import Kind
from reconciler.config_repo.yaml_text import MAX_MISTAKES, MAX_TEXT_BYTES, read_yaml

GOOD = b"source: gs://demo/ranker\nversion: 1\n"


def mistakes(text: str | bytes, kind: Kind = Kind.DEPLOYMENT) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    document = parse_document(kind, data)
    assert isinstance(document, Broken)
    return [f"{item.line}:{item.column}: {item.message}" for item in document.mistakes]


def fields(text: str, kind: Kind = Kind.DEPLOYMENT) -> dict[str, object]:
    document = parse_document(kind, text.encode())
    assert isinstance(document, Document), document
    return dict(document.fields)


def test_a_full_deployment() -> None:
    text = """\
# yaml-language-server: $schema=deployment.schema.json
model: ranker
group: search
source: gs://acme-models/ranker
version: latest
replicas: 2
labels: {stable: 41, canary: 42, 7: 1, on: 3}
stop: false
rollout: {strategy: recreate}
description: 'Ranks: results'
metadata: {accuracy: "0.98", team: search, size: 10, big: true}
"""
    assert fields(text) == {
        "model": "ranker",
        "group": "search",
        "source": "gs://acme-models/ranker",
        "version": "latest",
        "replicas": 2,
        "labels": {"stable": 41, "canary": 42, "7": 1, "on": 3},
        "stop": False,
        "rollout": {"strategy": "recreate"},
        "description": "Ranks: results",
        "metadata": {"accuracy": "0.98", "team": "search", "size": "10", "big": "true"},
    }


def test_all_mistakes_of_a_file_come_at_once_and_in_order() -> None:
    text = """\
modle: ranker
source: gs://X/../y
version: "42"
labels: {a-b: 1, ok: x}
replicas: 0
stop: yes
rollout: {strategy: fast}
description:
"""
    assert [line.partition(": ")[0] for line in mistakes(text)] == [
        "1:1", "2:9", "3:10", "4:10", "4:22", "5:11", "6:7", "7:21", "8:13",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "1:1: the file is empty"),
        ("# nothing\n", "1:1: the file is empty"),
        ("---\n", "1:1: the file is empty"),
        ("- a\n", "1:1: the file must be fields such as"),
        ("ranker\n", "1:1: the file must be fields such as"),
        ("a: 1\n---\nb: 2\n", "2:1: a second document begins here"),
        ("source: gs://demo/r\nversion: 1\nversion: 2\n", "3:1: 'version' is written twice; the"),
        ("a: &x 1\nb: *x\n", "2:4: the alias 'x' is not allowed"),
        ("a: !!python/object:os.system x\n", "1:4: the tag 'tag:yaml.org,2002:python/object"),
        ("a: !!map {b: c}\n", "1:4: the tag 'tag:yaml.org,2002:map' is not allowed"),
        ("? [a]\n: b\n", "1:3: a key must be plain text"),
        ("a:\n\tb: c\n", "2:1: a tab is used for indentation"),
        ("a: 'open\n", "the quote that opens in line 1 is never closed"),
        ("a: @b\n", "1:4: a value cannot begin with @"),
        ("a: b: c\n", "1:5: a second `: ` in one line"),
        ("a: [b\n", "look for a missing colon, quote or bracket"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n", "2:1: a merge conflict was committed here"),
        ("a: \x00\n", "1:4: the character U+0000 is not allowed"),
        ("a: b\x1b[31m\n", "1:5: the character U+001B is not allowed"),
        (b"a: \xff\n", "1:4: the file is not UTF-8"),
        ("a: b".encode("utf-16"), "1:1: the file is not UTF-8"),
        ("version https://git-lfs.github.com/spec/v1\noid x\n", "1:1: the file is a Git LFS"),
        ("a: " + "[" * 40 + "\n", "nested deeper than 32"),
    ],
)
def test_what_is_not_even_yaml_gets_its_own_sentence(text: str | bytes, sentence: str) -> None:
    assert any(sentence in line for line in mistakes(text)), mistakes(text)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("version: 0042", "0042 is an octal number to some YAML readers; write 42"),
        ("version: 1_000", "write 1000, or"),
        ("version: 0x2A", "is not a plain decimal number"),
        ("version: 1e3", "is not a plain decimal number"),
        ("version: 99999999999999999999", "is not a plain decimal number"),
        ("version: 9" + "9" * 5000, "is too long for a number"),
        ("version: .inf", "is not a plain decimal number"),
        ("version: 1.0", "version (1.0) must be latest or a whole number"),
        ("version: -1", "version (-1) must be latest or a whole number"),
        ("version: newest", "version (the text 'newest') must be latest or a whole number"),
        ("version: true", "version (true) must be latest or a whole number"),
        ('version: "42"', "remove the quotes"),
        ("version:", "version (empty) must be latest or a whole number"),
        ("description: yes", "yes is true to some YAML readers and text to others; write true, or"),
        ("stop: on", "on is true to some YAML readers and text to others; write true"),
        ("stop: No", "No is false to some YAML readers and text to others; write false"),
        ("stop: 1", "stop (1) must be true or false"),
        (
            "metadata: {trained: 2026-01-31}",
            "is a date to some YAML readers and text to others; wr",
        ),
        ("metadata: {length: 1:30}", "is a number in base 60"),
        ("metadata: {a: [1]}", "metadata.a (a list) must be text, a number, true or false"),
        ("description: =", "is an operator to some YAML readers"),
        ("modle: x", "unknown field 'modle'; did you mean model?"),
        ("colour: red", "unknown field 'colour'; known are model, group, source, version"),
        ("model: ../etc", "model (the text '../etc') must be a name"),
        ("model: a/b", "and no path"),
        ('model: "ranker\\n"', "must be a name of 1 to 128 letters"),
        ("model: .hidden", "not beginning with a dot"),
        ("source: gs://demo", "must be gs://bucket/folder"),
        ("source: gs://demo/a/../b", "without empty, `.` or `..` steps"),
        ("source: gs://demo//a", "must be gs://bucket/folder"),
        ('source: "gs://demo/a\\u0001"', "must be gs://bucket/folder"),
        ("source: s3://demo/a", "must be gs://bucket/folder"),
        ("source: file://relative/a", "must be gs://bucket/folder"),
        ("source: gs://demo/" + "a" * 2000, "...') must be gs://bucket/folder"),
        ("replicas: some", "replicas (the text 'some') must be all or a whole number"),
        ("labels: {a b: 1}", "'a b' must be a label of letters, digits and underscores"),
        ("labels: [stable]", "labels (a list) must be at most 64 lines such as"),
        ("labels: {stable: latest}", "labels.stable (the text 'latest') must be a version"),
        ("rollout: {strategy: slow}", "rollout.strategy (the text 'slow') must be overlap or rec"),
        ("rollout: {speed: 1}", "unknown field 'speed'; known are strategy"),
        ("rollout: {waves: [0, 100%]}", "rollout.waves[0] (0) must be a number of nodes such as 1"),
        ("rollout: {waves: [1, 101%]}", "must be a number of nodes such as 1, or a share such as"),
        ("rollout: {pause: 5}", "rollout.pause (5) must be a duration such as 5m"),
        ("rollout: {golden: {requests: ../x}}", "must be a path within the version's folder"),
        ("rollout: {golden: {within: 1d}}", "rollout.golden.within (the text '1d') must be a"),
    ],
)
def test_what_the_schema_refuses_says_what_would_be_right(line: str, sentence: str) -> None:
    name = line.partition(":")[0]
    rest = [other for other in GOOD.decode().splitlines() if not other.startswith(name)]
    found = mistakes("\n".join([line, *rest]))
    assert len(found) == 1, found
    assert found[0].startswith("1:")
    assert sentence in found[0]


def test_a_missing_field_comes_with_an_example() -> None:
    assert mistakes("version: 1\n") == [
        "1:1: the field source is missing; write for example `source: gs://acme-models/ranker`"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nodes: []", "1:8: nodes (an empty list) must be a list of at least one node, or where"),
        ("nodes: [a, 1]", "1:12: nodes[1] (1) must be a node's name, or {name:"),
        ("nodes: [{name: a, adress: x}]", "1:19: unknown field 'adress'; did you mean address?"),
        ("nodes: [{name: a, address: x}]", "1:28: nodes[0].address (the text 'x') must be host:po"),
        (
            "nodes: [{name: a, address: 'ftp://x:1'}]",
            "1:28: nodes[0].address (the text 'ftp://x:1') must be host:port or https://host:port",
        ),
        ("nodes: [{address: 'x:1'}]", "1:9: the field name is missing; write for example `name: s"),
        ("nodes: [a]\nquota: {disk: 5 Gb}", "2:15: quota.disk (the text '5 Gb') must be a size s"),
    ],
)
def test_mistakes_in_a_group(text: str, sentence: str) -> None:
    found = mistakes(text, Kind.GROUP)
    assert len(found) == 1, found
    assert found[0].startswith(sentence)


@pytest.mark.parametrize("share", ["0", "1.5", "0%", "101%", "-1", "half", "true"])
def test_a_max_removals_that_makes_no_sense(share: str) -> None:
    assert mistakes(f"max_removals: {share}", Kind.FLEET)[0].startswith("1:15: max_removals (")


@pytest.mark.parametrize("share", ["0.5", "3", "50%", "100%", '"7%"'])
def test_a_max_removals_that_does(share: str) -> None:
    assert "max_removals" in fields(f"max_removals: {share}", Kind.FLEET)


def test_a_broken_file_still_tells_its_model() -> None:
    document = parse_document(Kind.DEPLOYMENT, b"model: ranker\nversion: 1\n")
    assert isinstance(document, Broken)
    assert document.model == "ranker"


def test_a_huge_file_is_not_parsed() -> None:
    assert mistakes(b"x" * (MAX_TEXT_BYTES + 1))[0].startswith("1:1: the file has 1.0 MB")


@pytest.mark.parametrize(
    "text",
    [
        b"[" * MAX_TEXT_BYTES,
        b"{a: " * (MAX_TEXT_BYTES // 4),
        b"- " * (MAX_TEXT_BYTES // 2),
        b"[" + b"[]," * (MAX_TEXT_BYTES // 3 - 1),
        b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [" + b"*c," * 100_000 + b"]",
        b"[" + b"*a," * (MAX_TEXT_BYTES // 3 - 1),
        b"a: 1\n" * (MAX_TEXT_BYTES // 5),
        b"a: !" + b"x" * (MAX_TEXT_BYTES - 10),
        b'"' + b"\\u0041" * (MAX_TEXT_BYTES // 6 - 1) + b'"',
    ],
    ids=["lists", "mappings", "dashes", "wide", "bomb", "aliases", "twice", "tag", "escapes"],
)
def test_bombs_end_in_a_few_short_sentences(text: bytes) -> None:
    found = mistakes(text)
    assert 1 <= len(found) <= MAX_MISTAKES
    assert all(len(line) < 300 for line in found)


anything = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(alphabet="ab01:-?[]{},&*!|>'\"%@` \t\n#~.=<", max_size=80).map(str.encode),
    st.lists(
        st.sampled_from(
            [b"source: gs://a-b/c\n", b"version: 1\n", b"version", b": ", b"labels:\n", b" x: 1\n",
             b"nodes:\n", b"- name: a\n", b"  address: b\n", b"{", b"}", b"[", b"]", b"\n", b"\t",
             b"*a", b"&a ", b"!!int ", b"---\n", b"...\n", b"'", b'"', b"0x1", b"1e5", b"yes"]
        ),
        max_size=20,
    ).map(b"".join),
)  # fmt: skip


@settings(max_examples=400)
@given(data=anything, kind=st.sampled_from(Kind))
@example(data=b"\xef\xbb\xbf", kind=Kind.FLEET)
@example(data=b"{1: 2, [a]: b}", kind=Kind.FLEET)
@example(data=b"a: \xc2\x85b", kind=Kind.GROUP)
def test_no_bytes_crash_the_parser_and_every_mistake_has_a_place(data: bytes, kind: Kind) -> None:
    document = parse_document(kind, data)
    if isinstance(document, Document):
        assert isinstance(document.fields, dict)
        return
    assert document.mistakes
    lines = data.decode("utf-8", "replace").splitlines() or [""]
    for mistake in document.mistakes:
        assert 1 <= mistake.line <= len(lines) + 1
        assert mistake.column >= 1
        assert mistake.message.isprintable(), mistake


words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), max_size=8)
plain = st.recursive(
    st.one_of(st.booleans(), st.integers(-(10**18), 10**18), words),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=150)
@given(value=plain)
def test_json_is_yaml_and_is_read_as_it_is(value: object) -> None:
    text = read_yaml(json.dumps(value, ensure_ascii=False).encode())
    assert not text.mistakes
    assert text.value == value


def test_the_cache_keeps_what_was_used_last() -> None:
    cache = DocumentCache(size=2)
    document = parse_document(Kind.DEPLOYMENT, GOOD)
    for blob_id in ("a", "b"):
        cache.put(Kind.DEPLOYMENT, blob_id, document)
    assert cache.get(Kind.DEPLOYMENT, "a") is document
    cache.put(Kind.DEPLOYMENT, "c", document)
    assert cache.get(Kind.DEPLOYMENT, "b") is None
    assert cache.get(Kind.DEPLOYMENT, "a") is document
    assert cache.get(Kind.GROUP, "a") is None
