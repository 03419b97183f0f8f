"""The config repo as a bundle in a bucket: what is written there, followed there, and refused."""

import asyncio
import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.cli.bundle import bundle
from reconciler.config_repo import bundle as bundle_module
from reconciler.config_repo import bundle_publish
from reconciler.config_repo.bundle import BrokenBundleError, parse_header
from reconciler.config_repo.mirror import Mirror
from reconciler.config_repo.private_git import MirrorSettings
from reconciler.errors import GitError, ReconcilerError, SettingsError
from reconciler.sources import gcs_access
from reconciler.sources.gcs_object import NO_DESCRIPTION, parse_state
from tests.bucket import FakeBucket, run_fake_gcs
from tests.faultproxy import Fault, Request, run_proxy
from tests.gitserver import ConfigRemote, git

URL = "gs://acme/fleet.bundle"
NAME = "fleet.bundle"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    yield from run_fake_gcs.__wrapped__()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class World:
    """A git server with one clone, a bucket, and a node's state folder."""

    remote: ConfigRemote
    bucket: FakeBucket
    state_dir: Path
    mirrors: list[Mirror] = field(default_factory=list)

    def write(self, clone: Path | None = None, *more: str) -> str:
        """Run `reconciler bundle`, which is to succeed, and return what it says."""
        result = CliRunner().invoke(bundle, [URL, "-C", str(clone or self.remote.work), *more])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def refuse(self, clone: Path | None = None, *more: str) -> str:
        """Run `reconciler bundle`, which is to write nothing, and return why."""
        before = self.bucket.read(NAME) if self.has_object else b""
        result = CliRunner().invoke(bundle, [URL, "-C", str(clone or self.remote.work), *more])
        assert isinstance(result.exception, ReconcilerError), result.output
        assert (self.bucket.read(NAME) if self.has_object else b"") == before
        return str(result.exception)

    @property
    def has_object(self) -> bool:
        return NAME in self.bucket.names()

    @property
    def tip(self) -> str:
        """The commit that the bundle in the bucket has."""
        return parse_header(self.bucket.read(NAME)).tips["main"]

    def clone(self, folder: Path, *options: str) -> Path:
        git("clone", "--quiet", *options, self.remote.url, str(folder))
        return folder

    def make(self, *refs: str) -> bytes:
        """Return a bundle made by git alone."""
        path = self.state_dir.with_name("made.bundle")
        git("bundle", "create", "--quiet", str(path), *refs, cwd=self.remote.work)
        return path.read_bytes()

    def mirror(self, branch: str = "main", deadline_seconds: float = 60.0) -> Mirror:
        settings = MirrorSettings(
            URL, branch, self.state_dir, deadline_seconds=deadline_seconds, folder=""
        )
        self.mirrors.append(Mirror(settings))
        return self.mirrors[-1]


