"""Unpacks a downloaded archive into a folder of plain files, within what was promised.

A version may be packed as one archive with the SavedModel at its top or within one single folder.
It is unpacked in steps of a few MiB, so that a cancelled one ends at once and no thread of the
store is taken for long, and never a second time into memory: pieces go from the archive to the
disk, each written file is summed up (crc32c) on the way for the manifest.

Limits count what is written, whatever the archive says of itself:

- no more files than a version may have (MAX_FILES), looked at before the next one is read;
- no more bytes than MAX_RATIO times the archive's listed size (small ones may have
  SMALL_BYTES); weights hardly compress at all, a bomb does by a thousand and more;
- no more bytes than are free on the disk and not promised to another version, asked again at each
  step, as several may be unpacked at once;
- no more bytes than the group's quota leaves it, which knew of the archive's own size alone.

Names are judged by the rule that object names are judged by, and no link is ever made, so nothing
can be written outside of the folder. Folders come with the files in them; empty ones do not,
just as a bucket has none. An archive within the archive is a file like any other.

Left out is what macOS's Finder puts beside what was packed, and nothing else: the folder __MACOSX
at the top, and .DS_Store in any folder. They would else be taken for a second model.
"""

import os
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

from reconciler.errors import DownloadError, InstallError, ReconcilerError
from reconciler.model import Snapshot, StoredFile
from reconciler.planning.room import GROUP_QUOTA_EXCEEDED
from reconciler.planning.savedmodel import is_model_file
from reconciler.planning.versions import BAD_ARCHIVE, MAX_FILES, Names, show_name
from reconciler.planning.wording import format_bytes
from reconciler.store.archives import BadArchiveError, Contents, Entry, open_archive
from reconciler.store.checksum import extend
from reconciler.store.lanes import Lanes
from reconciler.store.room import Claim, Room

MAX_RATIO = 200
"""How many times its own size an archive may unpack to."""
SMALL_BYTES = 64 * 1024 * 1024
"""What any archive may unpack to: of a model of zeros little is left when it is packed."""

_PIECE_BYTES = 1024 * 1024
_STEP_BYTES = 4 * 1024 * 1024
_STEP_ENTRIES = 64
_NAMED_TOPS = 3
_DONE = object()


