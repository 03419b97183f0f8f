"""`reconciler rollback` and `reconciler pin` in real clones, against real buckets and nodes."""

import asyncio
import os
import pty
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.main import cli
from reconciler.config_repo.fleets import read_folder
from reconciler.errors import ReconcilerError
from reconciler.locking.text import render_lock
from reconciler.model import Deployment, Lock, Outcome, Phase, Query
from reconciler.planning.locks import lock_snapshot
from reconciler.sources.registry import Sources
from reconciler.status.board import StatusBoard
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.report import NodeReport
from reconciler.status.server import StatusServer
from tests.bucket import FakeBucket, run_fake_gcs
from tests.gitserver import git
from tests.keys import make_ssh_key

RANKER = "deployments/search/ranker.yaml"
LOCK = "deployments/search/ranker.lock.yaml"
DEADLINE_SECONDS = 20
TEXT = """\
# yaml-language-server: $schema=deployment.schema.json

source: {source}   # where the trainers write
version: {version}     # see the runbook
# labels move by hand

replicas: all

description: 'Ranks'
"""


class Clone:
    """A clone of a config repo, with models in a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.models = folder / "models"
        git("init", "--quiet", "--initial-branch=main", str(self.work))
        self.publish("ranker", 40, 41, 42, 43)

    def source(self, model: str = "ranker") -> str:
        return f"file://{self.models}/{model}"

    def publish(self, model: str, *versions: int) -> None:
        for version in versions:
            folder = self.models / model / str(version)
            folder.mkdir(parents=True)
            (folder / "saved_model.pb").write_bytes(b"graph %d" % version)

    def text(self, version: int | str, model: str = "ranker") -> str:
        return TEXT.format(source=self.source(model), version=version)

    def lock_text(self, version: int, *labelled: int) -> str:
        source = self.source()
        sources = Sources()
        versions = {}
        for number in (version, *labelled):
            listing = sources.open(source).list(Query(source, number))
            versions[number] = lock_snapshot(listing.snapshots[number], {})
        sources.close()
        return render_lock(Lock(LOCK, "ranker", source, version, versions))

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        for path, content in files.items():
            file = self.work / path
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, files: Mapping[str, str | bytes | None], subject: str = "Change") -> str:
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        return self.head

    def git(self, *arguments: str) -> str:
        return git(*arguments, cwd=self.work)

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    @property
    def message(self) -> str:
        return self.git("log", "-1", "--format=%B")

    def read(self, path: str = RANKER) -> str:
        return (self.work / path).read_bytes().decode()

    def changed(self) -> list[str]:
        """Return the paths that the newest commit touches."""
        names = self.git("show", "--format=", "--name-only", "--no-renames", "HEAD")
        return sorted(names.splitlines())

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(cli, [*arguments, "-C", str(self.work)])
        if result.exception and not isinstance(result.exception, SystemExit | ReconcilerError):
            raise result.exception
        return result

    def do(self, *arguments: str) -> Result:
        """Run a command that must come out well."""
        result = self.run(*arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    def refuse(self, *arguments: str) -> str:
        """Run a command that must be refused and leave everything as it was; return why."""
        before = self.everything()
        result = self.run(*arguments)
        assert isinstance(result.exception, ReconcilerError), result.output
        assert self.everything() == before
        return str(result.exception)

    def everything(self) -> tuple[str, ...]:
        """Return the branches, the current one, what is staged and what is not, and all texts."""
        texts = [
            f"{path}={path.read_bytes()!r}"
            for path in sorted(self.work.rglob("*"))
            if path.is_file() and ".git" not in path.parts
        ]
        return (
            self.git("for-each-ref"),
            (self.work / ".git" / "HEAD").read_text(),
            self.git("status", "--porcelain"),
            *texts,
        )


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Oncall")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "oncall@example.org")
    clone = Clone(tmp_path)
    clone.commit({"groups/search.yaml": "nodes: [s1, s2]\n", "README.md": "Fleet\n"})
    return clone


def deploy(clone: Clone, *versions: int | str) -> list[str]:
    return [clone.commit({RANKER: clone.text(v)}, f"Deploy ranker {v}") for v in versions]


@pytest.fixture(scope="module")
def gcs() -> Iterator[str]:
    with run_fake_gcs() as endpoint:
        yield endpoint


# --- a true revert ------------------------------------------------------------------------------


def test_a_commit_of_its_own_is_reverted_as_git_does_it(clone: Clone) -> None:
    deploy(clone, 41)
    commit = clone.commit({RANKER: clone.text(42).replace("all", "1")}, "Deploy ranker 42")
    clone.commit({"README.md": "Later\n"})

    result = clone.do("rollback", "ranker")
    assert result.stdout == (
        f'ranker in search: 42 -> 41, by reverting {commit[:10]} "Deploy ranker 42" of Ada'
        f' (1 file)\ncommitted {clone.head[:10]} on main: Revert "Deploy ranker 42"\n'
        "left to do: `git push`\n"
    )
    assert result.stderr == ""
    ours = clone.message, clone.git("rev-parse", "HEAD^{tree}")
    assert clone.git("log", "-1", "--format=%an %ae") == "Oncall oncall@example.org"
    clone.git("reset", "--quiet", "--hard", "HEAD^")
    clone.git("revert", "--no-edit", commit)
    assert ours == (clone.message, clone.git("rev-parse", "HEAD^{tree}"))


def test_a_revert_can_be_reverted(clone: Clone) -> None:
    deploy(clone, 41, 42)
    clone.do("rollback", "ranker")
    clone.do("rollback", "search/ranker", "--reason", "It was the network.")
    assert clone.message.startswith('Reapply "Deploy ranker 42"\n\nThis reverts commit ')
    assert clone.message.endswith("\n\nIt was the network.")
    assert clone.read() == clone.text(42)


def test_later_edits_of_the_same_file_stay(clone: Clone) -> None:
    _, commit = deploy(clone, 41, 42)
    edited = clone.text(42).replace("'Ranks'", "'Ranks all'")
    clone.commit({RANKER: edited}, "Describe ranker")

    clone.do("rollback", "ranker")
    assert clone.read() == edited.replace("version: 42", "version: 41")
    ours = clone.message, clone.git("rev-parse", "HEAD^{tree}")
    clone.git("reset", "--quiet", "--hard", "HEAD^")
    clone.git("revert", "--no-edit", commit)
    assert ours == (clone.message, clone.git("rev-parse", "HEAD^{tree}"))


def test_a_revert_that_conflicts_becomes_a_version_set_back(clone: Clone) -> None:
    _, commit = deploy(clone, 41, 42)
    edited = clone.text(42).replace("see the runbook", "see page 7")
    clone.commit({RANKER: edited}, "Name the page")

    result = clone.do("rollback", "ranker")
    assert f'note: {commit[:10]} "Deploy ranker 42" of Ada cannot be taken back' in result.stderr
    assert "by setting its version (1 file)" in result.stdout
    assert clone.read() == edited.replace("version: 42", "version: 41")
    assert clone.message == "Roll back ranker 42 -> 41 in search"
    assert clone.git("status", "--porcelain") == ""
    assert not (clone.work / ".git" / "REVERT_HEAD").exists()


def test_a_commit_of_two_models_is_taken_back_in_one(clone: Clone) -> None:
    other = "deployments/search/suggest.yaml"
    clone.commit({RANKER: clone.text(41), other: clone.text(41)}, "Deploy both")
    both = {RANKER: clone.text(42).replace("all", "2"), other: clone.text(42)}
    commit = clone.commit(both, "Move both on")

    result = clone.do("rollback", "ranker", "--reason", "Slow since noon.")
    assert f'by taking back what {commit[:10]} "Move both on" of Ada changed' in result.stdout
    assert clone.changed() == [RANKER]
    assert clone.read() == clone.text(41)
    assert clone.message == (
        f"Roll back ranker 42 -> 41 in search\n\nTakes back what {commit} changed in it.\n\n"
        "Slow since noon."
    )


def test_a_pull_request_of_two_commits_is_one_step(clone: Clone) -> None:
    deploy(clone, 41)
    clone.git("switch", "--quiet", "--create", "change")
    deploy(clone, 42, 43)
    clone.git("switch", "--quiet", "main")
    clone.git("merge", "--quiet", "--no-ff", "-m", "Merge pull request 7", "change")

    result = clone.do("rollback", "ranker")
    assert "43 -> 41" in result.stdout and "Merge pull request 7" in result.stdout
    assert clone.read() == clone.text(41)


def test_a_moved_file_is_followed_and_stays_where_it_is(clone: Clone) -> None:
    deploy(clone, 41, 42)
    moved = "deployments/ads/ranker.yaml"
    clone.commit(
        {RANKER: None, moved: clone.text(42), "groups/ads.yaml": "nodes: [a1]\n"}, "Move ranker"
    )
    result = clone.do("rollback", "ranker")
    assert "ranker in ads: 42 -> 41" in result.stdout
    assert clone.changed() == [moved]
    assert clone.read(moved) == clone.text(41)


def test_windows_line_ends_stay(clone: Clone) -> None:
    texts = {v: clone.text(v).replace("\n", "\r\n") for v in (41, 42)}
    for version in (41, 42):
        clone.commit({RANKER: texts[version]}, f"Deploy {version}")
    clone.commit({RANKER: texts[42].replace("see the", "ask the")}, "Reword")
    clone.do("rollback", "ranker")
    assert clone.read() == texts[41].replace("see the", "ask the")


# --- --to ---------------------------------------------------------------------------------------


def test_to_a_version_further_back(clone: Clone) -> None:
    deploy(clone, 41, 42)
    clone.commit({RANKER: clone.text(43) + "labels: {canary: 43}\n"}, "Try 43")

    result = clone.do("rollback", "ranker", "--to", "41")
    assert "43 -> 41, by setting its version (1 file)" in result.stdout
    assert "note: labels stay as they are" in result.stderr
    assert clone.read() == clone.text(41) + "labels: {canary: 43}\n"


def test_to_a_version_that_was_never_asked_for(clone: Clone) -> None:
    deploy(clone, 41, 42)
    clone.do("rollback", "ranker", "--to", "40")
    assert clone.read() == clone.text(40)


def test_to_a_revision(clone: Clone) -> None:
    first, *_ = deploy(clone, 41, 42, 43)
    clone.git("tag", "good", first)
    clone.do("rollback", "ranker", "--to", "good")
    assert clone.read() == clone.text(41)
    clone.do("rollback", "ranker", "--to", "HEAD~2")
    assert clone.read() == clone.text(42)
    assert "there is no commit 'nowhere'" in clone.refuse("rollback", "ranker", "--to", "nowhere")
    message = clone.refuse("rollback", "ranker", "--to", f"{first}^")
    assert f"ranker in search has no such deployment, or a broken one, at {first}^" in message


def test_to_a_branch_that_was_never_merged(clone: Clone) -> None:
    deploy(clone, 41)
    clone.git("switch", "--quiet", "--create", "trial")
    deploy(clone, 40)
    clone.git("switch", "--quiet", "--create", "broken")
    clone.commit({RANKER: "version: [\n"})
    clone.git("switch", "--quiet", "main")
    deploy(clone, 42)
    assert "a broken one, at broken" in clone.refuse("rollback", "ranker", "--to", "broken")
    clone.do("rollback", "ranker", "--to", "trial")
    assert clone.read() == clone.text(40)
    assert clone.message == "Roll back ranker 42 -> 40 in search"


def test_a_number_is_a_version_also_where_it_is_a_commit(clone: Clone) -> None:
    deploy(clone, 41, 42)
    clone.publish("ranker", 20261121)
    clone.git("tag", "20261121")
    result = clone.do("rollback", "ranker", "--to", "20261121")
    assert "note: 20261121 is taken for a version" in result.stderr
    assert clone.read() == clone.text(20261121)


def test_what_is_asked_already_makes_no_commit(clone: Clone) -> None:
    deploy(clone, 41, 42)
    head = clone.head
    result = clone.do("rollback", "ranker", "--to", "42")
    assert result.stdout == "ranker in search asks for 42 already; nothing to do.\n"
    result = clone.do("pin", "ranker", "42")
    assert result.stdout == "ranker in search is pinned to 42 already; nothing to do.\n"
    assert clone.head == head


def test_without_an_earlier_version_the_version_must_be_named(clone: Clone) -> None:
    deploy(clone, 41)
    message = clone.refuse("rollback", "ranker")
    assert "ranker in search has no earlier version in the history" in message
    assert "`reconciler rollback search/ranker --to VERSION`" in message


def test_git_does_not_say_what_latest_was_without_a_lock(clone: Clone) -> None:
    deploy(clone, 41, "latest", 42)
    message = clone.refuse("rollback", "ranker")
    assert "asked for `latest` without a lock then" in message and "--to VERSION" in message
    clone.do("rollback", "ranker", "--to", "41")
    assert clone.read() == clone.text(41)


def test_a_version_of_another_source_is_left_to_a_person(clone: Clone) -> None:
    deploy(clone, 41)
    clone.publish("better", 1, 2)
    clone.commit({RANKER: clone.text(1, "better")}, "Take the better one")
    clone.commit({RANKER: clone.text(2, "better")}, "Deploy 2")
    message = clone.refuse("rollback", "ranker", "--to", "HEAD~2")
    assert f"version 41 of ranker in search came from {clone.source()}" in message
    clone.do("rollback", "ranker")
    clone.do("rollback", "ranker", "--to", "HEAD~3")  # one step: the source goes back with it
    assert clone.read() == clone.text(41)


# --- locks --------------------------------------------------------------------------------------


def lock_latest(clone: Clone, *versions: int) -> dict[int, str]:
    """Deploy `latest` and let its lock go through the versions; return the locks' texts."""
    locks = {version: clone.lock_text(version) for version in versions}
    clone.commit({RANKER: clone.text("latest")}, "Follow latest")
    for version, text in locks.items():
        clone.commit({LOCK: text}, f"Move ranker to {version}")
    return locks


