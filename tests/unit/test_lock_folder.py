"""`reconciler lock` and `lock --check` on a plain folder, with models in a folder."""

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.lock import lock
from reconciler.config_repo.build import build_lock
from reconciler.config_repo.documents import Document, parse_document
from reconciler.config_repo.fleets import read_folder
from reconciler.config_repo.layout import Kind
from reconciler.errors import ConfigError
from reconciler.locking.resolve import resolve_lock
from reconciler.locking.text import render_lock
from reconciler.model import Lock, Query
from reconciler.sources.file import FileSource
from reconciler.sources.registry import Sources
from tests.bucket import write_files

RANKER = "deployments/search/ranker"
LOCKED = f"{RANKER}.lock.yaml"


@dataclass(frozen=True)
class Stage:
    """A config repo and a folder of models."""

    folder: Path
    models: Path

    def url(self, model: str = "ranker") -> str:
        return f"file://{self.models}/{model}"

    def deploy(self, rest: str = "version: latest", name: str = RANKER) -> None:
        write_files(
            self.folder, {f"{name}.yaml": f"source: {self.url(Path(name).name)}\n{rest}\n".encode()}
        )

    def put(self, version: int, model: str = "ranker") -> None:
        write_files(self.models / model / str(version))

    def overwrite(self, version: int) -> None:
        """Change the bytes of one file, not their number."""
        write_files(self.models / "ranker" / str(version), {"saved_model.pb": b"a grape"})

    def digest(self, version: int, model: str = "ranker") -> str:
        return FileSource().list(Query(self.url(model))).snapshots[version].digest

    def run(self, *arguments: str) -> Result:
        command = ["-C", str(self.folder), "--settle", "0s", *arguments]
        return CliRunner().invoke(lock, command)

    def lock(self, *arguments: str) -> Result:
        """Run the command; it is to succeed."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result

    def read(self, path: str = LOCKED) -> Lock:
        document = parse_document(Kind.LOCK, (self.folder / path).read_bytes())
        assert isinstance(document, Document), document
        return build_lock(path, document)

    def write(self, text: str, path: str = LOCKED) -> None:
        (self.folder / path).write_text(text)

    def text(self, path: str = LOCKED) -> str:
        return (self.folder / path).read_text()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path / "config", tmp_path / "models")
    write_files(stage.folder, {"groups/search.yaml": b"nodes: [a]\n"})
    stage.deploy()
    for version in (1, 2):
        stage.put(version)
    return stage


def test_latest_is_locked_at_the_highest_version(stage: Stage) -> None:
    result = stage.lock()
    assert result.stdout == "ranker locked at 2 in search (5 files, 7.0 kB)\n"
    assert result.stderr == f"Commit {LOCKED}, so that the nodes follow.\n"
    locked = stage.read()
    assert (locked.model, locked.source, locked.version) == ("ranker", stage.url(), 2)
    assert set(locked.versions) == {2}
    assert locked.versions[2].digest == stage.digest(2)
    assert stage.text() == render_lock(locked)
    fleet = read_folder(stage.folder)
    assert (fleet.problems, fleet.deployments[f"{RANKER}.yaml"].lock) == ([], locked)


def test_the_files_to_commit_stay_on_one_line(stage: Stage) -> None:
    for number in range(5):
        stage.put(1, f"m{number}")
        stage.deploy(name=f"deployments/search/m{number}")
    (line,) = stage.lock().stderr.splitlines()
    assert "deployments/search/m2.lock.yaml and 3 more, so that" in line


def test_a_pin_and_its_labels_are_locked(stage: Stage) -> None:
    stage.put(3)
    stage.deploy("version: 1\nlabels: {stable: 1, canary: 3}")
    stage.lock()
    assert (stage.read().version, sorted(stage.read().versions)) == (1, [1, 3])


def test_a_version_that_may_still_be_written_is_not_locked(stage: Stage) -> None:
    result = stage.run("--settle", "1h")
    assert result.exit_code == 1
    assert f"{RANKER}.yaml:2:10: version 2 of {stage.url()} was written to" in result.stderr
    assert not (stage.folder / LOCKED).exists()


def test_latest_stays_where_it_is_locked_until_it_is_updated(stage: Stage) -> None:
    stage.lock()
    text = stage.text()
    stage.put(3)
    result = stage.lock()
    assert (result.stdout, stage.text()) == ("Nothing changed: 1 lock stands as written.\n", text)
    result = stage.lock("--update", "--no-commit")
    assert result.stdout == "ranker 2 -> 3 in search (5 files, 7.0 kB)\n"
    assert stage.read().version == 3


def test_another_source_is_locked_anew(stage: Stage) -> None:
    stage.lock()
    for version in (2, 3):
        stage.put(version, "ranker2")
    write_files(
        stage.folder, {f"{RANKER}.yaml": f"source: {stage.url()}2\nversion: latest\n".encode()}
    )
    stage.lock()
    assert (stage.read().version, stage.read().source) == (3, f"{stage.url()}2")


def test_a_higher_version_that_is_passed_over_is_named(stage: Stage) -> None:
    stage.lock()
    stage.put(3)
    (stage.models / "ranker/3/saved_model.pb").unlink()
    result = stage.lock("--update", "--no-commit")
    assert result.stdout == "Nothing changed: 1 lock stands as written.\n"
    assert f"version 3 of {stage.url()} is incomplete: it lacks saved_model.pb" in result.stderr


def test_latest_moves_on_when_the_locked_version_is_gone(stage: Stage) -> None:
    stage.lock()
    shutil.rmtree(stage.models / "ranker/2")
    result = stage.run("--check")
    assert (result.exit_code, "version 2 is gone from" in result.stdout) == (1, True)
    assert stage.lock().stdout == "ranker 2 -> 1 in search (5 files, 7.0 kB)\n"


def test_an_update_does_not_go_back_from_a_version_that_is_there_but_damaged(stage: Stage) -> None:
    stage.lock()
    text = stage.text()
    (stage.models / "ranker/2/variables/variables.index").unlink()
    result = stage.run("--update", "--no-commit")
    assert result.exit_code == 1
    assert f"version 2 of {stage.url()} is incomplete" in result.stderr
    assert (result.stdout, stage.text()) == ("", text)


def test_an_update_leaves_models_alone_that_are_not_named(stage: Stage) -> None:
    stage.deploy(name="deployments/search/speller")
    stage.put(1, "speller")
    stage.lock()
    stage.put(3)
    stage.put(2, "speller")
    stage.lock("--update", "--no-commit", "search/speller")
    assert stage.read().version == 2
    assert stage.read("deployments/search/speller.lock.yaml").version == 2


@pytest.mark.parametrize("arguments", [[], ["--update", "--no-commit"], ["--check"]])
def test_overwritten_bytes_are_refused_and_not_locked_again(
    stage: Stage, arguments: list[str]
) -> None:
    stage.lock()
    text = stage.text()
    stage.overwrite(2)
    result = stage.run(*arguments)
    assert result.exit_code == 1
    assert f"{LOCKED}:1:1: version 2 of {stage.url()} is not what {LOCKED} says" in result.output
    assert "saved_model.pb was written last" in result.output
    assert stage.text() == text
    (stage.folder / LOCKED).unlink()
    stage.lock()
    assert stage.read().versions[2].digest == stage.digest(2)


def test_an_update_leads_away_from_an_overwritten_version(stage: Stage) -> None:
    stage.lock()
    stage.overwrite(2)
    stage.put(3)
    stage.lock("--update", "--no-commit")
    assert stage.read().version == 3


def _entry_of(text: str) -> str:
    """Return the lines of a lock's only version."""
    return text[text.index("  - version") :]


