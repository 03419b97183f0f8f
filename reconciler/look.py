"""The agent's eyes: one look at everything that a plan depends on.

Git, the buckets, the members and other nodes are kept fresh beside the tick (watches.py); of those
the newest is taken. The disk and the server are looked at here and now, as far as it is worth it:
of thousands of models at rest only a share is looked at each time. What has not changed since the
look before comes back as the very same values, by which the plan knows that it need not think.
"""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from reconciler import pause_file
from reconciler.apply import Hands
from reconciler.errors import ReconcilerError
from reconciler.model import Desired, Local, Pause, Served, ServerConfig, Unavailable
from reconciler.planning.calm import Calm
from reconciler.planning.goals import wanted_queries
from reconciler.planning.memory import Memory
from reconciler.planning.peers import ServerStanding
from reconciler.planning.quiet import Interest, find_interest
from reconciler.planning.rest import Rest
from reconciler.planning.steps import World
from reconciler.serving.client import SERVER_SILENT, ServingClient
from reconciler.serving.config_file import OwnFile
from reconciler.serving.sweep import Sweep
from reconciler.sources.wishes import Wish, Wishes
from reconciler.status.board import StatusBoard
from reconciler.status.peers import describe_namesake
from reconciler.store.store import Store
from reconciler.supervision.supervisor import Supervisor
from reconciler.watches import Watches

_LOOK_PATIENCE_SECONDS = 0.8


@dataclass(slots=True)
class Eyes:
    """The side of the agent that sees."""

    node: str
    state_dir: Path
    watches: Watches
    store: Store
    config_file: OwnFile
    """What the server starts from."""
    client: ServingClient
    sweep: Sweep
    hands: Hands
    board: StatusBoard
    supervisor: Supervisor | None
    _asking: asyncio.Task[Served] | None = None
    _wishes: Wishes = field(default_factory=Wishes)
    _interest: tuple[tuple[object, ...], Interest] | None = None

    async def look(self, desired: Desired, memory: Memory, calm: Calm, rest: Rest | None) -> World:
        """Return the world as it is now; raises InstallError where the disk cannot be read.

        `calm` is what the last plan found at rest, `rest` is there while nothing is to be done.
        """
        interest = self._find_interest(desired, memory, calm)

        def read_disk() -> tuple[Local, ServerConfig | None, Pause | None]:
            pause = pause_file.load(self.state_dir)
            return self.store.read_inventory(interest.restless), self.config_file.read(), pause

        local, restart_config, pause = await asyncio.to_thread(read_disk)
        models, restless = interest.models | local.versions.keys(), interest.restless
        if rest is None or rest.world.local.versions is not local.versions:
            restless |= _find_other_files(local, calm)
        if rest is None or restless:
            self._want_listings(desired, local, memory, restless)
        return World(
            desired=desired,
            available=self.watches.buckets.available,
            local=local,
            served=await self._look_at_server(models, restless),
            restart_config=restart_config,
            git_trouble=self.watches.git.trouble,
            source_verified=self.watches.git.source_verified,
            fetching=self.hands.fetching,
            wall_seconds=time.time(),
            pause=pause,
            peers=self.watches.peers.peers,
            namesake=self._find_namesake(),
            members_trouble=self.watches.find_members_trouble(desired),
            notifications=self.watches.notifications,
            supervised=self.supervisor.condition if self.supervisor else None,
            server=self.server,
        )

    @property
    def server(self) -> ServerStanding | None:
        """How far the server is with what git asks; None where it is left to others."""
        return self.supervisor.standing if self.supervisor else None

    @property
    def is_asking(self) -> bool:
        """Whether the server has not answered the last question yet."""
        return self._asking is not None

    async def close(self) -> None:
        """Give up what the server is being asked."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    def _find_interest(self, desired: Desired, memory: Memory, calm: Calm) -> Interest:
        """Return what is worth a look, which is worked out when something has changed."""
        grounds = (desired, memory.models, calm)
        if self._interest is None or any(
            new is not old for new, old in zip(grounds, self._interest[0], strict=True)
        ):
            self._interest = grounds, find_interest(calm, desired, memory)
        return self._interest[1]

    def _want_listings(
        self, desired: Desired, local: Local, memory: Memory, restless: Collection[str]
    ) -> None:
        """Say what is to be listed, where anything is to be listed otherwise than before."""
        available = self.watches.buckets.available
        wishes: dict[str, Wish | None] = {
            deployment.model: wanted_queries(
                deployment,
                local.versions.get(deployment.model, {}),
                memory.of(deployment.model),
                available,
            )
            for deployment in desired.deployments
            if deployment.model in restless or deployment.model not in self._wishes
        }
        models = {deployment.model for deployment in desired.deployments}
        changes = self._wishes.change(wishes | dict.fromkeys(self._wishes.find_gone(models)))
        if changes:
            self.watches.want_listings(changes)

    async def _look_at_server(
        self, models: Collection[str], restless: Collection[str]
    ) -> Served | Unavailable:
        if self._asking is None:
            self._asking = asyncio.create_task(self.sweep.look(models, restless))
        # A server that is silent must not keep the tick from cancelling a download; the question
        # stays open and is taken up by a later tick.
        done, _ = await asyncio.wait({self._asking}, timeout=_LOOK_PATIENCE_SECONDS)
        if not done:
            sentence = f"TensorFlow Serving at {self.client.address} has not answered yet"
            return Unavailable(SERVER_SILENT, sentence)
        asking, self._asking = self._asking, None
        try:
            return asking.result()
        except ReconcilerError as error:
            return Unavailable(error.reason, str(error))

    def _find_namesake(self) -> Unavailable | None:
        found = self.watches.peers.namesake
        if found is None and self.board.has_namesake:
            return describe_namesake(self.node, "has asked this one for its status")
        return found


def _find_other_files(local: Local, calm: Calm) -> set[str]:
    """Return the models whose files are not those of the last plan."""
    return {
        model
        for model, found in local.versions.items()
        if model not in calm.models or found is not calm.models[model].found
    }