def test_a_lock_goes_back_and_says_that_latest_stays(clone: Clone) -> None:
    locks = lock_latest(clone, 41, 42)
    result = clone.do("rollback", "ranker")
    assert "42 -> 41, by reverting" in result.stdout
    assert clone.changed() == [LOCK]
    assert clone.read(LOCK) == locks[41]
    assert "note: `version: latest` stays" in result.stderr
    assert "`reconciler pin search/ranker 41` holds it" in result.stderr
    # And that is what it takes: the lock is right already.
    clone.do("pin", "ranker", "41")
    assert clone.changed() == [RANKER]
    assert clone.read() == clone.text(41)


def test_a_lock_further_back_has_the_bytes_that_ran(clone: Clone) -> None:
    locks = lock_latest(clone, 41, 42, 43)
    clone.do("rollback", "ranker", "--to", "41")
    assert clone.read(LOCK) == locks[41]
    assert clone.read() == clone.text("latest")
    assert clone.message == "Roll back ranker 43 -> 41 in search"


def test_a_lock_that_must_be_made_anew_is_of_the_version_gone_back_to(clone: Clone) -> None:
    lock_latest(clone, 41, 42)
    clone.publish("ranker", 44)
    clone.commit({RANKER: clone.text("latest") + "labels: {fresh: 44}\n", LOCK: None}, "Unlock")
    clone.do("rollback", "ranker", "--to", "41")
    assert clone.read(LOCK) == clone.lock_text(41, 44)
    clone.git("reset", "--quiet", "--hard", "HEAD^")
    shutil.rmtree(clone.models / "ranker" / "41")
    assert "version 41 is not in" in clone.refuse("rollback", "ranker", "--to", "41")
    clone.publish("ranker", 41)  # at another time than that which was locked
    assert "is not what" in clone.refuse("rollback", "ranker", "--to", "41")


