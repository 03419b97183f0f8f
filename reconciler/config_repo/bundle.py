"""The config repo as one object in a bucket: a git bundle, which git fetches from like a server.

Where thousands of nodes poll a git server, it is the server that gives way. A bundle is one file
with the whole history of a branch; `reconciler bundle` puts it into a bucket after each merge, and
a node that follows gs://bucket/fleet.bundle asks for the object's generation, brings the file when
that is another one, and fetches from the file into the mirror it would otherwise have, so that all
that comes after a fetch (signatures, last good, forced branches) is the same.

Nothing is believed of the file but what was checked: size, checksum of the object, the header, and
the pack's own checksum. What git makes of the objects in it, git finds out as with any server.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import google_crc32c

from reconciler.config_repo.git_errors import (
    BRANCH_MISSING,
    DEADLINE_EXCEEDED,
    REPOSITORY_NOT_FOUND,
    UNSUPPORTED_REPOSITORY,
    git_error,
)
from reconciler.errors import GitError, SourceError
from reconciler.sources.source import Halt, HaltedError, SourceChangedError

if TYPE_CHECKING:
    from reconciler.sources.gcs_access import Access
    from reconciler.sources.gcs_object import GcsObject, ObjectState

ResultT = TypeVar("ResultT")

MAX_BUNDLE_BYTES = 512 * 1024 * 1024
"""The history of 100,000 commits to 10,000 files has a tenth of that."""
MAX_HEADER_BYTES = 64 * 1024
BUNDLE_DAMAGED = "BundleDamaged"
BUNDLE_REPLACED = "BundleReplaced"

_LOOK_SECONDS = 30.0
_BLOCK_BYTES = 1024 * 1024
_CHECKSUM_BYTES = 20
_SHOWN_BRANCHES = 5
_SIGNATURE = re.compile(rb"# v[23] git bundle\n")
_TIP = re.compile(r"([0-9a-f]{40}) refs/heads/(.+)")


class BrokenBundleError(ValueError):
    """These bytes are no bundle that a node could begin with; the text goes on after "it"."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a bundle says of itself (gitformat-bundle(5))."""

    tips: dict[str, str]
    """Branch -> its newest commit."""
    length_bytes: int
    """Where the pack begins."""

    @property
    def branches(self) -> str:
        """Some of the branches by name, for a message."""
        return ", ".join(map(_show, sorted(self.tips)[:_SHOWN_BRANCHES])) or "none"


def parse_header(data: bytes) -> Header:
    """Return the header of a bundle from its first bytes; raises BrokenBundleError."""
    if not _SIGNATURE.match(data):
        raise BrokenBundleError("is no git bundle")
    text, end, _ = data.partition(b"\n\n")
    if not end:
        raise BrokenBundleError("is no whole git bundle, its header has no end")
    tips = {}
    for line in text.decode("utf-8", "replace").split("\n")[1:]:
        if line.startswith("-"):
            raise BrokenBundleError("is a git bundle of the newest commits only, not of them all")
        if line.startswith("@") and line != "@object-format=sha1":
            raise BrokenBundleError(f"is a git bundle of another kind ({_show(line)})")
        if tip := _TIP.fullmatch(line):
            tips[tip[2]] = tip[1]
    return Header(tips, len(text) + len(end))


