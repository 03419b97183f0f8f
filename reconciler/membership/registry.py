"""Asks whoever knows a group's nodes: Docker Swarm, DNS or Nomad, behind one method.

A registry says who is there now and remembers nothing; what a node's absence means is the
tracker's business. The two that hold a list (Swarm, Nomad) are believed in whole or not at all:
from an answer of which a part makes no sense nobody can tell who is missing.
"""

import re
from pathlib import Path
from typing import Any, Protocol

from reconciler.errors import ReconcilerError
from reconciler.model import Member, Membership, Registry
from reconciler.model.group import HTTPS
from reconciler.status.access import OPEN_ACCESS, Access

UNREACHABLE = "RegistryUnreachable"
"""It could not be asked, or not in time."""
REFUSED = "RegistryRefused"
"""It answered, but not with a list: no token, no manager, a filter it does not understand."""
NONSENSE = "RegistryAnswerInvalid"
"""Its answer is not one that such a registry gives."""

MAX_MEMBERS = 10_000
"""As many as a list in git may have (schema/group.schema.json)."""

_NODE_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_KINDS = {
    Registry.SWARM: "Swarm nodes with the label",
    Registry.DNS: "the DNS name",
    Registry.NOMAD: "Nomad clients with",
}


class RegistryError(ReconcilerError):
    """A registry did not say which nodes there are; those known before stay."""

    reason = UNREACHABLE


class RegistryClient(Protocol):
    """One kind of registry."""

    async def list(self, membership: Membership) -> tuple[Member, ...]:
        """Return the nodes that the registry lists now, in any order.

        Raises RegistryError with a sentence. Returns within seconds, or soon after.
        """
        ...


class Registries:
    """Gives the client for each kind of registry."""

    def __init__(
        self,
        *,
        docker_host: str,
        nomad_address: str,
        nomad_token_file: Path | None,
        access: Access = OPEN_ACCESS,
    ) -> None:
        self._docker_host = docker_host
        self._nomad_address = nomad_address
        self._nomad_token_file = nomad_token_file
        self._access = access

    def open(self, registry: Registry) -> RegistryClient:
        """Return the client; raises RegistryError where it is not installed."""
        # Each is imported when a group asks for it: most fleets need none of them.
        match registry:
            case Registry.SWARM:
                try:
                    from reconciler.membership.swarm import SwarmRegistry
                except ImportError:
                    raise RegistryError(
                        "to ask Docker Swarm, the agent needs the docker package; install"
                        ' "tfserving-reconciler[docker]"'
                    ) from None
                return SwarmRegistry(self._docker_host)
            case Registry.DNS:
                from reconciler.membership.dns import DnsRegistry

                return DnsRegistry(access=self._access)
            case Registry.NOMAD:
                from reconciler.membership.nomad import NomadRegistry

                return NomadRegistry(self._nomad_address, self._nomad_token_file)


def describe(membership: Membership) -> str:
    """Return in words where a group's nodes are looked up."""
    return f"{_KINDS[membership.registry]} {membership.query}"


def is_node_name(name: object) -> bool:
    """Tell whether a node can have this name."""
    return isinstance(name, str) and _NODE_NAME.fullmatch(name) is not None


def build_member(name: Any, host: str | None, membership: Membership) -> Member:
    """Return the node that a registry lists as `name`, at `host` where it says so.

    Raises RegistryError where no node can have that name.
    """
    if not is_node_name(name):
        raise RegistryError(
            f"it lists a node as {str(name)[:100]!r}, which no node can be called; use letters,"
            " digits, dots, hyphens and underscores, or narrow down what is looked up",
            NONSENSE,
        )
    return Member(name, make_address(host, membership) if host else None)


def make_address(host: str, membership: Membership) -> str:
    """Return the address of the status endpoint on a host, which may be an IPv6 address."""
    scheme = HTTPS if membership.tls else ""
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}{host}:{membership.port}"