def test_pin_takes_the_lock_of_then_without_asking_the_source(clone: Clone) -> None:
    locks = lock_latest(clone, 41, 42)
    clone.models.rename(clone.models.with_name("unmounted"))
    result = clone.do("pin", "ranker", "41", "--reason", "42 is slow.")
    assert "note: whether version 41 still exists was not checked" in result.stderr
    assert "42 -> 41, by setting its version (2 files)" in result.stdout
    assert (clone.read(), clone.read(LOCK)) == (clone.text(41), locks[41])
    assert clone.message == "Pin ranker 42 -> 41 in search\n\n42 is slow."
    clone.do("rollback", "ranker")
    assert (clone.read(), clone.read(LOCK)) == (clone.text("latest"), locks[42])


def test_every_revision_can_be_gone_back_to(clone: Clone) -> None:
    latest, labelled = clone.text("latest"), clone.text("latest") + "labels: {a: 40}\n"
    history: list[tuple[int, dict[str, str | bytes | None]]] = [
        (40, {RANKER: clone.text(40)}),
        (41, {RANKER: clone.text(41), LOCK: clone.lock_text(41)}),
        (41, {RANKER: latest}),
        (42, {LOCK: clone.lock_text(42), "README.md": "Locked\n"}),
        (42, {RANKER: labelled, LOCK: clone.lock_text(42, 40)}),
        (42, {RANKER: labelled.replace("latest", "42")}),
        (43, {RANKER: labelled.replace("latest", "43"), LOCK: clone.lock_text(43, 40)}),
        (43, {RANKER: labelled, LOCK: clone.lock_text(43, 40) + "# checked\n"}),
    ]
    commits = [(version, clone.commit(files)) for version, files in history]
    outcomes = []
    for version, commit in commits:
        clone.do("rollback", "ranker", "--to", commit)
        fleet = read_folder(clone.work)
        assert not fleet.problems
        outcomes.append((version, fleet.deployments[RANKER].named_version))
        clone.git("reset", "--quiet", "--hard", commits[-1][1])
    assert outcomes == [(version, version) for version, _ in commits]


