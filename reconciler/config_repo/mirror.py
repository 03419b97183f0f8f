"""A bare mirror of the config repo: one `git fetch` of one ref, never a checkout.

The mirror is a cache that must heal by itself. When a fetch fails but the server still answers
`git ls-remote`, the mirror is at fault: it is built anew beside the old one and swapped in by
rename, at most once in a while. While the server is away or refuses, the mirror stays as it is, so
that a node starts from it. Nothing is ever collected: objects of a rewritten history stay for the
audit, and only a rebuild loses them. What many fetches left is packed together now and then, since
each leaves a handful of small files that take several times their size.
"""

import errno
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from threading import RLock
from urllib.parse import quote

from reconciler.config_repo.bundle import BundleFile
from reconciler.config_repo.git_errors import (
    BRANCH_MISSING,
    DEADLINE_EXCEEDED,
    DISK_FULL,
    GIT_FAILED,
    GIT_MISSING,
    MIRROR_CORRUPT,
    MIRROR_UNWRITABLE,
    REPOSITORY_EMPTY,
    describe_damage,
    explain,
    git_error,
    redact,
)
from reconciler.config_repo.objects import Entries, Objects
from reconciler.config_repo.private_git import REMOTE, MirrorSettings, PrivateGit, is_bundle
from reconciler.config_repo.tree import Blob
from reconciler.errors import DeadlineError, GitError
from reconciler.files import exchange
from reconciler.model import Commit
from reconciler.process import run

log = logging.getLogger(__name__)

_REBUILD_PAUSE_SECONDS = 300.0
"""Between two rebuilds of a damaged mirror: each fetches the whole history."""
_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_BLOBS = 10_000
_LOOSE_SAMPLE = "17"
"""One of the 256 folders of loose objects; git itself tells by it how many there are."""
_LOOSE_IN_SAMPLE = 8
"""About 2,000 in all: after some 500 commits of one file each."""
_MOST_PACKS = 50
_MOST_PACKS_OF_BUNDLES = 4
"""Each fetch from a bundle leaves a pack with the whole history."""
_PACK_PAUSE_SECONDS = 3600.0
"""After a packing that failed; it costs nothing but room."""
_MARKER = "reconciler-origin"
"""File in the mirror with the URL it was fetched from."""


