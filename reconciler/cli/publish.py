"""`reconciler publish`: uploads an exported SavedModel as the next version of a model."""

from pathlib import Path

import click

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, StoredFile
from reconciler.planning.versions import group_versions
from reconciler.planning.wording import format_bytes
from reconciler.sources.file import walk_folder
from reconciler.sources.registry import Sources
from reconciler.sources.upload import upload_version
from reconciler.store.completeness import find_lack


@click.command("publish")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("url")
@click.option(
    "--version",
    type=click.IntRange(min=0),
    help="The version's number. Default: one more than the highest in the source.",
)
def publish(folder: Path, url: str, version: int | None) -> None:
    """Upload the SavedModel in FOLDER to the source URL as its next version.

    URL is the folder that holds the model's versions, as a deployment names it: gs://bucket/model
    or file:///folder. saved_model.pb is written last, so no node takes a part of it. An existing
    version is never overwritten.

    Exit code: 0 published, 1 not published, 2 wrong usage.
    """
    number = publish_version(folder, url, version)
    files, _ = walk_folder(folder)
    size = format_bytes(sum(file.size_bytes for file in files))
    click.echo(f"published {url.rstrip('/')}/{number} ({len(files)} files, {size})")


def publish_version(folder: Path, url: str, version: int | None = None) -> int:
    """Upload the SavedModel in `folder` as a new version of `url` and return its number.

    Raises SourceError: Incomplete for half a SavedModel, BadObjectName for names that no node
    would take, VersionExists, and whatever listing and uploading raise.
    """
    url = url.rstrip("/")
    files = _read_export(folder)
    paths = [file.path for file in files]
    lack = find_lack(folder, paths)
    if lack is not None:
        raise SourceError(
            f"{folder} is not a whole SavedModel: it lacks {lack}; nothing was uploaded",
            "Incomplete",
        )
    listing = _list_source(url)
    taken = set(listing.snapshots) | set(listing.refused)
    if version in taken:
        raise SourceError(
            f"version {version} of {url} exists already; a version is never overwritten, leave"
            f" --version out to publish {max(taken) + 1}",
            "VersionExists",
        )
    number = version if version is not None else max(taken, default=0) + 1
    upload_version(folder, paths, url, number)
    return number


def _read_export(folder: Path) -> list[StoredFile]:
    try:
        files, unfit = walk_folder(folder, "1/")
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}", "PublishFailed") from error
    query = Query(str(folder))
    # The rules for what nodes take are those of a listing, so the export is read as one.
    listing = group_versions(query, files, 0.0, unfit)
    for sentence in listing.refused.values():
        reason = sentence.partition(": ")[2]
        raise SourceError(f"{folder} cannot be published: {reason}", "BadObjectName")
    return [file for snapshot in listing.snapshots.values() for file in snapshot.files]


def _list_source(url: str) -> Listing:
    sources = Sources()
    query = Query(url)
    try:
        return sources.open(url).list(query)
    except SourceError as error:
        if error.reason == "FolderNotFound":  # the first version makes the folder
            return Listing(query, 0.0, {})
        raise
    finally:
        sources.close()
