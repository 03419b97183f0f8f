"""The files of one commit, or of one folder, as their names and sizes tell, before any is read."""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.config_repo.documents import Broken
from reconciler.config_repo.layout import Misplaced, Place, belongs, locate
from reconciler.config_repo.yaml_text import MAX_TEXT_BYTES, Mistake, too_large
from reconciler.errors import ConfigError
from reconciler.model import Problem

MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""All configuration together: 10,000 deployments come to 3 MB."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One entry of a tree; `is_file` is False for a symbolic link and a submodule."""

    id: str
    size_bytes: int
    is_file: bool = True


@dataclass(frozen=True, slots=True)
class Survey:
    """What is to be read, what cannot be, and what lies where it has no effect."""

    places: Mapping[str, Place]
    """Path -> what it is, for every file of the config, readable or not."""
    readable: Mapping[str, Blob]
    unreadable: Mapping[str, Broken]
    problems: tuple[Problem, ...]


def survey(tree: Mapping[str, Blob]) -> Survey:
    """Sort the entries of a tree.

    Raises ConfigError when there is more to read than any fleet could need.
    """
    places: dict[str, Place] = {}
    readable: dict[str, Blob] = {}
    unreadable: dict[str, Broken] = {}
    problems: list[Problem] = []
    for path, blob in sorted(tree.items()):
        place = locate(path)
        if isinstance(place, Place):
            places[path] = place
            if not blob.is_file:
                unreadable[path] = Broken((Mistake(1, 1, _NO_FILE),))
            elif blob.size_bytes > MAX_TEXT_BYTES:
                unreadable[path] = Broken((too_large(blob.size_bytes),))
            else:
                readable[path] = blob
        elif isinstance(place, Misplaced):
            problems.append(Problem(path, 1, 1, place.message))
        elif not blob.is_file and belongs(path):
            problems.append(Problem(path, 1, 1, _NO_FILE))
    total_bytes = sum(blob.size_bytes for blob in readable.values())
    if total_bytes > MAX_TOTAL_BYTES:
        raise ConfigError(
            f"the files of the config repo come to {total_bytes / 1e6:.0f} MB, and at most 64 MiB"
            " are read; what was read before stays in force"
        )
    return Survey(places, readable, unreadable, tuple(problems))


_NO_FILE = "this is a symbolic link or a submodule, which is not followed; put a plain file here"
