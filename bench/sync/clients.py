"""The Python libraries among the peers, each used as its documentation shows, in its own process.

    python -m bench.sync.clients (plain|threads|transfer_manager|kserve) TARGET BUCKET PREFIX [N]

It may run in another virtualenv than ours, so it imports nothing of ours. Like the agent, a library
is given the time to be loaded.
"""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clock import wait_for_start

_LARGE_BYTES = 64 * 1024 * 1024


def copy_plain(target: Path, bucket: str, prefix: str, _: int) -> None:
    """google-cloud-storage, one object after the other."""
    for blob, path in _list(target, bucket, prefix):
        blob.download_to_filename(path)


def copy_threads(target: Path, bucket: str, prefix: str, count: int) -> None:
    """google-cloud-storage, several objects at a time in threads."""
    with ThreadPoolExecutor(count) as threads:
        done = [
            threads.submit(blob.download_to_filename, path)
            for blob, path in _list(target, bucket, prefix)
        ]
        for future in done:
            future.result()


def copy_transfer_manager(target: Path, bucket: str, prefix: str, count: int) -> None:
    """google-cloud-storage's transfer_manager: chunks for large objects, the others as many."""
    from google.cloud.storage import transfer_manager  # loaded by now

    small = []
    for blob, path in _list(target, bucket, prefix):
        if blob.size < _LARGE_BYTES:
            small.append((blob, path))
            continue
        transfer_manager.download_chunks_concurrently(blob, path, max_workers=count)
    for result in transfer_manager.download_many(small, max_workers=count):
        if result is not None:
            raise result


def copy_kserve(target: Path, bucket: str, prefix: str, _: int) -> None:
    """KServe's storage initializer."""
    from kserve_storage import Storage  # loaded by now

    Storage.download(f"gs://{bucket}/{prefix}", str(target))


def _list(target: Path, bucket: str, prefix: str) -> "list[tuple[Any, str]]":
    from google.cloud import storage

    client = storage.Client.create_anonymous_client()
    found = []
    for blob in client.list_blobs(bucket, prefix=f"{prefix}/"):
        path = target / blob.name.removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        found.append((blob, str(path)))
    return found


if __name__ == "__main__":
    copy = globals()[f"copy_{sys.argv[1]}"]
    importlib.import_module("google.cloud.storage.transfer_manager")
    if copy is copy_kserve:
        importlib.import_module("kserve_storage")
    wait_for_start()
    copy(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int((sys.argv[5:] or ["8"])[0]))
