"""What each commit of a branch changed in deployments/, in two passes of `git log`.

Only names and blob ids are read here: the texts are needed for the few entries that are shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.layout import Kind, Place, locate
from reconciler.errors import GitError

HISTORY_TOO_LONG = "HistoryTooLong"

_MAX_OUTPUT_BYTES = 64 * 1024 * 1024
"""Where a command's output is cut: about 150,000 commits. Half a trail would tell lies."""
_MARK = "\x01"
# Everything that a person's git configuration could turn on is said here.
_RAW = (
    "--raw", "-z", "--no-abbrev", "--root", "--full-diff", "--find-renames", "-l2000",
    "--no-follow", "--no-ext-diff", "--no-relative", "--no-color", "--no-show-signature",
    "--no-notes", f"--format={_MARK}%H",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One commit, and what it changed against its first parent."""

    id: str
    files: Mapping[str, tuple[str | None, str | None]]
    """Path in the config of each deployment and lock -> its blob before and after."""
    renames: Mapping[str, str] = field(default_factory=dict)
    """Path of a deployment after -> path before, where git takes one file for the other."""
    touches_others: bool = False
    """Whether it changed files that are neither deployments nor locks."""
    brought: tuple["Step", ...] = ()
    """Of a merge: the commits, no merges, that came to the branch with it, oldest first."""


def read_steps(checkout: Checkout, commit_id: str) -> list[Step]:
    """Return the steps of the first-parent line up to a commit that changed deployments/.

    Oldest first. Raises GitError.
    """
    lines = _read(checkout, "rev-list", "--parents", commit_id).splitlines()
    parents = {own: rest for own, *rest in (line.split() for line in lines)}
    line = [commit_id]
    while parents[line[-1]]:
        line.append(parents[line[-1]][0])
    line.reverse()
    # Each commit is compared once: those of the line are among the first, but for its merges.
    single = _read_log(checkout, commit_id, "--no-merges", "--full-history", "--topo-order")
    inner = {step.id: step for step in reversed(single)}
    merges = _read_log(
        checkout, commit_id, "--merges", "--first-parent", "--diff-merges=first-parent"
    )
    brought = _find_brought(line, parents, inner)
    own = inner | {step.id: replace(step, brought=brought[step.id]) for step in merges}
    return [own[step_id] for step_id in line if step_id in own]


def _find_brought(
    line: Sequence[str], parents: Mapping[str, Sequence[str]], inner: Mapping[str, Step]
) -> dict[str, tuple[Step, ...]]:
    """Return which steps each merge of the line brought; `line` and `inner` are oldest first."""
    seen = set(line)
    order = {step_id: number for number, step_id in enumerate(inner)}
    brought = {}
    # Oldest first, so that each commit belongs to the merge with which it came first.
    for merge in line:
        found = []
        waiting = list(parents[merge][1:])
        while waiting:
            own = waiting.pop()
            if own not in seen:
                seen.add(own)
                waiting += parents[own]
                if own in inner:
                    found.append(own)
        brought[merge] = tuple(inner[own] for own in sorted(found, key=order.__getitem__))
    return brought


def _read_log(checkout: Checkout, commit_id: str, *options: str) -> list[Step]:
    folder = checkout.path_in_repo("deployments")
    output = _read(checkout, "log", *options, *_RAW, commit_id, "--", f":(literal){folder}")
    prefix = f"{checkout.prefix}/" if checkout.prefix else ""
    return list(_parse(output, prefix))


def _read(checkout: Checkout, *arguments: str) -> str:
    output = checkout.git(*arguments)
    # A character takes a byte at least, and no more than four.
    if 4 * len(output) >= _MAX_OUTPUT_BYTES and len(output.encode()) >= _MAX_OUTPUT_BYTES:
        raise GitError(
            f"the history of {checkout.folder} is longer than can be read at once; make a shallow"
            " clone (git clone --shallow-since=2.years.ago) and look there",
            HISTORY_TOO_LONG,
        )
    return output


def _parse(output: str, prefix: str) -> Iterator[Step]:
    step: _Builder | None = None
    tokens = iter(output.split("\0"))
    for token in tokens:
        if token.startswith(_MARK):
            if step is not None:
                yield step.build()
            step = _Builder(token[1:].strip())
        elif step is not None and (attributes := token.lstrip("\n")):
            # :<mode before> <mode after> <id before> <id after> <letter>[<score>]
            mode_before, mode_after, before, after, status = attributes[1:].split(" ")
            old = next(tokens)
            new = next(tokens) if status[0] in "RC" else old
            ids = (_regular(mode_before, before), _regular(mode_after, after))
            step.add(old, new, ids, prefix)
    if step is not None:
        yield step.build()


def _regular(mode: str, blob_id: str) -> str | None:
    """Return the id of a plain file; a symbolic link or a submodule is none."""
    return blob_id if mode.startswith("100") else None


class _Builder:
    """Collects what `git log` prints of one commit."""

    def __init__(self, own: str) -> None:
        self._id = own
        self._files: dict[str, tuple[str | None, str | None]] = {}
        self._renames: dict[str, str] = {}
        self._touches_others = False

    def add(self, old: str, new: str, ids: tuple[str | None, str | None], prefix: str) -> None:
        """Take one changed file; `old` and `new` differ where it was renamed."""
        before, after = ids
        if old == new:
            self._put(new, before, after, prefix)
            return
        kinds = {self._put(old, before, None, prefix), self._put(new, None, after, prefix)}
        if kinds == {Kind.DEPLOYMENT}:
            self._renames[new.removeprefix(prefix)] = old.removeprefix(prefix)

    def _put(self, path: str, before: str | None, after: str | None, prefix: str) -> Kind | None:
        kind = find_kind(path.removeprefix(prefix)) if path.startswith(prefix) else None
        if kind is None:
            self._touches_others = True
        else:
            self._files[path.removeprefix(prefix)] = (before, after)
        return kind

    def build(self) -> Step:
        """Return the commit."""
        return Step(self._id, self._files, self._renames, self._touches_others)


@lru_cache(maxsize=10_000)  # a long past is about few files
def find_kind(path: str) -> Kind | None:
    """Return whether the file at `path` is a deployment or a lock, None where it is neither."""
    place = locate(path)
    if isinstance(place, Place) and place.kind in (Kind.DEPLOYMENT, Kind.LOCK):
        return place.kind
    return None
