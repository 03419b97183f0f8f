"""What the bucket holds."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from reconciler.model.scheme import NUMBER, VersionScheme


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One object of a version, as the listing names it."""

    path: str
    """Relative to the version's folder, with `/` between folders."""
    size_bytes: int
    generation: int
    """Cloud Storage's generation; for `file://` the modification time in nanoseconds."""
    crc32c: int | None
    """Of the whole object; None where the source does not know it (`file://`)."""
    updated_seconds: float
    """When the object was written, by the source's clock, Unix time."""
    md5: str | None = None
    """Hex; None where the source does not know it (`file://`, objects composed of others)."""


@dataclass(frozen=True)
class Snapshot:
    """One version as its source lists it at one moment."""

    source: str
    version: int
    folder: str
    """The version's folder name as it stands in the source: `42`, or `0042`; empty where the
    version is one archive beside the others (`42.zip`)."""
    files: tuple[StoredFile, ...]
    archive: str | None = field(default=None, kw_only=True)
    """Which of the files is the archive that holds the version; None for plain files."""
    name: str | None = field(default=None, kw_only=True)
    """What the version is called by its deployment's scheme; None where that is its number."""
    whole: str | None = field(default=None, kw_only=True)
    """Of a snapshot that is a part of another, that one's digest: it goes by the same."""

    @property
    def title(self) -> str:
        """What the version is called."""
        return self.name or str(self.version)

    def place_of(self, file: StoredFile) -> str:
        """Return where one of the files lies below the source."""
        return f"{self.folder}/{file.path}" if self.folder else file.path

    def without(self, paths: Collection[str]) -> "Snapshot":
        """Return the rest of it."""
        files = tuple(file for file in self.files if file.path not in paths)
        return replace(self, files=files, whole=self.digest)

    @property
    def size_bytes(self) -> int:
        """Sum of all files as they are stored; an archive counts packed."""
        return sum(file.size_bytes for file in self.files)

    @property
    def newest_seconds(self) -> float:
        """When the last of its files was written."""
        return max((file.updated_seconds for file in self.files), default=0.0)

    @cached_property
    def digest(self) -> str:
        """Hex sha256 over the sorted (path, size, crc32c, generation) of all files."""
        if self.whole is not None:
            return self.whole
        text = "".join(
            f"{file.path}\0{file.size_bytes}\0{file.crc32c}\0{file.generation}\n"
            for file in sorted(self.files, key=lambda file: file.path)
        )
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class Query:
    """What to list: one version of a source, or all of them where `version` is None."""

    source: str
    version: int | None = None
    scheme: VersionScheme = NUMBER
    """Which names are versions: the same source listed by another scheme is another answer."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A complete answer to a query."""

    query: Query
    read_at_seconds: float
    """The source's own clock when it answered, Unix time."""
    snapshots: Mapping[int, Snapshot]
    refused: Mapping[int, str] = field(default_factory=dict)
    """Versions that cannot be taken because of a name in them, each with a sentence."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A query that was not answered: the reason word and a sentence."""

    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Available:
    """The last complete listing of each query, and why the newest try failed where it did."""

    listings: Mapping[Query, Listing] = field(default_factory=dict)
    troubles: Mapping[Query, Unavailable] = field(default_factory=dict)
