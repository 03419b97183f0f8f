"""Whatever people do to three models on branches and main, the trail tells all of it and no more.

Histories are made of random edits and written by `git fast-import`. The trail, replayed from its
oldest entry on, must give the files of every commit of the branch, and one deployment's entries
must form a chain.
"""

import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.config_repo.checkout import Checkout
from reconciler.history.read import Entry, State, read_history
from tests.gitserver import git

GROUPS = ("search", "vision")
MODELS = ("ranker", "speller", "similar")
Tree = dict[str, str]
Key = tuple[str, str, str | None]

homes = st.tuples(st.sampled_from(GROUPS), st.sampled_from(MODELS))
versions = st.one_of(st.just("latest"), st.integers(0, 3))
edits = st.one_of(
    st.tuples(st.just("write"), homes, versions),
    st.tuples(st.just("lock"), homes, st.integers(0, 3)),
    st.tuples(st.just("unlock"), homes),
    st.tuples(st.just("break"), homes),
    st.tuples(st.just("remove"), homes),
    st.tuples(st.just("move"), homes, homes),
    st.tuples(st.just("move and write"), homes, homes),
    st.tuples(st.just("note"), st.integers(0, 3)),
)
commits = st.lists(edits, min_size=1, max_size=3)
pull_requests = st.tuples(
    st.lists(commits, min_size=1, max_size=3),  # on the branch
    st.lists(commits, max_size=2),  # on main, meanwhile
    st.sampled_from(["theirs", "ours", "both", "resolved"]),
    commits,
)
histories = st.lists(st.one_of(commits, pull_requests), min_size=1, max_size=7)


@dataclass
class Writer:
    """Writes commits as a stream for `git fast-import`, and knows the files of each."""

    trees: list[Tree] = field(default_factory=lambda: [{}])
    parents: dict[int, list[int]] = field(default_factory=dict)
    line: list[int] = field(default_factory=list)
    """The marks of the commits of main, oldest first."""
    stream: list[str] = field(default_factory=list)

    def commit(self, tree: Tree, parents: list[int], *, on_main: bool) -> int:
        mark = len(self.trees)
        self.trees.append(tree)
        self.parents[mark] = parents
        who = f"Ada <ada@example.org> {1_700_000_000 + mark} +0000"
        self.stream.append(
            f"commit refs/heads/{'main' if on_main else 'side'}\nmark :{mark}\n"
            f"author {who}\ncommitter {who}\ndata 2\n{mark % 10}\n"
        )
        words = ["from", *["merge"] * (len(parents) - 1)]
        self.stream += (f"{word} :{own}\n" for word, own in zip(words, parents, strict=False))
        self.stream.append("deleteall\n")
        for path, text in tree.items():
            self.stream.append(f"M 644 inline {path}\ndata {len(text)}\n{text}\n")
        self.stream.append("\n")
        if on_main:
            self.line.append(mark)
        return mark


def write(history: list[Any]) -> Writer:
    writer = Writer()
    head = writer.commit({}, [], on_main=True)
    for item in history:
        if isinstance(item, list):
            head = writer.commit(edit(writer.trees[head], item), [head], on_main=True)
            continue
        branch, meanwhile, result, more = item
        base, side = writer.trees[head], head
        for changes in branch:
            side = writer.commit(edit(writer.trees[side], changes), [side], on_main=False)
        for changes in meanwhile:
            head = writer.commit(edit(writer.trees[head], changes), [head], on_main=True)
        ours, theirs = writer.trees[head], writer.trees[side]
        merged = {"ours": ours, "theirs": theirs}.get(result, mix(base, ours, theirs))
        if result == "resolved":
            merged = edit(merged, more)
        head = writer.commit(merged, [head, side], on_main=True)
    return writer


def mix(base: Tree, ours: Tree, theirs: Tree) -> Tree:
    """Merge file by file; where both sides changed one, theirs counts."""
    tree = {}
    for path in base.keys() | ours.keys() | theirs.keys():
        chosen = ours if theirs.get(path) == base.get(path) else theirs
        if path in chosen:
            tree[path] = chosen[path]
    return tree


def edit(tree: Tree, changes: list[Any]) -> Tree:
    tree = dict(tree)
    for what, *arguments in changes:
        if what == "note":
            tree["README.md"] = f"note {arguments[0]}\n"
            continue
        home, *rest = arguments
        path, lock = paths(home)
        match what:
            case "write":
                text = f"source: gs://acme/{home[1]}\nversion: {rest[0]}\nreplicas: 1\n"
                tree[path] = text
            case "lock":
                tree[lock] = (
                    f"model: {home[1]}\nsource: gs://acme/{home[1]}\nversion: {rest[0]}\n"
                    "locked: []\n"
                )
            case "unlock":
                tree.pop(lock, None)
            case "break":
                tree[path] = "source: [\n"
            case "remove":
                tree.pop(path, None)
                tree.pop(lock, None)
            case _:
                for old, new in zip((path, lock), paths(rest[0]), strict=True):
                    if old in tree:
                        tree[new] = tree.pop(old) + ("# moved\n" if "write" in what else "")
    return tree


