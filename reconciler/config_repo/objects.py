"""Reads commits, trees and blobs of the mirror: no checkout, no network, no hooks.

GitPython runs the git command, each call with a deadline. Its Repo class is not used: it looks at
the agent's own GIT_* variables, and a damaged repository is better judged by git itself. Whatever
git cannot read here is the mirror's damage (`MirrorCorrupt`), as nothing else writes to it.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from reconciler.config_repo.git_errors import (
    DEADLINE_EXCEEDED,
    FOLDER_MISSING,
    GIT_MISSING,
    describe_damage,
    git_error,
    quote_git,
)
from reconciler.config_repo.tree import Blob
from reconciler.errors import ConfigError, GitError
from reconciler.model import Commit

_READ_DEADLINE_SECONDS = 60.0
_MAX_ENTRIES = 200_000
_MAX_SUBJECT_CHARACTERS = 500
_OBJECT_ID = re.compile(r"[0-9a-f]{40}")
_COMMIT_FIELDS = "%(objectname)%00%(authorname)%00%(committerdate:unix)%00%(subject)"
_LOG_FIELDS = ("%H", "%an", "%ct", "%s")


Entries: TypeAlias = dict[bytes, tuple[str, Blob]]
"""A line of git's about one file -> its path and what it is."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What git says of one commit's signature (git-log(1), `%G?` and what follows)."""

    commit: Commit
    result: str
    """One letter; `G` is a good signature by a key that is allowed, all others are not."""
    key: str
    """The key's fingerprint, or what else is known of it; empty where nothing is."""
    signer: str
    """The name that goes with an allowed key."""


