"""The agent: four snapshots in, one plan out, carried out, reported; then again.

`tick` is the whole of it. Everything else here keeps the snapshots fresh beside the loop and
decides how soon the next look is worth it. One asyncio loop runs a handful of named root tasks;
if one of them dies the process ends, and the orchestrator starts a fresh one.
"""

import asyncio
import gc
import logging
import secrets
import time
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from reconciler import __version__, memory_file
from reconciler.apply import Hands, PolledFile
from reconciler.errors import ReconcilerError
from reconciler.herald import Herald
from reconciler.logs import about, turn_to
from reconciler.look import Eyes
from reconciler.memory_file import MemoryFile
from reconciler.model import Condition, Desired, Progress, Unavailable
from reconciler.pace import Pace
from reconciler.planning.calm import Calm
from reconciler.planning.conditions import GIT_REACHABLE, MODELS_INTACT
from reconciler.planning.events import FetchFailed, fold
from reconciler.planning.plan import plan
from reconciler.planning.rest import Rest, find_rest, goes_on, note_look
from reconciler.planning.restart import find_restart_config
from reconciler.planning.server_turns import find_others
from reconciler.planning.steps import Limits, Plan, World
from reconciler.planning.supervision import sight_server
from reconciler.serving.client import ServingClient
from reconciler.serving.config_file import OwnFile, parse, read_text
from reconciler.serving.sweep import Sweep
from reconciler.settings import Settings
from reconciler.sources.registry import Sources
from reconciler.status.board import StatusBoard
from reconciler.status.journal import Journal
from reconciler.status.metrics import Metrics
from reconciler.status.peers import Badge
from reconciler.store.collect import clear_leftovers
from reconciler.store.store import Store
from reconciler.supervision.supervisor import Supervisor
from reconciler.tracing import Tracing
from reconciler.watches import Watches, sleep_until

_log = logging.getLogger(__name__)

_NO_CALM = Calm()
_HEARTBEAT_TICKS = 10
_MIN_HEARTBEAT_SECONDS = 60.0