def test_labels_that_came_later_are_locked_out_of_what_earlier_locks_say(clone: Clone) -> None:
    lock_latest(clone, 41)
    clone.commit({LOCK: clone.lock_text(42, 40), RANKER: clone.text("latest") + "labels: {a: 40}"})
    expected = clone.lock_text(41, 40)
    clone.models.rename(clone.models.with_name("unmounted"))
    clone.do("pin", "ranker", "41")
    assert clone.read(LOCK) == expected


def test_pin_locks_anew_what_was_never_locked(clone: Clone) -> None:
    lock_latest(clone, 42)
    clone.do("pin", "ranker", "40")
    assert (clone.read(), clone.read(LOCK)) == (clone.text(40), clone.lock_text(40))


def test_pin_latest_unpins_and_locks_what_it_is_now(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks = lock_latest(clone, 42, 43)
    clone.do("pin", "ranker", "42")
    later = time.time() + 3600  # `latest` waits until an upload has settled
    monkeypatch.setattr("reconciler.sources.file.time", SimpleNamespace(time=lambda: later))
    result = clone.do("pin", "ranker", "latest")
    assert result.stdout.startswith("ranker in search: 42 -> 43, by setting its version (2 files)")
    assert "proposes" not in result.stderr
    assert clone.message == "Follow the latest version of ranker in search"
    assert (clone.read(), clone.read(LOCK)) == (clone.text("latest"), locks[43])


def test_pin_latest_without_a_lock_leaves_it_to_the_nodes(clone: Clone) -> None:
    deploy(clone, 42)
    result = clone.do("pin", "ranker", "latest")
    assert result.stdout.startswith("ranker in search: 42 -> latest, by setting its version (1")
    assert clone.read() == clone.text("latest")


def test_the_change_that_brought_a_lock_takes_it_away_again(clone: Clone) -> None:
    deploy(clone, 41)
    clone.commit({RANKER: clone.text(42), LOCK: clone.lock_text(42)}, "Deploy and lock 42")
    clone.do("rollback", "ranker")
    assert clone.read() == clone.text(41)
    assert not (clone.work / LOCK).exists()
    assert clone.message.startswith('Revert "Deploy and lock 42"')


def test_but_not_where_locks_are_required_by_now(clone: Clone) -> None:
    deploy(clone, 41)
    clone.commit({RANKER: clone.text(42), LOCK: clone.lock_text(42)}, "Deploy and lock 42")
    clone.commit({"fleet.yaml": "lock: required\n"})
    result = clone.do("rollback", "ranker")
    assert result.stderr == ""
    assert (clone.read(), clone.read(LOCK)) == (clone.text(41), clone.lock_text(41))


def test_a_lock_that_came_later_goes_back_with_the_version(clone: Clone) -> None:
    deploy(clone, 41, 42)
    clone.commit({LOCK: clone.lock_text(42)}, "Lock ranker")
    clone.do("rollback", "ranker")
    assert (clone.read(), clone.read(LOCK)) == (clone.text(41), clone.lock_text(41))


def test_a_lock_that_was_written_anew_since_is_not_reverted_over(clone: Clone) -> None:
    locks = lock_latest(clone, 41, 42)
    clone.commit({LOCK: locks[42] + "# checked\n"}, "Check the lock")
    result = clone.do("rollback", "ranker")
    assert "cannot be taken back by itself, because of what was changed since" in result.stderr
    assert clone.message == "Roll back ranker 42 -> 41 in search"
    assert clone.read(LOCK) == locks[41]


def test_a_required_lock_that_cannot_be_had_is_refused(clone: Clone) -> None:
    clone.commit({"fleet.yaml": "lock: required\n", RANKER: clone.text(42)})
    clone.models.rename(clone.models.with_name("unmounted"))
    message = clone.refuse("pin", "ranker", "41")
    assert "ranker in search needs a lock, none in its history fits" in message
    clone.models.with_name("unmounted").rename(clone.models)
    clone.do("pin", "ranker", "41")
    assert clone.changed() == [LOCK, RANKER]
    assert clone.read(LOCK) == clone.lock_text(41)


def test_a_broken_lock_is_put_right(clone: Clone) -> None:
    locks = lock_latest(clone, 41, 42)
    conflict = f"<<<<<<< ours\n{locks[41]}=======\n{locks[42]}>>>>>>> theirs\n"
    clone.commit({LOCK: conflict}, "Merge badly")
    clone.do("rollback", "ranker")
    assert clone.read(LOCK) == locks[42]


def test_a_broken_file_is_not_edited(clone: Clone) -> None:
    deploy(clone, 41)
    clone.commit({RANKER: clone.text(42) + "stop: yes\n"}, "Break it")
    message = clone.refuse("pin", "ranker", "41")
    assert message.startswith(f"{RANKER}:10:7: yes is true to some YAML readers")
    clone.do("rollback", "ranker")
    assert clone.read() == clone.text(41)


# --- nothing half-written, nothing of others -----------------------------------------------------


def test_other_changes_stay_as_they_are(clone: Clone) -> None:
    deploy(clone, 41, 42)
    clone.write({"README.md": "Staged\n", "groups/search.yaml": "nodes: [s1]\n", "new": "new\n"})
    clone.git("add", "README.md")
    clone.do("rollback", "ranker")
    assert clone.changed() == [RANKER]
    assert clone.git("status", "--porcelain").splitlines() == [
        "M  README.md",
        " M groups/search.yaml",
        "?? new",
    ]


@pytest.mark.parametrize("path", [RANKER, LOCK])
@pytest.mark.parametrize("command", [("rollback", "ranker"), ("pin", "ranker", "40")])
def test_own_uncommitted_changes_are_refused(
    clone: Clone, path: str, command: tuple[str, ...]
) -> None:
    deploy(clone, 41, 42)
    clone.write({path: "version: 7\n"})
    assert f"{path} has changes that are not committed" in clone.refuse(*command)


def write_hook(clone: Clone, name: str, text: str) -> None:
    hook = clone.work / ".git" / "hooks" / name
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\n{text}\n")
    hook.chmod(0o755)


@pytest.mark.parametrize("options", [(), ("--branch", "back")])
def test_a_hook_that_refuses_leaves_everything_as_it_was(
    clone: Clone, options: tuple[str, ...]
) -> None:
    locks = lock_latest(clone, 41, 42)
    clone.write({"README.md": "Staged\n"})
    clone.git("add", "README.md")
    write_hook(clone, "pre-commit", "echo no commits on a Friday >&2; exit 1")
    message = clone.refuse("pin", "ranker", "40", *options)
    assert "no commits on a Friday" in message and message.endswith("nothing was changed")
    (clone.work / ".git" / "hooks" / "pre-commit").unlink()
    clone.do("pin", "ranker", "41", *options)
    assert clone.read(LOCK) == locks[41]


def test_a_lock_file_that_would_be_new_is_gone_after_a_refusal(clone: Clone) -> None:
    clone.commit({"fleet.yaml": "lock: required\n", RANKER: clone.text(42)})
    write_hook(clone, "commit-msg", "exit 1")
    clone.refuse("pin", "ranker", "41")
    assert not (clone.work / LOCK).exists()


def test_commits_are_signed_where_git_is_set_to_sign(clone: Clone, tmp_path: Path) -> None:
    deploy(clone, 41, 42)
    made = make_ssh_key(tmp_path, "key")
    key, signers = made.path, tmp_path / "signers"
    signers.write_text(made.allow("oncall@example.org"))
    for name, value in {
        "gpg.format": "ssh",
        "user.signingKey": str(key),
        "gpg.ssh.allowedSignersFile": str(signers),
        "commit.gpgSign": "true",
    }.items():
        clone.git("config", name, value)
    clone.do("rollback", "ranker")
    assert clone.git("log", "-1", "--format=%G? %GS") == "G oncall@example.org"
    key.unlink()
    assert "nothing was changed" in clone.refuse("rollback", "ranker")


def test_dry_run_says_it_and_stops(clone: Clone) -> None:
    deploy(clone, 41, 42)
    before = clone.everything()
    result = clone.do("rollback", "ranker", "--dry-run", "--branch", "back")
    assert result.stdout.startswith("ranker in search: 42 -> 41, by reverting")
    assert clone.everything() == before


def test_a_branch_is_made_for_a_pull_request(clone: Clone) -> None:
    _, commit = deploy(clone, 41, 42)
    clone.git("remote", "add", "origin", str(clone.models))
    result = clone.do("rollback", "ranker", "--branch", "back-to-41")
    assert "left to do: `git push -u origin back-to-41`, and open a pull request" in result.stdout
    assert clone.git("rev-parse", "main", "back-to-41^").splitlines() == [commit, commit]
    assert clone.read() == clone.text(41)
    assert "'a..b' cannot be a branch's name" in clone.refuse(
        "pin", "ranker", "42", "--branch", "a..b"
    )
    assert "already exists" in clone.refuse("pin", "ranker", "42", "--branch", "main")


def test_a_clone_that_is_behind_says_so(clone: Clone) -> None:
    deploy(clone, 41, 42)
    clone.git("branch", "upstream")
    clone.git("branch", "--quiet", "--set-upstream-to=upstream")
    assert clone.do("rollback", "ranker", "--dry-run").stderr == ""
    clone.git("reset", "--quiet", "--hard", "HEAD^")
    result = clone.do("rollback", "ranker", "--to", "40")
    assert "note: this branch lacks 1 of the commits of its upstream" in result.stderr


def test_a_detached_head_needs_a_branch(clone: Clone) -> None:
    deploy(clone, 41, 42)
    clone.git("switch", "--quiet", "--detach")
    assert "no branch is checked out" in clone.refuse("rollback", "ranker")
    write_hook(clone, "pre-commit", "exit 1")
    clone.refuse("rollback", "ranker", "--branch", "back")


def test_a_config_in_a_folder_of_the_repository(clone: Clone) -> None:
    inside = {f"fleet/{RANKER}": clone.text(41), "fleet/groups/search.yaml": "nodes: [s1]\n"}
    clone.commit(inside)
    clone.commit({f"fleet/{RANKER}": clone.text(42)}, "Deploy 42")
    result = CliRunner().invoke(cli, ["rollback", "ranker", "-C", str(clone.work / "fleet")])
    assert result.exit_code == 0, result.output
    assert clone.changed() == [f"fleet/{RANKER}"]
    assert clone.message.startswith('Revert "Deploy 42"')


def test_names(clone: Clone) -> None:
    ads = {"groups/ads.yaml": "nodes: [a1]\n", "deployments/ads/ranker.yaml": clone.text(41)}
    clone.commit({RANKER: clone.text(41), **ads})
    for name, words in {
        "ranker": "ranker is in 2 groups; name one: ads/ranker or search/ranker",
        "rankr": "no deployment of 'rankr'; did you mean ranker",
        "search/rnker": "did you mean search/ranker",
        "xyz": "no deployment of 'xyz'; look into",
    }.items():
        result = clone.run("pin", name, "42")
        assert result.exit_code == 2
        assert words in " ".join(result.stderr.split())
    for version in ("newest", "-1", "9223372036854775808", "٤٢"):
        assert clone.run("pin", "--", "ads/ranker", version).exit_code == 2
    clone.do("pin", "ads/ranker", "42")
    assert clone.changed() == ["deployments/ads/ranker.yaml"]


@pytest.mark.parametrize(("answer", "commits"), [(b"n\n", False), (b"y\n", True)])
def test_a_person_at_a_terminal_is_asked(clone: Clone, answer: bytes, commits: bool) -> None:
    _, head = deploy(clone, 41, 42)
    command = [sys.executable, "-m", "reconciler.cli.main", "rollback", "ranker"]
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [*command, "-C", str(clone.work)],
            stdin=theirs,
            capture_output=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"Commit this? [y/N]" in done.stdout
    assert (done.returncode == 0) is commits, done.stderr
    assert (clone.head != head) is commits


# --- whether the bytes still exist ---------------------------------------------------------------


@contextmanager
def run_node(folder: Path, *installed: int) -> Iterator[str]:
    """Run a node's real status endpoint that has these versions of ranker on disk."""
    deployment = Deployment("ranker", "search", RANKER, "gs://acme/ranker", 42)
    outcome = Outcome(deployment, Phase.DEPLOYED, "Serving", "Serves.", installed=installed)
    report = NodeReport("s1", "search", "0", 0, 1, True, "did", outcomes=(outcome,))
    folder.mkdir()
    board = StatusBoard(
        Journal(folder / "history"), Metrics("0"), lambda: None, heartbeat_limit_seconds=60
    )
    server = StatusServer(board, "127.0.0.1:0")

    async def serve() -> None:
        await board.publish(report)
        await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        server.stop()
        thread.join(DEADLINE_SECONDS)


@pytest.fixture
def bucket(gcs: str, clone: Clone, monkeypatch: pytest.MonkeyPatch) -> FakeBucket:
    """Deploy ranker 41, then 42, from a bucket of which 41 is gone."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs)
    bucket = FakeBucket(gcs, f"acme-{uuid.uuid4()}")
    for folder in ("39", "40", "42", "43"):
        bucket.put_version(folder, {"saved_model.pb": b"graph"})
    bucket.put_version("38", {"variables/variables.index": b"index"})  # an upload that broke off
    for version in (41, 42):
        text = f"source: gs://{bucket.name}/ranker\nversion: {version}\n"
        clone.commit({RANKER: text}, f"Deploy ranker {version}")
    return bucket


def name_nodes(clone: Clone, **addresses: str) -> None:
    members = "".join(f"  - {{name: {n}, address: '{a}'}}\n" for n, a in addresses.items())
    clone.commit({"groups/search.yaml": f"nodes:\n{members}"})


def test_what_the_bucket_has_needs_no_note(clone: Clone, bucket: FakeBucket) -> None:
    bucket.put_version("41", {"saved_model.pb": b"graph"})
    assert clone.do("rollback", "ranker").stderr == ""


def test_what_is_gone_everywhere_is_refused_and_the_nearest_offered(
    clone: Clone, bucket: FakeBucket, tmp_path: Path
) -> None:
    message = clone.refuse("rollback", "ranker")
    assert f"version 41 is not in gs://{bucket.name}/ranker" in message
    assert "no node could be asked whether it has it on disk" in message
    assert "the nearest that exists is 40: `reconciler rollback search/ranker --to 40`" in message
    with run_node(tmp_path / "s1", 42) as address:
        name_nodes(clone, s1=address)
        assert "no node that answers has it on disk (s1)" in clone.refuse("rollback", "ranker")
    for version in ("39", "40"):
        bucket.delete(f"ranker/{version}/saved_model.pb")
    # 38 is not whole, and 42 is what is asked for now.
    message = clone.refuse("pin", "ranker", "41")
    assert "no older one exists; the nearest newer one is 43: `" in message
    bucket.delete("ranker/43/saved_model.pb")
    assert "holds no other to go to" in clone.refuse("rollback", "ranker")


def test_what_all_nodes_have_on_disk_is_enough(
    clone: Clone, bucket: FakeBucket, tmp_path: Path
) -> None:
    with run_node(tmp_path / "1", 41, 42) as one, run_node(tmp_path / "2", 41) as two:
        name_nodes(clone, s1=one, s2=two, s3="127.0.0.1:1")
        result = clone.do("rollback", "ranker")
    assert "but s1 and s2 have it on disk, so the way back needs no download" in result.stderr
    assert "note: s3 could not be asked" in result.stderr
    assert "version: 41" in clone.read()


def test_what_only_some_nodes_have_is_refused(
    clone: Clone, bucket: FakeBucket, tmp_path: Path
) -> None:
    with run_node(tmp_path / "1", 41, 42) as one, run_node(tmp_path / "2", 42) as two:
        name_nodes(clone, s1=one, s2=two)
        assert "only s1 has it on disk, not s2" in clone.refuse("rollback", "ranker")


def test_other_bytes_than_were_locked_are_as_good_as_gone(clone: Clone, bucket: FakeBucket) -> None:
    bucket.put_version("41", {"saved_model.pb": b"graph"})
    clone.do("rollback", "ranker")
    source = f"gs://{bucket.name}/ranker"
    sources = Sources()
    found = sources.open(source).list(Query(source)).snapshots
    sources.close()
    locks = {
        version: render_lock(
            Lock(LOCK, "ranker", source, version, {version: lock_snapshot(found[version], {})})
        )
        for version in (41, 42)
    }
    text = f"source: {source}\nversion: latest\n"
    clone.commit({RANKER: text, LOCK: locks[41]}, "Lock 41")
    clone.commit({LOCK: locks[42]}, "Move ranker 41 -> 42")
    bucket.put("ranker/41/saved_model.pb", b"grAph")
    message = clone.refuse("rollback", "ranker")
    assert f"version 41 of {source} is not what was locked (1 file of 5 B" in message
    assert "--to 40`" in message


def test_a_bucket_that_cannot_be_asked_does_not_hold_up_the_way_back(
    clone: Clone, bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "source: gs://nobody-has-this/ranker\nversion: {}\n"
    clone.commit({RANKER: text.format(41)})
    clone.commit({RANKER: text.format(42)}, "Deploy 42")
    result = clone.do("rollback", "ranker")
    assert "note: whether version 41 still exists was not checked, because bucket" in result.stderr
    assert clone.read() == text.format(41)
