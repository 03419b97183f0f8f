"""Builds the four snapshots for tests of the plan, one line each."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from reconciler.model import (
    Ask,
    Available,
    Commit,
    Deployment,
    Desired,
    Group,
    Listing,
    Local,
    LocalVersion,
    Member,
    Phase,
    Query,
    Quota,
    Served,
    ServerConfig,
    Snapshot,
    State,
    StoredFile,
    VersionStatus,
)
from reconciler.planning.memory import Memory, ModelMemory
from reconciler.planning.peers import Peer, PeerModel, ask_of
from reconciler.planning.plan import plan
from reconciler.planning.steps import (
    Configure,
    Fetch,
    Limits,
    Plan,
    RemoveVersion,
    World,
)
from reconciler.policy import Policy

COMMIT = Commit("c" * 40, "Ada", "Serve something", 1000.0)
LIMITS = Limits(settle_seconds=10.0, poll_seconds=1.0)
NOW = 500.0
SIZE = 1000


def source(model: str) -> str:
    return f"gs://models/{model}"


def deployment(model: str, version: int | None = 1, **changes: object) -> Deployment:
    values: dict[str, object] = {
        "model": model,
        "group": "g",
        "path": f"deployments/g/{model}.yaml",
        "source": source(model),
        "version": version,
    }
    return Deployment(**{**values, **changes})  # type: ignore[arg-type]


def desired(
    *deployments: Deployment, policy: Policy | None = None, quota: Quota | None = None
) -> Desired:
    group = Group("g", "groups/g.yaml", (Member("n"),), quota or Quota())
    return Desired(COMMIT, "n", group, deployments, policy or Policy())


def peer(
    node: str,
    *models: Deployment,
    phase: Phase = Phase.DEPLOYED,
    reason: str = "",
    seconds: float = 0.0,
    wanted: int | None = None,
) -> Peer:
    """A node that says this phase of these deployments."""
    return Peer(
        node,
        {
            item.model: PeerModel(
                ask=ask_of(item),
                phase=phase,
                reason=reason,
                wanted=item.named_version if wanted is None else wanted,
                serving=(item.named_version or 1,) if phase is Phase.DEPLOYED else (),
                deployed_seconds=seconds,
                sentence=f"is {phase} there",
            )
            for item in models
        },
    )


def older(found: Peer) -> Peer:
    """The same node with an agent that does not say what is asked of it."""
    return Peer(found.node, {name: replace(it, ask="") for name, it in found.models.items()})


def snapshot(model: str, version: int, *, generation: int = 1, size: int = SIZE) -> Snapshot:
    file = StoredFile("saved_model.pb", size, generation, 7, 0.0)
    return Snapshot(source(model), version, str(version), (file,))


def listing(model: str, *versions: int, pin: int | None = None, **changes: int) -> Listing:
    found = {version: snapshot(model, version, **changes) for version in versions}
    return Listing(Query(source(model), pin), 10_000.0, found)


def available(*listings: Listing) -> Available:
    return Available({item.query: item for item in listings})


def local(installed: Mapping[str, Iterable[int]], free: int = 10**9) -> Local:
    return Local(
        {
            model: {
                version: LocalVersion(model, version, SIZE, snapshot(model, version).digest)
                for version in versions
            }
            for model, versions in installed.items()
        },
        free_bytes=free,
        total_bytes=10**10,
    )


def served(states: Mapping[str, Mapping[int, State]], connection: int = 1) -> Served:
    return Served(
        connection,
        {
            model: {version: VersionStatus(state) for version, state in versions.items()}
            for model, versions in states.items()
        },
    )


def remembered(asked: Mapping[str, Iterable[int]], **others: ModelMemory) -> Memory:
    """A memory in which the server took `asked`, all of it has answered, and the file says so."""
    models = {
        model: ModelMemory(
            asked=Ask(frozenset(versions)),
            good=Ask(frozenset(versions)),
            since=dict.fromkeys(versions, 0.0),
            available=frozenset(versions),
            proven=tuple(versions),
        )
        for model, versions in asked.items()
    }
    return Memory(models={**models, **others}, connection=1, confirmed=True)


def restart_config(memory: Memory) -> ServerConfig:
    return {model: known.good for model, known in memory.models.items() if known.good}


def make_plan(world: World, memory: Memory, now: float = NOW) -> Plan:
    return plan(world, memory, LIMITS, now)


def fetches(made: Plan) -> list[tuple[str, int]]:
    return [(s.model, s.snapshot.version) for s in made.steps if isinstance(s, Fetch)]


def removals(made: Plan) -> list[tuple[str, int]]:
    return [(s.model, s.version) for s in made.steps if isinstance(s, RemoveVersion)]


def configured(made: Plan) -> ServerConfig | None:
    configs = [s.request.config for s in made.steps if isinstance(s, Configure)]
    return configs[0] if configs else None
