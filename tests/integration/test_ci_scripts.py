"""The scripts of the CI files, played: real shell, real git, a real bucket server, no forge.

The shell is called as the runners call it: GitHub's `bash -e` with the script in a file, GitLab's
with `set -eo pipefail`. `gh` is a stub that writes down what it was asked.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.cli.publish import publish_version
from tests.bucket import FakeBucket, run_fake_gcs, write_files
from tests.forgeserver import serve_comments
from tests.gitserver import ConfigRemote, git, serve_http

EXAMPLE = Path(__file__).parents[2] / "example-config-repo"
BRANCH = "lock/update"
TOKEN = "a-forge-token-nobody-should-see"
_DEADLINE_SECONDS = 60

GH = f"""#!{sys.executable}
import json, pathlib, sys
folder, words = pathlib.Path(__file__).parent, sys.argv[1:]
files = [word.rpartition("@")[2] for word in words if word.endswith(".md")]
texts = [pathlib.Path(file).read_text() for file in files]
with (folder / "asked").open("a") as asked:
    print(json.dumps([*words, *texts]), file=asked)
if words[:2] == ["pr", "list"]:
    state = words[words.index("--state") + 1]
    if (folder / state).is_file():
        print((folder / state).read_text())
"""

HOOK = """#!/bin/sh
for number in $(seq 0 $((GIT_PUSH_OPTION_COUNT - 1))); do
  eval "echo \\"\\$GIT_PUSH_OPTION_$number\\"" >> pushed
done
"""


@dataclass
class Job:
    """A runner's clone of a config repo, and what a job would find around it."""

    remote: ConfigRemote
    bucket: FakeBucket
    folder: Path
    export: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    def publish(self, version: int, model: str = "ranker") -> None:
        publish_version(self.export, f"gs://acme/{model}", version)

    def run(self, *shell: str) -> "subprocess.CompletedProcess[str]":
        """Run a script in the clone; the whole environment is the job's."""
        return subprocess.run(
            shell,
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_DEADLINE_SECONDS,
            check=False,
        )

    def step(self, workflow: str, name: str) -> "subprocess.CompletedProcess[str]":
        """Run a step of a workflow as GitHub's runner does."""
        content = yaml.safe_load((EXAMPLE / ".github/workflows" / workflow).read_text())
        (script,) = (
            step["run"]
            for job in content["jobs"].values()
            for step in job["steps"]
            if step.get("name") == name
        )
        file = self.folder / "script.sh"
        file.write_text(script)
        return self.run("bash", "-e", str(file))

    def script(self, job: str) -> "subprocess.CompletedProcess[str]":
        """Run a job of GitLab's file."""
        content = yaml.safe_load((EXAMPLE / ".gitlab-ci.yml").read_text())
        (script,) = content[job]["script"]
        return self.run("bash", "-c", f"set -eo pipefail\n{script}")

    def propose(self) -> "subprocess.CompletedProcess[str]":
        """Run both steps that propose a lock at GitHub, and return the second."""
        self.step("lock.yaml", "Move latest on")
        return self.step("lock.yaml", "Propose it")

    def gh(self, answer: str = "", *, state: str = "open") -> None:
        """Let `gh pr list` say something."""
        (self.folder / "bin" / state).write_text(answer)

    @property
    def asked(self) -> list[list[str]]:
        """What `gh` was asked to write, with the texts of the files it was given."""
        file = self.folder / "bin/asked"
        lines = file.read_text().splitlines() if file.is_file() else []
        asked: list[list[str]] = [json.loads(line) for line in lines]
        return [words for words in asked if words[:2] != ["pr", "list"]]

    def tip(self, branch: str = BRANCH) -> str:
        """Return the commit of the remote's branch, nothing where there is none."""
        return git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}", cwd=self.bare)

    def subjects(self) -> list[str]:
        """Return the subjects of the commits that the remote's branch has on top of main."""
        return git("log", "--format=%s", f"main..{BRANCH}", cwd=self.bare).splitlines()

    @property
    def bare(self) -> Path:
        return self.remote.bare

    def merge(self) -> None:
        """Merge the proposal into main, and leave its branch."""
        git("fetch", "--quiet", "origin", BRANCH, cwd=self.remote.work)
        git("merge", "--quiet", "--ff-only", "FETCH_HEAD", cwd=self.remote.work)
        self.remote.push()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """A job in a shallow clone of a repo with two models, both locked at version 41."""
    with run_fake_gcs() as endpoint:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
        remote = ConfigRemote(tmp_path)
        job = Job(remote, FakeBucket(endpoint, "acme"), tmp_path, write_files(tmp_path / "export"))
        stub = tmp_path / "bin/gh"
        stub.parent.mkdir()
        stub.write_text(GH)
        stub.chmod(0o755)
        tools = (stub.parent, Path(sys.executable).parent)
        job.environment = {
            "PATH": os.pathsep.join([*map(str, tools), os.environ["PATH"]]),
            "HOME": str(tmp_path),
            "GIT_CONFIG_NOSYSTEM": "1",
            "STORAGE_EMULATOR_HOST": endpoint,
            "RECONCILER_SETTLE": "0s",
            "RECONCILER_FORGE_TOKEN": TOKEN,
            "no_proxy": "127.0.0.1",
            "BRANCH": BRANCH,
            "GITHUB_REPOSITORY": "acme/fleet",
            "GITHUB_BASE_REF": "main",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "RUNNER_TEMP": str(tmp_path),
            "CI_DEFAULT_BRANCH": "main",
            "CI_SERVER_HOST": "git.example.org",
        }
        files = {"groups/search.yaml": "nodes: [search-1]\n"}
        for model in ("ranker", "speller"):
            job.publish(41, model)
            text = f"source: gs://acme/{model}\nversion: latest\n"
            files[f"deployments/search/{model}.yaml"] = text
        remote.write(files)
        command = ["reconciler", "lock", "-C", str(remote.work)]
        subprocess.run(command, env=job.environment, check=True, timeout=_DEADLINE_SECONDS)
        remote.commit({}, "Begin")
        git("clone", "--quiet", "--depth=1", remote.url, str(job.clone))
        yield job


