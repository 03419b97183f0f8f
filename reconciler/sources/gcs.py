"""Models in Cloud Storage: listed by the official client, read by obstore.

The official client knows the whole listing (crc32c, content encoding) and every kind of
credentials; obstore streams bytes at several times its speed and a fraction of its processor
time. Both are pinned together by the generation.

Retries of a listing are the official client's, within a deadline. Retries of a read are the
caller's, who counts attempts and bytes; obstore's own are off.
"""

import base64
import re
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

import obstore
import requests
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    GoogleAPIError,
    NotFound,
    Unauthorized,
)
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.retry import DEFAULT_RETRY
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import GCSStore

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Snapshot, StoredFile
from reconciler.planning.versions import group_versions, show_name
from reconciler.sources.gcs_access import Access
from reconciler.sources.source import SourceChangedError, TransientReadError, describe_change

if TYPE_CHECKING:
    from obstore.store import ClientConfig  # not there at run time

_FIELDS = "items(name,size,generation,crc32c,updated,contentEncoding),nextPageToken"
_PAGE_OBJECTS = 1000
_MAX_OBJECTS = 1_000_000
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 20
_LIST_SECONDS = 120
_BUFFER_BYTES = 1024 * 1024
_CLIENT: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
    "read_timeout": timedelta(seconds=_ANSWER_SECONDS),
    # A chunk on a slow line may take minutes; a stalled one is caught by the read timeout.
    "timeout": timedelta(minutes=15),
    "user_agent": "tfserving-reconciler",
}


class GcsSource:
    """One bucket. `retry_seconds` bounds how long a page of a listing is tried for."""

    def __init__(self, bucket: str, access: Access, retry_seconds: float = 30.0) -> None:
        self._bucket = bucket
        self._access = access
        self._retry_seconds = retry_seconds
        self._store = _open_store(bucket, access)

    def list(self, query: Query) -> Listing:
        """Return the versions under the query's prefix; a pin lists its own folder first.

        A pin whose folder is empty may still be there under a zero-padded name, so then the whole
        prefix is listed.
        """
        _, prefix = split_gcs_url(query.source)
        self._access.forget_clock()
        if query.version is not None:
            listing = self._list_folder(query, prefix, f"{prefix}{query.version}/")
            if query.version in listing.snapshots or query.version in listing.refused:
                return listing
        return self._list_folder(query, prefix, prefix)

    def _list_folder(self, query: Query, prefix: str, folder: str) -> Listing:
        files: list[StoredFile] = []
        unfit: dict[str, str] = {}
        try:
            for blob in self._iterate(folder):
                path = blob.name.removeprefix(prefix)
                files.append(_to_file(path, blob))
                if blob.content_encoding == "gzip":
                    unfit[path] = (
                        f"the object {show_name(path)} is stored with Content-Encoding gzip, so"
                        " its listed size and checksum are not those of the file; upload it plain"
                    )
        except (GoogleAPIError, GoogleAuthError, requests.RequestException) as error:
            self._raise_list_error(query.source, error)
        if len(files) > _MAX_OBJECTS:
            raise SourceError(
                f"{query.source} holds more than {_MAX_OBJECTS:,} objects; give each model a"
                " folder of its own",
                "ListingFailed",
            )
        read_at_seconds = self._access.clock_seconds or time.time()
        return group_versions(query, files, read_at_seconds, unfit)

    def _iterate(self, folder: str) -> Iterator[Any]:
        give_up_seconds = time.monotonic() + _LIST_SECONDS
        blobs = self._access.client.list_blobs(
            self._bucket,
            prefix=folder or None,
            fields=_FIELDS,
            page_size=_PAGE_OBJECTS,
            timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
            retry=DEFAULT_RETRY.with_timeout(self._retry_seconds),
        )
        for blob in islice(blobs, _MAX_OBJECTS + 1):
            yield blob
            if time.monotonic() > give_up_seconds:
                raise SourceError(
                    f"listing gs://{self._bucket}/{folder} took longer than {_LIST_SECONDS} s",
                    "ListingFailed",
                )

    def _raise_list_error(self, source: str, error: Exception) -> NoReturn:
        if isinstance(error, NotFound):
            raise SourceError(
                f"bucket {self._bucket} of {source} does not exist", "BucketNotFound"
            ) from error
        if isinstance(error, Forbidden):
            raise SourceError(
                f"listing {source} is forbidden; grant this node's service account"
                f" roles/storage.objectViewer on bucket {self._bucket}",
                "Forbidden",
            ) from error
        if isinstance(error, Unauthorized | GoogleAuthError):
            found = "there are none" if self._access.anonymous else "this node's were refused"
            raise SourceError(
                f"listing {source} needs credentials and {found}; give this node a service"
                " account that may read it",
                "Unauthenticated",
            ) from error
        code = f" (HTTP {error.code})" if isinstance(error, GoogleAPICallError) else ""
        raise SourceError(
            f"listing {source} failed{code}: {_shorten(error)}; what is installed stays",
            "ListingFailed",
        ) from error

    async def read(
        self, snapshot: Snapshot, file: StoredFile, start: int, end: int
    ) -> AsyncGenerator[bytes]:
        """Yield a range of one object in the generation that the snapshot names."""
        _, prefix = split_gcs_url(snapshot.source)
        name = f"{prefix}{snapshot.folder}/{file.path}"
        shown = f"{snapshot.source}/{snapshot.folder}/{file.path}"
        try:
            answer = await obstore.get_async(
                self._store,
                name,
                options={"range": (start, end), "version": str(file.generation)},
            )
            if answer.meta["version"] not in (None, str(file.generation)):
                raise SourceChangedError(describe_change(snapshot, file))
            async for buffer in answer.stream(min_chunk_size=_BUFFER_BYTES):
                yield buffer
        except FileNotFoundError as error:
            raise SourceChangedError(describe_change(snapshot, file)) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise SourceError(
                f"reading {shown} is forbidden; grant this node's service account"
                f" roles/storage.objectViewer on bucket {self._bucket}",
                "Forbidden",
            ) from error
        except BaseError as error:
            raise TransientReadError(f"reading {shown} failed: {_shorten(error)}") from error
        except ValueError as error:
            raise SourceError(f"{shown} has a name that cannot be read", "BadSource") from error


