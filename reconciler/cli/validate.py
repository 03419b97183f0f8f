"""`reconciler validate DIR`: every mistake of a config repo at once, for people and for CI.

Exit codes: 0 nothing wrong, 1 problems were found, 2 the folder is not there or holds no config.
"""

from dataclasses import replace
from pathlib import Path

import click

from reconciler.cli.annotations import render_github, render_gitlab, render_json
from reconciler.config_repo.fleets import read_folder
from reconciler.config_repo.overruns import find_overruns
from reconciler.errors import ConfigError
from reconciler.model import Problem

_OURS = ("fleet.yaml", "groups", "deployments")


@click.command()
@click.argument(
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "github", "gitlab", "json"]),
    default="text",
    show_default=True,
    help="For people; GitHub's annotations; GitLab's Code Quality report; for machines. All but"
    " text name files from the top of the git repository.",
)
def validate(folder: Path, form: str) -> None:
    """Check the config repo in DIR and print every problem as file:line:column: what is wrong.

    Exits with 0 when nothing is wrong, 1 when there are problems, 2 when DIR holds no config.
    """
    if not any((folder / name).exists() for name in _OURS):
        raise click.UsageError(
            f"{folder} holds neither fleet.yaml nor groups/ nor deployments/; name the folder of"
            " the config repo"
        )
    try:
        fleet = read_folder(folder)
        problems = sorted([*fleet.problems, *find_overruns(fleet)])
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    match form:
        case "gitlab":
            click.echo(render_gitlab(_from_top(folder, problems)))
        case "json":
            click.echo(render_json(_from_top(folder, problems)))
        case "github":
            for command in render_github(_from_top(folder, problems)):
                click.echo(command)
        case _:
            for problem in problems:
                click.echo(f"{folder}/{problem}")
    # What a report is read from must hold nothing but the report.
    click.echo(_summarise(folder, problems), err=form in ("gitlab", "json"))
    if problems:
        raise SystemExit(1)


def _summarise(folder: Path, problems: list[Problem]) -> str:
    if not problems:
        return f"{folder} is in order."
    files = len({problem.path for problem in problems})
    return f"{_count(len(problems), 'problem')} in {_count(files, 'file')} of {folder}."


def _from_top(folder: Path, problems: list[Problem]) -> list[Problem]:
    """Return the problems by paths from the top of the repository, where there is one."""
    from reconciler.config_repo.checkout import Checkout
    from reconciler.errors import GitError

    try:
        checkout = Checkout(folder)
    except GitError:
        return problems
    return [replace(problem, path=checkout.path_in_repo(problem.path)) for problem in problems]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
