"""A group's nodes by a DNS name with one address a node, such as `tasks.<service>` in Swarm.

DNS knows addresses but not which node is at which, so each address's status endpoint is asked for
its name. One that does not answer is not listed: it may not have started yet, or be dead. If none
answers, it is more likely this node that is cut off, and nothing is said about anybody.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.membership.registry import (
    MAX_MEMBERS,
    NONSENSE,
    RegistryError,
    build_member,
    is_node_name,
    make_address,
)
from reconciler.model import Member, Membership
from reconciler.status.access import OPEN_ACCESS, Access
from reconciler.status.client import StatusError, fetch_status
from reconciler.threads import run_beside

_RESOLVE_DEADLINE_SECONDS = 5.0
_STATUS_DEADLINE_SECONDS = 2.0
_QUESTIONS_AT_ONCE = 32

Resolve: TypeAlias = Callable[[str], Sequence[str]]
"""Host name -> its addresses. Raises OSError or UnicodeError."""


@dataclass(frozen=True, slots=True)
class _Answer:
    address: str
    name: str
    instance: str
    """Tells two agents of one name from one agent at two addresses; empty for old agents."""


def resolve(host: str) -> Sequence[str]:
    """Return every IPv4 and IPv6 address that the system's resolver has for `host`."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class DnsRegistry:
    """Asks the system's resolver, then each address."""

    def __init__(self, resolve: Resolve = resolve, access: Access = OPEN_ACCESS) -> None:
        self._resolve = resolve
        self._access = access

    async def list(self, membership: Membership) -> tuple[Member, ...]:
        """Return the nodes behind the name that answer; see RegistryClient."""
        addresses = await self._look_up(membership.query)
        gate = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

        async def ask(address: str) -> _Answer | StatusError:
            async with gate:
                return await _ask(address, membership, self._access)

        answers = await asyncio.gather(*(ask(address) for address in addresses))
        nodes = [answer for answer in answers if isinstance(answer, _Answer)]
        if not nodes:
            raise RegistryError(
                f"{membership.query} has {len(addresses)} addresses, but none answers as a node"
                f" on port {membership.port} (the first: {answers[0]})"
            )
        # An agent that listens on two addresses is one node; two agents of one name are not.
        instances = {(node.name, node.instance or node.address): node for node in reversed(nodes)}
        return tuple(
            build_member(node.name, node.address, membership) for node in instances.values()
        )

    async def _look_up(self, host: str) -> Sequence[str]:
        try:
            async with asyncio.timeout(_RESOLVE_DEADLINE_SECONDS):
                found = await run_beside(lambda: self._resolve(host), "resolver")
        except TimeoutError:
            raise RegistryError(
                f"DNS did not answer for {host} within {_RESOLVE_DEADLINE_SECONDS:g} s"
            ) from None
        except (OSError, UnicodeError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            raise RegistryError(f"DNS has no address for {host} ({words})") from None
        addresses = sorted(set(found), key=lambda address: (":" in address, address))
        if not addresses:
            raise RegistryError(f"DNS has no address for {host}")
        if len(addresses) > MAX_MEMBERS:
            raise RegistryError(f"{host} has more than {MAX_MEMBERS} addresses", NONSENSE)
        return addresses


async def _ask(address: str, membership: Membership, access: Access) -> _Answer | StatusError:
    url = make_address(address, membership)
    try:
        body = await run_beside(
            lambda: fetch_status(url, _STATUS_DEADLINE_SECONDS, access=access), "member"
        )
        return _read(address, body)
    except StatusError as error:
        return error


def _read(address: str, body: bytes) -> _Answer:
    # Not held against the schema, which is too slow for every node every few seconds.
    try:
        status = json.loads(body)
        name, instance = status["node"], str(status.get("instance", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        name, instance = None, ""
    if not is_node_name(name):
        raise StatusError(f"the answer of {address} is not a reconciler's status")
    return _Answer(address, name, instance)
