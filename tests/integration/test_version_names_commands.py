"""pin, rollback, lock and history where versions have names; real git, models in a folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.gitserver import IDENTITY
from tests.integration.test_rollback_command import LOCK, RANKER, Clone
from tests.statuses import StatusNode, answering, outcome

GROUP = {"groups/search.yaml": "nodes: [s1, s2]\n"}
SEMVER = "version_scheme: semver"
NAMES = "version_scheme: {names: {9f3c2ab: 1, 1234567: 2}}"


class NamedClone(Clone):
    """The clone, with releases and hashes beside the numbers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name in ("1.9.0", "1.10.0", "0.0.41", "9f3c2ab", "1234567"):
            (self.models / "ranker" / name).mkdir()
            (self.models / "ranker" / name / "saved_model.pb").write_bytes(name.encode())

    def named(self, version: str, scheme: str = SEMVER) -> dict[str, str | bytes | None]:
        return {**GROUP, RANKER: f"{self.text(version)}{scheme}\n"}

    @property
    def line(self) -> str:
        (line,) = (line for line in self.read().splitlines() if line.startswith("version:"))
        return line


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NamedClone:
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    return NamedClone(tmp_path)


def test_a_release_is_pinned_and_rolled_back_by_name(clone: NamedClone) -> None:
    clone.commit(clone.named("1.9.0"))
    said = clone.do("pin", "ranker", "1.10.0", "--yes").output
    assert "ranker in search: 1.9.0 -> 1.10.0, by setting its version" in said
    assert clone.line == "version: 1.10.0     # see the runbook"
    assert clone.message == "Pin ranker 1.9.0 -> 1.10.0 in search"
    assert "asks for 1.10.0 already" in clone.do("rollback", "ranker", "--to", "1.10.0").output
    said = clone.do("rollback", "ranker", "--yes").output
    assert "ranker in search: 1.10.0 -> 1.9.0, by reverting" in said
    assert clone.line == "version: 1.9.0     # see the runbook"


@pytest.mark.parametrize(
    ("scheme", "now", "version", "sentence"),
    [
        (SEMVER, "1.9.0", "41", "'41' is neither latest nor a version as version_scheme in"),
        (SEMVER, "1.9.0", "v1.10.0", "has it (semver)"),
        (NAMES, "9f3c2ab", "77ab01d", "nor among the names of version_scheme in"),
    ],
)
def test_what_is_no_name_is_refused_with_the_rule(
    clone: NamedClone, scheme: str, now: str, version: str, sentence: str
) -> None:
    clone.commit(clone.named(now, scheme))
    result = clone.run("pin", "ranker", version, "--yes")
    assert (result.exit_code, sentence in " ".join(result.output.split())) == (2, True)


def test_a_name_that_looks_like_a_number_is_quoted(clone: NamedClone) -> None:
    clone.commit(clone.named("9f3c2ab", NAMES))
    clone.do("pin", "ranker", "1234567", "--yes")
    assert clone.line == 'version: "1234567"     # see the runbook'
    assert clone.message == "Pin ranker 9f3c2ab -> 1234567 in search"


def test_a_version_that_is_gone_is_offered_by_name(clone: NamedClone) -> None:
    clone.commit(clone.named("1.9.0"))
    result = clone.run("pin", "ranker", "1.11.0", "--yes")
    said = f"{result.output} {result.exception}"
    assert "version 1.11.0 is not in" in said
    assert "the nearest that exists is 1.10.0: `reconciler pin search/ranker 1.10.0`" in said


def test_a_node_has_a_version_only_by_its_name(clone: NamedClone) -> None:
    """Number 2 on a disk may have been another version when it came there."""
    with answering(StatusNode("s1")) as node:
        members = f"nodes:\n  - {{name: s1, address: '{node.address}'}}\n"
        clone.commit({"groups/search.yaml": members})
        clone.commit({RANKER: clone.named("9f3c2ab", NAMES)[RANKER]})
        shutil.rmtree(clone.models / "ranker" / "1234567")
        other = replace(outcome("ranker"), installed=(1, 2), names={1: "9f3c2ab", 2: "77ab01d"})
        node.say(other)
        result = clone.run("pin", "ranker", "1234567", "--yes")
        assert "no node that answers has it on disk (s1)" in str(result.exception)
        node.say(replace(other, names={1: "9f3c2ab", 2: "1234567"}))
        said = clone.do("pin", "ranker", "1234567", "--yes").output
        assert "version 1234567 is not in" in said
        assert "but s1 has it on disk" in said


def test_the_way_back_over_a_change_of_scheme_is_to_the_version_of_then(clone: NamedClone) -> None:
    """41 by number and 0.0.41 have the same number, and are two versions."""
    clone.commit({**GROUP, RANKER: clone.text(41)})
    clone.commit(clone.named("0.0.41"), "Name releases")
    said = clone.do("rollback", "ranker", "--yes").output
    assert "ranker in search: 0.0.41 -> 41, by reverting" in said
    assert clone.read() == clone.text(41)


def test_a_lock_of_the_other_scheme_is_made_anew(clone: NamedClone) -> None:
    clone.commit({**GROUP, RANKER: clone.text(41), LOCK: clone.lock_text(41)})
    clone.commit({**clone.named("0.0.41"), LOCK: None})
    clone.do("lock", "ranker")
    first = clone.read(LOCK)
    assert 'version: "0.0.41"\n    number: 41\n' in first
    clone.commit({})
    clone.do("pin", "ranker", "1.9.0", "--yes")
    assert clone.changed() == [LOCK, RANKER]
    clone.do("pin", "ranker", "0.0.41", "--yes")
    assert clone.read(LOCK) == first


def test_history_tells_names_and_changes_of_the_scheme(clone: NamedClone) -> None:
    clone.commit({**GROUP, RANKER: clone.text(41)})
    clone.commit(clone.named("1.9.0"))
    clone.commit(clone.named("1.10.0\nlabels: {stable: 1.9.0}"), "Label it")
    clone.commit(clone.named("9f3c2ab", NAMES))
    clone.commit(clone.named("9f3c2ab", NAMES.replace("}}", ", 77ab01d: 3}}")))
    told = clone.do("history", "ranker").output
    for words in (
        "ranker 41 -> 1.9.0 in search",
        "version_scheme number -> semver",
        "ranker 1.9.0 -> 1.10.0 in search",
        "label stable 1.9.0",
        "ranker 1.10.0 -> 9f3c2ab in search",
        "name 77ab01d = 3 added",
    ):
        assert words in told, told
    newest, _, labelled, *_, first = json.loads(clone.do("history", "ranker", "--json").output)[
        "entries"
    ]
    assert (labelled["from_name"], labelled["to_name"]) == ("1.9.0", "1.10.0")
    assert labelled["to_version"] == 1_000_010_000_000
    assert labelled["after"]["version_name"] == "1.10.0"
    assert newest["after"]["version_scheme"]["rule"] == "names"
    assert not {"from_name", "to_name"} & first.keys()
