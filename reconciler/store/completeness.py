"""Whether the files on disk are a SavedModel that has its weights.

The names alone cannot tell a model without variables from one whose variables folder never
arrived: TensorFlow Serving loads both, and the second answers every request with an error. So a
saved_model.pb that stands alone is searched for nodes that are variables.
"""

from collections.abc import Iterable
from pathlib import Path

from reconciler.planning.savedmodel import find_missing

_BLOCK_BYTES = 1024 * 1024
_VARIABLE_OPS = (b"VarHandleOp", b"VariableV2", b"Variable")
# NodeDef.op is field 2: its tag, the length, the name. OpDef.name, which lists operations that
# may merely be known, is field 1 and does not match.
_IN_BINARY = tuple(bytes([0x12, len(op)]) + op for op in _VARIABLE_OPS)
_IN_TEXT = tuple(b'op: "' + op + b'"' for op in _VARIABLE_OPS)


def find_lack(folder: Path, paths: Iterable[str]) -> str | None:
    """Return what the SavedModel in `folder` lacks, as a noun phrase, or None if nothing.

    `paths` are the files it holds.
    """
    names = frozenset(paths)
    missing = find_missing(names)
    if missing is not None or any(name.startswith("variables/") for name in names):
        return missing
    for name, marks in (("saved_model.pb", _IN_BINARY), ("saved_model.pbtxt", _IN_TEXT)):
        if name in names and _contains_any(folder / name, marks):
            return "its variables folder, although its graph has variables"
    return None


def _contains_any(path: Path, marks: tuple[bytes, ...]) -> bool:
    """Search a file block by block, with an overlap for what lies across two blocks."""
    overlap = max(map(len, marks)) - 1
    tail = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            text = tail + block
            if any(mark in text for mark in marks):
                return True
            tail = text[-overlap:]
    return False
