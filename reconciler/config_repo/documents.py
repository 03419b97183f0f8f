"""One file of the config repo: from its bytes to a document, or to everything wrong with it.

What a file says does not depend on where it stands, so each blob is parsed and validated once and
kept; only what changed since the last commit costs anything.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from reconciler.config_repo.layout import Kind
from reconciler.config_repo.schemes import find_lock_mistakes, find_scheme_mistakes
from reconciler.config_repo.yaml_text import Mistake, Path, Spot, Text, read_yaml

_CACHE_SIZE = 20_000
"""Two revisions of a fleet with 10,000 deployments."""
_CHECKS = {Kind.DEPLOYMENT: find_scheme_mistakes, Kind.LOCK: find_lock_mistakes}


@dataclass(frozen=True, slots=True)
class Document:
    """The fields of one file, as its schema allows them."""

    fields: Mapping[str, Any]
    data: bytes = field(repr=False)
    """What they were read from."""

    def complain(self, message: str, *path: str | int) -> Mistake:
        """Return a mistake at the value of `path`, or at the top where it is not written."""
        spots = _find_spots(self.data)
        spot = spots.get(path, spots[()])
        return Mistake(spot.line, spot.column, message)


@lru_cache(maxsize=1)
def _find_spots(data: bytes) -> Mapping[Path, Spot]:
    """Return where the values of a document are, which nobody asks while all is well.

    To keep them would take several times what the fields do. They are found again when a document
    is complained about, once for all that is wrong with it.
    """
    return read_yaml(data).spots


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be followed: what is wrong, and what it seems to be about."""

    mistakes: tuple[Mistake, ...]
    model: str | None = None
    """The `model` field, if that much can be read."""


def parse_document(kind: Kind, data: bytes, *, has_passed: bool = False) -> Document | Broken:
    """Return the document in `data`, or all that is wrong with it at once; never raises.

    `has_passed` says that the schema, as it is now, has found nothing wrong with this very text.
    """
    text = read_yaml(data)
    if not text.is_complete:
        return Broken(text.mistakes, _model(text))
    mistakes = text.mistakes if has_passed else _check(kind, text)
    if mistakes or not isinstance(text.value, dict):
        return Broken(mistakes, _model(text))
    # Only what the schema has passed has the fields that are looked at here.
    mistakes = tuple(sorted(_CHECKS[kind](text.value, text.spots))) if kind in _CHECKS else ()
    if mistakes:
        return Broken(mistakes, _model(text))
    return Document(_take_metadata_as_written(text.value, text.spots), data)


def _take_metadata_as_written(
    fields: Mapping[str, Any], spots: Mapping[Path, Spot]
) -> Mapping[str, Any]:
    """Return the fields with the metadata as text: 1.10 stays 1.10, where the number says 1.1."""
    if "metadata" not in fields:
        return fields
    return {
        **fields,
        "metadata": {name: spots["metadata", name].text for name in fields["metadata"]},
    }


def _check(kind: Kind, text: Text) -> tuple[Mistake, ...]:
    # Importing jsonschema takes a while, and a node that starts from its cache needs none of it.
    from reconciler.config_repo.complaints import check_schema

    return tuple(sorted({*text.mistakes, *check_schema(kind, text)}))


def _model(text: Text) -> str | None:
    value = text.value.get("model") if isinstance(text.value, dict) else None
    return value if isinstance(value, str) else None


class DocumentCache:
    """The documents that were parsed last, by blob id; the oldest go first."""

    def __init__(self, size: int = _CACHE_SIZE) -> None:
        self._size = size
        self._documents: OrderedDict[tuple[Kind, str], Document | Broken] = OrderedDict()

    def get(self, kind: Kind, blob_id: str) -> Document | Broken | None:
        """Return the parsed blob, None where it must be read."""
        found = self._documents.get((kind, blob_id))
        if found is not None:
            self._documents.move_to_end((kind, blob_id))
        return found

    def put(self, kind: Kind, blob_id: str, document: Document | Broken) -> None:
        """Keep a parsed blob."""
        self._documents[kind, blob_id] = document
        if len(self._documents) > self._size:
            self._documents.popitem(last=False)
