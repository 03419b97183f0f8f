"""Looks after the one container that runs this node's TensorFlow Serving.

One look, at most one move, and the next look: the engine is asked what there is, the tick has said
what the server needs, and the rest follows from these. Two things may come of it, by the setting
`supervise`: a restart where only that helps, and a successor where git wants another image or
other flags. Whatever it cannot make sense of it leaves alone and says so in the condition
ServerSupervised.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from reconciler.model import Condition, ServerSpec
from reconciler.planning.conditions import SERVER_SUPERVISED
from reconciler.planning.supervision import RestartNeed, ServerSight
from reconciler.settings import Settings
from reconciler.supervision import words
from reconciler.supervision.container import Container, find_hindrance, follows
from reconciler.supervision.errors import REFUSED, EngineError
from reconciler.supervision.moves import Move, Verdict, find_pair, judge, next_move
from reconciler.supervision.notes import Notes, load_notes, save_notes
from reconciler.threads import run_beside

if TYPE_CHECKING:
    from reconciler.supervision.engine import ServerEngine

_log = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Pace:
    """How long is waited for what."""

    look_seconds: float = 5.0
    """Between two looks at the engine, and after one that failed."""
    soon_seconds: float = 0.1
    """To the next look after a move. Not at once: a move that changes nothing must not spin."""
    wait_seconds: float = 1.0
    """Between two looks at a successor that is to become ready."""
    ready_seconds: float = 900.0
    """How long a successor may take until it serves what was served."""
    restart_gap_seconds: float = 600.0
    """Between two restarts: one that did not help is not worth a break every few seconds."""
    pull_gap_seconds: float = 60.0
    """Between two tries to get an image."""


class Supervisor:
    """Restarts and replaces one container; `condition` says how it is."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
        pace: Pace | None = None,
    ) -> None:
        self._host, self._label = settings.docker_host, settings.supervise_label
        self._may_follow = settings.supervise == "follow"
        self._notes_file: Path = settings.state_dir / "supervision.json"
        self._notes = load_notes(self._notes_file)
        self._clock = clock
        self._wake = wake
        self._pace = pace or Pace()
        self._due = asyncio.Event()
        self._sight: ServerSight | None = None
        self._connection: int | None = None
        self._old_connection: int | None = None
        self._waiting_since: float | None = None
        self._restarted_at: float | None = None
        self._last_pull = ("", 0.0)
        self.condition = words.STARTING

    def note(self, sight: ServerSight) -> None:
        """Take what a tick has seen of the server."""
        if sight != self._sight:
            self._due.set()
        self._sight = sight
        if sight.connection is not None:
            self._connection = sight.connection

    async def run(self) -> None:
        """Look after the container until cancelled."""
        try:
            from reconciler.supervision.engine import ServerEngine
        except ImportError:
            self._show(words.DOCKER_MISSING)
            return
        engine = ServerEngine(self._host, self._label)
        while True:
            seconds = await self._look(engine)
            try:
                async with asyncio.timeout(seconds):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()

    async def _look(self, engine: "ServerEngine") -> float:
        """Look once, make at most one move and return in how many seconds to look again."""
        try:
            containers = await self._ask(engine.find)
            pair = find_pair(containers)
            if pair is not None:
                return await self._go_on(engine, *pair)
            if len(containers) == 1:
                return await self._tend(engine, containers[0])
        except EngineError as error:
            self._say(False, error.reason, f"{error}; tried again in a moment")
            return self._pace.look_seconds
        self._show(words.tell_no_server(containers, self._label))
        return self._pace.look_seconds

    # --- one container ----------------------------------------------------------------------

    async def _tend(self, engine: "ServerEngine", container: Container) -> float:
        """Do what one server needs that has no successor."""
        self._waiting_since = None
        if container.name != container.place:
            await self._do(
                f"gave container {container.name} the name {container.place}",
                lambda: engine.rename(container, container.place),
            )
            return self._pace.soon_seconds
        if self._notes.restarting:
            if container.id == self._notes.restarting and not container.is_running:
                await self._do(f"started {container.name}", lambda: engine.start(container))
            self._note_down(replace(self._notes, restarting=""))
            return self._pace.soon_seconds
        sight = self._sight
        if sight is None:
            return self._pace.look_seconds
        if sight.need is not None:
            if self._restarted_at is not None and not self._is_of_now(sight):
                return self._pace.look_seconds
            return await self._restart(engine, container, sight.need)
        if self._may_follow and sight.wanted is not None:
            return await self._follow(engine, container, sight, sight.wanted)
        self._say_well(f"container {container.name} runs {container.image}")
        return self._pace.look_seconds

    async def _restart(
        self, engine: "ServerEngine", container: Container, need: RestartNeed
    ) -> float:
        wait_seconds = self._find_restart_wait(container)
        held = words.tell_held_restart(container, need, wait_seconds)
        if held is not None:
            self._show(held)
            return self._pace.look_seconds
        self._restarted_at = self._clock()
        if container.owner:
            # Started again by the engine it would stand beside the one that its owner makes.
            await self._do(
                f"stopped container {container.name}, for {container.owner} to start another",
                lambda: engine.stop(container),
            )
        else:
            self._note_down(replace(self._notes, restarting=container.id))
            await self._do(
                f"restarted container {container.name} ({need.reason})",
                lambda: engine.restart(container),
            )
        self._old_connection = self._connection
        self._say(True, "ServerRestarted", f"container {container.name} was restarted")
        return self._pace.look_seconds

    def _is_of_now(self, sight: ServerSight) -> bool:
        """Whether this was seen of the server as it runs now, and not of the one before."""
        return sight.connection not in (None, self._old_connection)

    def _find_restart_wait(self, container: Container) -> float:
        """Return how long the gap to the last start lasts, by the engine's memory and by ours.

        The engine's survives the agent, ours a clock that jumps.
        """
        gap_seconds = self._pace.restart_gap_seconds
        waits = [0.0]
        if container.started_at_seconds is not None:
            waits.append(gap_seconds - abs(time.time() - container.started_at_seconds))
        if self._restarted_at is not None:
            waits.append(self._restarted_at + gap_seconds - self._clock())
        return max(waits)

    async def _follow(
        self,
        engine: "ServerEngine",
        container: Container,
        sight: ServerSight,
        wanted: ServerSpec,
    ) -> float:
        """Begin to replace the container where it does not run what git says."""
        image = wanted.image or container.image
        found = None
        if image != container.image:
            found = await self._ask(lambda: engine.find_image_id(image))
        if self._notes.failed not in (None, wanted):
            self._note_down(replace(self._notes, failed=None, failure=""))
        if follows(container, wanted, found):
            self._say_well(f"container {container.name} runs {image} as git says")
        elif self._notes.failed == wanted:
            self._show(words.tell_failure(container, wanted, self._notes.failure))
        elif hindrance := find_hindrance(container, wanted):
            self._show(words.tell_hindrance(container, wanted, hindrance))
        elif held := words.tell_held_update(wanted, sight, container):
            self._show(held)
        else:
            return await self._prepare(engine, container, wanted, image, found)
        return self._pace.look_seconds

    async def _prepare(
        self,
        engine: "ServerEngine",
        container: Container,
        wanted: ServerSpec,
        image: str,
        found: str | None,
    ) -> float:
        """Get the image, or create the successor: the server goes on serving during either."""
        if found is None and image != container.image:
            before, pulled_at = self._last_pull
            wait_seconds = pulled_at + self._pace.pull_gap_seconds - self._clock()
            if before == image and wait_seconds > 0:
                return min(wait_seconds, self._pace.look_seconds)
            self._last_pull = (image, self._clock())
            self._say(True, "ServerUpdating", f"gets the image {image}")
            await self._do(f"pulled {image}", lambda: engine.pull(image))
        else:
            await self._do(
                f"created a successor of container {container.name}",
                lambda: engine.create_successor(container, wanted),
            )
        return self._pace.soon_seconds

    # --- a container and its successor --------------------------------------------------------

    async def _go_on(self, engine: "ServerEngine", old: Container, new: Container) -> float:
        """Make the next move of a replacement."""
        verdict = self._judge(old, new)
        if verdict is None:
            return self._pace.look_seconds
        move = next_move(old, new, verdict)
        if move is Move.WAIT:
            wanted = f"{new.image} is started in place of container {old.name}"
            self._say(True, "ServerUpdating", f"{wanted}, until it serves what was served")
            return self._pace.wait_seconds
        calls: dict[Move, tuple[str, Callable[[Container], None], Container]] = {
            Move.STOP_OLD: ("stopped", engine.stop, old),
            Move.START_OLD: ("started", engine.start, old),
            Move.REMOVE_OLD: ("removed", engine.remove, old),
            Move.STOP_NEW: ("stopped", engine.stop, new),
            Move.START_NEW: ("started", engine.start, new),
            Move.REMOVE_NEW: ("removed", engine.remove, new),
        }
        done, call, container = calls[move]
        try:
            await self._do(
                f"{done} container {container.name} ({container.image})", lambda: call(container)
            )
        except EngineError as error:
            if move is Move.START_NEW and error.reason == REFUSED:
                self._blame(str(error))
                return self._pace.soon_seconds
            raise
        finally:
            if old.is_running:
                # What was seen until now was seen of the old server.
                self._old_connection = self._connection
        return self._pace.soon_seconds

    def _judge(self, old: Container, new: Container) -> Verdict | None:
        """Return what is to become of a successor; None where nothing is to be done for now."""
        sight = self._sight
        if sight is None:
            # Nothing is known yet, but a server there must be.
            return None if old.is_running or new.is_running else Verdict.BAD
        if new.is_running and not old.is_running and self._waiting_since is None:
            self._waiting_since = self._clock()
        wanted = sight.wanted if self._may_follow and sight.wanted != self._notes.failed else None
        verdict, failure = judge(
            old,
            new,
            wanted=wanted,
            serves=sight.serves_proven and self._is_of_now(sight),
            is_overdue=self._has_waited_too_long(),
        )
        if failure:
            self._blame(failure)
        is_begun = new.has_run or not old.is_running
        if verdict is Verdict.OPEN and wanted is not None and not is_begun:
            held = words.tell_held_update(wanted, sight, old)
            if held is not None:
                self._show(held)
                return None
        return verdict

    def _has_waited_too_long(self) -> bool:
        since = self._waiting_since
        return since is not None and self._clock() - since >= self._pace.ready_seconds

    def _blame(self, failure: str) -> None:
        """Note that what git says now does not work, so that it is not tried for ever."""
        wanted = self._sight.wanted if self._sight else None
        _log.warning("the server's update failed: %s", failure)
        self._note_down(replace(self._notes, failed=wanted, failure=failure))

    # --- words and calls ------------------------------------------------------------------------

    def _say_well(self, sentence: str) -> None:
        self._say(True, "AsExpected", sentence)

    def _say(self, holds: bool, reason: str, sentence: str) -> None:
        self._show(Condition(SERVER_SUPERVISED, holds, reason, sentence))

    def _show(self, condition: Condition) -> None:
        if (condition.holds, condition.reason) != (self.condition.holds, self.condition.reason):
            self._wake()
        self.condition = condition

    def _note_down(self, notes: Notes) -> None:
        if notes != self._notes:
            self._notes = notes
            save_notes(self._notes_file, notes)

    async def _ask(self, call: Callable[[], ResultT]) -> ResultT:
        return await run_beside(call, "supervision")

    async def _do(self, done: str, call: Callable[[], None]) -> None:
        """Make a change and say in the log that it was made."""
        await self._ask(call)
        _log.info("%s", done)
