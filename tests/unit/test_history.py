"""The audit trail of real git histories: every change once, under the name of who made it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.names import UnknownModelError
from reconciler.errors import GitError
from reconciler.history import log as history_log
from reconciler.history.read import Entry, read_history
from reconciler.model import Strategy
from tests.gitserver import git

RANKER = "deployments/search/ranker.yaml"
LOCK = "deployments/search/ranker.lock.yaml"
SPELLER = "deployments/search/speller.yaml"
Files = Mapping[str, str | bytes | None]


@pytest.fixture(autouse=True)
def _own_git_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


class Clone:
    """A repository in which a test commits."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder = folder
        self.prefix = prefix
        (folder / prefix).mkdir(parents=True)
        git("init", "--quiet", "--initial-branch=main", str(folder))

    def run(self, *arguments: str) -> str:
        return git(*arguments, cwd=self.folder)

    def commit(self, files: Files, message: str = "Change", author: str = "") -> str:
        for path, content in files.items():
            file = self.folder / self.prefix / path
            if content is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.run("add", "--all")
        options = [f"--author={author}"] if author else []
        self.run("commit", "--quiet", "--allow-empty", "-m", message, *options)
        return self.head

    @property
    def head(self) -> str:
        return self.run("rev-parse", "HEAD")

    def read(self, model: str | None = None, **more: object) -> list[Entry]:
        checkout = Checkout(self.folder / self.prefix)
        return read_history(checkout, model=model, **more)  # type: ignore[arg-type]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


def deployment(version: int | str, *lines: str, source: str = "gs://b/ranker") -> str:
    return "\n".join([f"source: {source}", f"version: {version}", *lines, ""])


def lock(version: int, digest: str = "a" * 64) -> str:
    return (
        f"model: ranker\nsource: gs://b/ranker\nversion: {version}\nlocked:\n"
        f"  - {{version: {version}, files: 1, bytes: 5, digest: 'sha256:{digest}'}}\n"
    )


def versions(entries: list[Entry]) -> list[tuple[int | None, int | None]]:
    return [
        (entry.before.serves if entry.before else None, entry.after.serves if entry.after else None)
        for entry in entries
    ]


# --- one line of commits ----------------------------------------------------------------------


def test_each_change_names_who_and_why_newest_first(clone: Clone) -> None:
    first = clone.commit({RANKER: deployment(41)}, "Begin")
    second = clone.commit(
        {RANKER: deployment(42)},
        "Roll ranker out\n\nBetter by 2 %.\n\nSee the report.",
        "Grace <grace@example.org>",
    )

    newest, oldest = clone.read()

    assert (newest.commit.id, oldest.commit.id) == (second, first)
    assert (newest.commit.author, newest.author_email) == ("Grace", "grace@example.org")
    assert (newest.committer, newest.committer_email) == ("Ada", "ada@example.org")
    assert newest.commit.subject == "Roll ranker out"
    assert newest.body == "Better by 2 %.\n\nSee the report."
    assert (newest.group, newest.model, newest.path) == ("search", "ranker", RANKER)
    assert versions([newest, oldest]) == [(41, 42), (None, 41)]
    assert oldest.before is None
    assert newest.before == oldest.after
    assert newest.landed == newest.commit


def test_every_field_that_nodes_follow_is_in_the_state(clone: Clone) -> None:
    lines = (
        "model: rank", "labels: {stable: 41}", "replicas: 2", "stop: true", "suspend: true",
        "rollout: {strategy: recreate}",
    )  # fmt: skip
    clone.commit({RANKER: deployment(42, *lines, source="gs://b/other/")})

    (entry,) = clone.read()

    after = entry.after
    assert after is not None
    assert (after.group, after.model, after.source) == ("search", "rank", "gs://b/other")
    assert (after.version, after.labels, after.replicas) == (42, {"stable": 41}, 2)
    assert (after.stop, after.suspend, after.strategy) == (True, True, Strategy.RECREATE)
    assert after.blob_id == clone.run("rev-parse", f"HEAD:{RANKER}")