class BundleFile:
    """The bundle that a URL names, kept as the file at `path`. Belongs to one thread at a time."""

    def __init__(
        self,
        url: str,
        branch: str,
        path: Path,
        deadline_seconds: float,
        user_project: str = "",
    ) -> None:
        self._url = url
        self._branch = branch
        self._path = path
        self._deadline_seconds = deadline_seconds
        self._user_project = user_project
        self._access: Access | None = None
        self._brought: int | None = None
        self._taken: int | None = None

    def bring(self) -> bool:
        """Have the newest bundle in the file; False where that was taken already.

        One request where nothing is new, also after a restart. Raises GitError; OSError where the
        file cannot be written.
        """
        bundle = self._open()
        state = self._ask("asked for", _LOOK_SECONDS, bundle.look)
        if state is None:
            raise self._error(
                REPOSITORY_NOT_FOUND,
                "there is no such object, or no such bucket; `reconciler bundle` writes it, run by"
                " CI after each merge",
            )
        if state.generation == self._taken:
            return False
        if state.size_bytes > MAX_BUNDLE_BYTES:
            raise self._error(
                UNSUPPORTED_REPOSITORY,
                f"the bundle has {state.size_bytes / 1e6:.0f} MB, and at most"
                f" {MAX_BUNDLE_BYTES / 1e6:.0f} MB are read; begin a new repository for the config",
            )
        # What is there is good enough, whoever put it there, if it has the same checksum.
        if not _holds(self._path, state):
            self._ask(
                "read", self._deadline_seconds, lambda halt: self._download(bundle, state, halt)
            )
        self._check()
        self._brought = state.generation
        return True

    def take(self) -> None:
        """Note that what the file holds has been fetched."""
        self._taken = self._brought

    def forget(self) -> None:
        """Have the file fetched from again: what was fetched got lost."""
        self._taken = None

    def close(self) -> None:
        """Let go of the kept connections, from any thread."""
        if self._access is not None:
            self._access.close()

    def _open(self) -> "GcsObject":
        from reconciler.sources.gcs_access import Access
        from reconciler.sources.gcs_object import GcsObject

        try:
            if self._access is not None and self._access.outdated:
                self._access.close()
                self._access = None
            self._access = self._access or Access(user_project=self._user_project)
        except SourceError as error:
            raise self._error(error.reason, str(error)) from error
        return GcsObject(self._url, self._access)

    def _ask(self, doing: str, deadline_seconds: float, work: Callable[[Halt], ResultT]) -> ResultT:
        try:
            with halt_after(deadline_seconds) as halt:
                return work(halt)
        except HaltedError:
            raise self._error(
                DEADLINE_EXCEEDED,
                f"the bundle could not be {doing} within {deadline_seconds:g} s; if it is that"
                " large, raise git_deadline",
            ) from None
        except SourceChangedError:
            raise self._error(
                BUNDLE_REPLACED, "the bundle was replaced by a newer one while it was read"
            ) from None
        except SourceError as error:
            raise self._error(error.reason, str(error)) from error

    def _download(self, bundle: "GcsObject", state: "ObjectState", halt: Halt) -> None:
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        if state.size_bytes:
            with temporary.open("wb") as file:
                for piece in bundle.read(state, state.size_bytes, halt):
                    file.write(piece)
        else:
            temporary.write_bytes(b"")
        halt.check()
        if not _holds(temporary, state):
            raise self._error(
                BUNDLE_DAMAGED,
                f"the bundle did not come as it is in the bucket ({state.size_bytes} bytes of"
                f" crc32c {state.crc32c:08x}), so it is not used",
            )
        temporary.rename(self._path)

    def _check(self) -> None:
        """Raise GitError where git could only say of the file that something failed."""
        with self._path.open("rb") as file:
            try:
                header = parse_header(file.read(MAX_HEADER_BYTES))
            except BrokenBundleError as error:
                raise self._error(
                    BUNDLE_DAMAGED,
                    f"the object {error}; have `reconciler bundle` write it, which puts no other"
                    " file in its place, and see that nothing else does",
                ) from None
            if self._branch not in header.tips:
                raise self._error(
                    BRANCH_MISSING,
                    f"the branch {self._branch} is not in the bundle, which has {header.branches};"
                    f" write it by `reconciler bundle --branch {self._branch}` or set"
                    " RECONCILER_BRANCH",
                )
            if not _is_whole(file, header.length_bytes):
                raise self._error(
                    BUNDLE_DAMAGED,
                    "the bundle is cut off or damaged, and was so when it was uploaded; remove the"
                    " object and have `reconciler bundle` write it anew",
                )

    def _error(self, reason: str, sentence: str) -> GitError:
        return git_error(reason, self._url, sentence)


def _show(text: str) -> str:
    """Return what somebody else wrote, short and without what a terminal would obey."""
    return "".join(character for character in text[:60] if character.isprintable())


@contextmanager
def halt_after(seconds: float) -> Iterator[Halt]:
    """Give what ends a read at a deadline, however slowly its bytes come in."""
    halt = Halt()
    timer = threading.Timer(seconds, halt.call)
    timer.daemon = True
    timer.start()
    try:
        yield halt
    finally:
        timer.cancel()


def _holds(path: Path, state: "ObjectState") -> bool:
    """Whether a file has the bytes that the object has."""
    try:
        if path.stat().st_size != state.size_bytes:
            return False
        with path.open("rb") as file:
            checksum = 0
            while block := file.read(_BLOCK_BYTES):
                checksum = google_crc32c.extend(checksum, block)
    except FileNotFoundError:
        return False
    return bool(checksum == state.crc32c)


def _is_whole(file: BinaryIO, pack_at: int) -> bool:
    """Whether the pack has the checksum that stands at its end."""
    end = file.seek(0, 2) - _CHECKSUM_BYTES
    if end <= pack_at:
        return False
    file.seek(pack_at)
    checksum = hashlib.sha1(usedforsecurity=False)
    while left := end - file.tell():
        block = file.read(min(left, _BLOCK_BYTES))
        if not block:
            return False
        checksum.update(block)
    return file.read() == checksum.digest()
