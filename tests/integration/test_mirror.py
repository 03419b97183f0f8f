"""The mirror over file://: what it fetches and reads, and how it heals."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from reconciler.config_repo.tree import Blob
from reconciler.errors import GitError
from tests.gitserver import ConfigRemote, git


@pytest.fixture
def remote(tmp_path: Path) -> ConfigRemote:
    remote = ConfigRemote(tmp_path / "remote")
    remote.commit({"a.yaml": "one\n", "sub/b.yaml": "two\n"}, "First")
    return remote


def make_settings(remote: ConfigRemote, tmp_path: Path, **changes: object) -> MirrorSettings:
    values = {"url": remote.url, "branch": "main", "state_dir": tmp_path / "state", **changes}
    return MirrorSettings(**values)  # type: ignore[arg-type]


@pytest.fixture
def mirror(remote: ConfigRemote, tmp_path: Path) -> Mirror:
    return Mirror(make_settings(remote, tmp_path))


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now_seconds = 1000.0

    def __call__(self) -> float:
        return self.now_seconds


def read_all(mirror: Mirror, commit_id: str) -> dict[str, bytes]:
    tree = mirror.read_tree(commit_id)
    contents = {blob.id: data for blob, data in mirror.read_blobs(tree.values())}
    return {path: contents[blob.id] for path, blob in tree.items()}


def test_a_commit_is_fetched_and_read_without_checkout(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    assert mirror.head() is None
    commit_id = remote.commit({"a.yaml": "changed\n"}, "Änder a")
    commit = mirror.fetch()
    assert (commit.id, commit.author, commit.subject) == (commit_id, "Ada", "Änder a")
    assert commit.time_seconds == float(git("log", "-1", "--format=%ct", cwd=remote.work))
    assert read_all(mirror, commit.id) == {"a.yaml": b"changed\n", "sub/b.yaml": b"two\n"}
    assert mirror.head() == commit
    assert not list((tmp_path / "state").rglob("a.yaml"))


def test_sizes_are_known_before_anything_is_read(remote: ConfigRemote, mirror: Mirror) -> None:
    remote.commit({"big.yaml": b"x" * 50_000_000})
    tree = mirror.read_tree(mirror.fetch().id)
    assert tree["big.yaml"].size_bytes == 50_000_000
    assert tree["big.yaml"].is_file


def test_a_link_and_a_submodule_are_no_files(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    (remote.work / "link.yaml").symlink_to("/etc/passwd")
    entry = f"160000,{git('rev-parse', 'HEAD', cwd=remote.work)},module"
    git("update-index", "--add", "--cacheinfo", entry, cwd=remote.work)
    git("add", "link.yaml", cwd=remote.work)
    git("commit", "--quiet", "-m", "Links", cwd=remote.work)
    remote.push()
    tree = mirror.read_tree(mirror.fetch().id)
    assert {path for path, blob in tree.items() if not blob.is_file} == {"link.yaml", "module"}


def test_only_the_folder_is_seen(remote: ConfigRemote, tmp_path: Path) -> None:
    mirror = Mirror(make_settings(remote, tmp_path, folder="sub"))
    assert read_all(mirror, mirror.fetch().id) == {"b.yaml": b"two\n"}
    elsewhere = Mirror(make_settings(remote, tmp_path, folder="nowhere"))
    with pytest.raises(GitError, match="folder nowhere is not in commit") as caught:
        elsewhere.read_tree(elsewhere.fetch().id)
    assert caught.value.reason == "FolderMissing"


def test_a_commit_without_files_is_an_empty_tree(remote: ConfigRemote, mirror: Mirror) -> None:
    remote.commit({"a.yaml": None, "sub/b.yaml": None}, "Remove everything")
    assert mirror.read_tree(mirror.fetch().id) == {}


def test_odd_names_and_subjects_cannot_break_a_report(remote: ConfigRemote, mirror: Mirror) -> None:
    remote.commit({"bad\nname.yaml": "x", "n\udcff.yaml": "y"}, "Bell \a and " + "long " * 200)
    commit = mirror.fetch()
    assert commit.subject.isprintable()
    assert len(commit.subject) <= 500
    assert set(mirror.read_tree(commit.id)) >= {"bad\\nname.yaml", "n\\xff.yaml"}


def test_history_stays_through_a_force_push(remote: ConfigRemote, mirror: Mirror) -> None:
    remote.commit({"a.yaml": "before\n"})
    before = mirror.fetch()
    remote.commit({"a.yaml": "after\n"}, "Rewritten", amend=True)
    after = mirror.fetch()
    assert after.subject == "Rewritten"
    assert read_all(mirror, after.id)["a.yaml"] == b"after\n"
    assert read_all(mirror, before.id)["a.yaml"] == b"before\n"


def lie_in_the_sample(count: int) -> Iterator[str]:
    """Yield texts whose objects lie in the folder by which git tells how many there are."""
    for number in range(1_000_000):
        text = f"{number}\n"
        name = hashlib.sha1(f"blob {len(text)}\0{text}".encode()).hexdigest()
        if name.startswith("17"):
            yield text
            count -= 1
        if not count:
            return


def count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def test_what_many_fetches_left_is_packed_and_nothing_of_it_lost(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    remote.commit({"a.yaml": "before\n"})
    before = mirror.fetch()
    remote.commit({"a.yaml": "after\n"}, "Rewritten", amend=True)
    mirror.fetch()
    for number, text in enumerate(lie_in_the_sample(8)):
        remote.commit({f"{number}.yaml": text})
    mirror.fetch()
    objects = tmp_path / "state" / "mirror" / "objects"
    assert count_files(objects) > 24, "that is not many yet"
    remote.commit({"one-more.yaml": list(lie_in_the_sample(9))[-1]})
    newest = mirror.fetch()
    assert count_files(objects) < 8
    assert len(read_all(mirror, newest.id)) == 11
    assert read_all(mirror, before.id)["a.yaml"] == b"before\n"


def test_a_packing_that_fails_is_said_and_holds_nothing_up(
    remote: ConfigRemote, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    mirror = Mirror(make_settings(remote, tmp_path), clock)
    mirror.fetch()
    objects = tmp_path / "state" / "mirror" / "objects"
    shutil.rmtree(objects / "pack", ignore_errors=True)
    (objects / "pack").write_text("in the way")
    for number, text in enumerate(lie_in_the_sample(9)):
        (remote.work / f"{number}.yaml").write_text(text)
    commit_id = remote.commit({})
    assert mirror.fetch().id == commit_id
    mirror.fetch()
    assert caplog.text.count("could not be packed") == 1
    (objects / "pack").unlink()
    (objects / "pack").mkdir()
    clock.now_seconds += 3601
    mirror.fetch()
    assert count_files(objects) < 8


def test_what_a_killed_packing_left_is_removed_at_the_next_start(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.fetch()
    leftover = tmp_path / "state" / "mirror" / "objects" / "pack" / ".tmp-7-pack-7.pack"
    leftover.parent.mkdir(exist_ok=True)
    leftover.touch()
    Mirror(make_settings(remote, tmp_path)).fetch()
    assert not leftover.exists()


def test_a_branch_begun_anew_is_followed(remote: ConfigRemote, mirror: Mirror) -> None:
    mirror.fetch()
    git("checkout", "--quiet", "--orphan", "other", cwd=remote.work)
    git("commit", "--quiet", "-m", "Unrelated root", cwd=remote.work)
    git("branch", "--quiet", "-M", "main", cwd=remote.work)
    remote.push("--force")
    assert mirror.fetch().subject == "Unrelated root"


def test_a_vanished_branch_keeps_what_was_read(remote: ConfigRemote, mirror: Mirror) -> None:
    before = mirror.fetch()
    git("branch", "-m", "main", "maine", cwd=remote.bare)
    with pytest.raises(GitError, match=r"branch main is not .*, but maine is") as caught:
        mirror.fetch()
    assert caught.value.reason == "BranchMissing"
    assert "stays in force" in str(caught.value)
    assert mirror.head() == before
    git("branch", "-m", "maine", "main", cwd=remote.bare)
    assert mirror.fetch() == before


def test_an_empty_repository_says_so_until_it_has_a_commit(tmp_path: Path) -> None:
    remote = ConfigRemote(tmp_path / "remote")
    mirror = Mirror(make_settings(remote, tmp_path))
    with pytest.raises(GitError, match=r"no branch yet.*proxy's login page") as caught:
        mirror.fetch()
    assert caught.value.reason == "RepositoryEmpty"
    assert mirror.head() is None
    remote.commit({"a.yaml": "x\n"}, "First")
    assert mirror.fetch().subject == "First"


def test_no_repository_at_all(tmp_path: Path) -> None:
    settings = MirrorSettings(f"file://{tmp_path}/none.git", "main", tmp_path / "state")
    with pytest.raises(GitError) as caught:
        Mirror(settings).fetch()
    assert caught.value.reason == "RepositoryNotFound"


def test_another_branch_or_url_starts_from_nothing_and_works(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.fetch()
    git("checkout", "--quiet", "-b", "main-2/next", cwd=remote.work)
    remote.commit({"a.yaml": "next\n"}, "Next")
    other_branch = Mirror(make_settings(remote, tmp_path, branch="main-2/next"))
    assert other_branch.head() is None
    assert other_branch.fetch().subject == "Next"
    elsewhere = ConfigRemote(tmp_path / "elsewhere")
    elsewhere.commit({"z.yaml": "z\n"}, "Elsewhere")
    other_url = Mirror(make_settings(elsewhere, tmp_path))
    assert other_url.head() is None
    assert other_url.fetch().subject == "Elsewhere"
    assert set(read_all(other_url, other_url.fetch().id)) == {"z.yaml"}


def delete_head(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def delete_objects(mirror: Path) -> None:
    shutil.rmtree(mirror / "objects")


def delete_marker_and_refs(mirror: Path) -> None:
    (mirror / "reconciler-origin").unlink()
    shutil.rmtree(mirror / "refs")


def empty_the_ref(mirror: Path) -> None:
    (mirror / "refs/reconciler/main").write_text("")


def point_the_ref_nowhere(mirror: Path) -> None:
    (mirror / "refs/reconciler/main").write_text("12" * 20 + "\n")


def overwrite_objects(mirror: Path) -> None:
    for file in (mirror / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.write_bytes(b"")


def break_config(mirror: Path) -> None:
    (mirror / "config").write_bytes(b"[core\x00\n= =")


def leave_locks(mirror: Path) -> None:
    for name in ("refs/reconciler/main.lock", "packed-refs.lock", "config.lock", "HEAD.lock"):
        (mirror / name).write_text("")
    (mirror / "objects/pack/tmp_pack_AbCdEf").write_bytes(b"half a pack")


@pytest.mark.parametrize(
    "damage",
    [
        delete_head,
        delete_objects,
        delete_marker_and_refs,
        empty_the_ref,
        point_the_ref_nowhere,
        overwrite_objects,
        break_config,
        leave_locks,
    ],
)
def test_a_damaged_mirror_heals_at_the_next_fetch(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    mirror.fetch()
    damage(tmp_path / "state" / "mirror")
    commit_id = remote.commit({"a.yaml": "healed\n"})
    healed = Mirror(make_settings(remote, tmp_path))  # as after a restart
    assert healed.fetch().id == commit_id
    assert read_all(healed, commit_id)["a.yaml"] == b"healed\n"
    left = {path.name for path in (tmp_path / "state").rglob("*")}
    assert not {name for name in left if name.endswith(".lock") or name.startswith("tmp_")}
    assert "mirror.new" not in left


def test_stale_locks_cost_no_rebuild(remote: ConfigRemote, mirror: Mirror, tmp_path: Path) -> None:
    mirror.fetch()
    leave_locks(tmp_path / "state" / "mirror")
    (tmp_path / "state" / "mirror" / "witness").touch()
    commit_id = remote.commit({"a.yaml": "unlocked\n"})
    assert Mirror(make_settings(remote, tmp_path)).fetch().id == commit_id
    assert (tmp_path / "state" / "mirror" / "witness").exists()


def test_damage_seen_while_reading_is_repaired_by_the_next_fetch(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    commit = mirror.fetch()
    blob = mirror.read_tree(commit.id)["a.yaml"]
    (tmp_path / "state/mirror/objects" / blob.id[:2] / blob.id[2:]).unlink()
    with pytest.raises(GitError) as caught:
        read_all(mirror, commit.id)
    assert caught.value.reason == "MirrorCorrupt"
    assert mirror.fetch() == commit  # nothing new on the server, and still it is repaired
    assert read_all(mirror, commit.id)["a.yaml"] == b"one\n"


def test_rebuilds_are_rare_however_often_the_disk_fails(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    clock = Clock()
    mirror = Mirror(make_settings(remote, tmp_path), clock)
    mirror.fetch()
    folder = tmp_path / "state" / "mirror"
    delete_head(folder)
    mirror.fetch()
    delete_head(folder)
    with pytest.raises(GitError, match="rebuilt a moment ago") as caught:
        mirror.fetch()
    assert caught.value.reason == "MirrorCorrupt"
    clock.now_seconds += 301
    assert mirror.fetch().subject == "First"


def test_a_damaged_mirror_is_kept_while_the_server_is_away(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    mirror.fetch()
    break_config(tmp_path / "state" / "mirror")
    remote.bare.rename(remote.bare.with_name("away.git"))
    with pytest.raises(GitError) as caught:
        mirror.fetch()
    assert caught.value.reason == "RepositoryNotFound"
    assert (tmp_path / "state" / "mirror" / "objects").is_dir()
    remote.bare.with_name("away.git").rename(remote.bare)
    assert mirror.fetch().subject == "First"


def test_leftovers_of_a_killed_rebuild_are_removed(
    remote: ConfigRemote, mirror: Mirror, tmp_path: Path
) -> None:
    (tmp_path / "state" / "mirror.new" / "objects").mkdir(parents=True)
    mirror.fetch()
    (tmp_path / "state" / "mirror.new" / "objects").mkdir(parents=True)
    Mirror(make_settings(remote, tmp_path)).fetch()
    assert not (tmp_path / "state" / "mirror.new").exists()


def test_the_hosts_git_configuration_does_not_leak_in(
    remote: ConfigRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    witness = home / "witness"
    (hooks / "reference-transaction").write_text(f"#!/bin/sh\ntouch {witness}\n")
    (hooks / "reference-transaction").chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[core]\n\thooksPath = {hooks}\n[url "file:///elsewhere/"]\n\tinsteadOf = file:///\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", "/nonexistent")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")  # without the key git refuses every command
    mirror = Mirror(make_settings(remote, tmp_path))
    assert set(read_all(mirror, mirror.fetch().id)) == {"a.yaml", "sub/b.yaml"}
    assert not witness.exists()
    # The trap is a real one: with the host's configuration the hook runs.
    bare = tmp_path / "state" / "mirror"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    command = ["git", "--git-dir", str(bare), "update-ref", "refs/x/y", "refs/reconciler/main"]
    subprocess.run(command, env=environment, check=True, timeout=10)
    assert witness.exists()


def test_a_deadline_ends_a_fetch_that_hangs(
    remote: ConfigRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    mirror = Mirror(make_settings(remote, tmp_path, deadline_seconds=0.2))
    with pytest.raises(GitError, match=r"did not end within 0\.2 s") as caught:
        mirror.fetch()
    assert caught.value.reason == "DeadlineExceeded"


def test_without_git_the_sentence_says_so(
    remote: ConfigRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(make_settings(remote, tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="install git") as caught:
        mirror.fetch()
    assert caught.value.reason == "GitMissing"


def test_a_state_folder_that_cannot_be_written_is_named(
    remote: ConfigRemote, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(GitError, match=str(tmp_path / "state")) as caught:
        Mirror(make_settings(remote, tmp_path)).fetch()
    assert caught.value.reason == "MirrorUnwritable"


def test_a_blob_of_any_commit_can_be_asked_for(remote: ConfigRemote, mirror: Mirror) -> None:
    old = mirror.read_tree(mirror.fetch().id)["a.yaml"]
    remote.commit({"a.yaml": "new\n"})
    mirror.fetch()
    assert mirror.read_blob(old.id) == b"one\n"
    assert mirror.read_blob("ab" * 20) is None
    with pytest.raises(ValueError, match="not an object id"):
        mirror.read_blob("--all")


def test_many_blobs_come_in_batches(remote: ConfigRemote, mirror: Mirror) -> None:
    remote.commit({f"{name}.bin": name * 9_000_000 for name in "pq"})
    tree = mirror.read_tree(mirror.fetch().id)
    blobs: list[Blob] = list(tree.values())
    read = {blob.id: len(data) for blob, data in mirror.read_blobs(blobs)}
    assert read == {blob.id: blob.size_bytes for blob in blobs}
