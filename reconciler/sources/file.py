"""Models in a folder: NFS mounts, and everything that should run without a bucket.

The same interface as Cloud Storage, with what a file system knows: the modification time in
nanoseconds stands in for the generation, and there is no checksum until the bytes are read.
A file counts as written at its change time (ctime), because `cp -a` and rsync set the
modification time back to that of the original while they are still copying.
"""

import os
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Snapshot, StoredFile
from reconciler.planning.versions import (
    MAX_FILES,
    group_versions,
    parse_archive_name,
    parse_folder_name,
    show_name,
)
from reconciler.sources.source import (
    Halt,
    Part,
    SourceChangedError,
    TransientReadError,
    describe_change,
)

_BUFFER_BYTES = 1024 * 1024


class FileSource:
    """Every folder that this node can see; the URL in the query says which."""

    def list(self, query: Query) -> Listing:
        """Return the versions in the query's folder; a pin walks only its own."""
        top = split_file_url(query.source)
        files: list[StoredFile] = []
        unfit: dict[str, str] = {}
        read_at_seconds = time.time()
        try:
            with os.scandir(top) as entries:
                found = list(entries)
            for entry in found:
                is_folder = entry.is_dir()
                parse = parse_folder_name if is_folder else parse_archive_name
                version = parse(entry.name, query.scheme)
                if version is None or query.version not in (None, version):
                    continue
                if is_folder:
                    within, unfit_within = walk_folder(top / entry.name, f"{entry.name}/")
                    files += within
                    unfit |= unfit_within
                else:
                    files.append(_describe(entry, entry.name, unfit))
        except FileNotFoundError as error:
            missing = Path(error.filename or top)
            if missing == top:
                raise SourceError(f"{query.source} does not exist", "FolderNotFound") from error
            raise SourceError(
                f"{query.source} changed while it was listed; it is listed again", "ListingFailed"
            ) from error
        except PermissionError as error:
            raise SourceError(
                f"{error.filename} of {query.source} may not be read by this user", "Forbidden"
            ) from error
        except OSError as error:
            raise SourceError(
                f"listing {query.source} failed: {error.strerror}", "ListingFailed"
            ) from error
        return group_versions(query, files, read_at_seconds, unfit)

    def read(
        self, snapshot: Snapshot, parts: Sequence[Part], halt: Halt
    ) -> Generator[Iterator[bytes]]:
        """Yield the bytes of each part, provided its file is still the one that was listed."""
        for part in parts:
            yield _read_part(snapshot, part, halt)


def split_file_url(url: str) -> Path:
    """Return the folder that a `file://` URL names; raises SourceError for anything else."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path:
        raise SourceError(f"{url!r} is not of the form file:///folder", "BadSource")
    return Path(unquote(parts.path))


def walk_folder(folder: Path, prefix: str = "") -> tuple[list[StoredFile], dict[str, str]]:
    """Return the files under a folder, their paths after `prefix`, and those that cannot be taken.

    Links are not followed: what they show may lie outside the model and may change behind it.
    Raises OSError when a part of it cannot be read.
    """
    files: list[StoredFile] = []
    unfit: dict[str, str] = {}
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                    continue
                path = prefix + os.path.relpath(entry.path, folder)
                files.append(_describe(entry, path, unfit))
        if len(files) + len(pending) > MAX_FILES:
            break  # the count itself refuses the version
    return files, unfit


def _describe(entry: "os.DirEntry[str]", path: str, unfit: dict[str, str]) -> StoredFile:
    """Return a file as it is listed; what cannot be taken is noted in `unfit`."""
    if not entry.is_file(follow_symlinks=False):
        kind = "a symbolic link" if entry.is_symlink() else "no plain file"
        unfit[path] = f"{show_name(path)} is {kind}; put the file itself there"
    status = entry.stat(follow_symlinks=False)
    return StoredFile(path, status.st_size, status.st_mtime_ns, None, status.st_ctime)


def _read_part(snapshot: Snapshot, part: Part, halt: Halt) -> Iterator[bytes]:
    path = split_file_url(snapshot.source) / snapshot.place_of(part.file)
    for offset in range(part.start, part.end, _BUFFER_BYTES):
        length = min(_BUFFER_BYTES, part.end - offset)
        halt.check()
        yield _read_piece(path, snapshot, part.file, offset, length)


def _read_piece(
    path: Path, snapshot: Snapshot, file: StoredFile, offset: int, length: int
) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            piece = os.pread(descriptor, length, offset)
            # Looked at after the read: a write in between would have moved the time.
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise SourceChangedError(describe_change(snapshot, file)) from error
    except PermissionError as error:
        raise SourceError(f"{path} may not be read by this user", "Forbidden") from error
    except OSError as error:
        raise TransientReadError(f"reading {path} failed: {error.strerror}") from error
    if (status.st_mtime_ns, status.st_size) != (file.generation, file.size_bytes):
        raise SourceChangedError(describe_change(snapshot, file))
    return piece