def test_a_lock_commit_is_what_moves_latest(clone: Clone) -> None:
    clone.commit({RANKER: deployment("latest")})
    clone.commit({LOCK: lock(41)})
    clone.commit({LOCK: lock(42)})
    clone.commit({LOCK: lock(42, "b" * 64)})
    clone.commit({LOCK: None})

    entries = clone.read("ranker")

    assert versions(entries) == [(42, None), (42, 42), (41, 42), (None, 41), (None, None)]
    assert entries[1].after is not None
    assert entries[1].after.locked_digest == "b" * 64
    assert entries[1].after.lock_blob_id == clone.run("rev-parse", f"HEAD~1:{LOCK}")
    assert {entry.path for entry in entries} == {RANKER}


def test_a_pin_counts_more_than_a_lock_that_does_not_fit_it(clone: Clone) -> None:
    clone.commit({RANKER: deployment(43), LOCK: lock(42)})

    assert versions(clone.read()) == [(None, 43)]


def test_a_model_keeps_its_history_when_it_moves_and_is_renamed(clone: Clone) -> None:
    clone.commit({RANKER: deployment(41), SPELLER: deployment(1, source="gs://b/speller")})
    moved = "deployments/vision/ranker.yaml"
    # Nothing in it is as it was, so only its name tells what it is.
    clone.commit({RANKER: None, moved: "version: 7\nsource: gs://elsewhere/x\nreplicas: 3\n"})
    filed = "deployments/vision/rank.yaml"
    text = "version: 7\nsource: gs://elsewhere/x\nreplicas: 3\nmodel: ranker\n"
    clone.commit({moved: None, filed: text})
    clone.commit({filed: text.replace("model: ranker", "model: sorter")})

    entries = clone.read("sorter")

    names = [(entry.group, entry.model, entry.path) for entry in entries]
    assert names == [
        ("vision", "sorter", filed),
        ("vision", "ranker", filed),
        ("vision", "ranker", moved),
        ("search", "ranker", RANKER),
    ]
    assert clone.read("vision/sorter") == entries
    assert clone.read("ranker") == entries, "a former name, which no other has"
    assert clone.read("search/ranker") == entries
    assert len(clone.read("speller")) == 1


def test_a_name_means_who_has_it_before_who_had_it(clone: Clone) -> None:
    clone.commit({RANKER: deployment(1)})
    clone.commit({RANKER: None, "deployments/search/old.yaml": deployment(1)})
    clone.commit({RANKER: deployment(2, "replicas: 2", source="gs://new/ranker")})

    assert versions(clone.read("ranker")) == [(None, 2)]
    assert versions(clone.read("old")) == [(1, 1), (None, 1)]


def test_two_groups_may_have_models_of_one_name(clone: Clone) -> None:
    other = "deployments/vision/ranker.yaml"
    clone.commit({RANKER: deployment(1), other: deployment(1)})
    clone.commit({other: deployment(2)})

    assert len(clone.read("ranker")) == 3
    assert versions(clone.read("vision/ranker")) == [(1, 2), (None, 1)]
    assert versions(clone.read("search/ranker")) == [(None, 1)]


def test_what_is_removed_and_comes_back_is_the_same(clone: Clone) -> None:
    clone.commit({RANKER: deployment(1)})
    clone.commit({RANKER: None}, "Remove")
    assert versions(clone.read("ranker")) == [(1, None), (None, 1)]

    clone.run("revert", "--no-edit", "HEAD")

    entries = clone.read("ranker")
    assert versions(entries) == [(None, 1), (1, None), (None, 1)]
    assert entries[0].reverts == entries[1].commit.id


def test_two_files_that_change_places_stay_who_they_are_by_path(clone: Clone) -> None:
    first, second = deployment(1, source="gs://b/one"), deployment(2, source="gs://b/two")
    clone.commit({RANKER: first, SPELLER: second})
    clone.commit({RANKER: second, SPELLER: first})

    assert versions(clone.read("ranker")) == [(1, 2), (None, 1)]


