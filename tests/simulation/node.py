"""One simulated node: the real plan, a model server, a disk, and an agent's hands and eyes.

What the agent does around `plan` is done here in the same order: fold in what has happened, look,
plan, carry out. Downloads and reloads take time; a restart forgets what the memory file does not
hold; clocks are the node's own.
"""

import math
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler import memory_file
from reconciler.model import (
    Available,
    Commit,
    Desired,
    Listing,
    Local,
    LocalVersion,
    Progress,
    Query,
    Served,
    ServerConfig,
    Snapshot,
    Unavailable,
)
from reconciler.planning.calm import Calm
from reconciler.planning.events import (
    Event,
    Fetched,
    FetchFailed,
    Reloaded,
    ReloadFailed,
    ReloadStarted,
    fold,
)
from reconciler.planning.goals import wanted_queries
from reconciler.planning.memory import Memory
from reconciler.planning.peers import Peer, PeerModel, ask_of
from reconciler.planning.plan import plan
from reconciler.planning.quiet import Interest, find_interest
from reconciler.planning.restart import find_restart_config
from reconciler.planning.rollout import Request
from reconciler.planning.steps import (
    Configure,
    Fetch,
    Limits,
    Plan,
    RemoveVersion,
    World,
    WriteConfig,
)
from reconciler.rotation import ROUND_SECONDS
from tests.simulation.bucket import Bucket
from tests.simulation.server import PacedServer
from tests.unit.serversim import RefusedError

LIMITS = Limits(settle_seconds=3.0, poll_seconds=1.0)
LISTING_SECONDS = 10.0
"""Between two listings of one source."""
WALL_SECONDS = 1_700_000_000.0
_CHECKED = 7
"""Which plans are made a second time, without what the one before has handed on."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How a machine differs from the others."""

    clock_seconds: float = 0.0
    """What its steady clock says at the start of the simulation."""
    skew_seconds: float = 0.0
    """How wrong its wall clock is."""
    fetch_seconds: float = 2.0
    """How long a download takes."""
    answer_seconds: float = 0.1
    """How long its answers are under way to others."""
    disk_bytes: int = 10**9


@dataclass(frozen=True, slots=True)
class Troubles:
    """What a node cannot reach."""

    git: Unavailable | None = None
    members: Unavailable | None = None


@dataclass(slots=True)
class _Download:
    snapshot: Snapshot
    begun_at: float


