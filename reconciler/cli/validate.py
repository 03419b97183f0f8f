"""`reconciler validate DIR`: every mistake of a config repo at once.

Exit codes: 0 nothing wrong, 1 problems were found, 2 the folder is not there or holds no config.
"""

from pathlib import Path

import click

from reconciler.config_repo.fleets import read_folder
from reconciler.errors import ConfigError

_OURS = ("fleet.yaml", "groups", "deployments")


@click.command()
@click.argument(
    "folder",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
)
def validate(folder: Path) -> None:
    """Check the config repo in DIR and print every problem as file:line:column: what is wrong.

    Exits with 0 when nothing is wrong, 1 when there are problems, 2 when DIR holds no config.
    """
    if not any((folder / name).exists() for name in _OURS):
        raise click.UsageError(
            f"{folder} holds neither fleet.yaml nor groups/ nor deployments/; name the folder of"
            " the config repo"
        )
    try:
        problems = read_folder(folder).problems
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    for problem in problems:
        click.echo(f"{folder}/{problem}")
    files = len({problem.path for problem in problems})
    if problems:
        click.echo(f"{_count(len(problems), 'problem')} in {_count(files, 'file')} of {folder}.")
        raise SystemExit(1)
    click.echo(f"{folder} is in order.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
