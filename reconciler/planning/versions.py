"""Which names are versions, by TensorFlow Serving's own rule, and which names are dangerous.

A source is listed once; this module turns the flat list of objects into versions. What is wrong
in one version refuses that version alone. Object names come from whoever may write to the bucket
and end as paths on every node, so anything that is not plainly a relative path is refused here,
before a byte is fetched.

A version is a folder of files (`42/saved_model.pb`), a folder with one archive alone in it
(`42/model.tar.gz`, a SHA256SUMS beside it or not), or an archive beside the others (`42.zip`).
The names say which; where they allow two answers the version is refused. Where a deployment names
its versions by another scheme, `1.43.13` stands in the place of `42`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconciler.model import Listing, Query, Rule, Snapshot, StoredFile, VersionScheme

MAX_FILES = 100_000
"""Files in one version; SavedModels have tens, and a manifest must fit in memory."""

SUMS_NAME = "SHA256SUMS"
"""The list of sha256 sums that may lie beside a version's files."""
BAD_ARCHIVE = "BadArchive"
"""What a version is packed in cannot be unpacked safely, or at all; other bytes are needed."""

_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")
_MAX_PART_BYTES = 255
_MAX_PATH_BYTES = 1024
_MAX_PARTS = 32
"""Folders within each other, and the name; SavedModels have three. Deleting holds each open."""
# absl::SimpleAtoi: the whole name, ASCII blanks around it and one sign tolerated
# (TensorFlow Serving 2.20 source, file_system_storage_path_source.cc, ParseVersionNumber).
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)[ \t\n\v\f\r]*")
_INT64_MAX = 2**63 - 1
_MAX_NAME = 64
_NAMED = 3
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


def parse_folder_name(name: str, scheme: VersionScheme) -> int | None:
    """Return the version that a folder of this name is in a source, or None."""
    return parse_version(name) if scheme.rule is Rule.NUMBER else scheme.parse(name)


