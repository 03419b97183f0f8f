"""Looks after the one container that runs this node's TensorFlow Serving.

One look, at most one move, and the next look: the engine is asked what there is, the tick has said
what the server needs, and the rest follows from these. Two things may come of it, by the setting
`supervise`: a restart where only that helps, and a successor where git wants another image or
other flags (replacement.py). Whatever it cannot make sense of it leaves alone and says so in the
condition ServerSupervised.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.model import Condition
from reconciler.planning.peers import ServerStanding, ServerState
from reconciler.planning.supervision import RestartNeed, ServerSight
from reconciler.settings import Settings
from reconciler.supervision import words
from reconciler.supervision.calls import ask, make_change
from reconciler.supervision.container import Container
from reconciler.supervision.errors import EngineError
from reconciler.supervision.logbook import Logbook
from reconciler.supervision.moves import find_pair
from reconciler.supervision.pace import Pace
from reconciler.supervision.replacement import Replacement

if TYPE_CHECKING:
    from reconciler.supervision.engine import ServerEngine


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
        self._log = Logbook(settings.state_dir / "supervision.json", wake)
        self._clock = clock
        self._pace = pace or Pace()
        self._replacement = Replacement(self._log, self._pace, clock, may_follow=self._may_follow)
        self._due = asyncio.Event()
        self._restarted_at: float | None = None

    @property
    def condition(self) -> Condition:
        """How the container is, for people."""
        return self._log.condition

    @property
    def standing(self) -> ServerStanding | None:
        """How far the server is with what git asks, for other nodes; None where it is not asked."""
        return self._log.standing if self._may_follow else None

    @property
    def awaits_turn(self) -> bool:
        """Whether the other nodes' standings are needed to go on."""
        return self._log.awaits_turn

    def note(self, sight: ServerSight) -> None:
        """Take what a tick has seen of the server."""
        if self._log.note_sight(sight):
            self._due.set()

    async def run(self) -> None:
        """Look after the container until cancelled."""
        try:
            from reconciler.supervision.engine import ServerEngine
        except ImportError:
            self._log.show(words.DOCKER_MISSING)
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
            containers = await ask(engine.find)
            pair = find_pair(containers)
            if pair is not None:
                return await self._replacement.go_on(engine, *pair)
            if len(containers) == 1:
                return await self._tend(engine, containers[0])
        except EngineError as error:
            self._log.say(False, error.reason, f"{error}; tried again in a moment")
            return self._pace.look_seconds
        self._log.show(words.tell_no_server(containers, self._label))
        self._stand_by()
        return self._pace.look_seconds

    async def _tend(self, engine: "ServerEngine", container: Container) -> float:
        """Do what one server needs that has no successor."""
        self._replacement.note_end(container)
        if container.name != container.place:
            await make_change(
                f"gave container {container.name} the name {container.place}",
                lambda: engine.rename(container, container.place),
            )
            return self._pace.soon_seconds
        if self._log.notes.restarting:
            if container.id == self._log.notes.restarting and not container.is_running:
                await make_change(f"started {container.name}", lambda: engine.start(container))
            self._log.note_down(replace(self._log.notes, restarting=""))
            return self._pace.soon_seconds
        sight = self._log.sight
        if sight is None:
            return self._pace.look_seconds
        if sight.need is not None:
            if self._restarted_at is not None and not self._log.is_of_now(sight):
                return self._pace.look_seconds
            return await self._restart(engine, container, sight.need)
        if self._may_follow and sight.wanted is not None:
            return await self._replacement.follow(engine, container, sight, sight.wanted)
        self._log.say_well(f"container {container.name} runs {container.image}")
        self._log.stand(None, ServerState.STEADY)
        return self._pace.look_seconds

    async def _restart(
        self, engine: "ServerEngine", container: Container, need: RestartNeed
    ) -> float:
        wait_seconds = self._find_restart_wait(container)
        held = words.tell_held_restart(container, need, wait_seconds)
        if held is not None:
            self._log.show(held)
            self._stand_by()
            return self._pace.look_seconds
        self._restarted_at = self._clock()
        # Before, as a tick may see a quick server again while the engine has not answered yet.
        self._log.note_old_server()
        try:
            await self._end(engine, container, need)
        except EngineError:
            self._log.note_same_server()
            raise
        self._log.say(True, "ServerRestarted", f"container {container.name} was restarted")
        self._stand_by()
        return self._pace.look_seconds

    async def _end(self, engine: "ServerEngine", container: Container, need: RestartNeed) -> None:
        if container.owner:
            # Started again by the engine it would stand beside the one that its owner makes.
            await make_change(
                f"stopped container {container.name}, for {container.owner} to start another",
                lambda: engine.stop(container),
            )
            return
        self._log.note_down(replace(self._log.notes, restarting=container.id))
        await make_change(
            f"restarted container {container.name} ({need.reason})",
            lambda: engine.restart(container),
        )

    def _stand_by(self) -> None:
        """Have the nodes that come later wait, in the condition's words."""
        wanted = self._log.sight.wanted if self._log.sight else None
        self._log.stand(wanted, ServerState.PENDING)

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
