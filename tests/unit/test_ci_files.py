"""The CI files to copy: they parse, call commands that exist, and ask for no more than they need.

Whether GitHub and GitLab take every key can only be said by them; their schemas are not part of
this project. What the scripts do is played in `tests/integration/test_ci_scripts.py`.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from reconciler.cli.main import cli

EXAMPLE = Path(__file__).parents[2] / "example-config-repo"
WORKFLOWS = sorted((EXAMPLE / ".github/workflows").glob("*.yaml"))
GITLAB = EXAMPLE / ".gitlab-ci.yml"
YAML_FILES = sorted(
    path for path in EXAMPLE.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file()
)
HOOKS = EXAMPLE.parent / ".pre-commit-hooks.yaml"
PERMISSIONS = {
    "check": {"contents": "read", "pull-requests": "write", "id-token": "write"},
    "lock": {"contents": "write", "pull-requests": "write", "id-token": "write"},
    "merged": {"contents": "read", "statuses": "write"},
}
"""The most that any job of a workflow may do."""
_SEPARATORS = {"|", "||", "&&", ";", "(", ")", "{", "}", "if", "then", "else", "do", "!"}
_KEYWORDS_OF_A_JOB = {"rules", "script", "stage"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def jobs(workflow: Path) -> dict[str, Any]:
    found: dict[str, Any] = read(workflow)["jobs"]
    return found


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(workflow).values():
        yield from job["steps"]


def scripts() -> Iterator[tuple[str, str]]:
    """Yield every shell script of the CI files, with where it stands."""
    for workflow in WORKFLOWS:
        for number, step in enumerate(steps(workflow)):
            if "run" in step:
                yield f"{workflow.name}-{step.get('name', number)}", step["run"]
    for name, job in read(GITLAB).items():
        if isinstance(job, dict):
            for number, line in enumerate(job.get("before_script", []) + job.get("script", [])):
                yield f"gitlab-{name}-{number}", line
    for hook in read(HOOKS):
        yield f"pre-commit-{hook['id']}", shlex.join([*hook["entry"].split(), *hook["args"]])


def find_calls(script: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of `reconciler` in a shell script."""
    without_comments = re.sub(r"^\s*#.*$", "", script, flags=re.MULTILINE).replace("\\\n", " ")
    for line in without_comments.splitlines():
        if "reconciler" not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in _SEPARATORS:
                words.append(word)
                continue
            if words and words[0].rpartition("/")[2] == "reconciler":
                yield words[1 : words.index(">") if ">" in words else None]
            words = []


CALLS = [
    pytest.param(call, id=f"{where}: {' '.join(call[:2])}")
    for where, script in scripts()
    for call in find_calls(script)
]


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(EXAMPLE)))
def test_every_file_is_yaml(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_the_files_in_folders_with_a_dot_are_among_them() -> None:
    assert {*WORKFLOWS, GITLAB, EXAMPLE / ".pre-commit-config.yaml"} <= set(YAML_FILES)
    assert {workflow.stem for workflow in WORKFLOWS} == set(PERMISSIONS)


def test_every_call_is_found() -> None:
    called = {call.values[0][0] for call in CALLS if isinstance(call.values[0], list)}
    assert called == {"validate", "plan", "comment", "lock", "commit-status"}
    text = "\n".join(script for _, script in scripts())
    names = "|".join(sorted(called))
    assert len(CALLS) == len(re.findall(rf'\breconciler"? (?:{names})\b', text))


@pytest.mark.parametrize("call", CALLS)
def test_every_call_is_one_that_the_command_takes(
    call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # What the shell would put there: a number fits where a number or any text is wanted.
    arguments = [re.sub(r"\$\{?\w+\}?", "7", word) for word in call[1:]]
    for word in arguments:
        if word.endswith(".md"):
            Path(word).parent.mkdir(exist_ok=True)
            Path(word).write_text("a plan")
    context = click.Context(cli, info_name="reconciler")
    command = cli.get_command(context, call[0])
    assert command is not None, f"there is no `reconciler {call[0]}`"
    with command.make_context(call[0], arguments, parent=context) as made:
        assert made.params


@pytest.mark.parametrize(("where", "script"), list(scripts()), ids=lambda value: value[:40])
def test_nothing_is_put_into_a_script_that_somebody_else_may_write(where: str, script: str) -> None:
    # `${{ }}` is replaced before the shell reads: a branch's name would be run as a command.
    assert "${{" not in script, where
    # The value of a variable is split and expanded unless it is quoted.
    bare = re.sub(r'"[^"]*"|\'[^\']*\'|#.*', "", script)
    assert "$" not in re.sub(r"\w+=\$\?|\w+=\$\(", "", bare), where


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_no_more_than_it_needs(workflow: Path) -> None:
    content = read(workflow)
    assert content["permissions"], "without the line, a job may do whatever the repository allows"
    for job in content["jobs"].values():
        allowed = job.get("permissions", content["permissions"])
        assert allowed.items() <= PERMISSIONS[workflow.stem].items()
    # This event would run with the base's rights on what a stranger wrote.
    assert "pull_request_target" not in content[True]  # YAML reads `on` as true


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_ends_in_time(workflow: Path) -> None:
    for name, job in jobs(workflow).items():
        assert 0 < job["timeout-minutes"] <= 60, name


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_has_a_version_and_a_step_that_is_named_exists(workflow: Path) -> None:
    for job in jobs(workflow).values():
        ids = {step["id"] for step in job["steps"] if "id" in step}
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"])
            assert set(re.findall(r"steps\.(\w+)\.", str(step))) <= ids


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_only_a_step_that_needs_the_token_has_it(workflow: Path) -> None:
    assert not re.search(r"token|secrets", str(read(workflow).get("env", "")), re.IGNORECASE)
    for step in steps(workflow):
        has_token = "RECONCILER_FORGE_TOKEN" in step.get("env", {})
        speaks = bool(re.search(r"reconciler\"? (comment|commit-status)", step.get("run", "")))
        assert has_token == speaks


def test_a_job_at_gitlab_has_rules_and_ends_in_time() -> None:
    content = read(GITLAB)
    found = {name: job for name, job in content.items() if isinstance(job, dict) and name[0] != "."}
    assert set(found) == {"check", "locks", "plan", "lock", "follow"}
    for name, job in found.items():
        assert job.keys() >= _KEYWORDS_OF_A_JOB, name
        assert job["stage"] in content["stages"]
        whole = {**content[job["extends"]], **job}
        assert re.fullmatch(r"\d+m", whole["timeout"]), name


def test_the_hook_that_the_example_names_exists() -> None:
    config = read(EXAMPLE / ".pre-commit-config.yaml")
    named = {hook["id"] for repo in config["repos"] for hook in repo["hooks"]}
    assert named == {hook["id"] for hook in read(HOOKS)}