def test_a_broken_text_hides_neither_its_neighbours_nor_its_repair(clone: Clone) -> None:
    clone.commit({RANKER: deployment(41), SPELLER: deployment(1)})
    broken: list[str | bytes] = [
        "<<<<<<< HEAD\nversion: 1\n=======\n>>>>>>> x\n", b"\xff\xfe\x00", "- a list\n",
        "source: gs://b/ranker\nversion: new\n", "source: 7\nversion: 1\n", "version: 1\n",
        "", "source: gs://b/ranker\nversion: 1\nrollout: {strategy: [x]}\n",
    ]  # fmt: skip
    for text in broken:
        clone.commit({RANKER: text, SPELLER: deployment(len(text) + 100)})
    clone.commit({RANKER: deployment(42), LOCK: "locked: [\n"})
    clone.commit({LOCK: None})

    repaired, *unreadable = clone.read("ranker")[:-1]

    assert len(unreadable) == len(broken) + 1
    assert all(entry.after and not entry.after.is_readable for entry in unreadable)
    assert all(entry.model == "ranker" for entry in unreadable)
    assert repaired.after is not None
    assert (repaired.after.is_readable, repaired.after.serves) == (True, 42)
    assert all(e.after and e.after.is_readable for e in clone.read("speller"))


def test_links_and_submodules_are_no_deployments(clone: Clone) -> None:
    clone.commit({RANKER: deployment(1)})
    (clone.folder / RANKER).unlink()
    (clone.folder / RANKER).symlink_to("speller.yaml")
    clone.commit({SPELLER: deployment(5)})
    clone.run("update-index", "--add", "--cacheinfo", f"160000,{clone.head},{SPELLER}")
    clone.run("commit", "--quiet", "-m", "Make it a submodule")

    assert versions(clone.read("ranker")) == [(1, None), (None, 1)]
    assert versions(clone.read("speller")) == [(5, None), (None, 5)]


def test_only_this_tells_whether_a_commit_touched_anything_else(clone: Clone) -> None:
    clone.commit({RANKER: deployment(1), "README.md": "hello"})
    clone.commit({RANKER: deployment(2), LOCK: lock(2)})
    clone.commit({RANKER: deployment(3), SPELLER: deployment(1)})
    clone.commit({RANKER: None, "deployments/vision/ranker.yaml": deployment(3), LOCK: None})
    clone.commit({"deployments/vision/ranker.yaml": deployment(4), "groups/vision.yaml": "x"})

    assert [entry.only_this for entry in clone.read("ranker")] == [False, True, False, True, False]


def test_a_config_in_a_folder_of_its_own(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "clone", "config/fleet")
    clone.commit({RANKER: deployment(1)})
    clone.commit({RANKER: deployment(2)})
    (clone.folder / "deployments").mkdir()
    (clone.folder / "deployments/x.yaml").write_text("not ours")
    clone.commit({RANKER: deployment(3)})

    entries = clone.read()

    assert versions(entries) == [(2, 3), (1, 2), (None, 1)]
    assert [entry.only_this for entry in entries] == [False, True, True]
    assert {entry.path for entry in entries} == {RANKER}


def test_what_does_not_touch_deployments_is_not_in_the_trail(clone: Clone) -> None:
    assert clone.commit({"README.md": "hello", "groups/search.yaml": "nodes: [a]"})
    clone.commit({"deployments/search/notes.txt": "x", "deployments/misplaced.yaml": "x"})

    assert clone.read() == []


# --- merges -----------------------------------------------------------------------------------


def test_a_merged_pull_request_is_told_by_its_author_and_once(clone: Clone) -> None:
    clone.commit({RANKER: deployment(41), SPELLER: deployment(1)})
    clone.run("switch", "--quiet", "--create", "change")
    inner = clone.commit({RANKER: deployment(42)}, "Roll out", "Grace <grace@example.org>")
    clone.run("switch", "--quiet", "main")
    clone.commit({SPELLER: deployment(2)})
    clone.run("merge", "--quiet", "--no-ff", "-m", "Merge change", "change")

    newest, *older = clone.read("ranker")

    assert (newest.commit.id, newest.commit.author) == (inner, "Grace")
    assert newest.merged_by is not None
    assert (newest.merged_by.id, newest.merged_by.subject) == (clone.head, "Merge change")
    assert newest.landed == newest.merged_by
    assert newest.only_this
    assert versions([newest, *older]) == [(41, 42), (None, 41)]
    assert versions(clone.read("speller")) == [(1, 2), (None, 1)]


