"""Reads what is in force for the whole fleet, at a commit or as it lies in a folder."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from reconciler.config_repo.assemble import File, Fleet, Pairs, assemble
from reconciler.config_repo.documents import Broken, Document, DocumentCache, parse_document
from reconciler.config_repo.layout import Kind, Place, belongs, locate
from reconciler.config_repo.objects import decode_path
from reconciler.config_repo.tree import Blob, Survey, survey
from reconciler.config_repo.yaml_text import MAX_TEXT_BYTES, Mistake
from reconciler.errors import ConfigError
from reconciler.planning.placement import Holders


class Objects(Protocol):
    """Something that holds commits: the agent's mirror, or a clone that a person works in."""

    def read_tree(self, commit_id: str) -> dict[str, Blob]:
        """Return all files of a commit by their path."""

    def read_blobs(self, blobs: Iterable[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Yield each blob with its bytes."""

    def read_blob(self, blob_id: str) -> bytes | None:
        """Return one blob, None where it is not there."""


class FleetReader:
    """Reads commits, each blob once. Blocking, for one thread at a time."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._cache = DocumentCache()
        self._files: dict[str, File] = {}
        """The files that were read last, by their path."""
        self._pairs: Pairs = {}
        self._holders: Holders = {}

    def read(
        self,
        commit_id: str,
        good: Mapping[str, str] | None = None,
        passed: Mapping[str, str] | None = None,
    ) -> Fleet:
        """Return what is in force at a commit; `good` has the blob id of each last good text.

        `passed` has the blob id of each path's text that the schema need not be asked about.

        Raises GitError when the commit cannot be read, ConfigError when it holds far too much.
        """
        found = survey(self._objects.read_tree(commit_id))
        self._take_up(found, passed or {})
        known = good or {}

        def recall(path: str) -> Document | None:
            return self._recall(path, known[path])

        files = self._files.values()
        return assemble(files, found.problems, known, recall, self._pairs, self._holders)

    def _take_up(self, found: Survey, passed: Mapping[str, str]) -> None:
        """Read the files that are others than last time; what did not change stays the same."""
        readable, before = found.readable, self._files
        changed = {
            path: blob
            for path, blob in readable.items()
            if path not in before or before[path].blob_id != blob.id
        }
        contents = {**self._read_documents(found, changed, passed), **found.unreadable}
        self._files = {
            path: File(path, place, readable[path].id if path in readable else "", contents[path])
            if path in contents
            else before[path]
            for path, place in found.places.items()
        }
        for path in self._pairs.keys() - self._files.keys():
            del self._pairs[path]
        for path in self._holders.keys() - self._files.keys():
            del self._holders[path]

    def _read_documents(
        self, found: Survey, wanted_blobs: Mapping[str, Blob], passed: Mapping[str, str]
    ) -> dict[str, Document | Broken]:
        keys = {path: (found.places[path].kind, blob.id) for path, blob in wanted_blobs.items()}
        documents: dict[tuple[Kind, str], Document | Broken] = {}
        for key in keys.values():
            if (cached := self._cache.get(*key)) is not None:
                documents[key] = cached
        missing = {
            blob.id: blob for path, blob in wanted_blobs.items() if keys[path] not in documents
        }
        wanted = set(keys.values()) - documents.keys()
        known = {keys[path] for path, blob in wanted_blobs.items() if passed.get(path) == blob.id}
        for blob, data in self._objects.read_blobs(missing.values()):
            for kind in Kind:  # the same text may stand in two places
                if (key := (kind, blob.id)) in wanted:
                    documents[key] = self._parse(kind, blob.id, data, has_passed=key in known)
        return {path: documents[key] for path, key in keys.items()}

    def _parse(
        self, kind: Kind, blob_id: str, data: bytes, *, has_passed: bool = False
    ) -> Document | Broken:
        document = parse_document(kind, data, has_passed=has_passed)
        self._cache.put(kind, blob_id, document)
        return document

    def _recall(self, path: str, blob_id: str) -> Document | None:
        """Return the last good document of a path, as far as it can still be read."""
        place = locate(path)
        if not isinstance(place, Place):
            return None
        document = self._cache.get(place.kind, blob_id)
        if document is None:
            data = self._objects.read_blob(blob_id)
            document = None if data is None else self._parse(place.kind, blob_id, data)
        return document if isinstance(document, Document) else None


def read_folder(folder: Path, *, with_locks: bool = True) -> Fleet:
    """Return what would be in force if the files in `folder` were a commit without a past.

    Without locks it is what the deployments alone ask, as if there were no lock files and none
    were required: that must be known to make the locks.

    Raises ConfigError when there is far too much to read, or a folder cannot be.
    """
    found = survey(_walk(folder))
    contents: dict[str, Document | Broken] = dict(found.unreadable)
    for path, blob in found.readable.items():
        contents[path] = _read(folder / blob.id, found.places[path].kind)
    files = [File(path, place, "", contents[path]) for path, place in found.places.items()]
    return assemble(files if with_locks else _forget_locks(files), found.problems)


def _forget_locks(files: list[File]) -> Iterator[File]:
    for file in files:
        if file.place.kind is Kind.FLEET and isinstance(file.content, Document):
            fields = {name: value for name, value in file.content.fields.items() if name != "lock"}
            yield replace(file, content=replace(file.content, fields=fields))
        elif file.place.kind is not Kind.LOCK:
            yield file


def _walk(folder: Path) -> dict[str, Blob]:
    """Return all files by their path as git names it; the id is the path as the system does."""
    tree = {}

    def refuse(error: OSError) -> None:
        path = Path(error.filename).relative_to(folder).as_posix()
        # What cannot be seen is not to be taken for nothing; what is not ours is nothing to us.
        if path == "." or belongs(path):
            raise ConfigError(f"{error.filename} cannot be read ({error.strerror})")

    for parent, folders, names in os.walk(folder, onerror=refuse):
        # A folder that begins with a dot is not ours; a linked one stands for no files.
        linked = [name for name in folders if (Path(parent) / name).is_symlink()]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in linked]
        for name in (*names, *linked):
            file = Path(parent) / name
            is_file = file.is_file() and not file.is_symlink()
            size_bytes = file.stat().st_size if is_file else 0
            path = file.relative_to(folder).as_posix()
            tree[decode_path(os.fsencode(path))] = Blob(path, size_bytes, is_file)
    return tree


def _read(path: Path, kind: Kind) -> Document | Broken:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        return Broken((Mistake(1, 1, f"the file cannot be read ({error.strerror})"),))
    return parse_document(kind, data)
