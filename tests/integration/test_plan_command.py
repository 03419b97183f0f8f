"""`reconciler plan` on real clones, against a real bucket."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reconciler.cli.plan import plan
from reconciler.config_repo.checkout import Checkout
from reconciler.model import Query
from reconciler.preview.listings import list_all
from reconciler.preview.past import read_past
from reconciler.sources.registry import Sources
from tests.bucket import WHOLE, FakeBucket, run_fake_gcs
from tests.gitserver import ConfigRemote, git

RANKER = "deployments/search/ranker.yaml"
SPAM = "deployments/search/spam.yaml"
WHOLE_BYTES = sum(map(len, WHOLE.values()))


@pytest.fixture(scope="module")
def bucket() -> Iterator[FakeBucket]:
    with run_fake_gcs() as endpoint:
        made = FakeBucket(endpoint, "acme")
        for version in ("40", "41", "42"):
            made.put_version(version, under="ranker")
        made.put_version("7", under="spam")
        yield made


@pytest.fixture
def remote(tmp_path: Path, bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch) -> ConfigRemote:
    """A config repo whose main has come from version 40 to 41, pushed."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.endpoint)
    made = ConfigRemote(tmp_path)
    group = "nodes: [search-1, search-2]\nquota: {disk: 1MB}\n"
    made.commit({"groups/search.yaml": group, RANKER: ranker(40), SPAM: spam(7)})
    made.commit({RANKER: ranker(41)}, "Serve ranker 41")
    return made


def ranker(version: int | str, more: str = "") -> str:
    return f"source: gs://acme/ranker\nversion: {version}\n{more}"


def spam(version: int) -> str:
    return f"source: gs://acme/spam\nversion: {version}\n"


def branch(remote: ConfigRemote, files: dict[str, str | bytes | None]) -> None:
    """Commit on a branch of its own, as for a pull request."""
    git("switch", "--quiet", "--create", "change", cwd=remote.work)
    remote.commit(files, "Serve ranker 42")


def run(remote: ConfigRemote, *arguments: str) -> Result:
    return CliRunner().invoke(plan, ["-C", str(remote.work), *arguments])


