"""Keeps the proxy's file, and tells the proxy when there is a new one.

A text is first written beside the file and shown to the proxy's own check; only what passes takes
the file's place, by a rename, so that the proxy can be restarted at any moment. The file is the
only state: when the sidecar starts it reloads once, for it cannot know whether its predecessor
lived to do so.

Each reload costs the proxy new processes, so there is a least time between two; what happens
meanwhile is taken together. What fails is tried again, ever more rarely, until it works or
something else is wanted.
"""

import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from reconciler.errors import ReconcilerError, SettingsError
from reconciler.files import sync_folder, write_atomically
from reconciler.process import run

COMMAND_SECONDS: Final = 10.0
"""How long a check or a reload may take."""
RELOAD_INTERVAL_SECONDS: Final = 2.0
_LAST_RETRY_SECONDS = 60.0
_MAX_FILE_BYTES = 64 * 1024 * 1024
_MAX_QUOTED_CHARACTERS = 600


class IngressError(ReconcilerError):
    """The proxy could not be brought up to date; it goes on with what it has."""

    reason = "IngressFailed"


@dataclass(frozen=True, slots=True)
class Commands:
    """How a proxy is spoken to; each is words, not a shell's line."""

    check: tuple[str, ...] = ()
    """Ends with 0 where the proxy would take the file `{file}`; empty: nothing is checked."""
    reload: tuple[str, ...] = ()


def parse_command(text: str, option: str) -> tuple[str, ...]:
    """Return the words of a command line; raises SettingsError where it is none."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise SettingsError(f"{option} {text!r} is not a command: {error}") from None
    if not words:
        raise SettingsError(f"{option} is empty; write a command such as 'nginx -s reload'")
    return words


class Keeper:
    """One proxy's file. Blocking, for one thread at a time."""

    def __init__(
        self, file: Path, commands: Commands, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.file = file
        self._commands = commands
        self._clock = clock
        self._loaded: str | None = None
        """What the proxy was last told of; None before that."""
        self._failed: str | None = None
        """What it could not be told."""
        self._trouble = ""
        """Why not, in a sentence."""
        self._failures = 0
        """How often in a row."""
        self._tried_at = -math.inf

    @property
    def candidate(self) -> Path:
        """Where a text is written to be checked; no pattern such as `*.conf` takes it in."""
        return self.file.with_name(f".{self.file.name}.candidate")

    def read(self) -> str:
        """Return the file's text, empty where there is none; raises IngressError."""
        try:
            with self.file.open("rb") as file:
                return file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise IngressError(f"{self.file} cannot be read ({error.strerror})") from None

    def keep(self, text: str) -> bool:
        """Bring file and proxy to `text` where it is time; return whether that was done now.

        Raises IngressError with a sentence where it could not be done; it is tried again later, and
        until then each call raises the same, for the trouble is not over.
        """
        if text == self._loaded == self.read():
            return False
        if self._clock() < self._due_at(text):
            if self._failed is not None:
                raise IngressError(self._trouble)
            return False
        self._tried_at = self._clock()
        try:
            self.place(text)
            self._reload()
        except IngressError as error:
            self._failures = self._failures + 1 if text == self._failed else 1
            self._failed, self._trouble = text, str(error)
            raise
        self._loaded, self._failed, self._failures = text, None, 0
        return True

    def place(self, text: str) -> None:
        """Make the file say `text`, where the proxy's check lets it pass; raises IngressError."""
        if self.file.exists() and text == self.read():
            return
        try:
            write_atomically(self.candidate, text.encode())
            self._check()
            self.candidate.rename(self.file)
            sync_folder(self.file.parent)
        except OSError as error:
            raise IngressError(
                f"{self.file} cannot be written ({error.strerror}); the proxy goes on as it is"
            ) from None
        finally:
            self.candidate.unlink(missing_ok=True)

    def _due_at(self, text: str) -> float:
        failures = self._failures if text == self._failed else 0
        return self._tried_at + min(
            RELOAD_INTERVAL_SECONDS * 2.0 ** min(failures, 10), _LAST_RETRY_SECONDS
        )

    def _check(self) -> None:
        if not self._commands.check:
            return
        command = [word.replace("{file}", str(self.candidate)) for word in self._commands.check]
        lack = _run(command)
        if lack is not None:
            raise IngressError(
                f"the proxy would not take the new file, so {self.file} stays as it was: {lack}"
            )

    def _reload(self) -> None:
        if not self._commands.reload:
            return
        lack = _run(self._commands.reload)
        if lack is not None:
            raise IngressError(f"{self.file} is written, but the proxy was not reloaded: {lack}")


def _run(command: Sequence[str]) -> str | None:
    """Run a command; return why it failed, None where it did not."""
    try:
        done = run(command, deadline_seconds=COMMAND_SECONDS)
    except OSError as error:
        return f"{command[0]} cannot be run ({error.strerror})"
    except ReconcilerError as error:
        return str(error)
    if done.code == 0:
        return None
    said = done.stderr or done.stdout.decode("utf-8", "replace").strip() or "it said nothing"
    words = " ".join(said.split())[-_MAX_QUOTED_CHARACTERS:]
    return f"{Path(command[0]).name} ended with {done.code}: {words}"