@pytest.fixture
def world(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    bucket = FakeBucket(endpoint, "acme")
    remote = ConfigRemote(tmp_path / "remote")
    remote.commit({"a.yaml": "one\n"}, "First")
    world = World(remote, bucket, tmp_path / "state")
    yield world
    for mirror in world.mirrors:
        mirror.close()
    for name in bucket.names():
        bucket.delete(name)
    bucket._ask("DELETE", "/storage/v1/b/acme", None, "")


def fail(mirror: Mirror) -> GitError:
    with pytest.raises(GitError) as caught:
        mirror.fetch()
    text = str(caught.value)
    assert text.startswith(f"config repo {URL}: ")
    assert text.endswith(
        "what was read before stays in force, and it is tried again at the next poll"
    )
    return caught.value


# --- following ------------------------------------------------------------------------------


def read(mirror: Mirror, commit_id: str) -> dict[str, bytes]:
    tree = mirror.read_tree(commit_id)
    contents = {blob.id: data for blob, data in mirror.read_blobs(tree.values())}
    return {path: contents[blob.id] for path, blob in tree.items()}


def test_commits_reverts_and_forced_branches_are_followed(world: World) -> None:
    world.write()
    mirror = world.mirror()
    assert mirror.fetch().subject == "First"
    second = world.remote.commit({"a.yaml": "two\n", "b.yaml": "b\n"}, "Second")
    assert mirror.fetch().subject == "First", "nobody has written it to the bucket yet"
    assert f"wrote main at {second[:10]} to {URL}" in world.write()
    assert mirror.fetch().id == second
    assert read(mirror, second) == {"a.yaml": b"two\n", "b.yaml": b"b\n"}
    git("revert", "--no-edit", "HEAD", cwd=world.remote.work)
    world.remote.push()
    world.write()
    assert read(mirror, mirror.fetch().id) == {"a.yaml": b"one\n"}
    forced = world.remote.commit({"a.yaml": "forced\n"}, "Forced", amend=True)
    assert "main was forced" in world.write()
    assert mirror.fetch().id == forced
    assert mirror.origin == URL


async def test_nothing_new_is_one_request_and_a_restart_is_none_more(
    world: World, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write()
    async with run_proxy(endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        mirror = world.mirror()
        await asyncio.to_thread(mirror.fetch)
        assert [request.is_read for request in proxy.requests] == [False, True]
        file = world.state_dir / "fleet.bundle"
        aside = file.rename(file.with_suffix(".aside"))
        for count in (3, 4, 5):
            await asyncio.to_thread(mirror.fetch)
            assert len(proxy.requests) == count
        assert not file.exists(), "what was fetched once is not looked at again"
        aside.rename(file)
        await asyncio.to_thread(world.mirror().fetch)
        assert len(proxy.requests) == 6
        assert len(proxy.reads) == 1
        assert not proxy.listings


def test_the_same_commit_written_anew_is_taken_and_changes_nothing(world: World) -> None:
    world.write()
    mirror = world.mirror()
    before = mirror.fetch()
    world.bucket.put(NAME, world.bucket.read(NAME))
    assert mirror.fetch() == before


def test_what_many_bundles_leave_is_packed_together(world: World) -> None:
    world.write()
    mirror = world.mirror()
    for number in range(12):
        world.remote.commit({"a.yaml": f"{number}\n"}, f"Commit {number}")
        world.write()
        assert mirror.fetch().subject == f"Commit {number}"
    packs = list((world.state_dir / "mirror" / "objects" / "pack").glob("*.pack"))
    assert len(packs) <= bundle_limit() + 1


def bundle_limit() -> int:
    from reconciler.config_repo import mirror

    return mirror._MOST_PACKS_OF_BUNDLES


def test_a_damaged_mirror_and_a_damaged_file_heal(world: World) -> None:
    world.write()
    mirror = world.mirror()
    commit = mirror.fetch()
    shutil.rmtree(world.state_dir / "mirror" / "objects")
    with pytest.raises(GitError, match="damaged"):
        mirror.read_tree(commit.id)
    file = world.state_dir / "fleet.bundle"
    file.write_bytes(file.read_bytes()[:-40] + b"x" * 40)
    assert mirror.fetch() == commit
    assert read(mirror, commit.id) == {"a.yaml": b"one\n"}
    assert file.read_bytes() == world.bucket.read(NAME)


def test_a_branch_that_the_mirror_lost_is_fetched_again(world: World) -> None:
    world.write()
    mirror = world.mirror()
    first = mirror.fetch()
    git("update-ref", "-d", "refs/reconciler/main", cwd=world.state_dir / "mirror")
    assert mirror.head() is None
    assert mirror.fetch() == first
    assert mirror.head() == first


def test_a_file_that_cannot_be_written_is_said(world: World) -> None:
    world.write()
    in_the_way = world.state_dir / ".fleet.bundle.tmp"
    in_the_way.mkdir(parents=True)
    mirror = world.mirror()
    error = fail(mirror)
    assert error.reason == "MirrorUnwritable"
    in_the_way.rmdir()
    assert mirror.fetch().subject == "First"


def test_a_path_to_a_bundle_is_a_repo_too(world: World, tmp_path: Path) -> None:
    path = tmp_path / "shared.bundle"
    path.write_bytes(world.make("main"))
    mirror = Mirror(MirrorSettings(str(path), "main", world.state_dir))
    assert mirror.fetch().subject == "First"
    world.remote.commit({"a.yaml": "two\n"}, "Second")
    path.write_bytes(world.make("main"))
    assert mirror.fetch().subject == "Second"


@pytest.mark.parametrize("url", ["gs://acme", "gs://acme/", "gs:///fleet.bundle", "gs://acme/f/"])
def test_a_bucket_alone_is_no_repo(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gs://acme-config/fleet\.bundle"):
        Mirror(MirrorSettings(url, "main", tmp_path))


# --- what is in the bucket is no such bundle -------------------------------------------------


def cut_off(world: World) -> bytes:
    return world.make("main")[:-30]


def of_newest_only(world: World) -> bytes:
    world.remote.commit({"a.yaml": "newest\n"}, "Newest")
    return world.make("main", "^main~1")


def of_another_branch(world: World) -> bytes:
    git("branch", "--force", "trunk", cwd=world.remote.work)
    return world.make("trunk")


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (lambda _: b"", "BundleDamaged", "the object is no git bundle"),
        (lambda _: b"<html>Sign in</html>", "BundleDamaged", "the object is no git bundle"),
        (lambda _: b"# v2 git bundle\n", "BundleDamaged", "its header has no end"),
        (
            lambda _: b"# v3 git bundle\n@object-format=sha256\n\nPACK",
            "BundleDamaged",
            "another kind (@object-format=sha256)",
        ),
        (cut_off, "BundleDamaged", "cut off or damaged, and was so when it was uploaded"),
        (lambda world: world.make("main")[:120], "BundleDamaged", "cut off or damaged"),
        (of_newest_only, "BundleDamaged", "of the newest commits only"),
        (
            lambda _: b"# v3 git bundle\n@object-format=\x1b[31m" + b"x" * 5000 + b"\n\nPACK",
            "BundleDamaged",
            "(@object-format=[31m" + "x" * 40 + ")",
        ),
        (of_another_branch, "BranchMissing", "main is not in the bundle, which has trunk;"),
    ],
)
def test_what_cannot_be_followed_is_said_and_what_was_read_stays(
    world: World, content: Callable[[World], bytes], reason: str, words: str
) -> None:
    world.write()
    mirror = world.mirror()
    before = mirror.fetch()
    world.bucket.put(NAME, content(world))
    for _ in range(2):
        error = fail(mirror)
        assert error.reason == reason
        assert words in str(error)
        assert mirror.head() == before
    world.bucket.delete(NAME)
    world.write()
    mirror.fetch()
    assert mirror.head() == mirror.fetch()


def test_a_missing_object_is_said_with_what_writes_it(world: World) -> None:
    error = fail(world.mirror())
    assert error.reason == "RepositoryNotFound"
    assert "`reconciler bundle` writes it" in str(error)
    world.write()
    assert world.mirror().fetch().subject == "First"


def test_one_that_is_far_too_large_is_not_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write()
    monkeypatch.setattr(bundle_module, "MAX_BUNDLE_BYTES", 100)
    assert "at most 0 MB are read" in str(fail(world.mirror()))
    assert not (world.state_dir / "fleet.bundle").exists()


# --- what comes is not what is in the bucket --------------------------------------------------


def on_read(fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.is_read else None


def on_look(fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: None if request.is_read else fault


@pytest.mark.parametrize(
    ("rule", "reason", "words"),
    [
        (on_read(Fault(action="cut", after_bytes=80)), "ReadFailed", "reading gs://acme/fleet"),
        (on_read(Fault(action="reset", after_bytes=80)), "ReadFailed", "reading gs://acme/fleet"),
        (on_read(Fault(action="flip", after_bytes=80)), "BundleDamaged", "did not come as it is"),
        (
            on_read(Fault(action="shorten", after_bytes=80)),
            "BundleDamaged",
            "did not come as it is",
        ),
        (on_read(Fault(action="stall", after_bytes=80)), "DeadlineExceeded", "within 0.5 s"),
        (on_read(Fault(drip_bytes=1)), "DeadlineExceeded", "raise git_deadline"),
        (on_read(Fault(status=404)), "BundleReplaced", "replaced by a newer one while it was read"),
        (on_read(Fault(status=503)), "ReadFailed", "HTTP 503"),
        (on_look(Fault(status=503)), "ReadFailed", "HTTP 503"),
        (on_look(Fault(status=403)), "Forbidden", "roles/storage.objectViewer on bucket acme"),
        (on_look(Fault(status=401)), "Unauthenticated", "needs credentials and there are none"),
        (
            on_look(Fault(status=200, body=b"<html>Sign in</html>", kind="text/html")),
            "ReadFailed",
            "the answer is no description of gs://acme/fleet.bundle",
        ),
        (on_look(Fault(status=200, body=b"{}")), "ReadFailed", "no description of"),
        (on_look(Fault(status=302)), "ReadFailed", "something other than Cloud Storage"),
        (on_look(Fault(action="drop")), "ReadFailed", "reading gs://acme/fleet.bundle"),
    ],
)
async def test_what_goes_wrong_on_the_way_is_said_and_passes(
    world: World,
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
    rule: Callable[[Request], Fault | None],
    reason: str,
    words: str,
) -> None:
    world.write()
    async with run_proxy(endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        mirror = world.mirror(deadline_seconds=0.5)
        proxy.rules = [rule]
        error = await asyncio.to_thread(fail, mirror)
        assert error.reason == reason
        assert words in str(error)
        proxy.rules = []
        commit = await asyncio.to_thread(world.mirror().fetch)
        assert commit.subject == "First"


async def test_a_look_ends_at_its_deadline_however_slowly_the_answer_comes(
    world: World, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write()
    monkeypatch.setattr(bundle_module, "_LOOK_SECONDS", 0.3)
    async with run_proxy(endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.rules = [on_look(Fault(drip_bytes=1))]
        error = await asyncio.to_thread(fail, world.mirror())
        assert error.reason == "DeadlineExceeded"


async def test_credentials_are_looked_for_again_where_there_were_none(
    world: World, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node may start before the server of its machine's credentials does."""
    monkeypatch.setattr(gcs_access, "_LOOK_AGAIN_SECONDS", 0.0)
    found = []

    class Searching(gcs_access.Access):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            found.append(self)

    monkeypatch.setattr(gcs_access, "Access", Searching)
    world.write()
    found.clear()
    async with run_proxy(endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        mirror = world.mirror()
        proxy.rules = [on_look(Fault(status=401))]
        await asyncio.to_thread(fail, mirror)
        assert len(found) == 1
        proxy.rules = []
        await asyncio.to_thread(mirror.fetch)
        await asyncio.to_thread(mirror.fetch)
        assert len(found) == 2


# --- writing ----------------------------------------------------------------------------------


def test_what_is_as_new_as_the_branch_is_left_alone(world: World) -> None:
    world.write()
    before = generation(world)
    assert f"{URL} has main at {world.tip[:10]} already" in world.write()
    assert generation(world) == before


def generation(world: World) -> str:
    answer = world.bucket._ask("GET", f"/storage/v1/b/acme/o/{NAME}", None, "")
    return answer.decode().partition('"generation":')[2].partition(",")[0]


def test_an_older_clone_does_not_take_the_newer_ones_place(world: World, tmp_path: Path) -> None:
    old = world.clone(tmp_path / "old")
    newest = world.remote.commit({"a.yaml": "two\n"}, "Second")
    world.write()
    assert "already" in world.write(old), "the git server says that the bundle is the newest"
    assert world.tip == newest
    world.remote.commit({"a.yaml": "three\n"}, "Third")
    assert "the clone is old; fetch, and run this again" in world.refuse(old)
    git("fetch", "--quiet", cwd=old)
    world.write(old)
    assert world.bucket.read(NAME)
    assert world.mirror().fetch().subject == "Third"


def test_of_two_at_once_the_older_gives_way(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write()
    world.remote.commit({"a.yaml": "two\n"}, "Second")
    slow = world.clone(tmp_path / "slow")
    newest = world.remote.commit({"a.yaml": "three\n"}, "Third")
    write = bundle_publish._write
    overtaken: list[bool] = []

    def overtake(*arguments: object) -> Path:
        path = write(*arguments)  # type: ignore[arg-type]
        if not overtaken:
            overtaken.append(True)
            world.write()
        return path

    monkeypatch.setattr(bundle_publish, "_write", overtake)
    assert "already" in world.write(slow)
    assert world.tip == newest


def test_a_branch_that_was_set_back_is_followed_back(world: World) -> None:
    first = git("rev-parse", "HEAD", cwd=world.remote.work)
    world.remote.commit({"a.yaml": "two\n"}, "Second")
    world.write()
    git("reset", "--quiet", "--hard", first, cwd=world.remote.work)
    world.remote.push("--force")
    assert "main was forced" in world.write()
    assert world.tip == first


def test_without_the_git_server_nothing_is_set_back(world: World) -> None:
    first = git("rev-parse", "HEAD", cwd=world.remote.work)
    world.remote.commit({"a.yaml": "two\n"}, "Second")
    world.write()
    git("update-ref", "refs/remotes/origin/main", first, cwd=world.remote.work)
    world.remote.bare.rename(world.remote.bare.with_name("away.git"))
    assert "origin could not be asked whether the branch was forced" in world.refuse()


def test_what_was_not_pushed_is_not_written(world: World) -> None:
    pushed = git("rev-parse", "HEAD", cwd=world.remote.work)
    world.remote.write({"a.yaml": "mine\n"})
    git("commit", "--quiet", "--all", "-m", "Not pushed", cwd=world.remote.work)
    world.write()
    assert world.tip == pushed


def test_a_clone_without_a_server_has_its_own_branch_written(world: World, tmp_path: Path) -> None:
    alone = world.clone(tmp_path / "alone")
    git("remote", "remove", "origin", cwd=alone)
    world.write(alone)
    assert world.mirror().fetch().subject == "First"
    assert "has no branch trunk" in world.refuse(alone, "--branch", "trunk")


def test_a_shallow_clone_is_refused(world: World, tmp_path: Path) -> None:
    world.remote.commit({"a.yaml": "two\n"}, "Second")
    assert "fetch-depth: 0" in world.refuse(world.clone(tmp_path / "shallow", "--depth=1"))


@pytest.mark.parametrize("content", [b"a model", b""])
def test_another_file_is_not_overwritten(world: World, content: bytes) -> None:
    world.bucket.put(NAME, content)
    assert "is no git bundle, and is not overwritten" in world.refuse()


def test_another_branchs_bundle_is_not_overwritten(world: World) -> None:
    world.bucket.put(NAME, of_another_branch(world))
    assert "holds another branch (trunk) than main" in world.refuse()


def test_a_bucket_that_is_not_there_is_named(world: World) -> None:
    result = CliRunner().invoke(bundle, ["gs://none/f", "-C", str(world.remote.work)])
    assert "there is no bucket none" in str(result.exception)


@pytest.mark.parametrize("url", ["file:///fleet.bundle", "gs://acme", "gs://acme/", "fleet"])
def test_another_kind_of_url_is_wrong_usage(url: str) -> None:
    result = CliRunner().invoke(bundle, [url])
    assert result.exit_code == 2
    assert "gs://bucket/object" in result.output


async def test_who_may_not_write_is_told_what_to_grant(
    world: World, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_proxy(endpoint) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.rules = [lambda request: Fault(status=403) if request.method == "POST" else None]
        said = await asyncio.to_thread(world.refuse)
        assert "grant this account roles/storage.objectUser on bucket acme" in said


def test_git_itself_takes_what_is_written(world: World, tmp_path: Path) -> None:
    world.write()
    path = tmp_path / "written.bundle"
    path.write_bytes(world.bucket.read(NAME))
    done = subprocess.run(
        ["git", "bundle", "verify", str(path)],
        cwd=world.remote.work,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "records a complete history" in done.stdout + done.stderr


# --- the header -------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_have_a_header_or_are_refused(data: bytes) -> None:
    for beginning in (b"", b"# v2 git bundle\n", b"# v3 git bundle\n@"):
        try:
            header = parse_header(beginning + data)
        except BrokenBundleError:
            continue
        assert 0 < header.length_bytes <= len(beginning + data)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    st.recursive(
        _VALUES | st.fixed_dictionaries(dict.fromkeys(("generation", "size", "crc32c"), _VALUES)),
        st.lists,
        max_leaves=5,
    )
)
@example({"generation": math.inf, "size": "1", "crc32c": "AAAAAA=="})
@example({"generation": "9" * 5000, "size": "1", "crc32c": "AAAAAA=="})
@example({"generation": "-1", "size": "1", "crc32c": "AAAAAA=="})
@example({"generation": "1", "size": "1", "crc32c": "\u00e9"})
def test_any_answer_describes_an_object_or_is_refused(answer: object) -> None:
    try:
        state = parse_state(json.dumps(answer))
    except NO_DESCRIPTION:
        return
    assert state.generation > 0
    assert state.size_bytes >= 0


@given(
    st.dictionaries(
        st.text(st.characters(categories=["L", "N"]), min_size=1),
        st.text("0123456789abcdef", min_size=40, max_size=40),
    )
)
def test_the_tips_of_a_header_are_read(tips: dict[str, str]) -> None:
    lines = [f"{commit} refs/heads/{branch}" for branch, commit in tips.items()]
    text = "\n".join(["# v2 git bundle", *lines, "", "PACK\n\nmore"]).encode()
    header = parse_header(text)
    assert header.tips == tips
    assert text[header.length_bytes :] == b"PACK\n\nmore"
