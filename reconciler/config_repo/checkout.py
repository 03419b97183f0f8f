"""A clone that a person or a CI job works in, for the commands that read and make commits.

Unlike the agent's mirror this is the user's own git: their configuration, hooks, keys and
credentials count, so that a commit made here is one as they would have made it by hand.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.config_repo.git_errors import (
    FOLDER_MISSING,
    GIT_MISSING,
    MIRROR_CORRUPT,
    UNSUPPORTED_REPOSITORY,
    quote_git,
)
from reconciler.config_repo.objects import Objects, parse_time
from reconciler.config_repo.tree import Blob
from reconciler.errors import DeadlineError, GitError
from reconciler.model import Commit
from reconciler.process import Completed, run

NOT_A_CHECKOUT = "NotACheckout"
UNKNOWN_REVISION = "UnknownRevision"
UNCOMMITTED_CHANGES = "UncommittedChanges"
COMMIT_FAILED = "CommitFailed"
MISSING_OBJECT = "MissingObject"

_DEADLINE_SECONDS = 120.0
"""Hooks and a signing key that asks for a touch take their time."""
_COMMIT_FORMAT = "%H%x00%an%x00%ct%x00%s"
_ENVIRONMENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true"}


class Checkout:
    """The repository around `folder`, which holds fleet.yaml, groups/ and deployments/."""

    def __init__(self, folder: Path) -> None:
        """Raises GitError when `folder` is in no git repository."""
        self._environment: Mapping[str, str] = {**os.environ, **_ENVIRONMENT}
        try:
            self.folder = folder.resolve(strict=True)
        except OSError as error:  # the current folder, too, may have been removed
            lack = f"{folder} cannot be entered ({error.strerror})"
            raise GitError(f"{lack}; name another folder by -C", NOT_A_CHECKOUT) from None
        asked = ["--show-toplevel", "--absolute-git-dir", "--show-object-format"]
        answer = self._try(self.folder, ["rev-parse", *asked])
        if answer.code != 0:
            raise _explain_no_checkout(folder, answer.stderr)
        top, git_folder, names = os.fsdecode(answer.stdout).splitlines()
        if names != "sha1":
            raise GitError(
                f"{folder} is in a repository with {names} object names, which are not supported;"
                " use one with sha1",
                UNSUPPORTED_REPOSITORY,
            )
        self.top = Path(top)
        self.git_folder = Path(git_folder)
        """Where git keeps what belongs to this work tree."""
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
            raise GitError(f"git {arguments[0]} failed: {_explain(answer)}", COMMIT_FAILED)
        return answer.stdout.decode("utf-8", "replace")

    def succeeds(self, *arguments: str) -> bool:
        """Run a git command that answers by its exit code."""
        return self._try(self.top, arguments).code == 0

    def resolve(self, revision: str) -> Commit:
        """Return the commit that a person names; raises GitError when there is none."""
        name = f"{revision}^{{commit}}"
        answer = self._try(self.top, ["rev-parse", "--verify", "--quiet", "--end-of-options", name])
        if answer.code != 0:
            lack = (
                f"no commit was made yet in {self.top}"
                if revision == "HEAD"
                else f"there is no commit {revision!r} in {self.top}; fetch it, or name another (a"
                " shallow clone holds its newest commits only)"
            )
            raise GitError(lack, UNKNOWN_REVISION)
        commit_id = answer.stdout.decode().strip()
        text = self.git("log", "-1", "--no-show-signature", f"--format={_COMMIT_FORMAT}", commit_id)
        found_id, author, time_seconds, subject = text.rstrip("\n").split("\0", 3)
        return Commit(found_id, author, subject, parse_time(time_seconds))

    @property
    def is_shallow(self) -> bool:
        """Whether the clone holds the newest commits only, as CI jobs make it by default."""
        return self.git("rev-parse", "--is-shallow-repository").strip() == "true"

    def find_merge_base(self, first: str, second: str) -> Commit | None:
        """Return the newest commit that both revisions contain, None where there is none."""
        answer = self._try(self.top, ["merge-base", "--end-of-options", first, second])
        return self.resolve(answer.stdout.decode().strip()) if answer.code == 0 else None

    # --- what a commit holds ------------------------------------------------------------------

    def read_tree(self, commit_id: str) -> dict[str, Blob]:
        """Return all files of a commit below the config's folder, by their path from there."""
        try:
            return self._objects.list_tree(commit_id, self.prefix)
        except GitError as error:  # its words are about the agent's mirror
            name = show_id(commit_id)
            if error.reason == FOLDER_MISSING:
                lack = f"the folder {self.prefix} is not in commit {name}"
                raise GitError(f"{lack}; name the config's folder by -C", FOLDER_MISSING) from None
            if error.reason == MIRROR_CORRUPT:
                raise self._miss(f"a file of commit {name} is") from None
            raise

    def read_blobs(self, blobs: Iterable[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Yield each blob with its bytes; raises GitError where one is missing."""
        wanted = list(blobs)
        found = self._objects.read([blob.id for blob in wanted])
        for blob in wanted:
            if blob.id not in found:
                raise self._miss(f"object {blob.id} is")
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
            changed = [line[3:] for line in status.splitlines()]
            raise GitError(
                f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changes that are"
                " not committed; commit them or take them back first, nothing was changed",
                UNCOMMITTED_CHANGES,
            )

    def switch_to_new_branch(self, name: str) -> None:
        """Make a branch at the current commit and go on there; raises GitError if it exists."""
        if name.startswith("-") or not self.succeeds("check-ref-format", "--branch", name):
            raise GitError(f"{name!r} cannot be a branch's name", COMMIT_FAILED)
        self.git("switch", "--quiet", "--create", name)

    def commit(self, paths: Sequence[str], message: str) -> Commit:
        """Commit the config's files at `paths` as they are on disk, and nothing else.

        What else is changed or staged stays so. Signed where git is set to sign. Raises GitError;
        the index is then as it was, also after Ctrl-C while a hook ran.
        """
        names = [self.path_in_repo(path) for path in paths]
        pathspecs = [f":(literal){name}" for name in names]
        self.git("add", "--all", "--", *pathspecs)
        try:
            self.git(
                "commit", "--quiet", "--file=-", "--only", "--", *pathspecs, stdin=message.encode()
            )
        except BaseException:
            with suppress(GitError):  # the first error is the one to be heard
                self.git("reset", "--quiet", "--", *pathspecs)
            raise
        return self.resolve("HEAD")

    def _miss(self, what: str) -> GitError:
        return GitError(
            f"{what} missing in {self.top}; run `git fsck` there, or clone it anew", MISSING_OBJECT
        )

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
            if not folder.is_dir():  # a clone that somebody moved, or makes anew
                raise GitError(f"there is no folder {folder} any more", FOLDER_MISSING) from None
            raise GitError(
                "there is no git command; install git 2.34 or newer", GIT_MISSING
            ) from None
        except DeadlineError as error:
            raise GitError(f"{error}", COMMIT_FAILED) from None


def _explain_no_checkout(folder: Path, stderr: str) -> GitError:
    lack = f"is not in a git repository ({quote_git(stderr)})"
    if "must be run in a work tree" in stderr:
        lack = "is a repository without a work tree"
    return GitError(
        f"{folder} {lack}; clone the config repo and name the folder by -C", NOT_A_CHECKOUT
    )


def _explain(failed: Completed) -> str:
    """Return what git said when it failed, and what to do where it does not say that itself."""
    if not failed.stderr:
        return f"it said nothing (exit code {failed.code}); a hook may have refused"
    said = quote_git(failed.stderr)
    if "tell me who you are" in failed.stderr:
        said += "; set `git config user.name` and `git config user.email`"
    return said


def show_id(commit_id: str) -> str:
    """Return a commit's id as people write it."""
    return re.sub(r"[^0-9a-f]", "", commit_id)[:10]