def check(result: "subprocess.CompletedProcess[str]", code: int = 0) -> str:
    """Return what a script said; the token is not in it."""
    said = result.stdout + result.stderr
    assert result.returncode == code, said
    assert TOKEN not in said
    return said


# --- GitHub ------------------------------------------------------------------------------------


def test_nothing_is_proposed_where_nothing_moved(job: Job) -> None:
    check(job.step("lock.yaml", "Move latest on"))
    assert "Nothing is newer than what is locked." in check(job.step("lock.yaml", "Propose it"))
    assert (job.tip(), job.asked) == ("", [])


def test_a_newer_version_is_proposed_in_one_pull_request(job: Job) -> None:
    job.publish(42)
    check(job.propose())

    assert job.subjects() == ["Move ranker 41 -> 42 in search"]
    ((*words, body),) = job.asked
    title = "Move ranker 41 -> 42 in search"
    assert words[:6] == ["pr", "create", "--head", BRANCH, "--title", title]
    assert body.startswith("ranker 41 -> 42 in search (6 files, ")


def test_the_same_proposal_is_pushed_once(job: Job) -> None:
    job.publish(42)
    check(job.propose())
    tip = job.tip()
    job.gh("17")
    check(job.propose())

    assert job.tip() == tip
    (_, words) = job.asked
    assert words[:5] == ["api", "--silent", "--method", "PATCH", "repos/acme/fleet/pulls/17"]
    assert "title=Move ranker 41 -> 42 in search" in words


def test_a_proposal_that_was_closed_is_not_made_again(job: Job) -> None:
    job.publish(42)
    check(job.propose())
    job.gh(f"{'1' * 40}\n{job.tip()}", state="all")
    assert "its pull request was closed" in check(job.propose())
    assert len(job.asked) == 1

    job.publish(43)
    check(job.propose())
    assert [words[:2] for words in job.asked] == [["pr", "create"]] * 2


def test_a_still_newer_version_takes_the_place_of_the_proposal(job: Job) -> None:
    job.publish(42)
    check(job.propose())
    job.gh("17")
    job.publish(43)
    job.publish(43, "speller")
    job.remote.commit({"README.md": "What others did"})
    check(job.propose())

    assert job.subjects() == ["Move 2 models on: ranker 41 -> 43, speller 41 -> 43"]
    assert job.asked[-1][0] == "api"
    git("cat-file", "-e", f"{BRANCH}:README.md", cwd=job.bare)


def test_a_model_that_cannot_be_locked_does_not_hold_the_others_up(job: Job) -> None:
    job.publish(42)
    lost = "source: gs://nowhere/lost\nversion: latest\n"
    job.remote.commit({"deployments/search/lost.yaml": lost})
    assert "lost" in check(job.step("lock.yaml", "Move latest on"), 1)
    check(job.step("lock.yaml", "Propose it"))
    assert job.subjects() == ["Move ranker 41 -> 42 in search"]


def test_what_a_run_before_left_in_the_clone_is_no_news(job: Job) -> None:
    job.publish(42)
    check(job.propose())
    job.merge()
    assert "Nothing is newer" in check(job.propose())
    assert len(job.asked) == 1


