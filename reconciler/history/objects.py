"""Reads the commits and texts that a trail is told by, many at once and in bounded portions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.objects import parse_time
from reconciler.config_repo.tree import Blob
from reconciler.errors import GitError
from reconciler.model import Commit

HISTORY_INCOMPLETE = "HistoryIncomplete"

ItemT = TypeVar("ItemT")

_BATCH = 1000
"""One git command for so many: its output stays in memory, and its start costs next to nothing."""
_MAX_SUBJECT_CHARACTERS = 500
_MAX_BODY_CHARACTERS = 10_000
_FIELDS = ("%H", "%an", "%ae", "%cn", "%ce", "%ct", "%s", "%b")


@dataclass(frozen=True, slots=True)
class Message:
    """What a commit says of itself; long texts are cut."""

    commit: Commit
    author_email: str
    committer: str
    committer_email: str
    body: str


def in_batches(items: Iterable[ItemT], size: int = _BATCH) -> Iterator[list[ItemT]]:
    """Yield the items in portions, each item once."""
    unique = list(dict.fromkeys(items))
    for start in range(0, len(unique), size):
        yield unique[start : start + size]


def read_messages(checkout: Checkout, commit_ids: Iterable[str]) -> dict[str, Message]:
    """Return what the commits say of themselves; raises GitError where one is missing."""
    messages: dict[str, Message] = {}
    for some in in_batches(commit_ids):
        output = checkout.git(
            "log", "-z", "--no-walk=unsorted", "--stdin", "--no-show-signature", "--no-color",
            "--no-notes", f"--format={'%x00'.join(_FIELDS)}",
            stdin="".join(f"{commit_id}\n" for commit_id in some).encode(),
        )  # fmt: skip
        fields = output.split("\0")
        for start in range(0, len(fields) - len(_FIELDS), len(_FIELDS)):
            message = _read_message(fields[start : start + len(_FIELDS)])
            messages[message.commit.id] = message
        if lost := set(some) - messages.keys():
            raise GitError(
                f"git did not tell the messages of {len(lost)} commits of {checkout.top}; run"
                " `git fsck` there, or clone it anew",
                HISTORY_INCOMPLETE,
            )
    return messages


def read_texts(checkout: Checkout, blob_ids: Iterable[str]) -> dict[str, bytes]:
    """Return the bytes of the blobs; raises GitError where one is missing."""
    found = checkout.read_blobs([Blob(blob_id, 0) for blob_id in dict.fromkeys(blob_ids)])
    return {blob.id: data for blob, data in found}


def _read_message(fields: Sequence[str]) -> Message:
    commit_id, author, author_email, committer, committer_email, seconds, subject, body = fields
    return Message(
        Commit(commit_id, author, _cut(subject, _MAX_SUBJECT_CHARACTERS), parse_time(seconds)),
        author_email,
        committer,
        committer_email,
        _cut(body.strip(), _MAX_BODY_CHARACTERS),
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
