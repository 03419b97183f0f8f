"""Puts another server in the place of one that does not run what git says.

The decisions are in moves.py (what comes next of the two containers), planning/supervision.py
(what stopping the server would cost) and planning/server_turns.py (whether another node comes
first); the calls are in engine.py. Here they come together, one call at a time. What has begun is
brought to its end, one way or the other, without another look at whose turn it is.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.model import Condition, ServerSpec
from reconciler.planning.peers import ServerState
from reconciler.planning.supervision import ServerSight
from reconciler.supervision import words
from reconciler.supervision.calls import ask, make_change
from reconciler.supervision.container import Container, find_hindrance, follows
from reconciler.supervision.errors import REFUSED, EngineError
from reconciler.supervision.logbook import Logbook
from reconciler.supervision.moves import Move, Verdict, judge, next_move
from reconciler.supervision.pace import Pace

if TYPE_CHECKING:
    from reconciler.supervision.engine import ServerEngine

_log = logging.getLogger(__name__)


class Replacement:
    """Follows git with one container. Belongs to one supervisor."""

    def __init__(
        self, log: Logbook, pace: Pace, clock: Callable[[], float], *, may_follow: bool
    ) -> None:
        self._log = log
        self._pace = pace
        self._clock = clock
        self._may_follow = may_follow
        self._waiting_since: float | None = None
        self._stopping = ""
        """The id of a container that was told to stop and was not started again since."""
        self._last_pull = ("", 0.0)

    def note_end(self, container: Container) -> None:
        """Take in that the container has no successor now."""
        if container.id == self._stopping and container.is_running:
            self._log.note_same_server()  # as it turns out, it never stopped
        self._stopping = ""
        self._waiting_since = None

    # --- one container --------------------------------------------------------------------------

    async def follow(
        self,
        engine: "ServerEngine",
        container: Container,
        sight: ServerSight,
        wanted: ServerSpec,
    ) -> float:
        """Begin to replace the container where it does not run what git says.

        Return in how many seconds to look again; raises EngineError.
        """
        image = wanted.image or container.image
        found = None
        if image != container.image:
            found = await ask(lambda: engine.find_image_id(image))
        notes = self._log.notes
        if notes.failed not in (None, wanted):
            self._log.note_down(replace(notes, failed=None, failure=""))
        if follows(container, wanted, found):
            self._log.say_well(f"container {container.name} runs {image} as git says")
            self._stand_as_asked(container, sight, wanted)
        elif notes.failed == wanted:
            self._log.show(words.tell_failure(container, wanted, notes.failure))
            self._log.stand(wanted, ServerState.FAILED)
        elif hindrance := find_hindrance(container, wanted):
            self._log.show(words.tell_hindrance(container, wanted, hindrance))
            self._log.stand(wanted, ServerState.PENDING)
        elif held := self._find_hold(container, sight, wanted):
            self._log.show(held)
        else:
            # It still serves, and may be told to leave it at that while an image is on its way.
            sentence = f"{words.describe(wanted)} is being prepared"
            self._log.stand(wanted, ServerState.PENDING, sentence, awaits_turn=True)
            return await self._prepare(engine, container, wanted, image, found)
        return self._pace.look_seconds

    def _stand_as_asked(self, container: Container, sight: ServerSight, wanted: ServerSpec) -> None:
        if sight.serves_proven and container.is_running and self._log.is_of_now(sight):
            self._log.stand(wanted, ServerState.STEADY)
        else:
            sentence = f"container {container.name} does not serve all that it is to serve"
            self._log.stand(wanted, ServerState.PENDING, sentence)

    def _find_hold(
        self, container: Container, sight: ServerSight, wanted: ServerSpec
    ) -> Condition | None:
        """Return what keeps a replacement from being begun; the nodes after this one wait for it.

        The others are asked only once nothing else is in the way.
        """
        held = words.tell_held_update(wanted, sight, container)
        if held is not None:
            self._log.stand(wanted, ServerState.PENDING, held.sentence)
            return held
        turned = words.tell_turn(wanted, sight, container)
        if turned is not None:
            self._log.stand(wanted, ServerState.PENDING, turned.sentence, awaits_turn=True)
        return turned

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
            self._log.say(True, "ServerUpdating", f"gets the image {image}")
            await make_change(f"pulled {image}", lambda: engine.pull(image))
        else:
            await make_change(
                f"created a successor of container {container.name}",
                lambda: engine.create_successor(container, wanted),
            )
        return self._pace.soon_seconds

    # --- a container and its successor ----------------------------------------------------------

    async def go_on(self, engine: "ServerEngine", old: Container, new: Container) -> float:
        """Make the next move; return in how many seconds to look again. Raises EngineError."""
        verdict = self._judge(old, new)
        if verdict is None:
            return self._pace.look_seconds
        move = next_move(old, new, verdict)
        if move is Move.WAIT:
            wanted = f"{new.image} is started in place of container {old.name}"
            self._log.say(True, "ServerUpdating", f"{wanted}, until it serves what was served")
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
        if move is Move.START_OLD:
            self._stopping = ""
            self._log.note_old_server()
        try:
            await make_change(
                f"{done} container {container.name} ({container.image})", lambda: call(container)
            )
        except EngineError as error:
            if move is Move.START_NEW and error.reason == REFUSED:
                self._blame(str(error))
                return self._pace.soon_seconds
            raise
        finally:
            if move is Move.STOP_OLD:
                self._stopping = old.id
                self._log.note_old_server()
        return self._pace.soon_seconds

    def _judge(self, old: Container, new: Container) -> Verdict | None:
        """Return what is to become of a successor; None where nothing is to be done for now."""
        sight = self._log.sight
        if sight is None:
            # Nothing is known yet, but a server there must be.
            return None if old.is_running or new.is_running else Verdict.BAD
        if new.is_running and not old.is_running and self._waiting_since is None:
            self._waiting_since = self._clock()
        failed = self._log.notes.failed
        wanted = sight.wanted if self._may_follow and sight.wanted != failed else None
        verdict, failure = judge(
            old,
            new,
            wanted=wanted,
            serves=sight.serves_proven and self._log.is_of_now(sight),
            is_overdue=self._has_waited_too_long(),
        )
        if failure:
            self._blame(failure)
        is_begun = new.has_run or not old.is_running
        if verdict is Verdict.OPEN and wanted is not None and not is_begun:
            held = self._find_hold(old, sight, wanted)
            if held is not None:
                self._log.show(held)
                return None
        sentence = f"{new.image} and {old.image} change places in container {old.name}"
        self._log.stand(sight.wanted, ServerState.REPLACING, sentence, awaits_turn=not is_begun)
        return verdict

    def _has_waited_too_long(self) -> bool:
        since = self._waiting_since
        return since is not None and self._clock() - since >= self._pace.ready_seconds

    def _blame(self, failure: str) -> None:
        """Note that what git says now does not work, so that it is not tried for ever."""
        wanted = self._log.sight.wanted if self._log.sight else None
        _log.warning("the server's update failed: %s", failure)
        self._log.note_down(replace(self._log.notes, failed=wanted, failure=failure))