class Mirror:
    """The config repo as of the last fetch. All methods block and may be called in threads."""

    def __init__(
        self, settings: MirrorSettings, now_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises SettingsError when the URL or the branch cannot be right."""
        self._settings = settings
        self._git = PrivateGit(settings)
        self._url = self._git.remote.url
        self._folder = settings.state_dir.absolute() / "mirror"
        self._ref = f"refs/reconciler/{quote(settings.branch, safe='')}"
        self._now_seconds = now_seconds
        self._rebuild_not_before_seconds = -float("inf")
        self._pack_not_before_seconds = -float("inf")
        self._is_suspect = False
        self._is_swept = False
        self._entries: Entries = {}
        self._lock = RLock()
        self._bundle = (
            BundleFile(
                self._url,
                settings.branch,
                self._git.bundle_file,
                settings.deadline_seconds,
                settings.user_project,
            )
            if is_bundle(self._url)
            else None
        )

    @property
    def origin(self) -> str:
        """The repo and folder that paths of this mirror are of, without secrets."""
        return f"{redact(self._url)} {self._settings.folder}".rstrip()

    def fetch(self) -> Commit:
        """Bring the branch up to date and return its newest commit.

        Raises GitError when that fails; what was fetched before can still be read.
        """
        with self._lock, self._report_disk_errors():
            self._git.check_credentials()
            self._git.prepare()
            if self._bundle is None:
                return self._fetch()
            if self._is_suspect or not self._is_of_this_repo():
                self._bundle.forget()
            if not self._bundle.bring():
                if (commit := self.head()) is not None:
                    return commit
                self._bundle.forget()  # the mirror has lost the branch, which is fetched again
                self._bundle.bring()
            commit = self._fetch()
            self._bundle.take()
            return commit

    def _fetch(self) -> Commit:
        if not self._is_of_this_repo():
            self._rebuild()
            return self._newest()
        try:
            if self._is_suspect:
                raise describe_damage(self._url, "objects are missing in it")
            self._sweep()
            self._fetch_into(self._folder)
            self._pack_if_scattered()
            return self._newest()
        except GitError as error:
            self._is_swept = False
            self._check_mirror_is_at_fault(error)
            self._rebuild_once_in_a_while(error)
        return self._newest()

    def close(self) -> None:
        """Let go of the connections that are kept for the next fetch."""
        if self._bundle is not None:
            self._bundle.close()

    def head(self) -> Commit | None:
        """Return the newest commit that was fetched, without the network; None before any fetch.

        Raises GitError when the mirror is damaged.
        """
        with self._lock:
            if not self._is_of_this_repo():
                return None
            with self.objects() as objects:
                return objects.read_commit(self._ref)

    def read_tree(self, commit_id: str) -> dict[str, Blob]:
        """Return all entries of a commit below the configured folder, by their path from there.

        Raises GitError when the mirror is damaged or the folder is not there, and ConfigError when
        there are far too many files.
        """
        with self.objects() as objects:
            return objects.list_tree(commit_id, self._settings.folder, self._entries)

    def read_blobs(self, blobs: Iterable[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Yield each blob with its bytes, in batches that bound the memory.

        Raises GitError when the mirror is damaged.
        """
        for batch in _split(blobs):
            with self.objects() as objects:
                found = objects.read([blob.id for blob in batch])
                for blob in batch:
                    if blob.id not in found:
                        raise describe_damage(self._url, f"object {blob.id} is missing")
            for blob in batch:
                yield blob, found[blob.id]

    def read_blob(self, blob_id: str) -> bytes | None:
        """Return the bytes of one blob, which may be of any commit; None where it is not there."""
        with self.objects() as objects:
            return objects.read([blob_id]).get(blob_id)

    @contextmanager
    def objects(self) -> Iterator[Objects]:
        """Give the mirror's objects for a block, in which no other thread uses the mirror.

        A damage that is met there is repaired by the next fetch.
        """
        environment = self._git.environment(self._folder)
        with self._lock:
            try:
                yield Objects(self._folder, environment, self._url)
            except GitError as error:
                self._is_suspect |= error.reason == MIRROR_CORRUPT
                raise

    # --- whose fault is it ------------------------------------------------------------------

    def _check_mirror_is_at_fault(self, error: GitError) -> None:
        """Return if the server answers and has the branch; else raise what is wrong there."""
        if error.reason not in (GIT_FAILED, MIRROR_CORRUPT, BRANCH_MISSING):
            raise error
        branch = self._settings.branch
        heads = self._list_branches()
        if not heads:
            raise git_error(
                REPOSITORY_EMPTY,
                self._url,
                # git reads a page as a list of no branches.
                f"the repository has no branch yet; push a commit to {branch}; if it has one,"
                " something else answers in its place, such as a proxy's login page",
            )
        if branch not in heads:
            near = get_close_matches(branch, heads, n=1) or sorted(heads)[:1]
            raise git_error(
                BRANCH_MISSING,
                self._url,
                f"the branch {branch} is not in the repository, but {near[0]} is; push the branch"
                " or set RECONCILER_BRANCH",
            )
        if error.reason == BRANCH_MISSING:
            raise error  # it came back between the two commands

    def _list_branches(self) -> set[str]:
        output = self._run("ls-remote", "--heads", REMOTE)
        refs = (line.partition(b"\t")[2] for line in output.splitlines())
        return {ref.decode("utf-8", "replace").removeprefix("refs/heads/") for ref in refs}

    def _rebuild_once_in_a_while(self, error: GitError) -> None:
        wait_seconds = self._rebuild_not_before_seconds - self._now_seconds()
        if wait_seconds > 0:
            raise describe_damage(
                self._url,
                "it was rebuilt a moment ago, so check the disk;"
                f" the next attempt is in {wait_seconds:.0f} s",
            ) from error
        self._rebuild_not_before_seconds = self._now_seconds() + _REBUILD_PAUSE_SECONDS
        self._rebuild()
        log.warning("the mirror of the config repo was damaged and has been rebuilt: %s", error)

    # --- the folder on disk -----------------------------------------------------------------

    def _is_of_this_repo(self) -> bool:
        try:
            return (self._folder / _MARKER).read_text() == redact(self._url)
        except (OSError, UnicodeDecodeError):
            return False

    def _rebuild(self) -> None:
        """Fetch everything into a new folder and put that in the mirror's place."""
        new = self._folder.with_name("mirror.new")
        shutil.rmtree(new, ignore_errors=True)
        self._run("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(new))
        try:
            self._fetch_into(new)
        except GitError as error:
            if error.reason == BRANCH_MISSING:
                self._check_mirror_is_at_fault(error)
            raise
        (new / _MARKER).write_text(redact(self._url))
        if self._folder.exists():
            _swap(new, self._folder)
            shutil.rmtree(new, ignore_errors=True)
        else:
            new.rename(self._folder)
        self._is_suspect = False

    def _sweep(self) -> None:
        """Remove what a killed git left behind: a stale lock would stop every fetch to come.

        Whoever holds the state folder's lock is the only one to run git here.
        """
        if self._is_swept:
            return
        leftovers = [
            *self._folder.glob("*.lock"),
            *(self._folder / "refs").rglob("*.lock"),
            *(self._folder / "objects").glob("*/tmp_*"),
            *(self._folder / "objects").glob("tmp_*"),
            *(self._folder / "objects" / "pack").glob(".tmp-*"),
            *self._folder.parent.glob("mirror.new"),
            *self._folder.parent.glob("mirror.old"),
        ]
        for path in leftovers:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        self._is_swept = True

    def _pack_if_scattered(self) -> None:
        """Put all objects into one pack, also those that no commit leads to any more."""
        objects = self._folder / "objects"
        loose = sum(1 for _ in (objects / _LOOSE_SAMPLE).glob("*"))
        packs = sum(1 for _ in (objects / "pack").glob("*.pack"))
        most_packs = _MOST_PACKS_OF_BUNDLES if self._bundle else _MOST_PACKS
        is_scattered = loose > _LOOSE_IN_SAMPLE or packs > most_packs
        if not is_scattered or self._now_seconds() < self._pack_not_before_seconds:
            return
        try:
            self._run("repack", "-a", "-d", "--keep-unreachable", "-q", git_dir=self._folder)
        except GitError as error:
            self._pack_not_before_seconds = self._now_seconds() + _PACK_PAUSE_SECONDS
            self._is_swept = False
            log.warning("the mirror of the config repo could not be packed: %s", error)

    # --- git --------------------------------------------------------------------------------

    def _fetch_into(self, folder: Path) -> None:
        self._run(
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
            "--no-show-forced-updates",
            REMOTE,
            f"+refs/heads/{self._settings.branch}:{self._ref}",
            git_dir=folder,
        )

    def _newest(self) -> Commit:
        commit = self.head()
        if commit is None:
            raise describe_damage(self._url, f"{self._ref} is missing in it")
        return commit

    def _run(self, *arguments: str, git_dir: Path | None = None) -> bytes:
        try:
            result = run(
                ["git", *arguments],
                deadline_seconds=self._settings.deadline_seconds,
                env=self._git.environment(git_dir),
                cwd=self._git.home,
            )
        except FileNotFoundError:
            raise git_error(
                GIT_MISSING, self._url, "there is no git command; install git 2.32 or newer"
            ) from None
        except DeadlineError as error:
            raise git_error(
                DEADLINE_EXCEEDED,
                self._url,
                f"{error}; if the repository is that large, raise git_deadline",
            ) from None
        if result.code != 0:
            raise explain(self._url, self._git.hide_secrets(result.stderr))
        return result.stdout

    @contextmanager
    def _report_disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise git_error(
                DISK_FULL if full else MIRROR_UNWRITABLE,
                self._url,
                f"the mirror in {self._settings.state_dir} cannot be written ({error.strerror})",
            ) from None


def _split(blobs: Iterable[Blob]) -> Iterator[list[Blob]]:
    batch: list[Blob] = []
    size_bytes = 0
    for blob in blobs:
        if batch and (size_bytes + blob.size_bytes > _BATCH_BYTES or len(batch) >= _BATCH_BLOBS):
            yield batch
            batch, size_bytes = [], 0
        batch.append(blob)
        size_bytes += blob.size_bytes
    if batch:
        yield batch


def _swap(new: Path, old: Path) -> None:
    """Exchange two folders; where the file system cannot do that in one step, in two."""
    try:
        exchange(new, old)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        aside = old.with_name("mirror.old")
        shutil.rmtree(aside, ignore_errors=True)
        old.rename(aside)
        new.rename(old)
        aside.rename(new)
