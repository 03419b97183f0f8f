"""`reconciler lock` with a real git and a real bucket server: commits, branches, signatures."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.lock import lock
from reconciler.cli.publish import publish_version
from reconciler.config_repo.fleets import read_folder
from reconciler.errors import GitError, ReconcilerError
from reconciler.model import Lock
from tests.bucket import WHOLE, FakeBucket, run_fake_gcs, write_files
from tests.gitserver import git
from tests.keys import make_ssh_key

RANKER = "deployments/search/ranker.yaml"
LOCKED = "deployments/search/ranker.lock.yaml"
SPELLER_LOCKED = "deployments/search/speller.lock.yaml"


@dataclass(frozen=True)
class Stage:
    """A clone of a config repo whose models are in a bucket; `config` is its folder in it."""

    bucket: FakeBucket
    clone: Path
    config: Path
    export: Path

    def run(self, *arguments: str) -> Result:
        command = ["-C", str(self.config), "--settle", "0s", *arguments]
        return CliRunner().invoke(lock, command)

    def lock(self, *arguments: str) -> Result:
        """Run the command; it is to succeed."""
        result = self.run(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    def fail(self, *arguments: str) -> ReconcilerError:
        """Run the command; it is to end with an error, which is returned."""
        result = self.run(*arguments)
        assert isinstance(result.exception, ReconcilerError), result.output
        return result.exception

    def publish(self, version: int, model: str = "ranker") -> None:
        publish_version(self.export, f"gs://acme/{model}", version)

    def commit(self, subject: str = "Change") -> None:
        git("add", "--all", cwd=self.clone)
        git("commit", "--quiet", "-m", subject, cwd=self.clone)

    def log(self, form: str) -> str:
        return git("log", "-1", f"--format={form}", cwd=self.clone)

    def head(self) -> str:
        return self.log("%H")

    def status(self) -> str:
        return git("status", "--porcelain", cwd=self.clone)

    def locked(self, path: str = RANKER) -> Lock:
        locked = read_folder(self.config).deployments[path].lock
        assert locked is not None
        return locked


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBucket]:
    with run_fake_gcs() as endpoint:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        yield FakeBucket(endpoint, "acme")


@pytest.fixture
def stage(bucket: FakeBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Two models, locked at version 41 and 7, in a clean clone; the next versions are published."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    clone = tmp_path / "clone"
    git("init", "--quiet", "--initial-branch=main", str(clone))
    git("config", "user.name", "Ada", cwd=clone)
    git("config", "user.email", "ada@example.org", cwd=clone)
    stage = Stage(bucket, clone, clone / "fleet", write_files(tmp_path / "export"))
    files = {"groups/search.yaml": "nodes: [a]\n"}
    for model in ("ranker", "speller"):
        files[f"deployments/search/{model}.yaml"] = f"source: gs://acme/{model}\nversion: latest\n"
    write_files(stage.config, {path: text.encode() for path, text in files.items()})
    stage.publish(41)
    stage.publish(7, "speller")
    stage.lock()
    stage.commit("Deploy two models")
    stage.publish(42)
    stage.publish(8, "speller")
    return stage


def test_a_published_version_is_locked_with_its_sums(stage: Stage) -> None:
    sums = {path: hashlib.sha256(content).hexdigest() for path, content in WHOLE.items()}
    text = stage.bucket.read("ranker/41/SHA256SUMS")
    locked = stage.locked().versions[41]
    assert locked.sha256 == {**sums, "SHA256SUMS": hashlib.sha256(text).hexdigest()}
    assert (locked.files, locked.size_bytes) == (6, sum(map(len, WHOLE.values())) + len(text))


def test_a_version_that_was_copied_there_is_locked_without_sums(stage: Stage) -> None:
    stage.bucket.put_version("43")
    stage.lock("--update", "--no-commit", "ranker")
    assert (stage.locked().version, stage.locked().versions[43].sha256) == (43, {})


def test_sums_that_are_false_by_their_names_are_not_locked(stage: Stage) -> None:
    stage.bucket.put_version("43", {**WHOLE, "SHA256SUMS": b"0" * 64 + b"  saved_model.pb\n"})
    result = stage.run("--update", "--no-commit", "ranker")
    assert result.exit_code == 1
    assert "gs://acme/ranker/43/SHA256SUMS cannot be used: it does not name" in result.stderr
    assert stage.locked().version == 41


def test_one_object_rewritten_with_the_same_bytes_is_noticed(stage: Stage) -> None:
    stage.bucket.put("ranker/41/saved_model.pb", WHOLE["saved_model.pb"])
    result = stage.run("--check")
    assert result.exit_code == 1
    assert f"fleet/{LOCKED}:1:1" not in result.stdout
    assert f"{LOCKED}:1:1: version 41 of gs://acme/ranker is not what" in result.stdout
    assert "saved_model.pb was written last. Someone overwrote a locked version" in result.stdout


def test_an_update_is_one_commit_of_the_lock_files_alone(stage: Stage) -> None:
    write_files(stage.clone, {"notes.txt": b"mine", "staged.txt": b"mine"})
    git("add", "staged.txt", cwd=stage.clone)
    result = stage.lock("--update", "ranker")
    assert result.stdout == (
        "ranker 41 -> 42 in search (6 files, 7.5 kB)\n"
        f"Committed {stage.head()[:10]} Move ranker 41 -> 42 in search\n"
    )
    assert stage.log("%B").rstrip() == (
        "Move ranker 41 -> 42 in search\n\nranker 41 -> 42 in search (6 files, 7.5 kB)"
    )
    changed = git("show", "--name-only", "--format=", cwd=stage.clone)
    assert changed == f"fleet/{LOCKED}"
    assert stage.status().splitlines() == ["A  staged.txt", "?? notes.txt"]
    assert stage.locked().version == 42
    assert read_folder(stage.config).problems == []


def test_several_moves_are_one_commit(stage: Stage) -> None:
    stage.lock("--update")
    assert stage.log("%s") == "Move 2 models on: ranker 41 -> 42, speller 7 -> 8"
    assert stage.log("%b").splitlines() == [
        "ranker 41 -> 42 in search (6 files, 7.5 kB)",
        "speller 7 -> 8 in search (6 files, 7.5 kB)",
    ]


def test_a_subject_stays_short(stage: Stage) -> None:
    for number in range(5):
        name = f"deployments/search/a_model_with_a_long_name_{number}.yaml"
        write_files(stage.config, {name: b"source: gs://acme/ranker\nversion: 41\n"})
    stage.commit()
    stage.lock("--update")
    assert stage.log("%s") == "Move 2 models on and lock 5 models"
    assert len(stage.log("%b").splitlines()) == 7


def test_nothing_new_is_no_commit(stage: Stage) -> None:
    stage.lock("--update")
    head = stage.head()
    result = stage.lock("--update")
    assert result.stdout == "Nothing changed: 2 locks stand as written.\n"
    assert (stage.head(), stage.status()) == (head, "")


def test_a_branch_is_made_for_the_commit(stage: Stage) -> None:
    main = stage.head()
    stage.lock("--update", "--branch", "move-on")
    assert git("branch", "--show-current", cwd=stage.clone) == "move-on"
    assert git("rev-parse", "main", cwd=stage.clone) == main
    assert git("rev-parse", "move-on~", cwd=stage.clone) == main
    git("switch", "--quiet", "main", cwd=stage.clone)
    assert stage.fail("--update", "--branch", "move-on").reason == "CommitFailed"
    assert stage.fail("--update", "--branch", "-x").reason == "CommitFailed"
    assert (stage.locked().version, stage.status()) == (41, "")


def test_no_branch_is_made_when_nothing_is_new(stage: Stage) -> None:
    stage.lock("--update")
    stage.lock("--update", "--branch", "move-on")
    assert git("branch", "--show-current", cwd=stage.clone) == "main"
    assert git("branch", "--list", "move-on", cwd=stage.clone) == ""


@pytest.mark.parametrize("path", [RANKER, LOCKED])
def test_changes_that_are_not_committed_are_not_swept_in(stage: Stage, path: str) -> None:
    with (stage.config / path).open("a") as file:
        file.write("# mine\n")
    text = (stage.config / LOCKED).read_bytes()
    error = stage.fail("--update")
    assert error.reason == "UncommittedChanges"
    assert path in str(error)
    assert (stage.config / LOCKED).read_bytes() == text
    assert stage.status() == f"M fleet/{path}"
    stage.lock("--update", "speller")


@pytest.mark.parametrize("branch", [[], ["--branch", "move-on"]])
@pytest.mark.parametrize("is_detached", [False, True])
def test_a_hook_that_refuses_leaves_everything_as_it_was(
    stage: Stage, branch: list[str], is_detached: bool
) -> None:
    if is_detached:
        git("switch", "--quiet", "--detach", cwd=stage.clone)
    (stage.config / SPELLER_LOCKED).unlink()
    git("rm", "--quiet", f"fleet/{SPELLER_LOCKED}", cwd=stage.clone)
    git("commit", "--quiet", "-m", "Unlock", cwd=stage.clone)
    hook = stage.clone / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'error: not on a Friday' >&2\nexit 1\n")
    hook.chmod(0o755)
    head, text = stage.head(), (stage.config / LOCKED).read_bytes()
    error = stage.fail("--update", *branch)
    assert isinstance(error, GitError)
    assert "not on a Friday; nothing was changed" in str(error)
    assert (stage.head(), stage.status()) == (head, "")
    assert (stage.config / LOCKED).read_bytes() == text
    assert not (stage.config / SPELLER_LOCKED).exists()
    on = git("branch", "--show-current", cwd=stage.clone)
    assert on == ("" if is_detached else "main")
    assert git("branch", "--list", "move-on", cwd=stage.clone) == ""


def test_a_lock_file_that_cannot_be_written_leaves_the_others_as_they_were(stage: Stage) -> None:
    text = (stage.config / LOCKED).read_bytes()
    (stage.config / SPELLER_LOCKED).unlink()
    (stage.config / SPELLER_LOCKED).mkdir()
    error = stage.fail("--update", "--no-commit")
    assert error.reason == "WriteFailed"
    assert SPELLER_LOCKED in str(error)
    assert (stage.config / LOCKED).read_bytes() == text


def test_a_commit_is_signed_where_git_is_set_to_sign(stage: Stage, tmp_path: Path) -> None:
    made = make_ssh_key(tmp_path, "key")
    key = made.path
    (tmp_path / "signers").write_text(made.allow())
    for name, value in {
        "gpg.format": "ssh",
        "gpg.ssh.allowedSignersFile": str(tmp_path / "signers"),
        "user.signingKey": str(key),
        "commit.gpgSign": "true",
    }.items():
        git("config", name, value, cwd=stage.clone)
    stage.lock("--update")
    git("verify-commit", "HEAD", cwd=stage.clone)
    assert stage.log("%G? %GS") == "G ada@example.org"
    key.unlink()
    stage.publish(43)
    head = stage.head()
    assert stage.fail("--update").reason == "CommitFailed"
    assert (stage.head(), stage.status(), stage.locked().version) == (head, "", 42)


def test_an_update_needs_a_repository_and_a_plain_run_does_not(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    stage.config.rename(tmp_path / "plain")
    plain = Stage(stage.bucket, stage.clone, tmp_path / "plain", stage.export)
    assert plain.fail("--update").reason == "NotACheckout"
    plain.lock()
    plain.lock("--update", "--no-commit")
    assert plain.locked().version == 42


def test_what_could_be_moved_is_committed_when_another_could_not(stage: Stage) -> None:
    stage.bucket.put("speller/7/saved_model.pb", b"another")
    stage.bucket.delete("speller/8/saved_model.pb")
    result = stage.run("--update", "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["commit"] == stage.head()
    assert [change["model"] for change in answer["changed"]] == ["ranker"]
    (problem,) = answer["problems"]
    assert problem["path"] == SPELLER_LOCKED
    assert stage.log("%s") == "Move ranker 41 -> 42 in search"


def test_a_bucket_that_does_not_answer_is_said_and_nothing_is_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(stage.config, {RANKER: b"source: gs://nowhere/ranker\nversion: latest\n"})
    text = (stage.config / LOCKED).read_bytes()
    result = stage.run("ranker")
    assert result.exit_code == 1
    assert f"{RANKER}:1:9: bucket nowhere of gs://nowhere/ranker does not exist" in result.stderr
    assert (stage.config / LOCKED).read_bytes() == text
