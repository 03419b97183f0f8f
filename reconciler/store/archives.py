"""Reads what is in a .tar, .tar.gz or .zip, entry by entry, and believes none of it.

An archive comes from whoever may write to the bucket, so nothing in it may cost more than what it
is worth: a list of ten million entries, a header of gigabytes and a stream that never ends are
refused where they begin. Names are handed on as they stand, for the caller to judge; bytes are
handed on in pieces, for the caller to count, as sizes in headers are only what someone wrote.

Refused whatever is behind them: links, as what they show may lie elsewhere (pack the files
themselves), devices and pipes, sparse files, encrypted entries, and the compressions of zip that
cannot be inflated in bounded memory. tarfile takes a damaged header for the end of the archive;
here only the two empty blocks that a whole archive ends in are one. Everything read from the
archive is checked by its format's own checksum where it has one.
"""

import errno
import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reconciler.planning.versions import show_name

_MAX_HEADER_BYTES = 16 * 1024
"""Of what precedes one file in a tar: its name has at most 1 KiB, the rest is hardly more."""
_MAX_DIRECTORY_BYTES = 8 * 1024 * 1024
"""Of a zip's list of entries, which is read as a whole: about a hundred thousand of them."""
_MAX_PADDING_BYTES = 16 * 1024 * 1024
"""After a tar's end; tools fill up a block of some KiB."""
_MAX_EMPTY_BYTES = 256 * 1024
"""Of a gzip, that may come to nothing; one may have any number of parts without content."""
_BUFFER_BYTES = 20 * tarfile.BLOCKSIZE
_PIECE_BYTES = 1024 * 1024
_ZIP_ENCRYPTED = 0x1 | 0x40
_ZIP_END = struct.Struct("<4s6xH10x")
"""The record that ends a zip: its signature, and after six bytes the number of entries."""
_ZIP_COUNT_ELSEWHERE = 0xFFFF
_PLAIN_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    RuntimeError,  # of which RecursionError and NotImplementedError are two
)


class BadArchiveError(Exception):
    """An archive that must not, or cannot, be unpacked; the text says what about it, "it ..."."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder of an archive; to be read before the next one is asked for."""

    name: str
    """As it stands in the archive, which may be anything."""
    is_folder: bool
    read: Callable[[int], bytes]
    """Returns the next bytes, at most so many; none at the end."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in an archive."""

    claimed_bytes: int
    """What it takes unpacked as far as can be told beforehand; the truth may be any other."""
    entries: Iterator[Entry]


@contextmanager
def open_archive(path: Path) -> Iterator[Contents]:
    """Open an archive whose kind its name says.

    Raises BadArchiveError, here or while the entries are read; OSError where the disk fails.
    """
    with _CautiousFile(path.open("rb", buffering=0)) as file:
        claimed_bytes = path.stat().st_size
        if path.name.endswith(".zip"):
            with _refusing_damage():
                archive = zipfile.ZipFile(file)
                _check_list(archive, file, claimed_bytes)
            with archive:
                claimed_bytes = sum(info.file_size for info in archive.infolist())
                yield Contents(claimed_bytes, _read_zip(archive))
        elif path.name.endswith(".tar"):
            yield Contents(claimed_bytes, _read_tar(file))
        else:
            with gzip.GzipFile(fileobj=file) as inflated:
                yield Contents(claimed_bytes, _read_tar(_Rationed(inflated, file)))


def _check_list(archive: zipfile.ZipFile, file: io.BufferedReader, size_bytes: int) -> None:
    """Hold the entries that were found against their number, which stands at the very end.

    A damaged length makes zipfile take one entry for a part of another and say nothing of it.
    """
    file.seek(size_bytes - len(archive.comment) - _ZIP_END.size)
    signature, count = _ZIP_END.unpack(file.read(_ZIP_END.size))
    if signature != b"PK\5\6" or count not in (len(archive.infolist()), _ZIP_COUNT_ELSEWHERE):
        raise BadArchiveError(
            "it is cut off or damaged: its list of entries is not as long as said"
        )


def _read_zip(archive: zipfile.ZipFile) -> Iterator[Entry]:
    for info in archive.infolist():
        name = info.orig_filename  # the other one ends at a zero byte
        if stat.S_IFMT(info.external_attr >> 16) not in _PLAIN_KINDS:
            raise _not_plain(name)
        if info.flag_bits & _ZIP_ENCRYPTED:
            raise BadArchiveError(f"its entry {show_name(name)} is encrypted; pack it plain")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadArchiveError(
                f"its entry {show_name(name)} is compressed in an uncommon way; pack it by deflate"
            )
        if name.endswith("/"):
            yield Entry(name, True, lambda _: b"")
            continue
        with _refusing_damage():
            member = archive.open(info)
        with member:
            yield Entry(name, False, _guard(member.read))


