"""One object of Cloud Storage, known by its name: what it is now, its bytes, another in its place.

What is asked for often is asked for cheaply: the state is one request for metadata, which costs a
tenth of a listing. Replacing is on the condition that the object is still the one that was seen, so
that of two writers the second learns of the first.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from urllib.parse import quote as quote_url

import requests
from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from reconciler.errors import SourceError
from reconciler.model import Snapshot, StoredFile
from reconciler.sources.gcs import GcsSource
from reconciler.sources.gcs_access import Access
from reconciler.sources.gcs_http import BrokenAnswerError
from reconciler.sources.gcs_trouble import RefusedReadError, explain_read, quote
from reconciler.sources.source import Halt, Part, TransientReadError

_FIELDS = "size,generation,crc32c"
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 60
_RETRY_SECONDS = 120
NEW = 0
"""The generation of an object that is not there yet."""
NO_DESCRIPTION = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
)
"""What comes of an answer that describes no object."""


@dataclass(frozen=True, slots=True)
class ObjectState:
    """Which bytes an object has; another generation may have the same ones."""

    generation: int
    size_bytes: int
    crc32c: int


class GcsObject:
    """The object that a URL names. All methods block, and raise SourceError."""

    def __init__(self, url: str, access: Access) -> None:
        """Raises SourceError, BadSource, for a URL that names no object."""
        self._bucket, self._name = split_object_url(url)
        self._url = url
        self._access = access

    def look(self, halt: Halt) -> ObjectState | None:
        """Return what the object is now, None where there is none; one request."""
        place = f"/storage/v1/b/{quote_url(self._bucket, safe='')}/o"
        target = f"{place}/{quote_url(self._name, safe='')}?fields={_FIELDS}"
        try:
            self._access.renew_token()
            with self._access.lines.get(target, self._access.make_headers(), halt) as answer:
                text = answer.read_text()
                if answer.status == HTTPStatus.NOT_FOUND:
                    return None
                if answer.status != HTTPStatus.OK:
                    raise RefusedReadError(answer.status, text.strip())
                return parse_state(text)
        except (OSError, BrokenAnswerError, RefusedReadError, GoogleAuthError) as error:
            halt.check()
            if isinstance(error, RefusedReadError) and error.status == HTTPStatus.UNAUTHORIZED:
                self._access.refuse_token()
            raise explain_read(
                self._url, self._bucket, error, anonymous=self._access.anonymous
            ) from error
        except NO_DESCRIPTION as error:
            raise TransientReadError(
                f"the answer is no description of {self._url} ({type(error).__name__}); what stands"
                " between this node and Cloud Storage must pass its answers on as they are"
            ) from error

    def read(self, state: ObjectState, end: int, halt: Halt) -> Iterator[bytes]:
        """Yield the bytes up to `end` of the object as it was seen.

        Raises SourceChangedError where it was replaced since, and HaltedError, or ends early, after
        a halt.
        """
        folder, _, name = f"{self._bucket}/{self._name}".rpartition("/")
        file = StoredFile(name, state.size_bytes, state.generation, state.crc32c, 0.0)
        snapshot = Snapshot(f"gs://{folder}", 0, "", (file,))
        parts = GcsSource(self._bucket, self._access).read(snapshot, [Part(file, 0, end)], halt)
        return chain.from_iterable(parts)

    def replace(self, path: Path, generation: int) -> bool:
        """Put a file in the object's place if that is still of `generation`; NEW: if none is there.

        Return whether it was. An answer that gets lost may make it look as if it was not.
        """
        bucket = self._access.client.bucket(
            self._bucket, user_project=self._access.user_project or None
        )
        try:
            bucket.blob(self._name).upload_from_filename(
                str(path),
                content_type="application/octet-stream",
                if_generation_match=generation,
                checksum="crc32c",
                timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS),
                retry=DEFAULT_RETRY.with_timeout(_RETRY_SECONDS),
            )
        except PreconditionFailed:
            return False
        except NotFound as error:
            raise SourceError(
                f"{self._url} cannot be written: there is no bucket {self._bucket}",
                "BucketNotFound",
            ) from error
        except Forbidden as error:
            raise SourceError(
                f"{self._url} may not be written; grant this account roles/storage.objectUser on"
                f" bucket {self._bucket}",
                "Forbidden",
            ) from error
        except (
            GoogleAPIError,
            GoogleAuthError,
            requests.RequestException,
            DataCorruption,
        ) as error:
            raise SourceError(
                f"writing {self._url} failed: {quote(error)}; what was there is there still, run"
                " this again",
                "PublishFailed",
            ) from error
        return True


def split_object_url(url: str) -> tuple[str, str]:
    """Return bucket and name of an object; raises SourceError for anything else."""
    bucket, _, name = url.removeprefix("gs://").partition("/")
    if not url.startswith("gs://") or not bucket or not name or name.endswith("/"):
        raise SourceError(f"{url!r} is not of the form gs://bucket/object", "BadSource")
    return bucket, name


def parse_state(text: str) -> ObjectState:
    """Return what an answer says; raises NO_DESCRIPTION."""
    found = json.loads(text)
    state = ObjectState(
        generation=int(found["generation"]),
        size_bytes=int(found["size"]),
        crc32c=int.from_bytes(base64.b64decode(found["crc32c"])),
    )
    if state.generation <= 0 or state.size_bytes < 0:
        raise ValueError("a generation or a size that cannot be")
    return state