def test_commits_of_a_branch_that_lead_on_from_another_are_each_told(clone: Clone) -> None:
    clone.commit({RANKER: deployment(41), SPELLER: deployment(1)})
    clone.run("switch", "--quiet", "--create", "change")
    ids = [clone.commit({RANKER: deployment(version)}) for version in (42, 43)]
    clone.run("switch", "--quiet", "main")
    clone.commit({SPELLER: deployment(2)})
    clone.run("switch", "--quiet", "change")
    clone.run("merge", "--quiet", "--no-edit", "main")
    ids.append(clone.commit({RANKER: deployment(44)}))
    clone.run("switch", "--quiet", "main")
    clone.run("merge", "--quiet", "--no-ff", "--no-edit", "change")

    entries = clone.read("ranker")

    assert versions(entries) == [(43, 44), (42, 43), (41, 42), (None, 41)]
    assert [entry.commit.id for entry in entries[:3]] == ids[::-1]
    assert {entry.landed.id for entry in entries[:3]} == {clone.head}
    assert versions(clone.read("speller")) == [(1, 2), (None, 1)]


def test_a_branch_merged_into_the_branch_is_told_too(clone: Clone) -> None:
    clone.commit({RANKER: deployment(41), SPELLER: deployment(1)})
    clone.run("switch", "--quiet", "--create", "change")
    clone.commit({"README.md": "begun"})
    clone.run("switch", "--quiet", "--create", "trial")
    ids = [clone.commit({RANKER: deployment(version)}) for version in (42, 41)]
    speller = clone.commit({SPELLER: deployment(2)})
    clone.run("switch", "--quiet", "change")
    clone.run("merge", "--quiet", "--no-ff", "--no-edit", "trial")
    ids.append(clone.commit({RANKER: deployment(43)}))
    clone.run("switch", "--quiet", "main")
    clone.run("merge", "--quiet", "--no-ff", "--no-edit", "change")

    entries = clone.read("ranker")

    assert versions(entries) == [(41, 43), (42, 41), (41, 42), (None, 41)]
    assert [entry.commit.id for entry in entries[:3]] == ids[::-1]
    assert [entry.commit.id for entry in clone.read("speller")][:1] == [speller]


@pytest.mark.parametrize("resolved", [42, 44])
def test_a_merge_that_resolved_a_conflict_is_the_change_itself(clone: Clone, resolved: int) -> None:
    clone.commit({RANKER: deployment(41)})
    clone.run("switch", "--quiet", "--create", "change")
    inner = clone.commit({RANKER: deployment(42)}, author="Grace <grace@example.org>")
    clone.run("switch", "--quiet", "main")
    clone.commit({RANKER: deployment(43)})
    clone.run("merge", "--quiet", "--no-commit", "--strategy=ours", "change")
    clone.commit({RANKER: deployment(resolved)}, "Merge change")

    newest, *older = clone.read("ranker")

    assert newest.commit.id == clone.head
    assert newest.merged_by is None
    assert [(part.id, part.author) for part in newest.parts] == [(inner, "Grace")]
    assert versions([newest, *older]) == [(43, resolved), (41, 43), (None, 41)]


def test_what_a_merge_threw_away_never_happened(clone: Clone) -> None:
    clone.commit({RANKER: deployment(41)})
    clone.run("switch", "--quiet", "--create", "change")
    clone.commit({RANKER: deployment(42)})
    clone.run("switch", "--quiet", "main")
    clone.commit({"README.md": "hello"})
    clone.run("merge", "--quiet", "--no-edit", "--strategy=ours", "change")

    assert versions(clone.read()) == [(None, 41)]


def test_a_move_inside_a_merged_branch_is_followed(clone: Clone) -> None:
    clone.commit({RANKER: deployment(41)})
    clone.run("switch", "--quiet", "--create", "change")
    moved = "deployments/vision/ranker.yaml"
    clone.commit({RANKER: None, moved: deployment(41)}, "Move")
    clone.commit({moved: deployment(42)}, "Roll out")
    clone.run("switch", "--quiet", "main")
    clone.run("merge", "--quiet", "--no-ff", "--no-edit", "change")

    entries = clone.read("vision/ranker")

    told = [(e.commit.subject, e.before.group if e.before else "", e.group) for e in entries]
    assert told == [
        ("Roll out", "vision", "vision"), ("Move", "search", "vision"), ("Change", "", "search"),
    ]  # fmt: skip


