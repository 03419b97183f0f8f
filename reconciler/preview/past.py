"""What the changed deployments said before the base, read from git.

The versions that nodes keep on disk are those that were in force before, so the history of a
deployment's file and of its lock tells, without asking a node, what a revert need not download.
Only the commits that the branch itself stood at count: what a merged branch said on its way was
never in force. The audit trail (history/read.py) tells more, and reads the whole history for it;
here one look at a few files, back to a bound, is enough.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from reconciler.config_repo.build import build_deployment, build_lock
from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.documents import Document, parse_document
from reconciler.config_repo.layout import Kind, Place, locate, lock_path
from reconciler.config_repo.locks import find_misfits
from reconciler.config_repo.tree import Blob
from reconciler.model import Deployment
from reconciler.preview.standing import Past

MAX_COMMITS = 500
"""Commits that touch a changed deployment; a node keeps its last few versions at most."""
MAX_STATES = 20
"""States of one deployment that are read."""

_MAX_PATHSPECS = 1000
"""More are asked for by their folder: a command line has a length that the system takes."""
_NO_BLOB = "0" * 40
_Ids = tuple[str, str]
"""Blob ids of a deployment's file and of its lock."""


def read_past(checkout: Checkout, base_id: str, paths: Sequence[str]) -> Past:
    """Return what each deployment at `paths` said at the base and before it, newest first.

    Raises GitError when git cannot be read.
    """
    if not paths:
        return {}
    tree = checkout.read_tree(base_id)
    changes = _read_changes(checkout, base_id, [*paths, *map(lock_path, paths)])
    states = {path: list(_go_back(path, tree, changes)) for path in paths}
    wanted = {blob_id for ids in states.values() for pair in ids for blob_id in pair if blob_id}
    texts = {blob.id: data for blob, data in checkout.read_blobs(Blob(i, 0) for i in wanted)}
    return {
        path: [built for pair in ids if (built := _build(path, pair, texts)) is not None]
        for path, ids in states.items()
    }


def _read_changes(
    checkout: Checkout, base_id: str, paths: Iterable[str]
) -> dict[int, dict[str, str]]:
    """Return for each commit, newest first, what the files that it changed were before it."""
    names = {checkout.path_in_repo(path): path for path in paths}
    specs = list(names)
    if len(specs) > _MAX_PATHSPECS:
        specs = sorted({checkout.path_in_repo(path.partition("/")[0]) for path in names.values()})
    output = checkout.git(
        "log",
        "--no-show-signature",
        "--first-parent",
        "--diff-merges=first-parent",
        f"--max-count={MAX_COMMITS}",
        "--format=%x00",
        "--raw",
        "--no-abbrev",
        "--no-renames",
        "-z",
        base_id,
        "--",
        *(f":(literal){spec}" for spec in specs),
    )
    changes: dict[int, dict[str, str]] = defaultdict(dict)
    commit = 0
    before = ""
    for field in output.split("\0"):
        field = field.strip("\n")
        if not field:
            commit += 1
        elif field.startswith(":"):
            before = field.split(" ")[2]
        elif field in names:
            changes[commit][names[field]] = before
    return changes


def _go_back(
    path: str, tree: dict[str, Blob], changes: dict[int, dict[str, str]]
) -> Iterator[_Ids]:
    lock = lock_path(path)
    ids = [tree[name].id if name in tree else "" for name in (path, lock)]
    seen = 0
    for commit in ({}, *(changes[number] for number in sorted(changes))):
        if commit and path not in commit and lock not in commit:
            continue
        for index, name in enumerate((path, lock)):
            if name in commit:
                ids[index] = "" if commit[name] == _NO_BLOB else commit[name]
        if not ids[0] or seen == MAX_STATES:
            return  # a model that left the config repo was deleted with all its versions
        seen += 1
        yield ids[0], ids[1]


def _build(path: str, ids: _Ids, texts: dict[str, bytes]) -> Deployment | None:
    """Return what a deployment said, None where it could not be followed."""
    place = locate(path)
    document = _parse(Kind.DEPLOYMENT, ids[0], texts)
    if not isinstance(place, Place) or document is None:
        return None
    if not ids[1]:
        return build_deployment(path, place, document)
    lock_document = _parse(Kind.LOCK, ids[1], texts)
    if lock_document is None:
        return None
    lock = build_lock(lock_path(path), lock_document)
    deployment = build_deployment(path, place, document, lock)
    return None if find_misfits(deployment, lock, lock_document) else deployment


def _parse(kind: Kind, blob_id: str, texts: dict[str, bytes]) -> Document | None:
    document = parse_document(kind, texts.get(blob_id, b""))
    return document if isinstance(document, Document) else None
