"""What TensorFlow Serving says, and what it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import TypeAlias


class State(IntEnum):
    """tensorflow.serving.ModelVersionStatus.State, by its numbers."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """The state of one version of one model; `code` is gRPC's word, `OK` when all is well."""

    state: State
    code: str = "OK"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """One round of GetModelStatus over all models of interest."""

    connection: int
    """Counts the connections made: another number means that the server may have restarted."""
    models: Mapping[str, Mapping[int, VersionStatus]]
    fresh: frozenset[str] | None = None
    """Those that were asked in this look, None for all: the others are as they were said to be a
    while ago, and nothing of them is deleted by that."""

    def is_fresh(self, model: str) -> bool:
        """Whether what is said of `model` is of this look."""
        return self.fresh is None or model in self.fresh


@dataclass(frozen=True, slots=True)
class Ask:
    """One model's entry in TensorFlow Serving's config: `specific` versions and their labels."""

    versions: frozenset[int]
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", share(self.versions))


@lru_cache(maxsize=16_384)
def share(versions: frozenset[int]) -> frozenset[int]:
    """Return the one set that is kept of all that are equal.

    A model has eight of them, mostly of the same one version; of 10,000 models that is 17 MiB.
    """
    return versions


ServerConfig: TypeAlias = Mapping[str, Ask]
"""Model name -> entry. Platform and base path follow from the name."""