def test_a_revert_of_a_merge_names_the_merge(clone: Clone) -> None:
    clone.commit({RANKER: deployment(41)})
    clone.run("switch", "--quiet", "--create", "change")
    clone.commit({RANKER: deployment(42)})
    clone.run("switch", "--quiet", "main")
    clone.run("merge", "--quiet", "--no-ff", "--no-edit", "change")
    merge = clone.head
    clone.run("revert", "--no-edit", "-m", "1", "HEAD")

    newest, reverted, _ = clone.read("ranker")

    assert newest.reverts == merge == reverted.landed.id
    assert versions([newest, reverted]) == [(42, 41), (41, 42)]


# --- bounds and bad input ---------------------------------------------------------------------


def test_limit_and_since_cut_the_trail_and_not_its_states(clone: Clone) -> None:
    for version in range(1, 6):
        clone.commit({RANKER: deployment(version)})
    half = clone.read()[2].commit.time_seconds

    assert versions(clone.read(limit=2)) == [(4, 5), (3, 4)]
    assert versions(clone.read(limit=9, since_seconds=half))[-1] in [(2, 3), (1, 2), (None, 1)]
    assert clone.read(since_seconds=half + 3600) == []
    assert versions(clone.read(revision="HEAD~3")) == [(1, 2), (None, 1)]


def test_an_unknown_name_is_answered_with_the_nearest(clone: Clone) -> None:
    clone.commit({RANKER: deployment(1), SPELLER: deployment(1)})

    with pytest.raises(UnknownModelError, match=r"has no model rankr; did you mean ranker\?"):
        clone.read("rankr")
    with pytest.raises(UnknownModelError, match=r"did you mean search/speller "):
        clone.read("search/speler")
    with pytest.raises(UnknownModelError, match=r"leave the name out"):
        clone.read("vision")


def test_long_and_strange_messages_are_cut_and_end_nothing(clone: Clone) -> None:
    clone.commit({RANKER: deployment(1)}, "s" * 2000 + "\n\n" + "b" * 50_000 + "\n\x01\x1b[31m")
    git(
        "-c", "i18n.commitEncoding=utf-8", "commit", "--quiet", "--allow-empty", "--file=-",
        cwd=clone.folder, stdin=b"\xff\xfe not text",
    )  # fmt: skip
    clone.commit({RANKER: deployment(2)}, "\x01deadbeef")

    newest, oldest = clone.read()

    assert newest.commit.subject == "\x01deadbeef"
    assert (len(oldest.commit.subject), len(oldest.body)) == (500, 10_000)


def test_the_users_git_settings_change_nothing(clone: Clone, tmp_path: Path) -> None:
    clone.commit({RANKER: deployment(1), "README.md": "x"})
    clone.commit({RANKER: None, "deployments/vision/ranker.yaml": deployment(1)})
    plain = clone.read()
    settings = {
        "log.showRoot": "false", "log.showSignature": "true", "diff.renames": "false",
        "color.ui": "always", "log.decorate": "full", "core.abbrev": "4", "log.follow": "true",
        "diff.relative": "true", "notes.displayRef": "*", "format.pretty": "oneline",
        "diff.noprefix": "true", "log.date": "relative", "log.diffMerges": "combined",
    }  # fmt: skip
    for name, value in settings.items():
        git("config", "--file", str(tmp_path / "gitconfig"), name, value)
    clone.run("notes", "add", "-m", "a note")

    assert clone.read() == plain
    assert len(plain) == 2


def test_a_history_that_git_could_not_tell_whole_is_refused(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in range(5):
        clone.commit({RANKER: deployment(version)})
    monkeypatch.setattr(history_log, "_MAX_OUTPUT_BYTES", 400)

    with pytest.raises(GitError, match="longer than can be read at once") as caught:
        clone.read()
    assert caught.value.reason == "HistoryTooLong"


def test_a_missing_object_is_named(clone: Clone) -> None:
    clone.commit({RANKER: deployment(1)})
    blob_id = clone.run("rev-parse", f"HEAD:{RANKER}")
    clone.commit({RANKER: deployment(2)})
    (clone.folder / ".git/objects" / blob_id[:2] / blob_id[2:]).unlink()

    with pytest.raises(GitError, match=f"object {blob_id} is missing"):
        clone.read()
