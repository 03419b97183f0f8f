"""Models in Cloud Storage: listed by the official client, read by obstore.

The official client knows the whole listing (crc32c, content encoding) and every kind of
credentials; obstore streams bytes at several times its speed and a fraction of its processor
time. Both are pinned together by the generation.

Retries of a listing are the official client's, within a deadline. Retries of a read are the
caller's, who counts attempts and bytes; obstore's own are off.
"""

import base64
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import obstore
import requests
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.retry import DEFAULT_RETRY
from obstore.exceptions import BaseError, UnauthenticatedError
from obstore.store import GCSStore

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Snapshot, StoredFile
from reconciler.planning.versions import group_versions, show_name
from reconciler.sources.gcs_access import Access
from reconciler.sources.gcs_trouble import explain_listing, explain_read
from reconciler.sources.source import SourceChangedError, describe_change

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig  # not there at run time

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
        """Return the versions under the query's prefix; a pin lists its own names first.

        Those are what begins with `42/` and with `42.`, as an archive does. A pin of which neither
        is there may still be there under a zero-padded name, so then the whole prefix is listed.
        """
        _, prefix = split_gcs_url(query.source)
        self._access.forget_clock()
        name = None if query.version is None else query.scheme.name(query.version)
        if query.version is not None and name is not None:
            listing = self._list_names(query, prefix, name)
            if query.version in listing.snapshots or query.version in listing.refused:
                return listing
        return self._list_names(query, prefix)

    def _list_names(self, query: Query, prefix: str, beginning: str = "") -> Listing:
        files: list[StoredFile] = []
        unfit: dict[str, str] = {}
        try:
            for blob in self._iterate(prefix, beginning):
                path = blob.name.removeprefix(prefix)
                files.append(_to_file(path, blob))
                if blob.content_encoding == "gzip":
                    unfit[path] = (
                        f"the object {show_name(path)} is stored with Content-Encoding gzip, so"
                        " its listed size and checksum are not those of the file; upload it plain"
                    )
        except (GoogleAPIError, GoogleAuthError, requests.RequestException) as error:
            raise explain_listing(
                query.source, self._bucket, error, anonymous=self._access.anonymous
            ) from error
        if len(files) > _MAX_OBJECTS:
            raise SourceError(
                f"{query.source} holds more than {_MAX_OBJECTS:,} objects; give each model a"
                " folder of its own",
                "ListingFailed",
            )
        read_at_seconds = self._access.clock_seconds or time.time()
        return group_versions(query, files, read_at_seconds, unfit)

    def _iterate(self, prefix: str, beginning: str) -> Iterator[Any]:
        """Yield all objects under a prefix, or those that go on after `beginning` with . or /."""
        names = prefix + beginning
        give_up_seconds = time.monotonic() + _LIST_SECONDS
        self._access.renew_token()
        client = self._access.client
        blobs = client.list_blobs(
            client.bucket(self._bucket, user_project=self._access.user_project or None),
            prefix=names or None,
            # In byte order the dot and the slash stand together, right before the digits, so
            # 1.4.1 does not bring 1.4.10 with it.
            start_offset=f"{names}." if beginning else None,
            end_offset=f"{names}0" if beginning else None,
            fields=_FIELDS,
            page_size=_PAGE_OBJECTS,
            timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
            retry=DEFAULT_RETRY.with_timeout(self._retry_seconds),
        )
        for blob in islice(blobs, _MAX_OBJECTS + 1):
            yield blob
            if time.monotonic() > give_up_seconds:
                raise SourceError(
                    f"listing gs://{self._bucket}/{names} took longer than {_LIST_SECONDS} s",
                    "ListingFailed",
                )

    async def read(
        self, snapshot: Snapshot, file: StoredFile, start: int, end: int
    ) -> AsyncGenerator[bytes]:
        """Yield a range of one object in the generation that the snapshot names."""
        _, prefix = split_gcs_url(snapshot.source)
        name = prefix + snapshot.place_of(file)
        shown = f"{snapshot.source}/{snapshot.place_of(file)}"
        try:
            await self._access.ensure_token()
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
        except (BaseError, GoogleAuthError) as error:
            if isinstance(error, UnauthenticatedError):
                self._access.refuse_token()
            raise explain_read(
                shown, self._bucket, error, anonymous=self._access.anonymous
            ) from error
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
    client: ClientConfig = {**_CLIENT, "allow_http": access.endpoint is not None}
    if access.user_project:
        client["default_headers"] = {"x-goog-user-project": access.user_project}
    config: GCSConfig = {"bucket": bucket, "skip_signature": access.anonymous}
    if access.endpoint:
        # fake-gcs-server answers the XML API, which obstore speaks, under its public host name
        # alone; its JSON API's download path has the same shape and is always there.
        config["base_url"] = f"{access.endpoint}/download/storage/v1/b/{bucket}"
        config["bucket"] = "o"
    return GCSStore(
        config=config,
        client_options=client,
        retry_config={"max_retries": 0},
        # Also where nothing is signed: without it obstore would read the machine's credentials,
        # and fail over kinds of them that it does not know.
        credential_provider=access.provide_token,
    )
