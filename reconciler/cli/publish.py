"""`reconciler publish`: uploads an exported SavedModel as the next version of a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Rule, StoredFile, VersionScheme
from reconciler.planning.versions import group_versions
from reconciler.planning.wording import format_bytes
from reconciler.sources.file import walk_folder
from reconciler.sources.registry import Sources
from reconciler.sources.sums import (
    MAX_SUMS_BYTES,
    SUMS_NAME,
    parse_sums,
    render_sums,
    sum_files,
)
from reconciler.sources.upload import upload_version
from reconciler.store.completeness import find_lack

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")


@click.command("publish")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("url")
@click.option(
    "--version",
    type=click.IntRange(min=0),
    help="The version's number. Default: one more than the highest in the source.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="The version's name, for deployments that have a version_scheme: 1.43.13, 2026-11-21.",
)
def publish(folder: Path, url: str, version: int | None, name: str | None) -> None:
    """Upload the SavedModel in FOLDER to the source URL as its next version.

    URL is the folder that holds the model's versions, as a deployment names it: gs://bucket/model
    or file:///folder. saved_model.pb is written last, so no node takes a part of it. An existing
    version is never overwritten. Beside the files goes SHA256SUMS, for `reconciler lock` and
    sha256sum(1).

    Exit code: 0 published, 1 not published, 2 wrong usage.
    """
    if name is not None and version is not None:
        raise click.UsageError("a version has a number or a name; give --version or --name")
    if name is not None and (name == "latest" or not _NAME.fullmatch(name)):
        raise click.BadParameter(
            f"{name!r} cannot be the name of a version: write at most 64 letters, digits, dots,"
            " hyphens, underscores and plus signs, and not latest"
        )
    export = read_export(folder)
    if name is None:
        name = str(publish_export(export, url, version))
    else:
        publish_named(export, url, name)
    if export.has_false_sums:
        click.echo(
            f"{SUMS_NAME} of {folder} is not true of its files; a true one was published in its"
            " place, and the export was left as it is",
            err=True,
        )
    files, size = len(export.paths) + 1, format_bytes(export.size_bytes)
    click.echo(f"published {url.rstrip('/')}/{name} ({files} files, {size})")


@dataclass(frozen=True, slots=True)
class Export:
    """A SavedModel in a folder, as it is to be published."""

    folder: Path
    paths: tuple[str, ...]
    """Its files, without a SHA256SUMS."""
    size_bytes: int
    """Sum of all files, with the SHA256SUMS."""
    sums: bytes
    """The SHA256SUMS that is true of the files."""
    has_false_sums: bool
    """Whether the folder has another one."""


def publish_version(folder: Path, url: str, version: int | None = None) -> int:
    """Upload the SavedModel in `folder` as a new version of `url` and return its number.

    Raises SourceError as `read_export` and `publish_export`.
    """
    return publish_export(read_export(folder), url, version)


def read_export(folder: Path) -> Export:
    """Return what there is to publish in a folder.

    Raises SourceError: Incomplete for half a SavedModel, BadObjectName for names that no node
    would take, PublishFailed for what cannot be read.
    """
    try:
        found = {file.path: file for file in _list_export(folder)}
        paths = tuple(path for path in found if path != SUMS_NAME)
        lack = find_lack(folder, paths)
        if lack is not None:
            raise SourceError(
                f"{folder} is not a whole SavedModel: it lacks {lack}; nothing was uploaded",
                "Incomplete",
            )
        sums = sum_files(folder, paths)
        has_false_sums = (folder / SUMS_NAME).exists() and not _says(folder / SUMS_NAME, sums)
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}", "PublishFailed") from error
    text = render_sums(sums)
    size_bytes = sum(found[path].size_bytes for path in paths) + len(text)
    return Export(folder, paths, size_bytes, text, has_false_sums)


def publish_export(export: Export, url: str, version: int | None = None) -> int:
    """Upload an export as a new version of `url` and return its number.

    Raises SourceError: VersionExists, and whatever listing and uploading raise.
    """
    url = url.rstrip("/")
    listing = _list_source(Query(url))
    taken = set(listing.snapshots) | set(listing.refused)
    if version in taken:
        raise SourceError(
            f"version {version} of {url} exists already; a version is never overwritten, leave"
            f" --version out to publish {max(taken) + 1}",
            "VersionExists",
        )
    number = version if version is not None else max(taken, default=0) + 1
    upload_version(export.folder, export.paths, export.sums, url, str(number))
    return number


def publish_named(export: Export, url: str, name: str) -> None:
    """Upload an export as a new version of `url` with a name that need not be a number.

    Raises SourceError: VersionExists, and whatever listing and uploading raise.
    """
    url = url.rstrip("/")
    only = VersionScheme(Rule.NAMES, names=((name, 0),))
    listing = _list_source(Query(url, 0, only))
    if listing.snapshots or listing.refused:
        raise SourceError(
            f"version {name} of {url} exists already; a version is never overwritten, publish"
            " under another name",
            "VersionExists",
        )
    upload_version(export.folder, export.paths, export.sums, url, name)


def _says(path: Path, sums: Mapping[str, str]) -> bool:
    """Whether the SHA256SUMS at `path` says what is true; it may say so in another order."""
    with path.open("rb") as file:
        data = file.read(MAX_SUMS_BYTES)
    try:
        return parse_sums(data) == sums
    except ValueError:
        return False


def _list_export(folder: Path) -> list[StoredFile]:
    """Return an export's files, judged as nodes will judge them; raises OSError."""
    files, unfit = walk_folder(folder, "1/")
    sums = StoredFile(f"1/{SUMS_NAME}", 0, 0, None, 0.0)
    if all(file.path != sums.path for file in files):
        files.append(sums)  # its name must not clash with those that are there
    listing = group_versions(Query(str(folder)), files, 0.0, unfit)
    for sentence in listing.refused.values():
        reason = sentence.partition(": ")[2]
        raise SourceError(f"{folder} cannot be published: {reason}", "BadObjectName")
    return [file for snapshot in listing.snapshots.values() for file in snapshot.files]


def _list_source(query: Query) -> Listing:
    sources = Sources()
    try:
        return sources.open(query.source).list(query)
    except SourceError as error:
        if error.reason == "FolderNotFound":  # the first version makes the folder
            return Listing(query, 0.0, {})
        raise
    finally:
        sources.close()
