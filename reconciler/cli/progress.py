"""Progress bars on a terminal, under the log lines."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from reconciler import model

_REFRESH_SECONDS = 0.2
_console = Console(stderr=True)


def terminal_handler() -> logging.Handler:
    """Return a log handler that shares the terminal with the bars."""
    return RichHandler(console=_console, show_path=False, show_level=True, markup=False)


async def show_progress(
    fetching: Callable[[], Mapping[tuple[str, int], model.Progress]],
) -> None:
    """Show a bar for each download that runs, until cancelled."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=_console, transient=True) as bars:
        tasks: dict[tuple[str, int], int] = {}
        while True:
            running = fetching()
            for key, progress in running.items():
                if key not in tasks:
                    name = f"{key[0]} {key[1]}"
                    tasks[key] = bars.add_task(name, total=progress.total_bytes)
                bars.update(tasks[key], completed=progress.done_bytes)  # type: ignore[arg-type]
            for key in tasks.keys() - running.keys():
                bars.remove_task(tasks.pop(key))  # type: ignore[arg-type]
            await asyncio.sleep(_REFRESH_SECONDS)
