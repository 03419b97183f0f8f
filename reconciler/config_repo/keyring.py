"""The keys that may sign, as the files that git's own verifiers read.

ssh-keygen reads an allowed signers file, gpg a home of its own; both are in the private git home
and hold the keys of one policy alone. They are made anew by each process that first needs them, so
that a kill while they were being made leaves nothing half done in force.

git lets ssh-keygen judge a key as of the commit's own date (git 2.35, gpg-interface.c), which the
signer writes: a key that leaked after its end could sign for ever. So a line counts only within
its time by the node's clock too, as gpg does with its keys.
"""

import base64
import binascii
import errno
import hashlib
import logging
import math
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from reconciler.config_repo.git_errors import DISK_FULL, MIRROR_UNWRITABLE
from reconciler.config_repo.private_git import PrivateGit
from reconciler.errors import GitError
from reconciler.files import write_atomically
from reconciler.process import run

log = logging.getLogger(__name__)

_IMPORT_DEADLINE_SECONDS = 30.0
# No agent, no network, and no key but those imported here: trust is to be in this home.
_GPG_CONFIG = b"""\
batch
no-tty
trust-model always
no-autostart
disable-dirmngr
no-auto-key-retrieve
no-auto-key-import
"""
_SIGNER = re.compile(
    r'(?P<principals>"[^"]+"|[^\s"#]\S*)\s+(?:(?P<options>(?:"[^"]*"|[^\s"])+)\s+)?'
    r"(?P<type>[a-z][a-z0-9@.+-]+)\s+(?P<key>AAAA[A-Za-z0-9+/]+={0,2})(?:\s.*)?"
)
_TIME_OPTION = re.compile(r'(?:^|,)(valid-after|valid-before)="(\d+)(Z?)"(?=,|$)', re.IGNORECASE)
_NAMESPACES = re.compile(r'(?:^|,)namespaces="([^"]*)"', re.IGNORECASE)
_TIME_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, slots=True)
class SshSigner:
    """One line of an allowed signers file: a key, and when it may sign (Unix time)."""

    line: str
    fingerprint: str
    after_seconds: float = -math.inf
    before_seconds: float = math.inf
    is_for_git: bool = True
    """Whether the line lets the key sign commits, and not files alone, say."""

    def may_sign_at(self, moment_seconds: float) -> bool:
        """Tell whether the moment lies within the time that the line gives the key."""
        return self.after_seconds <= moment_seconds < self.before_seconds


def parse_signer(line: str) -> SshSigner | None:
    """Return what a line of an allowed signers file says, None where ssh-keygen would not take it.

    A time without `Z` at its end is by the node's clock, as ssh-keygen reads it.
    """
    parts = _SIGNER.fullmatch(line.strip())
    if parts is None:
        return None
    try:
        key = base64.b64decode(parts["key"], validate=True)
        options = parts["options"] or ""
        times = {
            name.lower(): _parse_time(digits, zone) for name, digits, zone in _find_times(options)
        }
    except (binascii.Error, ValueError, OverflowError):
        return None
    kind = parts["type"].encode()
    if key[: 4 + len(kind)] != len(kind).to_bytes(4) + kind:
        return None
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return SshSigner(
        line.strip(),
        f"SHA256:{digest}",
        times.get("valid-after", -math.inf),
        times.get("valid-before", math.inf),
        _is_for_git(options),
    )


def parse_signers(lines: Iterable[str]) -> tuple[SshSigner, ...]:
    """Return the lines that can be used for commits."""
    found = (parse_signer(line) for line in lines)
    return tuple(signer for signer in found if signer is not None and signer.is_for_git)


def _find_times(options: str) -> list[tuple[str, str, str]]:
    found = _TIME_OPTION.findall(options)
    if len(found) != len(re.findall(r"valid-(?:after|before)", options, re.IGNORECASE)):
        raise ValueError(options)  # one that is not understood must not be taken for none
    return found


def _is_for_git(options: str) -> bool:
    namespaces = _NAMESPACES.search(options)
    if namespaces is None or "!" in namespaces[1]:
        return True  # what is excluded is left to ssh-keygen
    return any(fnmatchcase("git", pattern) for pattern in namespaces[1].split(","))


def _parse_time(digits: str, zone: str) -> float:
    moment = datetime.strptime(digits, _TIME_FORMATS.get(len(digits), "")).astimezone()
    return (moment.replace(tzinfo=UTC) if zone else moment).timestamp()


class Keyring:
    """Puts the keys of a policy where git's verifiers look. Blocking, for one thread at a time."""

    def __init__(self, git: PrivateGit) -> None:
        self._git = git
        self._gpg_keys: tuple[str, ...] | None = None
        """Those in the GPG home, None while it was not made by this process."""

    def install(self, signers: Iterable[SshSigner], gpg_keys: tuple[str, ...]) -> None:
        """Make these keys the only ones that git accepts.

        Raises GitError when they cannot be written; DeadlineError when gpg does not end.
        """
        try:
            self._git.prepare()
            lines = "".join(f"{signer.line}\n" for signer in signers)
            write_atomically(self._git.signers_file, lines.encode(), mode=0o600)
            if gpg_keys != self._gpg_keys:
                self._gpg_keys = None
                self._make_gpg_home(gpg_keys)
                self._gpg_keys = gpg_keys
        except FileNotFoundError:
            # No gpg here. Without a home no GPG signature is good, and whoever finds one says so.
            log.debug("there is no gpg command")
        except OSError as error:
            raise GitError(
                f"the keys of those who may sign cannot be written to {self._git.home}"
                f" ({error.strerror}); no new commit is followed until they can",
                DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else MIRROR_UNWRITABLE,
            ) from None

    def _make_gpg_home(self, keys: tuple[str, ...]) -> None:
        home, new = self._git.gpg_home, self._git.gpg_home.with_name("gnupg.new")
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        (new / "gpg.conf").write_bytes(_GPG_CONFIG)
        environment = {**self._git.environment(), "GNUPGHOME": str(new)}
        for number, key in enumerate(keys, 1):
            answer = run(
                ["gpg", "--quiet", "--import"],
                deadline_seconds=_IMPORT_DEADLINE_SECONDS,
                env=environment,
                stdin=key.encode(),
            )
            if answer.code != 0:
                log.warning(
                    "GPG key %d of those that may sign cannot be read by gpg and is left out; give"
                    " it as `gpg --armor --export` prints it",
                    number,
                )
        new.rename(home)
