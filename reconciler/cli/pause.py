"""`reconciler pause` and `reconciler resume`: keep the agent's hands off one node for a while."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from reconciler import pause_file
from reconciler.cli.options import read_settings
from reconciler.errors import SettingsError
from reconciler.model import Pause
from reconciler.planning.wording import format_seconds
from reconciler.settings import parse_duration

_MAX_REASON_CHARACTERS = 300


def _state_options(command: Any) -> Any:
    state_dir = click.option(
        "--state-dir",
        metavar="PATH",
        help="State folder of the node's agent.  [RECONCILER_STATE_DIR]",
    )
    config = click.option("--config", metavar="FILE", help="Its settings.  [RECONCILER_CONFIG]")
    return state_dir(config(command))


@click.command("pause")
@click.option("--reason", required=True, help="Why, for whoever looks at the node.")
@click.option(
    "--for",
    "duration",
    required=True,
    metavar="DURATION",
    help="How long, such as 30m or 2h; at most 7d.",
)
@_state_options
def pause(reason: str, duration: str, state_dir: str | None, config: str | None) -> None:
    """Leave this node as it is: nothing is fetched, told to the server or removed.

    It ends by itself, or by `reconciler resume`. To be run where the agent runs. A second pause
    takes the place of the first. /status says that the node is paused, until when and why.
    """
    seconds = parse_duration(duration)
    if not 0 < seconds <= pause_file.MAX_PAUSE_SECONDS:
        raise click.UsageError(
            "a pause lasts at most 7d, so that it cannot be forgotten; for longer, write"
            " `suspend: true` into git"
        )
    if not reason.strip() or len(reason) > _MAX_REASON_CHARACTERS or not reason.isprintable():
        raise click.UsageError(f"give a reason of one line, {_MAX_REASON_CHARACTERS} at most")
    folder = _find_state_dir(state_dir, config)
    until_seconds = time.time() + seconds
    try:
        pause_file.save(folder, Pause(reason.strip(), until_seconds))
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written ({error.strerror})") from None
    until = datetime.fromtimestamp(until_seconds, UTC)
    click.echo(f"paused for {format_seconds(seconds)}, until {until:%Y-%m-%d %H:%M:%S} UTC")


@click.command("resume")
@_state_options
def resume(state_dir: str | None, config: str | None) -> None:
    """End a pause of this node."""
    folder = _find_state_dir(state_dir, config)
    try:
        was_paused = pause_file.remove(folder)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be written ({error.strerror})") from None
    click.echo("the node goes on" if was_paused else "the node was not paused")


def _find_state_dir(state_dir: str | None, config: str | None) -> Path:
    # Which repository the agent follows does not matter here, so none has to be named.
    flags = {"repo": "unused", "state_dir": state_dir, "config": config}
    folder = read_settings(flags).state_dir
    if not folder.is_dir():
        raise SettingsError(
            f"{folder} is not there, so no agent has run with it; name the agent's state folder"
            " by --state-dir or RECONCILER_STATE_DIR"
        )
    return folder