def _read_tar(stream: io.BufferedIOBase) -> Iterator[Entry]:
    meter = _Meter(stream)
    with ExitStack() as stack:
        with _refusing_damage():
            archive = stack.enter_context(
                tarfile.open(fileobj=meter, mode="r|", bufsize=_BUFFER_BYTES, tarinfo=_StrictHeader)
            )
        while True:
            meter.left_bytes = _MAX_HEADER_BYTES
            with _refusing_damage():
                member = archive.next()
            if member is None:
                break
            # Kept for random access, and for what holds for all files: times, owners, a comment.
            archive.members = []  # type: ignore[attr-defined]
            archive.pax_headers = {}
            if member.isdir():
                yield Entry(member.name, True, lambda _: b"")
                continue
            content = archive.extractfile(member) if _is_plain(member) else None
            if content is None:
                raise _not_plain(member.name)
            with content:
                yield Entry(member.name, False, meter.guard(content.read))
    _read_padding(stream)


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isreg() and not member.issparse() and member.size >= 0


def _not_plain(name: str) -> BadArchiveError:
    return BadArchiveError(
        f"its entry {show_name(name)} is a link, a device, a pipe or a sparse file; pack the file"
        " itself"
    )


def _read_padding(stream: io.BufferedIOBase) -> None:
    """Read what follows a tar's end: with it the checksum of what it was compressed to."""
    with _refusing_damage():
        for _ in range(_MAX_PADDING_BYTES // _PIECE_BYTES):
            if not stream.read(_PIECE_BYTES):
                return
    raise BadArchiveError("it goes on long after its end; pack it again")


def _guard(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def guarded(count_bytes: int) -> bytes:
        with _refusing_damage():
            return read(count_bytes)

    return guarded


@contextmanager
def _refusing_damage() -> Iterator[None]:
    """Say of whatever the libraries meet in a damaged archive that it is one."""
    try:
        yield
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the disk's trouble
        what = str(error) or type(error).__name__
        raise BadArchiveError(f"it is cut off or damaged: {show_name(what)}") from error


class _CautiousFile(io.BufferedReader):
    """A file that does not hand out more at once than a zip's list of entries may have."""

    left_bytes: int | None = None
    """How much it hands out still, where it is rationed."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.left_bytes is not None:
            if self.left_bytes < 0:
                raise BadArchiveError("it goes on without content; pack it again")
            self.left_bytes -= size or 0
        if size is not None and 0 <= size <= _MAX_DIRECTORY_BYTES:
            return super().read(size)
        data = super().read(_MAX_DIRECTORY_BYTES + 1)
        if len(data) > _MAX_DIRECTORY_BYTES:
            raise BadArchiveError(
                "its list of entries is longer than any model needs; pack the SavedModel alone"
            )
        return data


class _Rationed(io.BufferedIOBase):
    """An inflated stream that takes no more of its file than what it is asked for may need.

    Else a single read of a file of empty parts would go on to its end, for minutes.
    """

    def __init__(self, inflated: io.BufferedIOBase, file: _CautiousFile) -> None:
        super().__init__()
        self._inflated = inflated
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        self._file.left_bytes = 2 * (size or 0) + _MAX_EMPTY_BYTES
        return self._inflated.read(size)


class _Meter(io.BufferedIOBase):
    """A stream that hands out no more than is left, so that no header swallows the memory."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__()
        self._stream = stream
        self.left_bytes = _MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if self.left_bytes < 0:
            raise BadArchiveError("what precedes one of its files is longer than any name needs")
        data = self._stream.read(size)
        self.left_bytes -= len(data)
        return data

    def guard(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """Return a `read` of a file's bytes that may be as many as are asked for."""

        def metered(count_bytes: int) -> bytes:
            self.left_bytes = count_bytes + _BUFFER_BYTES
            with _refusing_damage():
                return read(count_bytes)

        return metered


class _StrictHeader(tarfile.TarInfo):
    """A header of a tar; one that is not whole does not pass for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise BadArchiveError(f"it is cut off or damaged: {show_name(str(error))}") from error