class Agent:
    """One node's agent."""

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        self._settings = settings
        self._tracing = tracing or Tracing()
        self._clock = time.monotonic
        self._wake = asyncio.Event()
        badge = Badge(settings.node, secrets.token_hex(8))
        self._sources = sources = Sources(settings.user_project)
        self.metrics = Metrics(__version__)
        self.watches = Watches(
            settings,
            sources,
            badge,
            clock=self._clock,
            wake=self._wake.set,
            note_fetch=self.metrics.note_fetch,
            tracing=self._tracing,
        )
        self._store = Store(settings.models_dir, connections=settings.connections)
        self._config_file = settings.serving_config_file
        self._base = settings.serving_base
        self._own_file = OwnFile(self._config_file, self._base)
        self._client = ServingClient(settings.serving, self._base)
        self.board = StatusBoard(
            Journal(settings.state_dir / "history.jsonl"),
            self.metrics,
            self.sync,
            wake_git=self.watches.wake_git,
            badge=str(badge),
            heartbeat_limit_seconds=max(_MIN_HEARTBEAT_SECONDS, settings.tick * _HEARTBEAT_TICKS),
        )
        self._hands = Hands(
            store=self._store,
            sources=sources,
            server=self._client
            if settings.serving_mode == "rpc"
            else PolledFile(self._own_file, settings.serving_poll),
            address=settings.serving,
            config_file=self._own_file,
            reload_deadline_seconds=settings.reload_deadline,
            wake=self._wake.set,
            count_bytes=self.metrics.count_downloaded,
            tracing=self._tracing,
        )
        self._limits = Limits(
            settle_seconds=settings.settle,
            poll_seconds=settings.serving_poll,
            is_file_driven=settings.serving_mode == "file",
        )
        self._supervisor = (
            None
            if settings.supervise == "off"
            else Supervisor(settings, clock=self._clock, wake=self._wake.set)
        )
        self._memory_file = MemoryFile(settings.state_dir / "memory.json")
        self._memory, self._applied = memory_file.load(self._memory_file.path)
        self._rest: Rest | None = None
        self._planned = asyncio.Event()
        self._pace = Pace(self._clock)
        self._eyes = Eyes(
            node=settings.node,
            state_dir=settings.state_dir,
            watches=self.watches,
            store=self._store,
            config_file=self._own_file,
            client=self._client,
            sweep=Sweep(self._client, self._clock),
            hands=self._hands,
            board=self.board,
            supervisor=self._supervisor,
        )
        self._herald = Herald(self.board, badge)
        self.plan: Plan | None = None

    # --- the tick -------------------------------------------------------------------------

    async def tick(self) -> None:
        """Look at everything once, plan, carry out what is new, and say so."""
        begun_at = self._clock()
        self._tracing.begin_look()
        git = self.watches.git
        desired = git.desired
        turn_to(commit=desired.commit.id if desired else None)
        self._fold_events()
        self.watches.want_members(desired)
        if desired is None:
            trouble = git.trouble or Unavailable("Starting", "the config repo is being read")
            condition = Condition(GIT_REACHABLE, False, trouble.reason, trouble.sentence)
            if not git.source_verified.holds:
                condition = git.source_verified
            await self._herald.wait(condition, self._applied, self._eyes.server)
            return
        calm = self.plan.calm if self.plan else _NO_CALM
        try:
            world = await self._eyes.look(desired, self._memory, calm, self._rest)
        except ReconcilerError as error:
            condition = Condition(MODELS_INTACT, False, error.reason, str(error))
            await self._herald.wait(condition, self._applied, self._eyes.server)
            return
        now = self._clock()
        asked_peers = self._find_server_peers(desired)
        rest = None if asked_peers else self._rest
        if rest is not None and goes_on(rest, world, self._memory, now):
            self._rest = note_look(rest, now)
            self._memory = self._rest.memory
            self.board.beat()
            self._tracing.end_look((), is_moving=False, commit=desired.commit.id)
        else:
            await self._act(world, calm, asked_peers, now)
        self.metrics.observe_tick(self._clock() - begun_at)

    async def _act(
        self, world: World, calm: Calm, asked_peers: tuple[str, ...], now: float
    ) -> None:
        """Plan for `world`, carry out what is new, remember it and say so."""
        desired = world.desired
        with self._tracing.span("plan"):
            newest = plan(world, self._memory, self._limits, now, calm)
        if self._supervisor is not None:
            self._supervisor.note(sight_server(world, newest, self._limits, now))
        if self.plan is None or newest.steps != self.plan.steps:
            self._pace.begin()
        done = await self._hands.carry_out(newest)
        self.plan, self._memory = newest, newest.memory
        self._planned.set()
        for query, wait_seconds in newest.relist.items():
            self.watches.hasten(query, wait_seconds)
        self.watches.want_peers(desired, {*newest.ask_peers, *asked_peers})
        if newest.settled and world.git_trouble is None:
            self._applied = desired.commit
        is_kept = self._memory_file.keep(self._memory, self._applied)
        self._rest = find_rest(world, newest, now) if is_kept else None
        await self._herald.tell(world, newest, done, self._applied, now)
        self._tracing.end_look(
            newest.steps,
            is_moving=self._hands.busy or newest.in_motion or not self.watches.answered,
            commit=desired.commit.id,
            settled=newest.settled,
        )

    def _fold_events(self) -> None:
        for event in self._hands.take_events():
            self._memory = fold(self._memory, event, self._clock())
            self._herald.tell_event(event)
            if isinstance(event, FetchFailed):
                desired = self.watches.git.desired
                for deployment in desired.deployments if desired else ():
                    if deployment.model == event.model:
                        self.watches.wake_sources([deployment.source])

    def _find_server_peers(self, desired: Desired) -> tuple[str, ...]:
        is_asking = self._supervisor is not None and self._supervisor.awaits_turn
        return find_others(desired) if is_asking else ()

    @property
    def fetching(self) -> Mapping[tuple[str, int], Progress]:
        """Downloads that run: (model, version) -> how far."""
        return self._hands.fetching

    @property
    def is_busy(self) -> bool:
        """Whether something runs beside the tick, or the server is still to answer."""
        return self._hands.busy or self._eyes.is_asking

    # --- beside the tick ------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what an earlier run left: the mirror, the config file, half-done removals."""
        self._settings.models_dir.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(clear_leftovers, self._settings.models_dir)
        config = self._own_file.read()
        if config is None:
            text = read_text(self._config_file)
            config = parse(text) if text is not None else None
        if config is None:
            # Also when nothing has worked yet: a server that starts from an empty list takes its
            # first reload well, one that starts from no list does not.
            local = await asyncio.to_thread(self._store.read_inventory)
            proven = find_restart_config(self._memory, local.versions)
            await asyncio.to_thread(self._own_file.write, proven)
        for model, ask in (config or {}).items():
            known = self._memory.of(model)
            if known.good is None:
                self._memory = self._memory.with_model(model, replace(known, good=ask))
        await self.watches.git.restore()

    def sync(self) -> None:
        """Look at git, the buckets and the node now: POST /sync."""
        self.watches.wake_all()
        self._wake.set()

    async def run(self, *others: Coroutine[Any, Any, None]) -> None:
        """Run until cancelled, with `others` as root tasks too; raises when one of them dies."""
        await self.start()
        async with asyncio.TaskGroup() as group:
            for name, task in self.watches.follow().items():
                group.create_task(task, name=name)
            group.create_task(self.keep_connection(), name="connection")
            group.create_task(self._verify_beside(), name="verify")
            group.create_task(self._tick_for_ever(), name="ticks")
            if self._supervisor is not None:
                group.create_task(self._supervisor.run(), name="supervision")
            for other in others:
                group.create_task(other)

    async def keep_connection(self) -> None:
        """Keep the connection to TensorFlow Serving until cancelled."""
        await self._client.watch_connection()

    async def _verify_beside(self) -> None:
        """Verify what is installed once the first plan is made: nobody is to wait for that."""
        await self._planned.wait()
        await self.verify_installed()
        # What is known of 10,000 models stays as it is, and to search it for garbage again and
        # again would take longer than to plan for a change.
        gc.freeze()

    async def verify_installed(self) -> None:
        """Hold what an earlier run installed against its manifests, once, beside the loop."""
        local = await asyncio.to_thread(self._store.read_inventory)
        for model, versions in local.versions.items():
            for version, found in versions.items():
                if found.digest is not None and not await self._store.verify(model, version):
                    with about(model=model, version=version):
                        _log.warning(
                            "%s %s on disk is damaged and is fetched again", model, version
                        )
                    self._wake.set()

    async def _tick_for_ever(self) -> None:
        while True:
            begun_at = self._clock()
            await self.tick()
            pause_seconds = self._settings.tick
            if self._hands.busy or (self.plan is not None and self.plan.in_motion):
                moving_seconds = self._pace.pause_seconds(self._clock() - begun_at)
                pause_seconds = min(moving_seconds, pause_seconds)
            await sleep_until(self._wake, pause_seconds, 0.0)

    async def close(self) -> None:
        """Stop what runs beside the loop."""
        await self._eyes.close()
        await self.watches.close()
        await self._hands.close()
        await self._memory_file.close()
        await asyncio.to_thread(self._sources.close)
        await asyncio.to_thread(self._tracing.close)
        await self._client.close()