def parse_archive_name(name: str, scheme: VersionScheme) -> int | None:
    """Return the version that an archive of this name is, as in `42.tar.gz`, or None."""
    for suffix in _ARCHIVE_SUFFIXES:
        if name.endswith(suffix):
            return parse_folder_name(name.removesuffix(suffix), scheme)
    return None


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
    TensorFlow Serving. An archive beside a folder or another archive of its version refuses it.
    """
    unfit = unfit or {}
    scheme = query.scheme
    folders: dict[str, list[StoredFile]] = {}
    archives: dict[int, list[StoredFile]] = {}
    for file in files:
        folder, separator, path = file.path.partition("/")
        if not separator and (packed := parse_archive_name(folder, scheme)) is not None:
            archives.setdefault(packed, []).append(file)
        elif parse_folder_name(folder, scheme) is not None and not path.endswith("/") and path:
            folders.setdefault(folder, []).append(replace(file, path=path))
    snapshots: dict[int, Snapshot] = {}
    refused: dict[int, str] = {}
    places: dict[int, list[str]] = {}

    def settle(snapshot: Snapshot, mistake: str | None) -> None:
        version, stored = snapshot.version, map(snapshot.place_of, snapshot.files)
        snapshots.pop(version, None)
        refused.pop(version, None)
        mistake = mistake or next((unfit[place] for place in stored if place in unfit), None)
        if mistake is None:
            snapshots[version] = snapshot
        else:
            place = f"version {scheme.show(version)} of {query.source}"
            refused[version] = f"{place} is refused: {mistake}"

    for folder in sorted(folders, key=lambda name: name.encode("utf-8", "surrogatepass")):
        version = parse_folder_name(folder, scheme)
        if version is None:
            continue
        paths = [file.path for file in folders[folder]]
        ordered = tuple(sorted(folders[folder], key=lambda file: file.path))
        lone = _list_lone_archives(paths)
        archive = lone[0] if len(lone) == 1 else None
        mistake = _find_mistake(folder, version, paths)
        if mistake is None and len(lone) > 1:
            mistake = (
                f"it holds {len(lone)} archives ({_name_some(lone)}) and nobody can tell which"
                " one is the model; leave one of them"
            )
        alias = scheme.alias(version)
        snapshot = Snapshot(query.source, version, folder, ordered, archive=archive, name=alias)
        settle(snapshot, mistake)
        places.setdefault(version, []).append(f"{folder}/")
    for version, found in archives.items():
        names = [file.path for file in found]
        mistake = _find_mistake(names[0], version, names)
        if len(rivals := [*places.get(version, ()), *names]) > 1:
            mistake = (
                f"it is there more than once ({_name_some(rivals)}) and nobody can tell which one"
                " is meant; leave one of them"
            )
        snapshot = Snapshot(
            query.source,
            version,
            "",
            tuple(found),
            archive=names[0],
            name=scheme.alias(version),
        )
        settle(snapshot, mistake)
    return Listing(query, read_at_seconds, snapshots, refused)


def check_path(path: str, noun: str = "object name") -> str | None:
    """Return what makes `path` unfit to become a path on a node, or None when it is fit.

    `noun` says in the sentence what it is the name of.
    """
    shown = f"the {noun} {show_name(path)}"
    if _CONTROL.search(path):
        return f"{shown} holds a control character"
    if "\\" in path:
        return f"{shown} holds a backslash"
    if path.startswith("/"):
        return f"{shown} would be an absolute path"
    parts = path.split("/")
    if "" in parts:
        return f"{shown} has an empty part between two slashes"
    if "." in parts or ".." in parts:
        return f"{shown} has a part that points elsewhere (. or ..)"
    if len(path.encode()) > _MAX_PATH_BYTES or any(
        len(part.encode()) > _MAX_PART_BYTES for part in parts
    ):
        return f"{shown} is too long for a file system (at most {_MAX_PART_BYTES} bytes a part)"
    if len(parts) > _MAX_PARTS:
        return f"{shown} lies too deep (at most {_MAX_PARTS} parts)"
    return None


class Names:
    """The names of one version, taken in one after the other.

    The folders that they lie in count as well: a file of a few bytes may bring dozens of them.
    """

    def __init__(self, noun: str = "object name") -> None:
        self._noun = noun
        self._spelled: dict[str, str] = {}
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, path: str, *, is_folder: bool = False) -> str | None:
        """Take in a name; return what makes it unfit to be on a node beside the others.

        Not every file system has room for two names that differ in case alone.
        """
        if mistake := check_path(path, self._noun):
            return mistake
        if path in self._files:
            what = "both a file and a folder" if is_folder else "there twice"
            return f"the {self._noun} {show_name(path)} is {what}"
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            name = "/".join(parts[:end])
            other = self._spelled.setdefault(name.casefold(), name)
            if other != name:
                return (
                    f"the {self._noun}s {show_name(other)} and {show_name(name)} differ only in"
                    " the case of letters"
                )
            is_file = end == len(parts) and not is_folder
            if name in (self._folders if is_file else self._files):
                return f"the {self._noun} {show_name(name)} is both a file and a folder"
            (self._files if is_file else self._folders).add(name)
        if len(self._spelled) > MAX_FILES:
            return f"it has more than the {MAX_FILES:,} files and folders that a model may have"
        return None


def _list_lone_archives(paths: list[str]) -> list[str]:
    """Return the archives in a version's folder, provided that nothing else is in it."""
    content = [path for path in paths if path != SUMS_NAME]
    if all("/" not in path and path.endswith(_ARCHIVE_SUFFIXES) for path in content):
        return sorted(content)
    return []


def _find_mistake(folder: str, version: int, paths: list[str]) -> str | None:
    if version < 0:
        return f"its name {show_name(folder)} is a negative number; versions start at 0"
    if _CONTROL.search(folder):
        return f"its name {show_name(folder)} holds a control character"
    if len(paths) > MAX_FILES:
        return f"it has {len(paths):,} files, more than the {MAX_FILES:,} that a model may have"
    names = Names()
    return next(filter(None, map(names.add, paths)), None)


def _name_some(names: list[str]) -> str:
    shown = [show_name(name) for name in names[:_NAMED]]
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*shown, *more])


def show_name(name: str) -> str:
    """Quote a name so that whatever is in it stays on one line and the sentence stays short."""
    return ascii(name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + "...")
