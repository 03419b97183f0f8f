"""A group's nodes by Docker Swarm: all that carry a label, are ready and take tasks.

Only a manager knows them, so the agent's RECONCILER_DOCKER_HOST must lead to a manager's socket.
The label is compared here: `docker node ls` filters by node label only since Docker 20.10, and an
older one would refuse the question.

Imported only when a group asks for it: the docker SDK is an extra.
"""

from contextlib import closing
from typing import Any

import requests
from docker.errors import APIError, DockerException
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as ReadTimeoutError

from reconciler.docker_engine import (
    UNIX,
    AnswerTooLargeError,
    Engine,
    causes,
    socket_path,
    try_socket,
)
from reconciler.membership.registry import (
    MAX_MEMBERS,
    NONSENSE,
    REFUSED,
    RegistryError,
    build_member,
)
from reconciler.model import Member, Membership
from reconciler.status.client import printable
from reconciler.threads import run_beside

_DEADLINE_SECONDS = 5.0
_MAX_BODY_BYTES = 64 * 1024 * 1024
"""A node is listed in 2 to 8 kB, most of it about its plugins."""
_MAX_QUOTED_CHARACTERS = 200
_NOT_A_LIST = "the answer is not Docker's list of nodes"
_MISREADINGS = (TypeError, LookupError, RecursionError)
"""What the SDK trips over in JSON of a shape that it does not expect."""
_NO_ADDRESSES = ("", "0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104 - nothing is bound


class SwarmRegistry:
    """Asks one Docker engine."""

    def __init__(self, host: str) -> None:
        self._host = host

    async def list(self, membership: Membership) -> tuple[Member, ...]:
        """Return the nodes with the label; see RegistryClient."""
        return await run_beside(lambda: self._list(membership), "swarm")

    def _list(self, membership: Membership) -> tuple[Member, ...]:
        if not self._host.startswith((UNIX, "tcp://")):
            raise RegistryError(
                "RECONCILER_DOCKER_HOST is not an address of Docker; write it as"
                " unix:///var/run/docker.sock or tcp://host:port"
            )
        try:
            if self._host.startswith(UNIX):
                try_socket(socket_path(self._host), _DEADLINE_SECONDS)
            with closing(Engine(self._host, _DEADLINE_SECONDS, _MAX_BODY_BYTES)) as engine:
                nodes = engine.nodes()
        except (
            AnswerTooLargeError,
            DockerException,
            HTTPError,
            OSError,
            ValueError,
            *_MISREADINGS,
        ) as error:
            raise _explain(error) from None
        label, _, value = membership.query.partition("=")
        try:
            if not isinstance(nodes, list) or len(nodes) > MAX_MEMBERS:
                raise TypeError
            return tuple(
                build_member(node["Description"]["Hostname"], _find_host(node), membership)
                for node in nodes
                if (node["Spec"].get("Labels") or {}).get(label) == value and _takes_tasks(node)
            )
        except (KeyError, TypeError, AttributeError):
            raise RegistryError(_NOT_A_LIST, NONSENSE) from None


def _takes_tasks(node: Any) -> bool:
    return (node["Status"]["State"], node["Spec"]["Availability"]) == ("ready", "active")


def _find_host(node: Any) -> str | None:
    """Return where a node can be reached, None where Docker does not know.

    Status.Addr is where a node's connection to the leading manager came from: for the leader
    itself it may be 0.0.0.0 or 127.0.0.1. Managers say in ManagerStatus what they advertise.
    """
    manager = node.get("ManagerStatus") or {}
    hosts = (manager.get("Addr", "").rpartition(":")[0].strip("[]"), node["Status"].get("Addr", ""))
    return next((host for host in hosts if host not in _NO_ADDRESSES), None)


def _explain(error: Exception) -> RegistryError:
    """Return what went wrong in a sentence; the SDK wraps it in up to four exceptions."""
    found = list(causes(error))
    for cause in found:
        match cause:
            case AnswerTooLargeError():
                return RegistryError(f"{cause}, which no list of nodes has", NONSENSE)
            case APIError():
                words = printable(" ".join(str(cause.explanation).split()))
                return RegistryError(
                    f"Docker answered {cause.status_code}: {words[:_MAX_QUOTED_CHARACTERS]}; let"
                    " RECONCILER_DOCKER_HOST lead to a Swarm manager that this agent may ask",
                    REFUSED,
                )
            case requests.Timeout() | ReadTimeoutError() | TimeoutError():
                return RegistryError(f"Docker did not answer within {_DEADLINE_SECONDS:g} s")
            case requests.JSONDecodeError() | TypeError() | LookupError() | RecursionError():
                return RegistryError(_NOT_A_LIST, NONSENSE)
    root = found[-1]
    words = (root.strerror if isinstance(root, OSError) else None) or str(root)
    return RegistryError(
        f"Docker cannot be asked: {printable(words[:_MAX_QUOTED_CHARACTERS])}; is its socket"
        " mounted, and RECONCILER_DOCKER_HOST right?"
    )
