"""Whether a set of file names is a whole SavedModel.

TensorFlow Serving does not ask: a folder whose variables have not arrived yet loads, goes
AVAILABLE, replaces the good version and fails at the first request (TensorFlow Serving 2.20
source, session_bundle_util.cc; TensorFlow's loader skips the restore when there is no index). So
completeness is decided here, by the names alone: before a download by those in the listing, after
it by those on disk.
"""

import re
from collections.abc import Iterable

_MODEL_FILES = frozenset({"saved_model.pb", "saved_model.pbtxt"})
_VARIABLES = "variables/"
_INDEX = "variables/variables.index"
_SHARD = re.compile(r"variables/variables\.data-([0-9]{5})-of-([0-9]{5})")


def find_missing(paths: Iterable[str]) -> str | None:
    """Return what a SavedModel of these files still lacks, as a noun phrase, or None if nothing.

    Complete means: saved_model.pb or saved_model.pbtxt, and if there is anything under
    variables/ then its index and every shard of one set.
    """
    names = frozenset(paths)
    if not names & _MODEL_FILES:
        return "saved_model.pb"
    if not any(name.startswith(_VARIABLES) for name in names):
        return None
    if _INDEX not in names:
        return _INDEX
    shards: dict[int, set[int]] = {}
    for name in names:
        if match := _SHARD.fullmatch(name):
            shards.setdefault(int(match[2]), set()).add(int(match[1]))
    if not shards:
        return "variables/variables.data-00000-of-00001"
    if len(shards) > 1:
        sets = " and ".join(str(count) for count in sorted(shards))
        return f"one set of variables (there are shards of sets of {sets} files)"
    ((count, present),) = shards.items()
    for shard in range(count):
        if shard not in present:
            return f"variables/variables.data-{shard:05}-of-{count:05}"
    return None


def is_model_file(path: str) -> bool:
    """Whether this is the file that makes a folder a SavedModel; it is published last."""
    return path in _MODEL_FILES
