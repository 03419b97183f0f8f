"""Models in Cloud Storage: listed by the official client, read over lines of our own.

The official client knows the whole listing (crc32c, content encoding) and every kind of
credentials; the lines bring bytes at several times its speed and a fraction of its processor
time. Both are pinned together by the generation.

Retries of a listing are the official client's, within a deadline. Retries of a read are the
caller's, who counts attempts and bytes.
"""

import base64
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from itertools import islice
from typing import Any
from urllib.parse import quote

import requests
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.retry import DEFAULT_RETRY

from reconciler.errors import SourceError
from reconciler.model import Listing, Query, Snapshot, StoredFile
from reconciler.planning.versions import group_versions, show_name
from reconciler.sources.gcs_access import Access
from reconciler.sources.gcs_http import Answer, BrokenAnswerError
from reconciler.sources.gcs_trouble import RefusedReadError, explain_listing, explain_read
from reconciler.sources.source import Halt, Part, SourceChangedError, describe_change

_FIELDS = "items(name,size,generation,crc32c,md5Hash,updated,contentEncoding),nextPageToken"
_PAGE_OBJECTS = 1000
_MAX_OBJECTS = 1_000_000
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 20
_LIST_SECONDS = 120
_NO_LISTING = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
)
"""What the client raises, and we do, for an answer that is something else."""


class GcsSource:
    """One bucket. `retry_seconds` bounds how long a page of a listing is tried for."""

    def __init__(self, bucket: str, access: Access, retry_seconds: float = 30.0) -> None:
        self._bucket = bucket
        self._access = access
        self._retry_seconds = retry_seconds
        self._path = f"/download/storage/v1/b/{quote(bucket, safe='')}/o"

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
        except _NO_LISTING as error:
            raise SourceError(
                f"the answer is no listing of {query.source} ({type(error).__name__}); what"
                " stands between this node and Cloud Storage must pass its answers on as they are",
                "ListingFailed",
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

    def read(
        self, snapshot: Snapshot, parts: Sequence[Part], halt: Halt
    ) -> Generator[Iterator[bytes]]:
        """Yield the bytes of each part in the generation that the snapshot names."""
        requests = (self._make_request(snapshot, part) for part in parts)
        with closing(self._access.lines.get_each(requests, halt)) as answers:
            for part in parts:
                with self._explaining(snapshot, part.file, halt):
                    answer = next(answers)
                    _check(answer, snapshot, part)
                yield self._read_pieces(answer, snapshot, part.file, halt)

    def _make_request(self, snapshot: Snapshot, part: Part) -> tuple[str, dict[str, str]]:
        _, prefix = split_gcs_url(snapshot.source)
        try:
            # In two steps, as most names have only slashes to quote, which is done quickly.
            name = quote(prefix + snapshot.place_of(part.file)).replace("/", "%2F")
        except UnicodeEncodeError as error:
            raise SourceError(
                f"{_show(snapshot, part.file)} has a name that cannot be read", "BadSource"
            ) from error
        # The condition costs the server nothing, where an old generation had to be looked for.
        target = f"{self._path}/{name}?alt=media&ifGenerationMatch={part.file.generation}"
        self._access.renew_token()
        headers = self._access.make_headers()
        # The last byte is part of a range in HTTP. Nothing is inflated on the way: what is stored
        # is what was summed up.
        headers |= {"Range": f"bytes={part.start}-{part.end - 1}", "Accept-Encoding": "gzip"}
        return target, headers

    def _read_pieces(
        self, answer: Answer, snapshot: Snapshot, file: StoredFile, halt: Halt
    ) -> Iterator[bytes]:
        with self._explaining(snapshot, file, halt):
            yield from answer.read_pieces()

    @contextmanager
    def _explaining(self, snapshot: Snapshot, file: StoredFile, halt: Halt) -> Iterator[None]:
        """Say of whatever comes between what it means to the reader of this file."""
        try:
            yield
        except (OSError, BrokenAnswerError, RefusedReadError, GoogleAuthError) as error:
            halt.check()
            status = error.status if isinstance(error, RefusedReadError) else 0
            if status in (HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED):
                raise SourceChangedError(describe_change(snapshot, file)) from error
            if status == HTTPStatus.UNAUTHORIZED:
                self._access.refuse_token()
            raise explain_read(
                _show(snapshot, file), self._bucket, error, anonymous=self._access.anonymous
            ) from error


def split_gcs_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix of a `gs://` URL; the prefix is empty or ends in a slash.

    Raises SourceError for anything else.
    """
    bucket, _, prefix = url.removeprefix("gs://").rstrip("/").partition("/")
    if not url.startswith("gs://") or not bucket:
        raise SourceError(f"{url!r} is not of the form gs://bucket/folder", "BadSource")
    return bucket, f"{prefix}/" if prefix else ""


def _check(answer: Answer, snapshot: Snapshot, part: Part) -> None:
    """Raise an error for an answer that is not the part that was asked for."""
    if answer.status != HTTPStatus.PARTIAL_CONTENT:
        text = answer.read_text() if answer.status >= HTTPStatus.BAD_REQUEST else ""
        raise RefusedReadError(answer.status, text.strip())
    if answer.headers.get("x-goog-generation") not in (None, str(part.file.generation)):
        raise SourceChangedError(describe_change(snapshot, part.file))
    if not answer.headers.get("content-range", "").startswith(f"bytes {part.start}-"):
        raise RefusedReadError(HTTPStatus.OK, "")


def _show(snapshot: Snapshot, file: StoredFile) -> str:
    return f"{snapshot.source}/{snapshot.place_of(file)}"


def _to_file(path: str, blob: Any) -> StoredFile:
    """Raises ValueError, or what comes of a field that is missing or of another type."""
    crc32c = int.from_bytes(base64.b64decode(blob.crc32c)) if blob.crc32c else None
    size_bytes, generation = int(blob.size), int(blob.generation)
    if size_bytes < 0 or generation < 0:
        raise ValueError("a size or a generation is below zero")
    md5 = base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else None
    return StoredFile(path, size_bytes, generation, crc32c, blob.updated.timestamp(), md5)