class Objects:
    """The objects of the bare repository at `folder`; `url` is only named in messages."""

    def __init__(self, folder: Path, environment: Mapping[str, str], url: str) -> None:
        self._folder = folder
        self._environment = environment
        self._url = url

    def read_commit(self, ref: str) -> Commit | None:
        """Return the commit that `ref` names, None where there is no such ref."""
        line = self._run(["for-each-ref", f"--format={_COMMIT_FIELDS}", ref])
        if not line:
            return None
        commit_id, author, time_seconds, subject = (
            _clean(part) for part in line.rstrip(b"\n").split(b"\0", 3)
        )
        return Commit(commit_id, author, subject, parse_time(time_seconds))

    def list_tree(
        self, commit_id: str, folder: str, known: Entries | None = None
    ) -> dict[str, Blob]:
        """Return every file below `folder` in a commit, by its path from there.

        `known` keeps the entries of this commit for the next one, which mostly has the same.

        Raises GitError when the folder is not there, ConfigError when it holds far too much.
        """
        check_object_id(commit_id)
        prefix = f"{folder}/" if folder else ""
        command = ["ls-tree", "-r", "-l", "-z", "--full-tree", commit_id]
        output = self._run([*command, "--", prefix] if prefix else command)
        entries = output.split(b"\0")[:-1]
        if prefix and not entries:
            raise git_error(
                FOLDER_MISSING,
                self._url,
                f"the folder {folder} is not in commit {commit_id[:10]}; check RECONCILER_PATH",
            )
        if len(entries) > _MAX_ENTRIES:
            raise ConfigError(
                f"the config repo has {len(entries):,} files, more than the {_MAX_ENTRIES:,} that"
                " are looked at; put the config into a folder and name it by RECONCILER_PATH"
            )
        before = {} if known is None else known.copy()
        after: Entries = {}
        for entry in entries:
            if entry in before:
                after[entry] = before[entry]
                continue
            attributes, _, raw_path = entry.partition(b"\t")
            mode, kind, blob_id, size = attributes.decode().split()
            if kind == "blob" and not size.isdecimal():
                raise self._damage(f"object {blob_id} is missing")
            is_file = kind == "blob" and mode.startswith("100")
            size_bytes = int(size) if size.isdecimal() else 0
            path = decode_path(raw_path)
            after[entry] = path.removeprefix(prefix), Blob(blob_id, size_bytes, is_file)
        if known is not None:
            known.clear()
            known.update(after)
        return dict(after.values())

    def read(self, blob_ids: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of those blobs that are there."""
        for blob_id in blob_ids:
            check_object_id(blob_id)
        output = self._run(["cat-file", "--batch"], blob_ids)
        found = {}
        position = 0
        while position < len(output):
            end = output.index(b"\n", position)
            blob_id, *rest = output[position:end].decode().split()
            position = end + 1
            if rest != ["missing"]:
                size_bytes = int(rest[1])
                found[blob_id] = output[position : position + size_bytes]
                position += size_bytes + 1
        return found

    # --- commits and their signatures ---------------------------------------------------------

    def find_commit(self, commit_id: str) -> Commit | None:
        """Return the commit of that id, None where it is not there."""
        if commit_id not in self.read([commit_id]):
            return None
        return _build_commit(self._log([commit_id], _LOG_FIELDS)[0])

    def list_new(self, commit_id: str, since: str | None, limit: int) -> list[str]:
        """Return the commits that `commit_id` contains and `since` does not, oldest first.

        These are the `limit` newest of them; none where `since` contains `commit_id`.
        """
        command = ["rev-list", "--topo-order", f"--max-count={limit}", "--stdin"]
        revisions = [commit_id, f"^{since}"] if since else [commit_id]
        return self._run(command, revisions).decode().split()[::-1]

    def list_changes(self, commit_id: str, since: str, path: str, limit: int) -> list[str]:
        """Return the new commits of the branch itself that changed the file at `path`.

        As in `list_new`; of a merged branch the merge alone counts, as what the branch became.
        """
        command = ["rev-list", "--first-parent", "--topo-order", f"--max-count={limit}"]
        command += [commit_id, f"^{since}", "--", f":(literal){path}"]
        return self._run(command).decode().split()[::-1]

    def read_signatures(self, commit_ids: Sequence[str]) -> list[Signature]:
        """Return what git says of each commit's signature, by the keys in its private home."""
        rows = self._log(commit_ids, (*_LOG_FIELDS, "%G?", "%GF", "%GK", "%GS"))
        return [
            Signature(_build_commit(row), result, fingerprint or key, signer)
            for row in rows
            for result, fingerprint, key, signer in (row[len(_LOG_FIELDS) :],)
        ]

    # --- git ----------------------------------------------------------------------------------

    def _log(self, commit_ids: Sequence[str], fields: Sequence[str]) -> list[list[str]]:
        command = ["log", "--no-walk=unsorted", "--stdin", "-z", f"--format={'%x00'.join(fields)}"]
        parts = [_clean(part) for part in self._run(command, commit_ids).split(b"\0")[:-1]]
        width = len(fields)
        rows = [parts[start : start + width] for start in range(0, len(parts), width)]
        if [row[0] for row in rows] != list(commit_ids):
            raise self._damage("git names other commits than those it was asked for")
        return rows

    def _run(self, arguments: Sequence[str], lines: Iterable[str] | None = None) -> bytes:
        """Run a git command, with `lines` as its standard input where there are any."""
        if lines is None:
            return self._execute(arguments, None)
        # In memory: reading what is on disk must also work when the disk is full.
        with os.fdopen(os.memfd_create("lines"), "wb+") as stdin:
            stdin.write("".join(f"{line}\n" for line in lines).encode())
            stdin.seek(0)
            return self._execute(arguments, stdin.fileno())

    def _execute(self, arguments: Sequence[str], stdin: int | None) -> bytes:
        # Without a git command GitPython would fail to import; what to say then is said below.
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        import git  # takes a while, and commands that read no repository need not wait

        command = git.Git(self._folder)
        command.update_environment(**self._environment)
        try:
            status, output, stderr = command.execute(
                ["git", *arguments],
                istream=stdin,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                kill_after_timeout=_READ_DEADLINE_SECONDS,
            )
        except git.GitCommandNotFound:
            raise git_error(
                GIT_MISSING, self._url, "there is no git command; install git 2.32 or newer"
            ) from None
        if status < 0:
            raise git_error(
                DEADLINE_EXCEEDED,
                self._url,
                f"git {arguments[0]} on the mirror did not end in {_READ_DEADLINE_SECONDS:g} s",
            )
        if status != 0:
            raise self._damage(quote_git(stderr))
        return output

    def _damage(self, what: str) -> GitError:
        return describe_damage(self._url, what)


def check_object_id(text: str) -> None:
    """Raise ValueError for what is not the name of an object, so that it is no option either."""
    if not _OBJECT_ID.fullmatch(text):
        raise ValueError(f"{text!r} is not an object id")


def _clean(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")[:_MAX_SUBJECT_CHARACTERS]
    return "".join(character for character in text if character.isprintable())


def decode_path(raw: bytes) -> str:
    """Return the name of a file as text that can be printed, whatever it is made of."""
    path = raw.decode("utf-8", "backslashreplace")
    # A line break in a file's name must not break the lines of a report.
    return path if path.isprintable() else path.encode("unicode_escape").decode()


def parse_time(text: str) -> float:
    """Return a commit's time as git prints it, in seconds since 1970."""
    # Anyone who may push can push a commit without a date; it must not end agent or command.
    return float(text or 0)


def _build_commit(row: Sequence[str]) -> Commit:
    commit_id, author, time_seconds, subject = row[: len(_LOG_FIELDS)]
    return Commit(commit_id, author, subject, parse_time(time_seconds))
