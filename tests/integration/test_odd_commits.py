"""Commits that nobody makes by accident, and keys at the end of their life, on a real node."""

# ruff: noqa: F811 - fixtures that are imported are named again by the tests that use them

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.follow import trust
from tests.gitserver import git
from tests.integration.test_signatures import (  # noqa: F401
    Fleet,
    Node,
    ada,
    eve,
    fleet,
    gpg,
    grace,
    start,
    state,
)
from tests.keys import GpgHome, GpgKey, SshKey, stop_signing

Start = Callable[..., Node]


def make_odd(fleet: Fleet, old: bytes, new: bytes) -> None:
    """Replace a text in the newest commit's object, whatever git thinks of it, and push that."""
    command = ["git", "cat-file", "commit", "HEAD"]
    content = subprocess.run(
        command, cwd=fleet.work, capture_output=True, timeout=30, check=True
    ).stdout
    assert old in content
    written = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
        cwd=fleet.work,
        input=content.replace(old, new, 1),
        capture_output=True,
        timeout=30,
        check=True,
    ).stdout
    git("reset", "--quiet", "--hard", written.decode().strip(), cwd=fleet.work)
    fleet.push("--force")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"author ", b"author \0 "),
        (b"author ", b"author G\0SHA256:x\0ada\0 "),
        (b"\n\nChange ranker", b"\n\nChange\0G\0SHA256:x\0ada"),
        (b"\ncommitter ", b"\ncommitter nobody <>\nx-was "),
    ],
)
def test_a_commit_with_a_mangled_head_is_refused_and_stops_nothing(
    fleet: Fleet,
    start: Start,
    ada: SshKey,
    old: bytes,
    new: bytes,
) -> None:
    node = start("head", ada)
    stop_signing(fleet.work)
    fleet.set_version(3)
    make_odd(fleet, old, new)
    node.poll()
    node.expect_refusal("CommitUnsigned")
    node.start()  # and it does not keep an agent from starting either
    assert node.version() == 2


@pytest.mark.parametrize("mode", ["head", "range"])
def test_a_signature_of_no_known_kind_is_a_refusal_and_no_damage_to_the_mirror(
    fleet: Fleet,
    start: Start,
    ada: SshKey,
    mode: str,
) -> None:
    node = start(mode, ada)
    fleet.set_version(3)
    stop_signing(fleet.work)
    fleet.set_version(4)
    make_odd(fleet, b"\n\nChange", b"\ngpgsig whatever\n\nChange")
    node.poll()
    assert node.version() == 2
    node.expect_refusal("KeyNotAllowed", "with neither an SSH nor a GPG key")


def test_a_refusal_is_thought_over_once_the_clock_is_set(
    fleet: Fleet,
    start: Start,
    ada: SshKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = start("head", ada, ada.allow(options='valid-before="29990101Z"'))
    monkeypatch.setattr(node.git._trust, "_now_seconds", lambda: 40_000_000_000.0)
    fleet.set_version(3)
    node.poll()
    node.expect_refusal("KeyExpired")
    monkeypatch.setattr(node.git._trust, "_now_seconds", time.time)
    node.poll()
    assert node.version() == 3


def test_a_range_that_is_too_long_says_what_to_do(
    fleet: Fleet,
    start: Start,
    ada: SshKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trust, "MAX_RANGE", 2)
    node = start("range", ada)
    for version in (3, 4, 5):
        fleet.set_version(version)
    node.poll()
    assert node.version() == 2
    node.expect_refusal("RangeTooLong", "more than 2 commits", "push them in parts")


def test_a_revoked_gpg_key_is_refused(
    fleet: Fleet,
    start: Start,
    ada: SshKey,
    gpg: GpgHome,
    grace: GpgKey,
    tmp_path: Path,
) -> None:
    node = start("head", ada, ada.allow(), _revoke(gpg, grace, tmp_path))
    grace.sign_in(fleet.work)
    fleet.set_version(3)
    node.poll()
    assert node.version() == 2
    node.expect_refusal("KeyRevoked", "which was revoked")


def _revoke(gpg: GpgHome, key: GpgKey, folder: Path) -> str:
    """Return the key as it is exported once it was revoked; its home goes on without that."""
    revocation = (gpg.folder / "openpgp-revocs.d" / f"{key.fingerprint}.rev").read_text()
    home = folder / "revoked"
    home.mkdir(mode=0o700)
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-autostart"]
    for text in (key.armour, revocation.replace(":-----BEGIN", "-----BEGIN")):
        subprocess.run([*command, "--import"], input=text.encode(), timeout=30, check=True)
    export = [*command, "--armor", "--export", key.fingerprint]
    return subprocess.run(export, capture_output=True, timeout=30, check=True).stdout.decode()


def test_without_gpg_a_gpg_signature_is_refused_until_there_is_one(
    fleet: Fleet,
    start: Start,
    grace: GpgKey,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = start("head", grace)
    fleet.set_version(3)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("git", "sh", "ssh-keygen"):
        (folder / name).symlink_to(shutil.which(name) or "missing")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(folder))
        node.start()
        node.poll()
        assert node.version() == 2
        node.expect_refusal("VerifierMissing", "no gpg command on this machine")
    node.poll()
    assert node.version() == 3


def test_a_commit_that_meets_a_bug_leaves_the_agent_running_with_what_it_had(
    fleet: Fleet, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(fleet, state)
    node.poll()
    fleet.set_version(2)

    def stumble(_commit: object) -> object:
        raise IndexError("no such thing")

    with monkeypatch.context() as patch:
        patch.setattr(node.git._repo, "read", stumble)
        assert node.poll()
        assert not node.poll()
        assert node.version() == 1
        trouble = node.git.trouble
        assert trouble is not None
        assert "no such thing" in trouble.sentence
        assert len(caplog.records) == 1
    node.poll()
    assert (node.version(), node.git.trouble) == (2, None)
