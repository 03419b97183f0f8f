"""A clone that a person or a CI job works in, for the commands that read and make commits.

Unlike the agent's mirror this is the user's own git: their configuration, hooks, keys and
credentials count, so that a commit made here is one as they would have made it by hand.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from reconciler.config_repo.git_errors import GIT_MISSING, quote_git
from reconciler.config_repo.objects import Objects
from reconciler.config_repo.tree import Blob
from reconciler.errors import DeadlineError, GitError
from reconciler.model import Commit
from reconciler.process import Completed, run

NOT_A_CHECKOUT = "NotACheckout"
UNKNOWN_REVISION = "UnknownRevision"
UNCOMMITTED_CHANGES = "UncommittedChanges"
COMMIT_FAILED = "CommitFailed"

_DEADLINE_SECONDS = 120.0
"""Hooks and a signing key that asks for a touch take their time."""
_COMMIT_FORMAT = "%H%x00%an%x00%ct%x00%s"
_ENVIRONMENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true"}


class Checkout:
    """The repository around `folder`, which holds fleet.yaml, groups/ and deployments/."""

    def __init__(self, folder: Path) -> None:
        """Raises GitError when `folder` is in no git repository."""
        self.folder = folder.absolute().resolve()
        self._environment: Mapping[str, str] = {**os.environ, **_ENVIRONMENT}
        if not self.folder.is_dir():
            raise GitError(f"{folder} is not a folder", NOT_A_CHECKOUT)
        answer = self._try(self.folder, ["rev-parse", "--show-toplevel"])
        if answer.code != 0:
            raise GitError(
                f"{folder} is not in a git repository ({quote_git(answer.stderr)}); clone the"
                " config repo and name the folder by -C",
                NOT_A_CHECKOUT,
            )
        self.top = Path(os.fsdecode(answer.stdout.rstrip(b"\n")))
        inside = self.folder.relative_to(self.top.resolve()).as_posix()
        self.prefix = "" if inside == "." else inside
        """Path of `folder` from the top of the repository; empty where they are the same."""
        self._objects = Objects(self.top, _ENVIRONMENT, str(self.top))

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a git command at the top of the repository and return what it printed.

        Raises GitError with git's own words.
        """
        answer = self._try(self.top, arguments, stdin)
        if answer.code != 0:
            raise GitError(f"git {arguments[0]} failed: {quote_git(answer.stderr)}", COMMIT_FAILED)
        return answer.stdout.decode("utf-8", "replace")

    def succeeds(self, *arguments: str) -> bool:
        """Run a git command that answers by its exit code."""
        return self._try(self.top, arguments).code == 0

    def resolve(self, revision: str) -> Commit:
        """Return the commit that a person names; raises GitError when there is none."""
        name = f"{revision}^{{commit}}"
        answer = self._try(self.top, ["rev-parse", "--verify", "--quiet", "--end-of-options", name])
        if answer.code != 0:
            raise GitError(
                f"there is no commit {revision!r} in {self.top}; fetch it, or name another"
                " (a shallow clone holds its newest commits only)",
                UNKNOWN_REVISION,
            )
        commit_id = answer.stdout.decode().strip()
        text = self.git("log", "-1", "--no-show-signature", f"--format={_COMMIT_FORMAT}", commit_id)
        found_id, author, time_seconds, subject = text.rstrip("\n").split("\0", 3)
        return Commit(found_id, author, subject, float(time_seconds))

    def find_merge_base(self, first: str, second: str) -> Commit | None:
        """Return the newest commit that both revisions contain, None where there is none."""
        answer = self._try(self.top, ["merge-base", "--end-of-options", first, second])
        return self.resolve(answer.stdout.decode().strip()) if answer.code == 0 else None

    # --- what a commit holds ------------------------------------------------------------------

    def read_tree(self, commit_id: str) -> dict[str, Blob]:
        """Return all files of a commit below the config's folder, by their path from there."""
        return self._objects.list_tree(commit_id, self.prefix)

    def read_blobs(self, blobs: Iterable[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Yield each blob with its bytes."""
        wanted = list(blobs)
        found = self._objects.read([blob.id for blob in wanted])
        for blob in wanted:
            yield blob, found[blob.id]

    def read_blob(self, blob_id: str) -> bytes | None:
        """Return the bytes of one blob, None where it is not there."""
        return self._objects.read([blob_id]).get(blob_id)

    def path_in_repo(self, path: str) -> str:
        """Return a path of the config as git names it, from the top of the repository."""
        return f"{self.prefix}/{path}" if self.prefix else path

    # --- changes ------------------------------------------------------------------------------

    def check_clean(self, paths: Sequence[str]) -> None:
        """Raise GitError where a path of the config has changes that are not committed."""
        names = [self.path_in_repo(path) for path in paths]
        status = self.git("status", "--porcelain", "--untracked-files=all", "--", *names)
        if status:
            changed = ", ".join(line[3:] for line in status.splitlines())
            raise GitError(
                f"{changed} has changes that are not committed; commit them or take them back"
                " first, nothing was changed",
                UNCOMMITTED_CHANGES,
            )

    def switch_to_new_branch(self, name: str) -> None:
        """Make a branch at the current commit and go on there; raises GitError if it exists."""
        if name.startswith("-") or not self.succeeds("check-ref-format", "--branch", name):
            raise GitError(f"{name!r} cannot be a branch's name", COMMIT_FAILED)
        self.git("switch", "--quiet", "--create", name)

    def commit(self, paths: Sequence[str], message: str) -> Commit:
        """Commit the config's files at `paths` as they are on disk, and nothing else.

        What else is changed or staged stays so. Signed where git is set to sign. Raises GitError,
        and the index is then as it was.
        """
        names = [self.path_in_repo(path) for path in paths]
        pathspecs = [f":(literal){name}" for name in names]
        self.git("add", "--all", "--", *pathspecs)
        try:
            self.git(
                "commit", "--quiet", "--file=-", "--only", "--", *pathspecs, stdin=message.encode()
            )
        except GitError:
            self.git("reset", "--quiet", "--", *pathspecs)
            raise
        return self.resolve("HEAD")

    def _try(self, folder: Path, arguments: Sequence[str], stdin: bytes = b"") -> Completed:
        try:
            return run(
                ["git", *arguments],
                deadline_seconds=_DEADLINE_SECONDS,
                env=self._environment,
                cwd=folder,
                stdin=stdin,
            )
        except FileNotFoundError:
            raise GitError(
                "there is no git command; install git 2.34 or newer", GIT_MISSING
            ) from None
        except DeadlineError as error:
            raise GitError(f"{error}", COMMIT_FAILED) from None


def show_id(commit_id: str) -> str:
    """Return a commit's id as people write it."""
    return re.sub(r"[^0-9a-f]", "", commit_id)[:10]