CONFLICT = "<<<<<<< ours\nversion: 1\n=======\nversion: 2\n>>>>>>> theirs\n"


@pytest.mark.parametrize("text", [CONFLICT, "", "model: [", "model: ranker\n"])
def test_a_broken_lock_is_made_anew(stage: Stage, text: str) -> None:
    stage.lock()
    whole = stage.text()
    stage.write(text)
    assert stage.run("--check", "--offline").exit_code == 1
    result = stage.lock()
    assert "it is made anew" in result.stderr
    assert stage.text() == whole


def test_a_lock_that_is_a_link_becomes_a_file(stage: Stage) -> None:
    stage.lock()
    (stage.folder / LOCKED).rename(stage.folder / "elsewhere")
    (stage.folder / LOCKED).symlink_to(stage.folder / "elsewhere")
    result = stage.run("--check", "--offline")
    assert (result.exit_code, "symbolic link" in result.stdout) == (1, True)
    stage.lock()
    assert not (stage.folder / LOCKED).is_symlink()
    assert stage.read().version == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("model: ranker", "model: speller"), "the lock of speller"),
        (lambda text: text.replace("source: file://", "source: file:///else"), "by now"),
        (lambda text: text.replace("- version: 2", "- version: 7"), "version 2 is not locked"),
        (lambda text: text + _entry_of(text), "locked twice"),
        (lambda text: text + _entry_of(text).replace(": 2", ": 7", 1), "version 7 is locked, but"),
    ],
    ids=["model", "source", "version", "twice", "surplus"],
)
def test_a_lock_that_does_not_fit_is_found_without_the_source_and_mended(
    stage: Stage, change: Callable[[str], str], words: str
) -> None:
    stage.lock()
    whole = stage.text()
    stage.write(change(whole))
    stage.models.rename(stage.models.with_name("away"))
    result = stage.run("--check", "--offline")
    stage.models.with_name("away").rename(stage.models)
    assert (result.exit_code, words in result.stdout, result.stderr) == (1, True, "")
    assert result.stdout.startswith(f"{LOCKED}:")
    stage.lock()
    assert stage.text() == whole