@dataclass
class Node:
    """A machine that is on."""

    name: str
    traits: Traits
    server: PacedServer
    disk: dict[str, dict[int, LocalVersion]] = field(default_factory=dict)
    restart_config: ServerConfig = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    made: Plan | None = None
    """The newest plan: what the node says of itself follows from it."""
    desired: Desired | None = None
    made_at: float = 0.0
    applied: Commit | None = None
    peers: dict[str, Peer | Unavailable] = field(default_factory=dict)
    downloads: dict[tuple[str, int], _Download] = field(default_factory=dict)
    listings: dict[Query, Listing] = field(default_factory=dict)
    listed_at: dict[Query, tuple[float, int]] = field(default_factory=dict)
    listing_troubles: dict[Query, Unavailable] = field(default_factory=dict)
    connection: int = 1
    _outstanding: Request | None = None
    _is_taken: bool = False
    """Whether the server has begun with the outstanding reload."""
    _events: list[Event] = field(default_factory=list)
    _looks: dict[tuple[str, str], tuple[Any, float]] = field(default_factory=dict)
    """What was seen of each model last, and when."""
    _asked_connection: int = 0

    # --- the tick -------------------------------------------------------------------------

    def tick(self, desired: Desired, troubles: Troubles, bucket: Bucket, now: float) -> Plan:
        """Look, plan and carry out, as an agent does at one moment."""
        self.server.advance(now)
        self._take_answer()
        self._end_downloads(bucket, now)
        clock = now + self.traits.clock_seconds
        for event in self._events:
            self.memory = fold(self.memory, event, clock)
        self._events.clear()
        self._list(desired, bucket, now)
        used_bytes = sum(v.size_bytes for found in self.disk.values() for v in found.values())
        interest = find_interest(self.made.calm if self.made else Calm(), desired, self.memory)
        disk = self._look_at_disk(interest.restless, now)
        world = World(
            desired=desired,
            available=Available(dict(self.listings), self.listing_troubles),
            local=Local(
                disk,
                free_bytes=self.traits.disk_bytes - used_bytes,
                total_bytes=self.traits.disk_bytes,
            ),
            served=self._look_at_server(interest, disk, now),
            restart_config=self.restart_config,
            git_trouble=troubles.git,
            members_trouble=troubles.members,
            fetching={
                key: Progress(0, item.snapshot.size_bytes) for key, item in self.downloads.items()
            },
            wall_seconds=WALL_SECONDS + now + self.traits.skew_seconds,
            peers=self.peers,
        )
        last = self.made.calm if self.made else None
        made = plan(world, self.memory, LIMITS, clock, last)
        if round(now * 10) % _CHECKED == 0:
            assert made == plan(world, self.memory, LIMITS, clock), "the last plan changed this one"
        self.made, self.made_at, self.desired = made, now, desired
        self.memory = self.made.memory
        if self.made.settled and troubles.git is None:
            self.applied = desired.commit
        self._carry_out(self.made, now)
        return self.made

    @property
    def is_busy(self) -> bool:
        """Whether something runs beside the loop."""
        return bool(self.downloads) or self._outstanding is not None or bool(self._events)

    @property
    def fetching(self) -> Mapping[tuple[str, int], int]:
        """Downloads that run: (model, version) -> size."""
        return {key: item.snapshot.size_bytes for key, item in self.downloads.items()}

    def serves(self, model: str) -> bool:
        """Whether any version of the model answers."""
        return bool(self.server.serving.get(model))

    def _take_answer(self) -> None:
        request = self._outstanding
        if request is None or self.server.is_blocked:
            return
        if not self._is_taken:  # it waited for one that an agent before this one had sent
            self._take(request)
            return
        self._events.append(Reloaded(request))
        self._outstanding = None

    def _end_downloads(self, bucket: Bucket, now: float) -> None:
        for (model, version), item in list(self.downloads.items()):
            if now < item.begun_at + self.traits.fetch_seconds:
                continue
            del self.downloads[model, version]
            snapshot = item.snapshot
            if bucket.is_away:
                digest, sentence = snapshot.digest, "the bucket does not answer"
                event = FetchFailed(model, version, digest, "DownloadFailed", sentence)
                self._events.append(event)
                continue
            found = LocalVersion(model, version, snapshot.size_bytes, snapshot.digest)
            self.disk.setdefault(model, {})[version] = found
            self.server.on_disk.setdefault(model, set()).add(version)
            self._events.append(Fetched(model, version))

    def _list(self, desired: Desired, bucket: Bucket, now: float) -> None:
        """Answer the queries of the tick before; new ones are asked by the next."""
        available = Available(self.listings)
        wanted: set[Query] = set()
        for deployment in desired.deployments:
            found = self.disk.get(deployment.model, {})
            known = self.memory.of(deployment.model)
            wanted |= wanted_queries(deployment, found, known, available).keys()
        away = Unavailable("ListingFailed", "the bucket does not answer")
        self.listing_troubles = dict.fromkeys(wanted, away) if bucket.is_away else {}
        for query in wanted:
            read_at, generation = self.listed_at.get(query, (-LISTING_SECONDS, -1))
            is_due = now >= read_at + LISTING_SECONDS
            is_settling = self.made is not None and query in self.made.relist
            is_other = generation != bucket.generation or is_settling
            if not bucket.is_away and is_other and (is_due or is_settling):
                self.listings[query] = bucket.list(query, now)
                self.listed_at[query] = (now, bucket.generation)

    def _carry_out(self, made: Plan, now: float) -> None:
        steps = [step for step in made.steps if isinstance(step, Fetch)]
        wanted = {(step.model, step.snapshot.version): step.snapshot for step in steps}
        for key, item in list(self.downloads.items()):
            if key not in wanted or wanted[key].digest != item.snapshot.digest:
                del self.downloads[key]
        for key, snapshot in wanted.items():
            self.downloads.setdefault(key, _Download(snapshot, now))
        for step in made.steps:
            match step:
                case WriteConfig(config):
                    self.restart_config = dict(config)
                case Configure(request) if self._outstanding is None:
                    self._send(request)
                case RemoveVersion(model, version):
                    assert version not in self.server.serving.get(model, ()), "deletes what serves"
                    del self.disk[model][version]
                    self.server.on_disk[model].discard(version)
                    if not self.disk[model]:
                        del self.disk[model]

    def _send(self, request: Request) -> None:
        self._events.append(ReloadStarted())
        self._outstanding, self._is_taken = request, False
        self._take_answer()

    def _take(self, request: Request) -> None:
        try:
            self.server.reload(request.config)
        except RefusedError as error:
            message = f"Request to assign label to version 1 of model {error}, which is not"
            self._events.append(ReloadFailed(request, "FAILED_PRECONDITION", message))
            self._outstanding = None
            return
        self._is_taken = True
        self._take_answer()

    # --- what goes wrong ------------------------------------------------------------------

    def restart_agent(self) -> None:
        """Begin again with nothing but the memory file and the server's config file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "memory.json")
            memory_file.MemoryFile(path).save(self.memory, None)
            self.memory, _ = memory_file.load(path)
        for model, ask in self.restart_config.items():
            if self.memory.of(model).good is None:
                known = replace(self.memory.of(model), good=ask)
                self.memory = self.memory.with_model(model, known)
        self.connection, self._outstanding, self.made = 1, None, None
        self._looks.clear()
        for forgotten in (self._events, self.downloads, self.listings, self.listed_at, self.peers):
            forgotten.clear()

    def crash_server(self, now: float) -> None:
        """Let the server begin again from its config file."""
        if self._outstanding is not None:
            message = "Socket closed"
            self._events.append(ReloadFailed(self._outstanding, "UNAVAILABLE", message))
            self._outstanding = None
        self.server.start(self.restart_config, now)
        self.connection += 1

    def restart_machine(self, now: float, *, is_empty: bool) -> None:
        """Come up after the power was off; `is_empty`: as another machine of the same name."""
        if is_empty:
            self.disk, self.restart_config, self.memory = {}, {}, Memory()
            self.server.on_disk.clear()
        proven = find_restart_config(self.memory, self.disk)
        self.restart_config = self.restart_config or proven
        self.server.start(self.restart_config, now)
        self.restart_agent()

    # --- what it sees -----------------------------------------------------------------------

    def _look_at_disk(
        self, urgent: Collection[str], now: float
    ) -> dict[str, Mapping[int, LocalVersion]]:
        found = {m: dict(versions) for m, versions in self.disk.items()}
        seen, _ = self._look_again("disk", found, urgent, now)
        return seen

    def _look_at_server(
        self, interest: Interest, disk: Mapping[str, Mapping[int, LocalVersion]], now: float
    ) -> Served:
        known = self.made.calm.models if self.made else {}
        other = {m for m, found in disk.items() if m not in known or found is not known[m].found}
        if self._asked_connection != self.connection:
            self._asked_connection = self.connection
            self._forget_looks("server", ())
        models = interest.models | disk.keys()
        states = {model: dict(self.server.states.get(model, {})) for model in models}
        seen, fresh = self._look_again("server", states, interest.restless | other, now)
        return Served(self.connection, seen, fresh)

    def _look_again(
        self, where: str, found: Mapping[str, Any], urgent: Collection[str], now: float
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """Return what is seen of all names, and of which of them that is new.

        As on a node with thousands of models: of what is not urgent nothing newer is known than
        what was seen a round ago. What has not changed comes back as the same value, by which the
        plan knows of what it need not think again.
        """
        self._forget_looks(where, found)
        fresh = set()
        for name in found:
            seen, seen_at = self._looks.get((where, name), (None, -math.inf))
            if name in urgent or now - seen_at >= ROUND_SECONDS:
                seen = seen if seen == found[name] else found[name]
                self._looks[where, name] = seen, now
                fresh.add(name)
        return {name: self._looks[where, name][0] for name in found}, frozenset(fresh)

    def _forget_looks(self, where: str, others: Collection[str]) -> None:
        for key in [key for key in self._looks if key[0] == where and key[1] not in others]:
            del self._looks[key]

    # --- what it says ---------------------------------------------------------------------

    def speak(self) -> Peer:
        """Return what the node's status says to another node."""
        models = {}
        for outcome in self.made.outcomes if self.made else ():
            since = outcome.deployed_since
            clock = self.made_at + self.traits.clock_seconds
            passed_seconds = 0.0 if since is None else clock - since
            models[outcome.deployment.model] = PeerModel(
                ask=ask_of(outcome.deployment) if outcome.deployment.source else "",
                phase=outcome.phase,
                reason=outcome.reason,
                wanted=outcome.wanted,
                serving=outcome.serving,
                deployed_seconds=passed_seconds,
                sentence=outcome.sentence,
            )
        return Peer(self.name, models)
