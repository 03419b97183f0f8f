"""What is on disk."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LocalVersion:
    """A version in the models folder."""

    model: str
    version: int
    size_bytes: int
    digest: str | None
    """Of the snapshot it was installed from; None where this reconciler did not install it."""
    intact: bool = True
    """Whether the files still are what the manifest says."""
    name: str | None = None
    """What the version was called when it was installed; None where that was its number."""

    @property
    def title(self) -> str:
        """What the version was called when it was installed."""
        return self.name or str(self.version)


@dataclass(frozen=True, slots=True)
class Staged:
    """A download that was begun: the bytes that are there already."""

    model: str
    version: int
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Local:
    """What the models folder holds."""

    versions: Mapping[str, Mapping[int, LocalVersion]]
    staged: tuple[Staged, ...] = ()
    free_bytes: int = 0
    total_bytes: int = 0
    strays: tuple[str, ...] = ()
    """Names in model folders that TensorFlow Serving would take for versions but are not."""