def split_gcs_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix of a `gs://` URL; the prefix is empty or ends in a slash.

    Raises SourceError for anything else.
    """
    bucket, _, prefix = url.removeprefix("gs://").rstrip("/").partition("/")
    if not url.startswith("gs://") or not bucket:
        raise SourceError(f"{url!r} is not of the form gs://bucket/folder", "BadSource")
    return bucket, f"{prefix}/" if prefix else ""


def _to_file(path: str, blob: Any) -> StoredFile:
    crc32c = int.from_bytes(base64.b64decode(blob.crc32c)) if blob.crc32c else None
    return StoredFile(path, blob.size, blob.generation, crc32c, blob.updated.timestamp())


def _open_store(bucket: str, access: Access) -> GCSStore:
    if access.emulator:
        # fake-gcs-server answers the XML API, which obstore speaks, under its public host name
        # alone; its JSON API's download path has the same shape and is always there.
        return GCSStore(
            "o",
            config={
                "base_url": f"{access.emulator}/download/storage/v1/b/{bucket}",
                "skip_signature": True,
            },
            client_options={**_CLIENT, "allow_http": True},
            retry_config={"max_retries": 0},
        )
    return GCSStore(
        bucket,
        config={"skip_signature": access.anonymous},
        client_options=_CLIENT,
        retry_config={"max_retries": 0},
        credential_provider=None if access.anonymous else access.provide_token,
    )


def _shorten(error: Exception) -> str:
    """Return the first line of an error's text; what follows are Rust's or HTML's insides.

    The request's own URL goes too: it says nothing to a person, and makes one trouble look like as
    many as there were requests.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r" with url: \S+", "", lines[0])[:300]
