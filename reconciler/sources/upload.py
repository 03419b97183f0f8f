"""Writes one new version to a source, so that nobody can take it before it is whole.

In Cloud Storage saved_model.pb comes last: without it the version is incomplete for every reader.
SHA256SUMS comes before it, from memory: the export is its owner's and is not written to.
Each object is created on the condition that there is none of its name yet, so of two people who
publish the same number at once at most one comes to the end, and every file of a version that is
complete was written by the same one. In a folder the version is copied beside its place and
renamed.
"""

import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reconciler.errors import SourceError
from reconciler.planning.savedmodel import is_model_file
from reconciler.sources.file import split_file_url
from reconciler.sources.sums import SUMS_NAME

_UPLOADS = 8
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 60
_RETRY_SECONDS = 120


def upload_version(folder: Path, paths: Sequence[str], sums: bytes, url: str, name: str) -> None:
    """Write the files `paths` of `folder` to the source as version `name`, which must be new there.

    `sums` becomes its SHA256SUMS, which is not among the paths.

    Raises SourceError: VersionExists where there is such a version, PublishFailed otherwise.
    """
    if url.startswith("gs:"):
        _upload_to_bucket(folder, paths, sums, url, name)
    else:
        _copy_to_folder(folder, paths, sums, split_file_url(url), name)


def _upload_to_bucket(folder: Path, paths: Sequence[str], sums: bytes, url: str, name: str) -> None:
    import requests
    from google.api_core.exceptions import GoogleAPIError, PreconditionFailed
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption
    from google.cloud.storage.retry import DEFAULT_RETRY

    from reconciler.sources.gcs import split_gcs_url
    from reconciler.sources.gcs_access import WRITE_SCOPE, Access
    from reconciler.sources.gcs_trouble import quote

    bucket_name, prefix = split_gcs_url(url)
    access = Access(scope=WRITE_SCOPE)
    bucket = access.client.bucket(bucket_name, user_project=access.user_project or None)

    options: dict[str, Any] = {
        "content_type": "application/octet-stream",
        "if_generation_match": 0,
        "checksum": "crc32c",
        "timeout": (_CONNECT_SECONDS, _ANSWER_SECONDS),
        "retry": DEFAULT_RETRY.with_timeout(_RETRY_SECONDS),
    }

    def upload(path: str) -> None:
        blob = bucket.blob(f"{prefix}{name}/{path}")
        blob.upload_from_filename(str(folder / path), **options)

    try:
        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="publish") as threads:
            list(threads.map(upload, [path for path in paths if not is_model_file(path)]))
        bucket.blob(f"{prefix}{name}/{SUMS_NAME}").upload_from_string(sums, **options)
        for path in filter(is_model_file, paths):
            upload(path)
    except PreconditionFailed as error:
        raise _describe_taken(url, name) from error
    except (GoogleAPIError, GoogleAuthError, requests.RequestException, DataCorruption) as error:
        raise SourceError(
            f"uploading to {url}/{name} failed: {quote(error)}; what is there of it is"
            " incomplete and is not taken by any node, publish again under a new number or name",
            "PublishFailed",
        ) from error
    finally:
        access.close()


def _copy_to_folder(folder: Path, paths: Sequence[str], sums: bytes, top: Path, name: str) -> None:
    partial = None
    try:
        top.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".publishing-{name}-", dir=top))
        for path in paths:
            target = partial / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, target)
        (partial / SUMS_NAME).write_bytes(sums)
        partial.chmod(0o755)
        # On Linux a rename replaces an empty folder and fails on any other.
        partial.rename(top / name)
    except OSError as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if (top / name).exists():
            raise _describe_taken(f"file://{top}", name) from error
        raise SourceError(
            f"copying to {top / name} failed: {error.strerror}", "PublishFailed"
        ) from error


def _describe_taken(url: str, name: str) -> SourceError:
    return SourceError(
        f"version {name} of {url} exists already, or someone is publishing it now; a version is"
        " never overwritten, publish again under a new number or name",
        "VersionExists",
    )