def run_json(remote: ConfigRemote, *arguments: str, code: int = 0) -> Any:
    result = run(remote, *arguments, "--format", "json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def lock(version: int, digest: str | None = None) -> str:
    """Return the lock of a version of ranker as the bucket holds it."""
    sources = Sources()
    query = Query("gs://acme/ranker", version)
    found = sources.open(query.source).list(query).snapshots[version]
    sources.close()
    entry = {
        "version": version,
        "files": len(found.files),
        "bytes": found.size_bytes,
        "digest": f"sha256:{digest or found.digest}",
    }
    fields = {"model": "ranker", "source": query.source, "version": version, "locked": [entry]}
    return json.dumps(fields)


def test_a_pull_request_shows_its_own_change_alone(remote: ConfigRemote) -> None:
    branch(remote, {RANKER: ranker(42)})
    git("switch", "--quiet", "main", cwd=remote.work)
    remote.commit({SPAM: None}, "Drop spam meanwhile")
    git("switch", "--quiet", "change", cwd=remote.work)
    made = run_json(remote)
    (action,) = made["actions"]
    assert (action["model"], action["nodes"]) == ("ranker", ["search-1", "search-2"])
    assert (action["version_before"], action["version_after"]) == (41, 42)
    assert action["downloads"] == [{"version": 42, "files": len(WHOLE), "bytes": WHOLE_BYTES}]
    assert [item["version"] for item in action["deletions"]] == [40]
    assert made["download_bytes"] == 2 * WHOLE_BYTES
    (quota,) = made["usages"][0]["quotas"]
    assert (quota["before"], quota["after"], quota["fits"]) == (
        2 * WHOLE_BYTES,
        2 * WHOLE_BYTES,
        True,
    )
    assert quota["peak"] >= 3 * WHOLE_BYTES


def test_a_revert_downloads_nothing(remote: ConfigRemote) -> None:
    branch(remote, {RANKER: ranker(40)})
    result = run(remote)
    assert result.exit_code == 0
    assert "40: nothing is downloaded, it is still on disk" in result.stdout
    assert "nothing to download, fits." in result.stdout


def test_what_a_merged_branch_said_on_its_way_was_never_in_force(remote: ConfigRemote) -> None:
    git("switch", "--quiet", "--create", "change", cwd=remote.work)
    remote.commit({RANKER: ranker(39)})
    remote.commit({RANKER: ranker(42, "description: the one\n")})
    git("switch", "--quiet", "main", cwd=remote.work)
    git("merge", "--quiet", "--no-ff", "-m", "Merge", "change", cwd=remote.work)
    checkout = Checkout(remote.work)
    past = read_past(checkout, checkout.resolve("HEAD").id, [RANKER, SPAM])
    assert [state.version for state in past[RANKER]] == [42, 41, 40]
    assert [state.version for state in past[SPAM]] == [7]


def test_the_past_of_locked_versions_names_their_bytes(remote: ConfigRemote) -> None:
    files = {RANKER: ranker("latest"), f"{RANKER.removesuffix('.yaml')}.lock.yaml": lock(41)}
    remote.commit(dict(files))
    remote.commit({f"{RANKER.removesuffix('.yaml')}.lock.yaml": lock(42)})
    checkout = Checkout(remote.work)
    past = read_past(checkout, checkout.resolve("HEAD").id, [RANKER])
    assert [state.named_version for state in past[RANKER]] == [42, 41, 41, 40]
    assert past[RANKER][1].lock is not None
    assert past[RANKER][2].lock is None


def test_a_model_that_had_left_begins_anew(remote: ConfigRemote) -> None:
    remote.commit({RANKER: None})
    remote.commit({RANKER: ranker(42)})
    checkout = Checkout(remote.work)
    past = read_past(checkout, checkout.resolve("HEAD").id, [RANKER])
    assert [state.version for state in past[RANKER]] == [42]


def test_of_a_file_that_is_broken_at_the_base_the_last_good_text_counts(
    remote: ConfigRemote,
) -> None:
    remote.commit({RANKER: ranker(42), "deployments/search/ranker.lock.yaml": lock(41)})
    remote.commit({RANKER: "source: ["})
    branch(remote, {RANKER: ranker(41)})
    made = run_json(remote)
    assert made["summary"] == "no node does anything"
    assert [action["version_before"] for action in made["actions"]] == [41]
    assert "BaseHasProblems" in [remark["reason"] for remark in made["remarks"]]


def test_a_lock_that_the_bucket_does_not_match_is_a_problem(remote: ConfigRemote) -> None:
    path = "deployments/search/ranker.lock.yaml"
    branch(remote, {RANKER: ranker(42), path: lock(42, "0" * 64)})
    made = run_json(remote, code=1)
    assert [r["reason"] for r in made["remarks"] if r["level"] == "problem"] == ["LockMismatch"]
    remote.commit({path: lock(42)})
    assert run_json(remote)["possible"]


def test_a_version_that_is_not_in_the_bucket_is_a_problem(remote: ConfigRemote) -> None:
    branch(remote, {RANKER: ranker(43)})
    result = run(remote)
    assert result.exit_code == 1
    assert "gs://acme/ranker, which holds 42, 41, 40; version 41 goes on serving" in result.stdout


def test_the_files_as_they_lie_can_be_planned(remote: ConfigRemote) -> None:
    remote.write({RANKER: ranker(42)})
    assert run_json(remote)["actions"] == []
    made = run_json(remote, "--worktree")
    assert made["head"]["id"] == "worktree"
    assert [item["version_after"] for item in made["actions"]] == [42]


def test_a_broken_file_is_named_with_its_place_and_nothing_goes(remote: ConfigRemote) -> None:
    branch(remote, {RANKER: ranker(42, "versoin: 3\n")})
    for arguments in ((), ("--worktree",)):
        result = run(remote, *arguments)
        assert result.exit_code == 1
        assert f"{RANKER}:3:1: unknown field 'versoin'" in result.stdout
        assert "no node does anything" in result.stdout


def test_a_broken_group_file_keeps_what_it_said_and_the_rest_is_planned(
    remote: ConfigRemote,
) -> None:
    branch(remote, {"groups/search.yaml": "nodes: 3\n", RANKER: ranker(42)})
    made = run_json(remote, code=1)
    assert [problem["path"] for problem in made["problems"]] == ["groups/search.yaml"]
    assert [(a["model"], a["version_after"]) for a in made["actions"]] == [("ranker", 42)]


def test_two_revisions_can_be_named(remote: ConfigRemote) -> None:
    made = run_json(remote, "HEAD", "HEAD~1")
    assert [(a["version_before"], a["version_after"]) for a in made["actions"]] == [(41, 40)]


def test_without_an_upstream_the_commit_before_is_the_base(remote: ConfigRemote) -> None:
    git("remote", "remove", "origin", cwd=remote.work)
    made = run_json(remote)
    assert [(a["version_before"], a["version_after"]) for a in made["actions"]] == [(40, 41)]


def test_a_config_in_a_subfolder_that_the_change_brings_is_all_new(remote: ConfigRemote) -> None:
    branch(
        remote,
        {
            "config/groups/search.yaml": "nodes: [search-1]\n",
            f"config/{RANKER}": ranker(42),
        },
    )
    result = CliRunner().invoke(plan, ["-C", str(remote.work / "config"), "--format", "json"])
    assert result.exit_code == 0, result.output
    (action,) = json.loads(result.stdout)["actions"]
    assert (action["version_before"], action["version_after"]) == (None, 42)


def test_a_comment_carries_no_markup_from_the_pull_request(remote: ConfigRemote) -> None:
    text = 'description: "<b>@everyone</b> ![x](http://evil.example/x.png)"\n'
    branch(remote, {RANKER: ranker(42, text)})
    result = run(remote, "--format", "markdown")
    assert result.exit_code == 0
    assert result.stdout.startswith("<!-- reconciler plan -->\n")
    assert "1 model changes on 2 nodes" in result.stdout
    assert "&lt;b&gt;" in result.stdout
    assert "@everyone" not in result.stdout
    assert "http://" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "there is no commit 'nosuch'"),
        (["HEAD", "nosuch"], "there is no commit 'nosuch'"),
        (["HEAD", "HEAD", "--worktree"], "not both"),
    ],
)
def test_a_revision_that_is_not_there_is_wrong_usage(
    remote: ConfigRemote, arguments: list[str], words: str
) -> None:
    result = run(remote, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_first_commit_needs_a_base(remote: ConfigRemote) -> None:
    git("remote", "remove", "origin", cwd=remote.work)
    result = run(remote, "", "HEAD~1")
    assert result.exit_code == 2
    assert "name BASE" in result.stderr


def test_a_folder_without_git_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(plan, ["-C", str(tmp_path)])
    assert result.exit_code == 2
    assert "not in a git repository" in result.stderr


def test_a_bucket_that_never_answers_does_not_hold_the_plan_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "m/3").mkdir(parents=True)
    (tmp_path / "m/3/saved_model.pb").write_bytes(b"a graph")
    answered = Query(f"file://{tmp_path}/m", 3)
    silent = Query("gs://silent/m", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        available = list_all([answered, silent], deadline_seconds=3.0)
    assert available.listings.keys() == {answered}
    assert available.troubles[silent].reason == "ListingFailed"