def paths(home: tuple[str, str]) -> tuple[str, str]:
    stem = f"deployments/{home[0]}/{home[1]}"
    return f"{stem}.yaml", f"{stem}.lock.yaml"


def files_of(tree: Tree) -> Counter[Key]:
    """The deployments of a tree with their blobs, as git names them."""
    return Counter(
        (path, blob_id(text), blob_id(tree[lock]) if lock in tree else None)
        for group in GROUPS
        for model in MODELS
        for path, lock in [paths((group, model))]
        if (text := tree.get(path)) is not None
    )


def blob_id(text: str) -> str:
    return hashlib.sha1(f"blob {len(text)}\0{text}".encode(), usedforsecurity=False).hexdigest()


def key(state: State | None) -> list[Key]:
    return [] if state is None else [(state.path, state.blob_id, state.lock_blob_id)]


def files(state: State | None) -> dict[str, str]:
    if state is None:
        return {}
    lock = state.path.replace(".yaml", ".lock.yaml")
    return {state.path: state.blob_id} | ({lock: state.lock_blob_id} if state.lock_blob_id else {})


def changed_files(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """The files that differ; a lock counts where its deployment was at one path all the time.

    Else it may lie there before its deployment comes, or stay behind when that goes.
    """
    paths = old.keys() | new.keys()
    stays = any(".lock." not in path for path in old.keys() & new.keys())
    return [
        path for path in paths if old.get(path) != new.get(path) and (stays or ".lock." not in path)
    ]


def blob_at(tree: Tree, path: str) -> str | None:
    return blob_id(tree[path]) if path in tree else None


def check_states(entries: list[Entry], texts: dict[str, str]) -> None:
    for state in (state for entry in entries for state in (entry.before, entry.after) if state):
        text = texts[state.blob_id]
        if "source: [" in text:
            assert not state.is_readable
            continue
        written = text.split("version: ")[1].split("\n")[0]
        assert state.version == (None if written == "latest" else int(written))
        if state.lock_blob_id is not None:
            assert f"version: {state.locked}\n" in texts[state.lock_blob_id]


def check_chain(entries: list[Entry], path: str) -> None:
    assert entries[0].after is not None
    assert entries[0].after.path == path
    assert entries[-1].before is None
    for newer, older in pairwise(entries):
        assert newer.before == older.after


@settings(max_examples=40)
@given(history=histories)
@example(  # the branch takes the lock away for which main adds the deployment
    history=[
        [("lock", ("search", "similar"), 0)],
        (
            [[("unlock", ("search", "similar"))]],
            [[("write", ("search", "similar"), "latest")]],
            "both",
            [],
        ),
    ]
)
@example(  # the branch copies first, and removes then
    history=[
        [("break", ("vision", "ranker"))],
        (
            [[("write", ("search", "ranker"), "latest")], [("remove", ("vision", "ranker"))]],
            [],
            "theirs",
            [],
        ),
    ]
)
def test_the_trail_replays_to_the_files_of_each_commit(
    history: list[Any],
) -> None:
    writer = write(history)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        git("init", "--quiet", "--initial-branch=main", name)
        stream = "".join(writer.stream).encode()
        git("fast-import", "--quiet", "--export-marks=marks", cwd=folder, stdin=stream)
        marks = {
            int(mark[1:]): commit_id
            for mark, commit_id in map(str.split, (folder / "marks").read_text().splitlines())
        }
        entries = read_history(Checkout(folder), "main")[::-1]
        alive = sorted(files_of(writer.trees[writer.line[-1]]))
        for path, _, _ in alive[:1]:
            name_in_group = path.removeprefix("deployments/").removesuffix(".yaml")
            check_chain(read_history(Checkout(folder), "main", name_in_group), path)

    current: Counter[Key] = Counter()
    told = 0
    for mark in writer.line:
        here = [entry for entry in entries if entry.landed.id == marks[mark]]
        told += len(here)
        gained, lost = Counter[Key](), Counter[Key]()
        for entry in here:
            assert key(entry.before) != key(entry.after)
            gained.update(key(entry.after))
            lost.update(key(entry.before))
        current.update(gained)
        current.subtract(lost)
        assert +current == files_of(writer.trees[mark])
        assert not -current, "something left that was not there"
    assert told == len(entries)
    listed = Counter((entry.commit.id, *key(entry.before), *key(entry.after)) for entry in entries)
    assert max(listed.values(), default=1) == 1, "a change is listed once"
    mark_of = {commit_id: mark for mark, commit_id in marks.items()}
    for entry in entries:
        mark = mark_of[entry.commit.id]
        parent = next(iter(writer.parents[mark]), 0)
        old, new = files(entry.before), files(entry.after)
        for path in changed_files(old, new):
            assert old.get(path) == blob_at(writer.trees[parent], path), "it began with this"
            assert new.get(path) == blob_at(writer.trees[mark], path), "it made this"
    check_states(entries, {blob_id(t): t for tree in writer.trees for t in tree.values()})
