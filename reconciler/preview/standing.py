"""The state of a node that has carried out the base commit, as far as git tells.

No node is asked. What a converged node has follows from what it was asked: the versions that are
in force are loaded, and of those in force before, the last `keep` are still on disk. Whatever was
asked for is taken to have served; that it failed, git does not say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reconciler.model import (
    Ask,
    Deployment,
    Desired,
    Local,
    LocalVersion,
    Served,
    ServerConfig,
    State,
    VersionStatus,
)
from reconciler.planning.goals import fingerprint, resolved_key
from reconciler.planning.memory import MAX_PROVEN, Memory, ModelMemory
from reconciler.preview.catalog import UNKNOWN_VERSION, Catalog

Past = Mapping[str, Sequence[Deployment]]
"""Path of a deployment -> what it said, the base first, then further and further back."""

ENDLESS_BYTES = 1 << 62
"""How large a node's disk is, only the node knows; the group's quota is what is checked."""
CONNECTION = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything that a plan starts from, but for what is desired."""

    local: Local
    memory: Memory
    served: Served
    restart_config: ServerConfig


def stand(desired: Desired, past: Past, catalog: Catalog) -> Standing:
    """Return the state of a node that has converged at `desired`."""
    versions: dict[str, dict[int, LocalVersion]] = {}
    known: dict[str, ModelMemory] = {}
    states: dict[str, dict[int, VersionStatus]] = {}
    config: dict[str, Ask] = {}
    is_off = desired.group is not None and not desired.group.enabled
    for deployment in desired.deployments:
        model = deployment.model
        current, earlier = _look_back(deployment, past, is_off)
        own = catalog.find_versions(current)
        wanted = frozenset() if current.stop else own
        origins = dict.fromkeys(wanted, current)
        for state in earlier:
            for version in sorted(_named_versions(state), reverse=True):
                origins.setdefault(version, state)
        former = [version for version in origins if version not in own]
        kept = {*former[: desired.policy.keep]}
        if current.stop and earlier:
            # It keeps what it served last and what it would start with.
            kept |= _named_versions(earlier[0]) | (own & origins.keys())
        kept.discard(UNKNOWN_VERSION)
        previous = [v for v in origins if v not in wanted and v != UNKNOWN_VERSION]
        versions[model] = {
            version: _install(origins[version], version, catalog) for version in (*wanted, *kept)
        }
        if not versions[model]:
            del versions[model]
        proven = (*reversed(previous), *_main_last(wanted, catalog.find_version(current)))
        known[model] = _remember(current, wanted, proven[-MAX_PROVEN:], catalog)
        if wanted:
            states[model] = {version: VersionStatus(State.AVAILABLE) for version in wanted}
            config[model] = Ask(wanted, dict(current.labels))
    return Standing(
        local=Local(versions, free_bytes=ENDLESS_BYTES, total_bytes=ENDLESS_BYTES),
        memory=Memory(known, connection=CONNECTION, confirmed=True),
        served=Served(CONNECTION, states),
        restart_config=config,
    )


def _look_back(
    deployment: Deployment, past: Past, is_off: bool
) -> tuple[Deployment, list[Deployment]]:
    """Return what the node follows of a deployment, and what it followed before, newest first.

    A suspended one is followed as it was before it was suspended. Of a group that is switched off
    nothing is taken to be on disk, because it may never have been on.
    """
    states = [state for state in past.get(deployment.path, ()) if not state.suspend]
    current = states[0] if deployment.suspend and states else deployment
    if is_off:
        return replace(current, stop=True), []
    return current, [state for state in states if not state.stop]


def _named_versions(deployment: Deployment) -> set[int]:
    """Return the versions that git names; UNKNOWN_VERSION is what an unlocked `latest` came to.

    It takes a place among those that nodes keep, so that no other is taken to be kept for it.
    """
    named = deployment.named_version
    return {*deployment.labels.values(), UNKNOWN_VERSION if named is None else named}


def _main_last(wanted: frozenset[int], main: int) -> tuple[int, ...]:
    return tuple(sorted(wanted, key=lambda version: (version == main, version)))


def _install(origin: Deployment, version: int, catalog: Catalog) -> LocalVersion:
    known = catalog.find_bytes(origin, version)
    alias = origin.scheme.alias(version)
    return LocalVersion(origin.model, version, known.size_bytes or 0, known.digest, name=alias)


def _remember(
    deployment: Deployment, wanted: frozenset[int], proven: tuple[int, ...], catalog: Catalog
) -> ModelMemory:
    ask = Ask(wanted, dict(deployment.labels)) if wanted else None
    asked = fingerprint(deployment)
    main = catalog.find_version(deployment)
    return ModelMemory(
        desired=asked,
        admitted=asked,
        asked=ask,
        since=dict.fromkeys(wanted, 0.0),
        progressed=wanted,
        available=wanted,
        proven=proven,
        good=ask,
        resolved={resolved_key(deployment): main} if deployment.named_version is None else {},
    )
