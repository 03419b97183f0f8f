"""`reconciler validate DIR`: all problems of a folder, in every format, and its exit codes."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.annotations import render_github, render_gitlab, render_json
from reconciler.cli.validate import validate
from reconciler.config_repo.fleets import read_folder
from reconciler.model import Problem
from reconciler.resources import data_folder
from tests.gitserver import git


def run(folder: Path, form: str = "text") -> Result:
    return CliRunner().invoke(validate, [str(folder), "--format", form])


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)


def test_the_example_is_in_order() -> None:
    folder = data_folder("example-config-repo")
    assert read_folder(folder).problems == []
    result = run(folder)
    assert result.exit_code == 0
    assert result.output == f"{folder} is in order.\n"


def test_the_example_names_its_schemas_and_the_fixed_models() -> None:
    folder = data_folder("example-config-repo")
    files = sorted([*folder.glob("[!.]*/**/*.yaml"), folder / "fleet.yaml"])
    for file in files:
        first = file.read_text().splitlines()[0]
        named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
        assert named is not None, file
        assert (file.parent / named[1]).resolve().is_file(), file
    assert [file.relative_to(folder).as_posix() for file in files] == [
        "deployments/search/ranker.yaml",
        "deployments/search/similar.yaml",
        "deployments/search/speller.yaml",
        "deployments/search/suggest.yaml",
        "deployments/vision/captions.yaml",
        "deployments/vision/detector.yaml",
        "fleet.yaml",
        "groups/search.yaml",
        "groups/vision.yaml",
    ]


def test_every_problem_is_a_line_that_editors_understand(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "fleet.yaml": "keep: -1\n",
            "groups/search.yaml": "nodes: [a]\n",
            "groups/other.yml": "nodes: [b]\n",
            "deployments/search/ranker.yaml": "verison: 1\nsource: gs://demo-models/ranker\n",
            "deployments/search/big.yaml": b"#" * 50_000_000,
            "deployments/search/binary.yaml": b"\xff\xfe\x00",
            "deployments/nope/x.yaml": "version: 1\nsource: gs://demo-models/x//y\n",
            ".git/config": "nodes: [",
            "README.md": "not YAML",
        },
    )
    (tmp_path / "deployments/search/link.yaml").symlink_to("/etc/passwd")
    (tmp_path / "deployments/linked").symlink_to(tmp_path / "deployments/search")
    result = run(tmp_path)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert [line.removeprefix(f"{tmp_path}/").split(": ", 1)[0] for line in lines[:-1]] == [
        "deployments/linked:1:1",
        "deployments/nope/x.yaml:2:9",
        "deployments/search/big.yaml:1:1",
        "deployments/search/binary.yaml:1:1",
        "deployments/search/link.yaml:1:1",
        "deployments/search/ranker.yaml:1:1",
        "deployments/search/ranker.yaml:1:1",
        "fleet.yaml:1:7",
        "groups/other.yml:1:1",
    ]
    assert "gs://demo-models/x//y" in lines[1]
    assert "did you mean version?" in result.output
    assert lines[-1] == f"9 problems in 8 files of {tmp_path}."


def test_problems_between_files_are_found_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "groups/search.yaml": "nodes: [a]\n",
            "deployments/search/ranker.yaml": (
                "source: gs://demo-models/m\nversion: 1\nreplicas: 2\n"
            ),
        },
    )
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "replicas is 2 but group search has 1 node; write 1 or all" in result.output
    assert result.output.endswith(f"1 problem in 1 file of {tmp_path}.\n")


def test_a_folder_that_is_missing_or_no_config_is_bad_usage(tmp_path: Path) -> None:
    result = run(tmp_path / "missing")
    assert result.exit_code == 2
    assert "does not exist" in result.output
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "holds neither fleet.yaml nor groups/ nor deployments/" in result.output


# --- for CI ---------------------------------------------------------------------------------

_TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.text("%:,\r\n;= ::a")
_PROBLEMS = st.lists(
    st.builds(Problem, _TEXTS, st.integers(1, 9), st.integers(1, 9), _TEXTS), max_size=6
)
_BROKEN: dict[str, str | bytes] = {
    "fleet.yaml": "keep: -1\nlock: maybe\n",
    "groups/g.yaml": "nodes: [a]\n",
}


@pytest.fixture
def subfolder(tmp_path: Path) -> Path:
    """A config in a subfolder of a repository, with two mistakes in one file."""
    git("init", "--quiet", cwd=tmp_path)
    write(tmp_path / "serving/config", _BROKEN)
    return tmp_path / "serving/config"


@given(_PROBLEMS)
def test_a_workflow_command_is_one_line_that_says_what_was_meant(problems: list[Problem]) -> None:
    commands = list(render_github(problems))
    read = []
    for command in commands:
        found = re.fullmatch(
            r"::error file=([^:,\r\n]*),line=(\d+),col=(\d+),title=reconciler validate::([^\r\n]*)",
            command,
        )
        assert found is not None, command
        path, line, column, message = found.groups()
        read.append(Problem(unquote(path), int(line), int(column), unquote(message)))
    assert read == problems


def test_github_gets_paths_from_the_top_of_the_repository(subfolder: Path) -> None:
    result = run(subfolder, "github")
    assert result.exit_code == 1
    first, second, summary = result.stdout.splitlines()
    place = "::error file=serving/config/fleet.yaml,line=1,col=7,title=reconciler validate::"
    assert first.startswith(place + "keep (-1) ")
    assert ",line=2,col=7," in second
    assert summary == f"2 problems in 1 file of {subfolder}."


def test_gitlab_gets_a_report_and_nothing_but_the_report(subfolder: Path) -> None:
    result = run(subfolder, "gitlab")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [entry["location"] for entry in report] == [
        {"path": "serving/config/fleet.yaml", "lines": {"begin": line}} for line in (1, 2)
    ]
    for entry in report:
        assert set(entry) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert entry["check_name"] == "reconciler-validate"
        assert entry["severity"] == "major"
    assert "2 problems in 1 file" in result.stderr


@given(_PROBLEMS)
def test_a_fingerprint_is_unique_and_does_not_move_with_the_lines(problems: list[Problem]) -> None:
    moved = [replace(problem, line=problem.line + 7, column=1) for problem in problems]
    before, after = (
        [entry["fingerprint"] for entry in json.loads(render_gitlab(which))]
        for which in (problems, moved)
    )
    assert before == after
    assert len(set(before)) == len(problems)


@given(_PROBLEMS)
def test_json_holds_every_problem(problems: list[Problem]) -> None:
    content = json.loads(render_json(problems))
    assert [Problem(**entry) for entry in content["problems"]] == problems
    assert content["files"] == len({problem.path for problem in problems})


def test_json_of_a_folder(subfolder: Path) -> None:
    result = run(subfolder, "json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert list(content) == ["problems", "files"]
    assert content["files"] == 1
    assert list(content["problems"][0]) == ["path", "line", "column", "message"]
    assert content["problems"][0]["path"] == "serving/config/fleet.yaml"


@pytest.mark.parametrize(
    ("form", "expected"),
    [("github", ""), ("gitlab", "[]"), ("json", '{\n  "problems": [],\n  "files": 0\n}')],
)
def test_a_config_in_order_is_an_empty_report(form: str, expected: str) -> None:
    folder = data_folder("example-config-repo")
    result = run(folder, form)
    assert result.exit_code == 0
    assert result.output.replace(f"{folder} is in order.\n", "").strip() == expected


def test_outside_git_paths_start_at_the_folder(tmp_path: Path) -> None:
    write(tmp_path, _BROKEN)
    content = json.loads(run(tmp_path, "json").stdout)
    assert {problem["path"] for problem in content["problems"]} == {"fleet.yaml"}


def _read_hook() -> dict[str, object]:
    file = data_folder("schema").parent / ".pre-commit-hooks.yaml"
    (hook,) = yaml.safe_load(file.read_text())
    assert isinstance(hook, dict)
    return hook


def test_the_pre_commit_hook_is_one_that_pre_commit_takes() -> None:
    hook = _read_hook()
    assert (hook["id"], hook["language"], hook["pass_filenames"]) == (
        "reconciler-validate",
        "python",
        False,
    )
    ours = re.compile(str(hook["files"]))
    for path in ("fleet.yaml", "groups/g.yaml", "deployments/g/m.lock.yaml", "a/fleet.yml"):
        assert ours.search(path), path
    for path in ("README.md", "ci/deploy.yaml", "myfleet.yaml", "deployments/notes.txt"):
        assert not ours.search(path), path


def test_the_pre_commit_hook_stops_a_commit_with_a_mistake(tmp_path: Path) -> None:
    hook = _read_hook()
    arguments = hook["args"]
    assert isinstance(arguments, list)
    program, *words = shlex.split(str(hook["entry"]))
    # As pre-commit does it: the program of the environment, at the top of the staged tree.
    command = [str(Path(sys.executable).with_name(program)), *words, *arguments]

    def commit() -> "subprocess.CompletedProcess[str]":
        git("add", "--all", cwd=tmp_path)
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    git("init", "--quiet", cwd=tmp_path)
    write(tmp_path, _BROKEN)
    refused = commit()
    assert refused.returncode == 1
    assert "./fleet.yaml:1:7: keep (-1)" in refused.stdout
    write(tmp_path, {"fleet.yaml": "keep: 1\n"})
    assert commit().returncode == 0
