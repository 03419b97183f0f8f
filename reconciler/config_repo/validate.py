"""Checks a config repo that lies in a folder, with the very code that the agent reads it with."""

import os
from pathlib import Path

from reconciler.config_repo.assemble import File, assemble
from reconciler.config_repo.documents import Broken, Document, parse_document
from reconciler.config_repo.layout import Kind
from reconciler.config_repo.tree import Blob, survey
from reconciler.config_repo.yaml_text import MAX_TEXT_BYTES, Mistake
from reconciler.model import Problem


def validate_folder(folder: Path) -> list[Problem]:
    """Return every problem in the config below `folder`, in the order of the files.

    Raises ConfigError when there is far too much to read.
    """
    found = survey(_walk(folder))
    contents: dict[str, Document | Broken] = dict(found.unreadable)
    for path in found.readable:
        contents[path] = _read(folder, path, found.places[path].kind)
    files = [File(path, place, "", contents[path]) for path, place in found.places.items()]
    return assemble(files, found.problems).problems


def _walk(folder: Path) -> dict[str, Blob]:
    tree = {}
    for parent, folders, names in os.walk(folder):
        # A folder that begins with a dot is not ours; a linked one stands for no files.
        linked = [name for name in folders if (Path(parent) / name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in linked]
        for name in (*names, *linked):
            file = Path(parent) / name
            is_file = file.is_file() and not file.is_symlink()
            size_bytes = file.stat().st_size if is_file else 0
            tree[file.relative_to(folder).as_posix()] = Blob("", size_bytes, is_file)
    return tree


def _read(folder: Path, path: str, kind: Kind) -> Document | Broken:
    try:
        with (folder / path).open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        return Broken((Mistake(1, 1, f"the file cannot be read ({error.strerror})"),))
    return parse_document(kind, data)
