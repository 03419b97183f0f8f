"""A supervisor on an engine, and a tick that says what the engine's containers would serve."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from reconciler.model import Condition, ServerSpec
from reconciler.planning.supervision import ServerSight
from reconciler.settings import Settings
from reconciler.supervision.pace import Pace
from reconciler.supervision.supervisor import Supervisor

LABEL = "reconciler.serving"
_MUTE = (":silent", ":ending")
"""Tags of images that never serve."""
QUICK = Pace(
    look_seconds=0.02,
    soon_seconds=0.0,
    wait_seconds=0.01,
    ready_seconds=60.0,
    restart_gap_seconds=0.0,
    pull_gap_seconds=0.05,
)
CALM = ServerSight(
    need=None, wanted=None, hold=None, obstacle=None, serves_proven=True, connection=1
)


class Server(Protocol):
    """A container, as its engine knows it."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reference(self) -> str: ...
    @property
    def started_at(self) -> str: ...


class Host(Protocol):
    """An engine."""

    @property
    def host(self) -> str: ...
    def labelled(self, label: str) -> Sequence[Server]: ...


class Node:
    """A supervisor, and a tick that sees what the engine's containers would serve."""

    def __init__(self, engine: Host, folder: Path, mode: str, pace: Pace = QUICK) -> None:
        self.engine = engine
        self.sight = CALM
        self.pace = pace
        self.settings = Settings(
            repo="x",
            state_dir=folder,
            docker_host=engine.host,
            supervise=mode,  # type: ignore[arg-type]
            supervise_label=LABEL,
        )
        self.supervisor: Supervisor | None = None

    def wants(self, image: str | None = None, flags: tuple[str, ...] | None = None) -> None:
        self.sight = replace(self.sight, wanted=ServerSpec(image, flags))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self.supervisor = Supervisor(
            self.settings, clock=loop.time, wake=lambda: None, pace=self.pace
        )
        tasks = [
            asyncio.create_task(self.supervisor.run()),
            asyncio.create_task(self._tick()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            # A call goes on alone, and must have ended before the engine does.
            for thread in threading.enumerate():
                if thread.name == "supervision":
                    await asyncio.to_thread(thread.join, 30)

    async def _tick(self) -> None:
        assert self.supervisor is not None
        while True:
            self.supervisor.note(self.look())
            await asyncio.sleep(0.005)

    def look(self) -> ServerSight:
        """What the agent's tick would say of the server that listens now."""
        for box in self.engine.labelled(LABEL):
            if box.status == "running" and not box.reference.endswith(_MUTE):
                return replace(self.sight, connection=hash((box.id, box.started_at)))
        return replace(self.sight, serves_proven=False, connection=None)

    @property
    def condition(self) -> Condition:
        assert self.supervisor is not None
        return self.supervisor.condition

    def has_settled(self) -> bool:
        """Whether one server runs and nothing more is done."""
        found = [(box.name, box.status) for box in self.engine.labelled(LABEL)]
        is_at_rest = self.condition.reason in ("AsExpected", "ServerUpdateFailed")
        return found == [("serving", "running")] and is_at_rest

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_says(self, reason: str, seconds: float = 20.0) -> Condition:
        await self.until(lambda: self.condition.reason == reason, seconds)
        return self.condition

    async def until_settled(self, image: str, reason: str, seconds: float = 20.0) -> str:
        """Wait until one server is left, on `image`, and the condition says so; return its id."""
        await self.until(lambda: self.condition.reason == reason and self._runs(image), seconds)
        return self.engine.labelled(LABEL)[0].id

    def _runs(self, image: str) -> bool:
        found = [(box.name, box.status, box.reference) for box in self.engine.labelled(LABEL)]
        return found == [("serving", "running", image)]
