"""Real SSH and GPG keys, made for a test, and commits signed with them."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gitserver import git

_DEADLINE_SECONDS = 30


@dataclass(frozen=True)
class SshKey:
    """A key pair; `path` is the private half."""

    path: Path
    public: str

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen prints it."""
        return _run("ssh-keygen", "-lf", f"{self.path}.pub").split()[1]

    def allow(self, principals: str = "ada@example.org", options: str = "") -> str:
        """Return a line for an allowed signers file."""
        return " ".join(filter(None, (principals, options, self.public)))

    def sign_in(self, work: Path) -> None:
        """Let every commit in the checkout be signed with this key from now on."""
        _configure(work, "ssh", str(self.path))


@dataclass(frozen=True)
class GpgKey:
    """A key in a GPG home, with the command that signs with it."""

    fingerprint: str
    armour: str
    program: Path

    def sign_in(self, work: Path) -> None:
        """Let every commit in the checkout be signed with this key from now on."""
        _configure(work, "openpgp", self.fingerprint)
        git("config", "gpg.program", str(self.program), cwd=work)


class GpgHome:
    """A GPG home with secret keys, whose agent ends with the block that made it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, *, expired: bool = False, sign_options: str = "") -> GpgKey:
        """Make a key; an expired one had a month in 2020, in which it goes on signing."""
        gpg = ["gpg", "--homedir", str(self.folder), "--batch", "--quiet", "--no-tty"]
        then = ["--faked-system-time", "20200101T000000"] if expired else []
        create = ["--passphrase", "", "--quick-generate-key", f"{name} <{name}@example.org>"]
        _run(*gpg, *then, *create, "ed25519", "sign", "30d" if expired else "never")
        listing = _run(*gpg, "--with-colons", "--list-keys", f"{name}@example.org")
        rows = [line.split(":") for line in listing.splitlines()]
        fingerprint = next(row[9] for row in rows if row[0] == "fpr")
        program = self.folder / f"sign-{name}"
        options = " ".join([*(["--faked-system-time", "20200102T000000"] if expired else [])])
        program.write_text(
            f'#!/bin/sh\nexec gpg --homedir {self.folder} {options} {sign_options} "$@"\n'
        )
        program.chmod(0o700)
        return GpgKey(fingerprint, _run(*gpg, "--armor", "--export", fingerprint), program)


@contextmanager
def gpg_home() -> Iterator[GpgHome]:
    """Give a GPG home for a block; its path is short, as the agent's socket needs."""
    _need("gpg", "gnupg")
    folder = Path(
        tempfile.mkdtemp(prefix="gpg", dir=None if len(tempfile.gettempdir()) < 40 else "/tmp")
    )
    try:
        yield GpgHome(folder)
    finally:
        _run("gpgconf", "--homedir", str(folder), "--kill", "all")
        shutil.rmtree(folder)


def make_ssh_key(folder: Path, name: str) -> SshKey:
    """Make an ed25519 key pair in a folder."""
    _need("ssh-keygen", "openssh-client")
    path = folder / name
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
    return SshKey(path, " ".join(path.with_suffix(".pub").read_text().split()[:2]))


def _need(command: str, package: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"NOT TESTED: signed commits; there is no {command}, install {package}")


def stop_signing(work: Path) -> None:
    """Let commits in the checkout be unsigned from now on."""
    git("config", "commit.gpgSign", "false", cwd=work)


def backdate(work: Path, date: str) -> None:
    """Sign the newest commit in the checkout anew, as if it had been made then."""
    git("commit", "--quiet", "--amend", "--no-edit", "--date", date, cwd=work)
    git(
        "rebase", "--quiet", "--committer-date-is-author-date", "--force-rebase", "HEAD~1", cwd=work
    )


def alter(work: Path, old: bytes, new: bytes) -> None:
    """Replace a text in the newest commit's object and leave its signature as it is."""
    text = git("cat-file", "commit", "HEAD", cwd=work).encode() + b"\n"
    assert old in text
    altered = git(
        "hash-object", "-t", "commit", "-w", "--stdin", cwd=work, stdin=text.replace(old, new)
    )
    git("reset", "--quiet", "--hard", altered, cwd=work)


def _configure(work: Path, kind: str, key: str) -> None:
    for name, value in (
        ("gpg.format", kind),
        ("user.signingKey", key),
        ("commit.gpgSign", "true"),
    ):
        git("config", name, value, cwd=work)


def _run(*command: str) -> str:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    result = subprocess.run(
        command, env=environment, capture_output=True, timeout=_DEADLINE_SECONDS, check=False
    )
    assert result.returncode == 0, (command, result.stderr)
    return result.stdout.decode()
