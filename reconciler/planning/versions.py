"""Which names are versions, by TensorFlow Serving's own rule, and which names are dangerous.

A source is listed once; this module turns the flat list of objects into versions. What is wrong
in one version refuses that version alone. Object names come from whoever may write to the bucket
and end as paths on every node, so anything that is not plainly a relative path is refused here,
before a byte is fetched.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconciler.model import Listing, Query, Snapshot, StoredFile

MAX_FILES = 100_000
"""Files in one version; SavedModels have tens, and a manifest must fit in memory."""

_MAX_PART_BYTES = 255
_MAX_PATH_BYTES = 1024
# absl::SimpleAtoi: the whole name, ASCII blanks around it and one sign tolerated
# (TensorFlow Serving 2.20 source, file_system_storage_path_source.cc, ParseVersionNumber).
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")
_INT64_MAX = 2**63 - 1
_MAX_NAME = 64
# Line separators and the like would break a log line in two as a control character does.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def parse_version(name: str) -> int | None:
    """Return the version that TensorFlow Serving takes a folder of this name for, or None.

    `0002`, `+2` and ` 2` are all version 2; `v2`, `2.tmp` and `.2` are not versions.
    """
    match = _NUMBER.fullmatch(name) if len(name) <= _MAX_NAME else None
    if match is None:
        return None
    number = int(match[1])
    return number if -_INT64_MAX - 1 <= number <= _INT64_MAX else None


def group_versions(
    query: Query,
    files: Iterable[StoredFile],
    read_at_seconds: float,
    unfit: Mapping[str, str] | None = None,
) -> Listing:
    """Sort a source's files, with paths such as `42/saved_model.pb`, into its versions.

    `unfit` maps paths that the source itself cannot hand out to the reason. Placeholders for
    folders (names that end in `/`) and names outside any version are ignored.
    Of two folders for one version (`0002` and `2`) the later in byte order counts, as for
    TensorFlow Serving.
    """
    unfit = unfit or {}
    folders: dict[str, list[StoredFile]] = {}
    for file in files:
        folder, separator, path = file.path.partition("/")
        if separator and parse_version(folder) is not None and not path.endswith("/") and path:
            folders.setdefault(folder, []).append(replace(file, path=path))
    snapshots: dict[int, Snapshot] = {}
    refused: dict[int, str] = {}
    for folder in sorted(folders, key=lambda name: name.encode("utf-8", "surrogatepass")):
        version = parse_version(folder)
        if version is None:
            continue
        snapshots.pop(version, None)
        refused.pop(version, None)
        paths = [file.path for file in folders[folder]]
        mistake = _find_mistake(folder, version, paths) or next(
            (unfit[f"{folder}/{path}"] for path in paths if f"{folder}/{path}" in unfit), None
        )
        if mistake is None:
            ordered = tuple(sorted(folders[folder], key=lambda file: file.path))
            snapshots[version] = Snapshot(query.source, version, folder, ordered)
        else:
            refused[version] = f"version {version} of {query.source} is refused: {mistake}"
    return Listing(query, read_at_seconds, snapshots, refused)


def check_path(path: str) -> str | None:
    """Return what makes `path` unfit to become a path on a node, or None when it is fit."""
    shown = show_name(path)
    if _CONTROL.search(path):
        return f"the object name {shown} holds a control character"
    if "\\" in path:
        return f"the object name {shown} holds a backslash"
    if path.startswith("/"):
        return f"the object name {shown} would be an absolute path"
    parts = path.split("/")
    if "" in parts:
        return f"the object name {shown} has an empty part between two slashes"
    if "." in parts or ".." in parts:
        return f"the object name {shown} has a part that points elsewhere (. or ..)"
    if len(path.encode()) > _MAX_PATH_BYTES or any(
        len(part.encode()) > _MAX_PART_BYTES for part in parts
    ):
        return (
            f"the object name {shown} is too long for a file system"
            f" (at most {_MAX_PART_BYTES} bytes a part)"
        )
    return None


def _find_mistake(folder: str, version: int, paths: list[str]) -> str | None:
    if version < 0:
        return f"its folder {show_name(folder)} is a negative number; versions start at 0"
    if _CONTROL.search(folder):
        return f"its folder {show_name(folder)} holds a control character"
    if len(paths) > MAX_FILES:
        return f"it has {len(paths):,} files, more than the {MAX_FILES:,} that a model may have"
    for path in paths:
        if mistake := check_path(path):
            return mistake
    return _find_clash(paths)


def _find_clash(paths: list[str]) -> str | None:
    """Return the sentence about two names that cannot both exist on every file system."""
    spelled: dict[str, str] = {}
    folders: set[str] = set()
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            other = spelled.setdefault(name.casefold(), name)
            if other != name:
                return (
                    f"the object names {show_name(other)} and {show_name(name)} differ only in"
                    " the case of letters"
                )
            if end < len(parts):
                folders.add(name)
    both = folders.intersection(paths)
    return f"the object name {show_name(min(both))} is both a file and a folder" if both else None


def show_name(name: str) -> str:
    """Quote a name so that whatever is in it stays on one line and the sentence stays short."""
    return ascii(name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + "...")
