"""Opens the source that a URL names, and keeps it: one per bucket, made on first use.

Cloud Storage's libraries take a quarter of a second to import, so a node that serves from a
folder alone never loads them.
"""

import threading
from typing import TYPE_CHECKING

from reconciler.errors import SourceError
from reconciler.sources.file import FileSource, split_file_url
from reconciler.sources.source import Source

if TYPE_CHECKING:
    from reconciler.sources.gcs_access import Access


class Sources:
    """The sources of one node. May be used from several threads.

    `user_project` is billed for what requester-pays buckets cost; None leaves it to the
    environment.
    """

    def __init__(self, user_project: str | None = None) -> None:
        self._user_project = user_project
        self._lock = threading.Lock()
        self._files = FileSource()
        self._buckets: dict[str, Source] = {}
        self._access: Access | None = None

    def close(self) -> None:
        """Let go of the kept connections; a source that was opened is not used any more."""
        with self._lock:
            self._buckets.clear()
            if self._access is not None:
                self._access.close()
                self._access = None

    def open(self, url: str) -> Source:
        """Return the source for a `gs://` or `file://` URL; blocking, as credentials are sought.

        Raises SourceError for any other URL, and where credentials are there but cannot be used.
        """
        if url.startswith("file:"):
            split_file_url(url)
            return self._files
        if not url.startswith("gs:"):
            raise SourceError(
                f"{url!r} is neither gs://bucket/folder nor file:///folder", "BadSource"
            )
        with self._lock:
            return self._open_bucket(url)

    def _open_bucket(self, url: str) -> Source:
        from reconciler.sources.gcs import GcsSource, split_gcs_url
        from reconciler.sources.gcs_access import Access

        bucket, _ = split_gcs_url(url)
        if self._access is not None and self._access.outdated:
            # Reads under way go on with what they have: a source keeps its own access.
            self._access.close()
            self._access = None
            self._buckets.clear()
        if bucket not in self._buckets:
            self._access = self._access or Access(user_project=self._user_project)
            self._buckets[bucket] = GcsSource(bucket, self._access)
        return self._buckets[bucket]