def test_a_run_that_was_started_on_another_branch_proposes_for_the_default_one(job: Job) -> None:
    git("switch", "--quiet", "--create", "feature", cwd=job.clone)
    git("commit", "--quiet", "--allow-empty", "-m", "Half done", cwd=job.clone)
    job.publish(42)
    check(job.propose())
    assert job.subjects() == ["Move ranker 41 -> 42 in search"]


# --- GitLab ------------------------------------------------------------------------------------


@pytest.fixture
def gitlab(job: Job) -> Iterator[Job]:
    """The same job where a push needs a token and its options are written down."""
    git("config", "http.receivepack", "true", cwd=job.bare)
    git("config", "receive.advertisePushOptions", "true", cwd=job.bare)
    hook = job.bare / "hooks/post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK)
    hook.chmod(0o755)
    with serve_http(job.folder) as server:
        server.token = TOKEN
        url = server.url.removesuffix("/fleet.git")
        job.environment |= {"CI_SERVER_URL": url, "CI_PROJECT_PATH": "fleet"}
        yield job


def test_gitlab_makes_the_merge_request_from_the_push(gitlab: Job) -> None:
    assert "Nothing is newer than what is locked." in check(gitlab.script("lock"))
    assert gitlab.tip() == ""

    gitlab.publish(42)
    check(gitlab.script("lock"))
    assert gitlab.subjects() == ["Move ranker 41 -> 42 in search"]
    assert (gitlab.bare / "pushed").read_text().splitlines() == [
        "merge_request.create",
        "merge_request.target=main",
        "merge_request.remove_source_branch",
        "merge_request.title=Move ranker 41 -> 42 in search",
    ]


def test_gitlab_is_pushed_the_same_proposal_once_and_a_newer_one_in_its_place(gitlab: Job) -> None:
    gitlab.publish(42)
    check(gitlab.script("lock"))
    tip = gitlab.tip()
    assert "This is proposed already" in check(gitlab.script("lock"))
    assert gitlab.tip() == tip

    gitlab.publish(43)
    check(gitlab.script("lock"))
    assert gitlab.subjects() == ["Move ranker 41 -> 43 in search"]
    gitlab.merge()
    assert "Nothing is newer" in check(gitlab.script("lock"))


def test_gitlab_is_proposed_what_can_be_locked_and_the_job_is_red(gitlab: Job) -> None:
    gitlab.publish(42)
    lost = "source: gs://nowhere/lost\nversion: latest\n"
    gitlab.remote.commit({"deployments/search/lost.yaml": lost})
    assert "lost" in check(gitlab.script("lock"), 1)
    assert gitlab.subjects() == ["Move ranker 41 -> 42 in search"]


def test_gitlab_that_refuses_the_push_makes_the_job_red(gitlab: Job) -> None:
    gitlab.publish(42)
    gitlab.environment["RECONCILER_FORGE_TOKEN"] = "expired"
    result = gitlab.script("lock")
    assert result.returncode != 0
    assert "expired" not in result.stdout + result.stderr


# --- the comment under a request -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_a_change_gets_its_plan_whether_it_can_be_carried_out_or_not(job: Job, kind: str) -> None:
    def play(code: int) -> None:
        if kind == "github":
            check(job.step("check.yaml", "What will it do?"), code)
        else:
            check(job.script("plan"), code)

    path = "deployments/search/ranker.yaml"
    source = "source: gs://acme/ranker\n"
    git("fetch", "--quiet", "--unshallow", cwd=job.clone)
    git("switch", "--quiet", "--create", "change", cwd=job.clone)
    # What others merge meanwhile is not in the branch, and not of its doing.
    job.remote.commit({"deployments/search/speller.yaml": None})
    git("fetch", "--quiet", cwd=job.clone)
    with serve_comments(kind) as forge:
        more: dict[str, Any] = {
            "GITHUB_API_URL": forge.url,
            "CI_SERVER_URL": forge.url,
            "CI_PROJECT_PATH": "acme/fleet",
            "CI_MERGE_REQUEST_IID": "3",
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
            "REQUEST": "3",
        }
        job.environment |= more
        (job.clone / path).write_text(f"{source}version: 77\n")
        (job.clone / "deployments/search/ranker.lock.yaml").unlink()
        git("commit", "--quiet", "--all", "-m", "Want what is not there", cwd=job.clone)
        play(1)
        (body,) = forge.bodies
        assert "77" in body

        (job.clone / path).write_text(f"{source}version: latest\nstop: true\n")
        git("commit", "--quiet", "--all", "-m", "Stop the ranker", cwd=job.clone)
        play(0)
        (body,) = forge.bodies
        assert "Stop the ranker" in body
        assert "speller" not in body
    if kind == "github":
        assert "Stop the ranker" in (job.folder / "summary.md").read_text()
