"""From the steps of a branch to what happened to each deployment's files.

A file is the same deployment as before where it keeps its path, where it keeps its name in
another group, or where git takes it for a renamed one, in this order.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.config_repo.layout import Kind, lock_path
from reconciler.history.log import Step, find_kind


@dataclass(frozen=True, slots=True)
class Files:
    """A deployment's file and its lock, by their blobs."""

    path: str
    blob_id: str
    lock_blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One change of one deployment's files."""

    thread: int
    """The deployment: the same number through renames and moves."""
    commit_id: str
    before: Files | None
    after: Files | None
    only_this: bool
    merge_id: str | None = None
    """The merge with which `commit_id` came, where it was not made on the branch."""
    part_ids: tuple[str, ...] = ()
    """Where `commit_id` is a merge: the merged commits that touched these files."""

    @property
    def newest(self) -> Files:
        """The files after the change, or as they were before they were removed."""
        files = self.after or self.before
        assert files is not None  # a turn from nothing to nothing is not made  # noqa: S101
        return files


def trace(steps: Iterable[Step]) -> list[Turn]:
    """Return all changes, in the order of the steps, which begin with the first of the branch."""
    tracer = _Tracer()
    return [turn for step in steps for turn in tracer.take(step)]


class _Tracer:
    """Replays the branch and knows which deployment each path is."""

    def __init__(self) -> None:
        self._blobs: dict[str, str] = {}
        self._threads: dict[str, int] = {}
        """Path -> the deployment that is there, or was there last."""
        self._count = 0

    def take(self, step: Step) -> Iterator[Turn]:
        paths = sorted({_deployment_of(path) for path in step.files})
        before = {path: _find(self._blobs, path) for path in paths}
        for path, (_, blob_id) in step.files.items():
            _put(self._blobs, path, blob_id)
        after = {path: _find(self._blobs, path) for path in paths}
        gone = [path for path in paths if before[path] and not after[path]]
        came = [path for path in paths if after[path] and not before[path]]
        origins = _match(gone, came, step.renames)
        # All are looked up before any is set: two files may have changed places.
        moved = {new: self._threads.pop(old) for new, old in origins.items()}
        for path in paths:
            old = before[origins.get(path, path)]
            if path in origins.values() or old == after[path]:
                continue
            thread = moved[path] if path in moved else self._threads.get(path)
            if thread is None:
                self._count += 1
                thread = self._count
            self._threads[path] = thread
            yield from _tell(step, thread, old, after[path])


def _match(gone: list[str], came: list[str], renames: Mapping[str, str]) -> dict[str, str]:
    """Return for each path that came the one that it was before, as far as there is one."""
    origins = {}
    for path in came:
        namesakes = [old for old in gone if _name(old) == _name(path)]
        rivals = [new for new in came if _name(new) == _name(path)]
        if len(namesakes) == 1 and len(rivals) == 1:
            origins[path] = namesakes[0]
    for path in came:
        old = renames.get(path)
        if old is None or path in origins or old in origins.values() or old not in gone:
            continue
        origins[path] = old
    return origins


def _tell(step: Step, thread: int, before: Files | None, after: Files | None) -> Iterator[Turn]:
    """Yield the change from `before` to `after` by the commits that made it."""
    paths = _paths(before) | _paths(after)
    parts = [part for part in step.brought if not paths.isdisjoint(part.files)]
    stages = _retrace(parts, paths, before, after)
    if stages is None:
        part_ids = tuple(part.id for part in parts)
        only_this = _is_only(step, paths)
        yield Turn(thread, step.id, before, after, only_this, part_ids=part_ids)
        return
    for part, old, new in stages:
        yield Turn(thread, part.id, old, new, _is_only(part, paths), merge_id=step.id)


def _retrace(
    parts: list[Step], paths: set[str], before: Files | None, after: Files | None
) -> list[tuple[Step, Files | None, Files | None]] | None:
    """Return how the parts lead from `before` to `after`, None where they do not."""
    homes = {files.path for files in (before, after) if files}
    blobs = _blobs(before)
    stages = []
    current = before
    for part in parts:
        for path in paths & part.files.keys():
            expected, blob_id = part.files[path]
            if blobs.get(path) != expected:
                return None
            _put(blobs, path, blob_id)
        found = [files for path in homes if (files := _find(blobs, path))]
        if before and after and len(found) != 1:
            return None  # it was in two places, or in one that only the merged branch knew
        reached = found[0] if found else None
        if reached != current:
            stages.append((part, current, reached))
        current = reached
    return stages if stages and current == after and blobs == _blobs(after) else None


def _is_only(step: Step, paths: set[str]) -> bool:
    return not step.touches_others and step.files.keys() <= paths


def _find(blobs: Mapping[str, str], path: str) -> Files | None:
    blob_id = blobs.get(path)
    return None if blob_id is None else Files(path, blob_id, blobs.get(lock_path(path)))


def _put(blobs: dict[str, str], path: str, blob_id: str | None) -> None:
    if blob_id is None:
        blobs.pop(path, None)
    else:
        blobs[path] = blob_id


def _blobs(files: Files | None) -> dict[str, str]:
    if files is None:
        return {}
    lock = {} if files.lock_blob_id is None else {lock_path(files.path): files.lock_blob_id}
    return {files.path: files.blob_id, **lock}


def _paths(files: Files | None) -> set[str]:
    return set() if files is None else {files.path, lock_path(files.path)}


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _deployment_of(path: str) -> str:
    return f"{path.removesuffix('.lock.yaml')}.yaml" if find_kind(path) is Kind.LOCK else path
