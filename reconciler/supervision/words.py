"""What the condition ServerSupervised says, in each case where it takes more than a few words."""

from collections.abc import Sequence

from reconciler.model import Condition, ServerSpec
from reconciler.planning.conditions import SERVER_SUPERVISED
from reconciler.planning.server_turns import WAITS_FOR_TURN
from reconciler.planning.supervision import RestartNeed, ServerSight
from reconciler.planning.wording import format_seconds, join_words
from reconciler.supervision.container import Container

STARTING = Condition(
    SERVER_SUPERVISED, True, "Starting", "the server's container is being looked for"
)
DOCKER_MISSING = Condition(
    SERVER_SUPERVISED,
    False,
    "DockerMissing",
    "to look after the server's container, the agent needs the docker package; install"
    ' "tfserving-reconciler[docker]"',
)


def tell_no_server(containers: Sequence[Container], label: str) -> Condition:
    """Say that not one container has the label, but none or several."""
    if not containers:
        sentence = (
            f"no container carries the label {label}; start the server's container with it"
            f" (docker run --label {label} ...)"
        )
        return Condition(SERVER_SUPERVISED, False, "ContainerMissing", sentence)
    names = join_words(sorted(container.name for container in containers))
    sentence = (
        f"{len(containers)} containers carry the label {label}: {names}; none of them is touched"
        " until one is left"
    )
    return Condition(SERVER_SUPERVISED, False, "ContainerAmbiguous", sentence)


def tell_held_restart(
    container: Container, need: RestartNeed, wait_seconds: float
) -> Condition | None:
    """Say why a restart that is needed is not made now; None where it may be made."""
    what = f"only a restart of container {container.name} helps ({need.reason})"
    if need.obstacle is not None:
        sentence = f"{what}, but not now: {need.obstacle}"
    elif wait_seconds > 0:
        sentence = (
            f"{what}; it was started a short time ago, so it is restarted in"
            f" {format_seconds(wait_seconds)} if that is still so"
        )
    else:
        return None
    return Condition(SERVER_SUPERVISED, False, "RestartHeld", sentence)


def tell_held_update(
    wanted: ServerSpec, sight: ServerSight, container: Container
) -> Condition | None:
    """Say what an update waits for, if anything; what a person asked for is no trouble.

    A server that ends again and again serves nothing that could be lost: an update may cure it.
    """
    because = sight.hold or (None if container.state == "restarting" else sight.obstacle)
    if because is None:
        return None
    is_asked_for = sight.hold is not None
    sentence = f"{describe(wanted)} waits: {because}"
    return Condition(SERVER_SUPERVISED, is_asked_for, "UpdateHeld", sentence)


def tell_turn(wanted: ServerSpec, sight: ServerSight, container: Container) -> Condition | None:
    """Say which node is in the way, if one is; only to wait for one that comes first is no trouble.

    A server that ends again and again is no loss to its group, whoever's turn it is.
    """
    turn = sight.turn
    if turn is None or container.state == "restarting":
        return None
    sentence = f"{describe(wanted)} waits: {turn.sentence}"
    return Condition(SERVER_SUPERVISED, turn.reason == WAITS_FOR_TURN, turn.reason, sentence)


def tell_hindrance(container: Container, wanted: ServerSpec, hindrance: str) -> Condition:
    """Say why a container is not replaced at all."""
    sentence = (
        f"container {container.name} does not run {describe(wanted)}, and cannot be replaced,"
        f" because {hindrance}"
    )
    return Condition(SERVER_SUPERVISED, False, "NotReplaceable", sentence)


def tell_failure(container: Container, wanted: ServerSpec, failure: str) -> Condition:
    """Say that the container has its place back from a successor that did not come up."""
    sentence = (
        f"{describe(wanted)} did not come up: {failure}; container {container.name} runs"
        f" {container.image} as before, until git says otherwise"
    )
    return Condition(SERVER_SUPERVISED, False, "ServerUpdateFailed", sentence)


def describe(wanted: ServerSpec) -> str:
    """Return what git says of the server in words."""
    if wanted.flags is None:
        return str(wanted.image)
    flags = " ".join(wanted.flags) if wanted.flags else "no flags of its own"
    return f"{wanted.image or 'the server'} with {flags}"
