"""Turns the settings into command-line options, and logs into lines."""

import logging
import os
from collections.abc import Callable
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

import click

from reconciler.logs import JsonLines
from reconciler.settings import (
    ENVIRONMENT_PREFIX,
    Settings,
    environment_name,
    load_settings,
    setting_fields,
)

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def settings_options(command: CommandT) -> CommandT:
    """Give `command` one option for every setting, and `--config` for the settings file.

    Values stay text here: the settings themselves know how to read them, whether they come from
    a flag, the environment or the file.
    """
    for item in reversed(setting_fields()):
        default = _show_default(item.default, item.default_factory)
        option = click.option(
            f"--{item.name.replace('_', '-')}",
            metavar=_metavar(item.metadata["kind"]),
            help=f"{item.metadata['help']}  [{environment_name(item.name)}{default}]",
        )
        command = option(command)
    config = click.option(
        "--config",
        metavar="FILE",
        help=f"YAML file with settings by their names here, underscores for dashes."
        f"  [{ENVIRONMENT_PREFIX}CONFIG]",
    )
    return config(command)


def folder_option(command: CommandT) -> CommandT:
    """Give `command` the option `-C`: where the clone of the config repo is."""
    option = click.option(
        "-C",
        "folder",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=Path(),
        help="Folder of the config repo in a clone.  [default: the current folder]",
    )
    return option(command)


def quote_address(text: str) -> str:
    """Return an address that was typed, for a message: without what may be a password."""
    return "(not shown, it may hold a password)" if set(text) & set("@?") else repr(text)


def read_settings(flags: dict[str, Any]) -> Settings:
    """Return the settings from the flags that were given and the environment."""
    return load_settings(flags, os.environ)


def _metavar(kind: str) -> str:
    if kind.startswith("choice:"):
        return "|".join(kind.removeprefix("choice:").split(","))
    return {"duration": "DURATION", "path": "PATH", "integer": "NUMBER"}.get(kind, "TEXT")


def _show_default(default: Any, factory: Any) -> str:
    if default is MISSING:
        return "; default: the host name" if factory is not MISSING else ""
    if default in (None, ""):
        return ""
    if isinstance(default, float):
        return f"; default: {default:g}s"
    return f"; default: {default}"


def start_logging(log_format: str, handler: logging.Handler | None = None) -> None:
    """Log what the program does to standard error, one line each.

    A handler that is given puts time and level before the message in its own way.
    """
    if handler is None:
        handler = logging.StreamHandler()
        text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        handler.setFormatter(JsonLines() if log_format == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Libraries say at INFO what we say better, and may put URLs with tokens into it.
    for name in ("git", "google", "urllib3", "grpc", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