def test_a_number_edited_by_hand_is_found_in_the_source_and_mended(stage: Stage) -> None:
    stage.lock()
    whole = stage.text()
    stage.write(whole.replace("files: 5", "files: 6"))
    assert stage.run("--check", "--offline").exit_code == 0
    result = stage.run("--check")
    assert (result.exit_code, "is not what the source says" in result.stdout) == (1, True)
    stage.lock()
    assert stage.text() == whole


def test_a_pin_that_was_changed_is_locked_anew(stage: Stage) -> None:
    stage.deploy("version: 2")
    stage.lock()
    stage.deploy("version: 1")
    result = stage.run("--check", "--offline")
    assert (result.exit_code, "wants version 1, but 2 is locked" in result.stdout) == (1, True)
    assert stage.lock().stdout == "ranker 2 -> 1 in search (5 files, 7.0 kB)\n"
    assert set(stage.read().versions) == {1}


def test_a_check_of_what_is_right_says_so_and_what_is_new(stage: Stage) -> None:
    stage.lock()
    result = stage.lock("--check")
    assert (result.stdout, result.stderr) == ("Every deployment has a lock that is right.\n", "")
    stage.put(3)
    text = stage.text()
    result = stage.lock("--check")
    assert "is locked at 2 and latest is 3 by now" in result.stderr
    assert stage.text() == text


def test_a_missing_lock_is_found_by_a_check_that_writes_nothing(stage: Stage) -> None:
    for arguments in (["--check"], ["--check", "--offline"]):
        result = stage.run(*arguments)
        assert result.exit_code == 1
        assert result.stdout == (
            f"{LOCKED}:1:1: there is no lock for ranker in search; run `reconciler lock ranker`"
            " and commit the file\n"
        )
    assert not (stage.folder / LOCKED).exists()


def test_a_check_that_cannot_ask_the_source_fails(stage: Stage) -> None:
    stage.lock()
    shutil.rmtree(stage.models)
    result = stage.run("--check")
    assert result.exit_code == 1
    assert result.stdout == f"{RANKER}.yaml:1:9: {stage.url()} does not exist\n"
    assert stage.run("--check", "--offline").exit_code == 0


def test_an_orphan_is_found_and_removed(stage: Stage) -> None:
    stage.lock()
    orphan = stage.folder / "deployments/search/old.lock.yaml"
    shutil.copy(stage.folder / LOCKED, orphan)
    result = stage.run("--check", "--offline")
    assert (result.exit_code, "no old.yaml beside" in result.stdout) == (1, True)
    stage.lock("ranker")
    result = stage.lock("--update", "--no-commit")
    assert "`reconciler lock` removes it" in result.stderr
    assert orphan.exists()
    result = stage.lock()
    assert "removed deployments/search/old.lock.yaml" in result.stdout
    assert not orphan.exists()
    assert (stage.folder / LOCKED).exists()


def test_an_orphan_stays_while_its_deployment_may_be_misplaced(stage: Stage) -> None:
    stage.lock()
    (stage.folder / f"{RANKER}.yaml").rename(stage.folder / f"{RANKER}.yml")
    result = stage.run()
    assert result.exit_code == 1
    assert "it stays until the mistakes are mended" in result.stderr
    assert (stage.folder / LOCKED).exists()


def test_a_stopped_model_gets_no_lock_and_keeps_one_that_fits(stage: Stage) -> None:
    stage.deploy("version: latest\nstop: true")
    stage.lock()
    assert not (stage.folder / LOCKED).exists()
    stage.lock("--check")
    stage.deploy()
    stage.lock()
    text = stage.text()
    stage.deploy("version: latest\nstop: true")
    shutil.rmtree(stage.models)
    stage.lock()
    stage.lock("--check")
    assert stage.text() == text


def test_a_stopped_model_whose_lock_does_not_fit_is_locked_anew(stage: Stage) -> None:
    stage.lock()
    stage.deploy("version: 1\nstop: true")
    assert read_folder(stage.folder).problems != []
    stage.lock()
    assert stage.read().version == 1
    assert read_folder(stage.folder).problems == []


