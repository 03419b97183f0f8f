"""The keys that may sign, as the files that git's own verifiers read.

ssh-keygen reads an allowed signers file, gpg a home of its own; both are in the private git home
and hold the keys of one policy alone. They are made anew by each process that first needs them, so
that a kill while they were being made leaves nothing half done in force.
"""

import errno
import logging
import shutil
from collections.abc import Iterable

from reconciler.config_repo.git_errors import DISK_FULL, MIRROR_UNWRITABLE
from reconciler.config_repo.private_git import PrivateGit
from reconciler.config_repo.signers import SshSigner
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