class Unpacking:
    """One archive on its way into `folder`, which must not be there yet.

    `room` says what may be written, `claim` is told of what has been. `most_bytes` is what the
    group's quota leaves, if it has one.
    """

    def __init__(
        self,
        model: str,
        snapshot: Snapshot,
        archive: Path,
        folder: Path,
        room: Room,
        claim: Claim,
        most_bytes: int | None = None,
    ) -> None:
        self._title = f"{model} {snapshot.title}"
        self._snapshot = snapshot
        self._archive = archive
        self._folder = folder
        self._room = room
        self._claim = claim
        self._quota_bytes = most_bytes
        self._free_bytes = 0
        """What may be written from the beginning on, as it was measured last."""
        (stored,) = (file for file in snapshot.files if file.path == snapshot.archive)
        self._stored = stored
        self._most_bytes = max(MAX_RATIO * stored.size_bytes, SMALL_BYTES)
        self._written_bytes = 0
        self._files: list[StoredFile] = []

    async def run(self, lanes: Lanes) -> tuple[Path, tuple[StoredFile, ...]]:
        """Unpack, and return the folder of the SavedModel with the files in it.

        Raises InstallError (BadArchive, Incomplete), DownloadError (DiskFull, GroupQuotaExceeded),
        OSError as the disk does. What has been written by then stays in the folder.
        """
        steps = self._unpack()
        try:
            await self._measure()
            while await lanes.finish(_advance, steps):
                await self._measure()
        except BadArchiveError as error:
            raise self._refuse(str(error), BAD_ARCHIVE) from error
        finally:
            await lanes.finish(steps.close)
        return self._find_model()

    async def _measure(self) -> None:
        self._free_bytes = await self._room.measure_free(self._claim) + self._written_bytes

    def _unpack(self) -> Generator[None]:
        names = Names("archived name")
        self._folder.mkdir(parents=True)
        with open_archive(self._archive) as contents:
            self._check_claimed(contents)
            for number, entry in enumerate(contents.entries, 1):
                if number > MAX_FILES:
                    raise BadArchiveError(
                        f"it has more than the {MAX_FILES:,} entries that a model may have"
                    )
                if number % _STEP_ENTRIES == 0:
                    yield
                name = _clean_name(entry)
                if entry.is_folder and name in ("", "."):
                    continue
                if mistake := names.add(name, is_folder=entry.is_folder):
                    raise BadArchiveError(mistake)
                if not entry.is_folder:
                    take = self._pass_over(entry) if _is_finders(name) else self._write(name, entry)
                    yield from take

    def _write(self, name: str, entry: Entry) -> Iterator[None]:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        size_bytes, crc = 0, 0
        with os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0) as file:
            while piece := entry.read(_PIECE_BYTES):
                self._count(len(piece))
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
                crc = extend(crc, piece)
                size_bytes += len(piece)
                if self._written_bytes % _STEP_BYTES < len(piece):
                    yield
        self._files.append(replace(self._stored, path=name, size_bytes=size_bytes, crc32c=crc))

    def _pass_over(self, entry: Entry) -> Iterator[None]:
        """Read to its end what is not wanted; it counts all the same, as it costs its time."""
        while piece := entry.read(_PIECE_BYTES):
            self._count(len(piece))
            if self._written_bytes % _STEP_BYTES < len(piece):
                yield

    def _count(self, more_bytes: int) -> None:
        """Take in that so many bytes are about to be written."""
        self._written_bytes += more_bytes
        self._check_size(self._written_bytes)
        self._claim.taken_bytes += more_bytes

    def _check_claimed(self, contents: Contents) -> None:
        """Refuse before anything is written what says of itself that it is too large."""
        self._check_size(contents.claimed_bytes)
        self._claim.promised_bytes = max(
            self._claim.promised_bytes, self._claim.taken_bytes + contents.claimed_bytes
        )

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._most_bytes:
            raise BadArchiveError(
                f"its {format_bytes(self._stored.size_bytes)} unpack to more than"
                f" {format_bytes(self._most_bytes)}, which no model does"
            )
        if size_bytes > self._free_bytes:
            raise DownloadError(
                f"{self._title} unpacks to {format_bytes(size_bytes)} or more and"
                f" {format_bytes(max(self._free_bytes, 0))} are free on the models folder's disk;"
                " its archive stays and is unpacked when there is room",
                "DiskFull",
            )
        if self._quota_bytes is not None and size_bytes > self._quota_bytes:
            raise DownloadError(
                f"{self._title} unpacks to {format_bytes(size_bytes)} or more and its group's quota"
                f" leaves it {format_bytes(self._quota_bytes)}; its archive stays and is unpacked"
                " when there is room, remove a model or raise the quota",
                GROUP_QUOTA_EXCEEDED,
            )

    def _find_model(self) -> tuple[Path, tuple[StoredFile, ...]]:
        """Return the folder that has saved_model.pb: the top, or the only one in it."""
        files = sorted(self._files, key=lambda file: file.path)
        if any(is_model_file(file.path) for file in files):
            return self._folder, tuple(files)
        tops = sorted({file.path.split("/")[0] for file in files})
        within = [file.path.partition("/")[2] for file in files]
        if len(tops) != 1 or not any(is_model_file(path) for path in within):
            shown = ", ".join(map(show_name, tops[:_NAMED_TOPS])) or "nothing"
            more = f" and {len(tops) - _NAMED_TOPS:,} more" if len(tops) > _NAMED_TOPS else ""
            raise self._refuse(
                "it holds saved_model.pb neither at its top nor within one single folder there;"
                f" at its top are {shown}{more}",
                "Incomplete",
            )
        renamed = (replace(file, path=path) for file, path in zip(files, within, strict=True))
        return self._folder / tops[0], tuple(renamed)

    def _refuse(self, what: str, reason: str) -> ReconcilerError:
        place = f"{self._snapshot.source}/{self._snapshot.place_of(self._stored)}"
        return InstallError(
            f"{self._title} is not installed: {place} is refused, {what}; publish it again under a"
            " new number",
            reason,
        )


def _advance(steps: Iterator[None]) -> bool:
    """Take the next step; return whether there was one."""
    return next(steps, _DONE) is not _DONE


def _is_finders(name: str) -> bool:
    """Whether macOS's Finder has put the file there by itself."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] == ".DS_Store"


def _clean_name(entry: Entry) -> str:
    """Return an entry's name without what tools put before and behind it: `./a`, `a/`."""
    name = entry.name.rstrip("/") if entry.is_folder else entry.name
    while name.startswith("./"):
        name = name[2:]
    return name
