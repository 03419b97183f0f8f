"""The options of the commands that speak to GitHub or GitLab."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from reconciler.forge.forges import Forge, open_forge
from reconciler.forge.requests import ForgeError
from reconciler.settings import ENVIRONMENT_PREFIX
from reconciler.status.secret import read_secret

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

TOKEN_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}FORGE_TOKEN"


def forge_options(command: CommandT) -> CommandT:
    """Give `command` the options that name a project at a forge and the token for it."""
    options = (
        click.option("--to", "kind", type=click.Choice(["github", "gitlab"]), required=True),
        click.option(
            "--project", required=True, metavar="OWNER/NAME", help="The project of the repo."
        ),
        click.option(
            "--api",
            "api_url",
            metavar="URL",
            help="Of GitHub Enterprise (https://host/api/v3) or one's own GitLab (https://host)."
            "  [default: api.github.com, gitlab.com]",
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            help=f"File with the token that may write there.  [default: {TOKEN_VARIABLE}]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def find_forge(
    kind: str, project: str, api_url: str | None, token_file: Path | None, *, needs_token: bool
) -> Forge:
    """Return the forge that the options name; what cannot work is wrong usage."""
    token = _read_token(token_file) if needs_token else None
    try:
        return open_forge(kind, project, api_url, token)
    except ForgeError as error:
        raise click.UsageError(str(error)) from None


def _read_token(file: Path | None) -> str:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    return read_secret(file).decode("latin-1")