def test_the_others_are_locked_when_one_cannot_be(stage: Stage) -> None:
    stage.deploy("version: 9", name="deployments/search/speller")
    stage.put(1, "speller")
    stage.deploy("version: latest\nlabels: {canary: 7}", name="deployments/search/suggest")
    stage.put(1, "suggest")
    stage.deploy("verison: 1", name="deployments/search/typo")
    result = stage.run()
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines[:3]] == [
        "deployments/search/speller.yaml:2:10",
        "deployments/search/suggest.yaml:3:18",
        "deployments/search/typo.yaml:1:1",
    ]
    assert "version 9 is not in" in lines[0]
    locks = [path.name for path in sorted(stage.folder.rglob("*.lock.yaml"))]
    assert locks == ["ranker.lock.yaml"]
    assert stage.run("ranker").exit_code == 0
    assert stage.run("typo").exit_code == 1


def test_a_required_lock_can_be_made(stage: Stage) -> None:
    write_files(stage.folder, {"fleet.yaml": b"lock: required\n"})
    assert read_folder(stage.folder).problems != []
    stage.lock()
    assert read_folder(stage.folder).problems == []


def test_a_model_in_two_groups_is_named_with_its_group(stage: Stage) -> None:
    write_files(stage.folder, {"groups/vision.yaml": b"nodes: [b]\n"})
    stage.deploy(name="deployments/vision/ranker")
    stage.lock("vision/ranker")
    assert not (stage.folder / LOCKED).exists()
    stage.lock("ranker")
    assert (stage.folder / LOCKED).exists()


def test_an_unknown_model_is_wrong_usage(stage: Stage) -> None:
    result = stage.run("rankr")
    assert result.exit_code == 2
    assert "there is no deployment of 'rankr'; did you mean ranker" in result.stderr


def test_a_folder_that_is_no_config_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(lock, ["-C", str(tmp_path), "--check"])
    assert result.exit_code == 2
    assert "holds neither fleet.yaml nor groups/" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--check", "--update"],
        ["--offline"],
        ["--branch", "b"],
        ["--no-commit"],
        ["--update", "--no-commit", "--branch", "b"],
    ],
)
def test_options_that_contradict_are_wrong_usage(stage: Stage, arguments: list[str]) -> None:
    assert stage.run(*arguments).exit_code == 2
    assert not (stage.folder / LOCKED).exists()


def test_machines_are_told_what_moved(stage: Stage) -> None:
    stage.lock()
    stage.put(3)
    answer = json.loads(stage.lock("--update", "--no-commit", "--json").stdout)
    assert answer == {
        "changed": [
            {
                "group": "search",
                "model": "ranker",
                "path": LOCKED,
                "from_version": 2,
                "to_version": 3,
                "files": 5,
                "bytes": 7020,
            }
        ],
        "removed": [],
        "problems": [],
        "notes": [],
        "message": ("Move ranker 2 -> 3 in search\n\nranker 2 -> 3 in search (5 files, 7.0 kB)\n"),
        "commit": None,
    }
    (stage.folder / LOCKED).unlink()
    result = stage.run("--check", "--offline", "--json")
    (problem,) = json.loads(result.stdout)["problems"]
    assert (result.exit_code, problem["path"], problem["line"]) == (1, LOCKED, 1)


async def test_each_source_is_listed_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(stage.folder, {"groups/vision.yaml": b"nodes: [b]\n"})
    stage.deploy(name="deployments/vision/ranker")
    asked: list[Query] = []
    list_really = FileSource.list

    def count(self: FileSource, query: Query) -> object:
        asked.append(query)
        return list_really(self, query)

    monkeypatch.setattr(FileSource, "list", count)
    await asyncio.to_thread(stage.lock)
    assert asked == [Query(stage.url())]
    asked.clear()
    await asyncio.to_thread(stage.lock)
    assert asked == [Query(stage.url(), 2)]
    for arguments in (["--update", "--no-commit"], ["--check"]):
        asked.clear()
        await asyncio.to_thread(stage.lock, *arguments)
        assert asked == [Query(stage.url())]


async def test_one_version_of_one_deployment_can_be_locked_by_itself(stage: Stage) -> None:
    stage.deploy("version: 1")
    deployment = read_folder(stage.folder).deployments[f"{RANKER}.yaml"]
    sources = Sources()
    locked = await resolve_lock(deployment, sources)
    assert (locked.path, locked.version) == (LOCKED, 1)
    assert locked.versions[1].digest == stage.digest(1)
    stage.overwrite(1)
    with pytest.raises(ConfigError) as raised:
        await resolve_lock(deployment, sources, keep=locked)
    assert raised.value.reason == "LockMismatch"
    sources.close()
