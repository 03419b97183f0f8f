"""The commands for people in clones of every kind, and when something comes in between."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.commits import commit_files
from reconciler.config_repo.fleets import read_folder
from reconciler.errors import ConfigError, GitError
from tests.gitserver import IDENTITY, git

RANKER = "deployments/search/ranker.yaml"
DEADLINE_SECONDS = 20
COMMAND = (sys.executable, "-m", "reconciler.cli.main")


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    output: str


class Clone:
    """A clone in which ranker went from version 1 to version 2."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.models = folder / "models"
        for version in (1, 2, 3):
            (self.models / str(version)).mkdir(parents=True)
            (self.models / str(version) / "saved_model.pb").write_bytes(b"a graph")
        git("init", "--quiet", "--initial-branch=main", str(self.work))
        self.commit({"groups/search.yaml": "nodes: [s1]\n", RANKER: self.text(1)})
        self.commit({RANKER: self.text(2)})

    def text(self, version: int | str) -> str:
        return f"source: file://{self.models}\nversion: {version}\n"

    def commit(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            (self.work / path).write_text(text)
        git("add", "--all", cwd=self.work)
        git("commit", "--quiet", "--message", "Change", cwd=self.work)

    def write_hook(self, script: str) -> None:
        hook = self.work / ".git/hooks/pre-commit"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\n{script}\n")
        hook.chmod(0o755)

    def everything(self) -> tuple[str, ...]:
        """Return branches, index and work tree, and the locks that git holds."""
        return (
            git("for-each-ref", cwd=self.work),
            git("symbolic-ref", "HEAD", cwd=self.work),
            git("status", "--porcelain", cwd=self.work),
            git("diff", "HEAD", cwd=self.work),
            *sorted(path.name for path in (self.work / ".git").glob("*.lock")),
        )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def run(
    *arguments: str, folder: Path, identity: Mapping[str, str] = IDENTITY, **variables: str
) -> Answer:
    """Run a command in a folder; no traceback may ever come of it."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**os.environ, **identity, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return Answer(done.returncode, done.stdout + done.stderr)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


# --- something comes in between -------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("pin", "ranker", "3"), ("pin", "ranker", "3", "--branch", "pin"), ("lock", "--update")],
    ids=" ".join,
)
def test_ctrl_c_while_a_hook_runs_leaves_everything_as_it_was(
    clone: Clone, arguments: tuple[str, ...]
) -> None:
    clone.write_hook("touch running; exec sleep 60")
    (clone.work / ".git/info/exclude").write_text("running\n")
    before = clone.everything()
    with Popen(
        [*COMMAND, *arguments],
        cwd=clone.work,
        env={**os.environ, **IDENTITY},
        stdin=PIPE,
        stderr=PIPE,
    ) as command:
        wait_for(clone.work / "running")
        command.send_signal(signal.SIGINT)
        _, stderr = command.communicate(timeout=DEADLINE_SECONDS)
    assert (command.returncode, b"Aborted!" in stderr, b"Traceback" in stderr) == (1, True, False)
    assert clone.everything() == before
    clone.write_hook("exit 0")
    assert run(*arguments, folder=clone.work).code == 0


def test_of_two_commands_at_once_one_commits(clone: Clone) -> None:
    clone.write_hook("touch running; until test -e go; do sleep 0.02; done")
    (clone.work / ".git/info/exclude").write_text("running\ngo\n")
    environment = {**os.environ, **IDENTITY}
    with Popen([*COMMAND, "pin", "ranker", "3"], cwd=clone.work, env=environment) as first:
        wait_for(clone.work / "running")
        # Its own file is being changed; another deployment's would not be.
        clone_of_now = Checkout(clone.work)
        head = clone_of_now.resolve("HEAD").id
        with pytest.raises(GitError, match=r"another reconciler command .* nothing was changed"):
            commit_files(clone_of_now, {"groups/search.yaml": b"nodes: [s2]\n"}, "No", head)
        (clone.work / "go").touch()
        assert first.wait(DEADLINE_SECONDS) == 0
    assert (clone.work / "groups/search.yaml").read_text() == "nodes: [s1]\n"


def test_what_was_committed_meanwhile_is_not_lost(clone: Clone) -> None:
    checkout = Checkout(clone.work)
    base = checkout.resolve("HEAD").id
    clone.commit({RANKER: f"{clone.text(2)}description: by a colleague\n"})
    before = clone.everything()
    with pytest.raises(GitError, match=r"was checked out meanwhile; run the command again"):
        commit_files(checkout, {RANKER: clone.text(3).encode()}, "Pin", base)
    assert clone.everything() == before
    assert "colleague" in (clone.work / RANKER).read_text()


def test_a_hook_that_says_nothing_is_named(clone: Clone) -> None:
    clone.write_hook("exit 1")
    answer = run("pin", "ranker", "3", folder=clone.work)
    assert "it said nothing (exit code 1); a hook may have refused; nothing was" in answer.output


def test_an_unknown_committer_is_told_what_to_set(clone: Clone) -> None:
    git("config", "user.useConfigOnly", "true", cwd=clone.work)
    answer = run("pin", "ranker", "3", folder=clone.work, identity={}, GIT_CONFIG_GLOBAL=os.devnull)
    assert answer.code == 1
    assert "set `git config user.name` and `git config user.email`; nothing was" in answer.output


def test_a_branch_that_exists_changes_nothing(clone: Clone) -> None:
    answer = run("pin", "ranker", "3", "--branch", "main", folder=clone.work)
    assert answer.code == 1
    assert "a branch named 'main' already exists; nothing was changed" in answer.output


# --- clones of every kind -------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("plan", "HEAD~1"), ("history",), ("pin", "ranker", "3")])
def test_sha256_names_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    git("init", "--quiet", "--object-format=sha256", str(tmp_path))
    answer = run(*arguments, folder=tmp_path)
    assert "sha256 object names, which are not supported; use one with sha1" in answer.output


@pytest.mark.parametrize("arguments", [("plan",), ("history",), ("rollback", "ranker")])
def test_a_bare_repository_is_no_clone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    git("init", "--quiet", "--bare", str(tmp_path))
    answer = run(*arguments, folder=tmp_path)
    assert "is a repository without a work tree; clone the config repo" in answer.output


@pytest.mark.parametrize("arguments", [("plan",), ("history",), ("rollback", "ranker")])
def test_a_repository_without_a_commit(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    git("init", "--quiet", str(tmp_path))
    assert f"no commit was made yet in {tmp_path}" in run(*arguments, folder=tmp_path).output


@pytest.mark.parametrize(
    "arguments",
    [("plan", "HEAD~1"), ("history",), ("rollback", "ranker"), ("pin", "ranker", "1")],
    ids=" ".join,
)
def test_a_missing_object_is_named(clone: Clone, arguments: tuple[str, ...]) -> None:
    lost = git("rev-parse", f"HEAD~1:{RANKER}", cwd=clone.work)
    (clone.work / ".git/objects" / lost[:2] / lost[2:]).unlink()
    answer = run(*arguments, folder=clone.work)
    assert answer.code == 1
    assert f"missing in {clone.work}; run `git fsck` there, or clone it anew" in answer.output
    assert "mirror" not in answer.output


@pytest.mark.parametrize("arguments", [("plan",), ("history",), ("lock",)])
def test_a_folder_that_was_removed(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    script = 'rmdir "$PWD"; exec "$@"'
    answer = subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode in (1, 2)
    assert "Traceback" not in answer.stderr
    assert "by -C" in answer.stderr


def test_a_folder_beside_the_config_is_not_planned_as_a_change_of_nothing(clone: Clone) -> None:
    answer = run("plan", "HEAD~1", "-C", "groups", folder=clone.work)
    assert answer.code == 2
    assert "there are neither groups nor deployments" in answer.output
    answer = run("history", "-C", "groups", folder=clone.work)
    assert "there was never a deployment" in answer.output


def test_a_shallow_clone_does_not_know_what_is_on_disk(clone: Clone, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git("clone", "--quiet", "--depth=1", f"file://{clone.work}", str(shallow))
    (shallow / RANKER).write_text(clone.text(1))
    answer = run("plan", "HEAD", "--worktree", folder=shallow)
    assert answer.code == 0
    assert "this clone is shallow" in answer.output
    assert "this clone is shallow" not in run("plan", "HEAD~1", folder=clone.work).output


def test_a_folder_that_cannot_be_read_is_not_in_order(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scan(path: str) -> "os._ScandirIterator[str]":
        if path.endswith("deployments/search"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)  # root may read everything
    with pytest.raises(ConfigError, match=r"deployments/search cannot be read \(Permission den"):
        read_folder(clone.work)


def test_a_file_whose_name_is_no_text_is_named_as_git_would(clone: Clone) -> None:
    folder = os.fsencode(clone.work / "deployments/search")
    Path(os.fsdecode(folder + b"/\xff.yaml")).write_text("source: 1\n")
    answer = run("validate", ".", "--format", "json", folder=clone.work)
    assert answer.code == 1
    assert '"deployments/search/\\\\xff.yaml"' in answer.output
    assert "must be gs://bucket/folder" in answer.output


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ("author a <a@b> xyz +0000\ncommitter a <a@b> xyz +0000\n", "unsigned"),
        ("author a <a@b> 1 +0000\ncommitter a <a@b> 9999999999999999 +0000\n", "unsigned"),
        ("author a\ncommitter b\n", "unsigned"),
        (
            "author a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\ngpgsig junk\n more\n",
            "signed, by no known method",
        ),
    ],
)
def test_a_commit_made_by_no_git_is_read_as_far_as_it_goes(
    clone: Clone, headers: str, word: str
) -> None:
    tree = git("rev-parse", "HEAD^{tree}", cwd=clone.work)
    text = f"tree {tree}\nparent {git('rev-parse', 'HEAD~1', cwd=clone.work)}\n{headers}\nodd\n"
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
        cwd=clone.work,
        input=text.encode(),
        check=True,
        capture_output=True,
    )
    git("reset", "-q", "--hard", made.stdout.decode().strip(), cwd=clone.work)
    history = run("history", "ranker", folder=clone.work)
    assert history.code == 0
    assert f"{word}\n    odd\n" in history.output
    assert "load     2" in run("plan", "HEAD~1", folder=clone.work).output
    assert run("rollback", "ranker", "--yes", folder=clone.work).code == 0


# --- what reads the output ------------------------------------------------------------------------


def test_a_character_set_without_arrows_is_no_reason_to_fail(clone: Clone) -> None:
    plan = ("plan", "HEAD~1", "--format", "markdown")
    answer = run(*plan, folder=clone.work, PYTHONIOENCODING="latin-1")
    assert answer.code == 0
    assert "\\u2192" in answer.output


@pytest.mark.parametrize("arguments", [("plan", "HEAD~1"), ("history", "--json")])
def test_output_that_cannot_be_written(clone: Clone, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=clone.work,
            stdout=full,
            stderr=PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"reconciler: No space left on device\n")
