"""What `fleet.yaml` rules for every node: how much may go, what is locked, frozen and signed."""

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Freeze:
    """A time that comes back again and again, in which nothing changes."""

    start: str
    """Cron expression of five fields: when it begins, by the clock of `timezone`."""
    duration_seconds: float
    timezone: str
    reason: str
    groups: frozenset[str] = frozenset()
    """The groups it is for; empty is all of them."""


class SignatureMode(StrEnum):
    """Which commits must be signed before a node follows them."""

    OFF = "off"
    HEAD = "head"
    """The newest commit: whoever merges vouches for all that came with it."""
    RANGE = "range"
    """Every commit since the last one that was followed."""


@dataclass(frozen=True, slots=True)
class Signatures:
    """Whose commits a node follows."""

    mode: SignatureMode = SignatureMode.OFF
    ssh: tuple[str, ...] = ()
    """Lines as in ssh-keygen(1), ALLOWED SIGNERS: `alice@example.com ssh-ed25519 AAAA…`."""
    gpg: tuple[str, ...] = ()
    """Public keys in ASCII armour."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What `fleet.yaml` says for every node."""

    keep: int = 1
    """How many versions that served before stay on disk for a rollback without download."""
    max_removals: float = 0.5
    """How many models may go at once: a share of those present if below 1, else a number."""
    allow_empty: bool = False
    """Whether a node may be left with no model at all."""
    requires_lock: bool = False
    """Whether a deployment without a lock file is refused."""
    freezes: tuple[Freeze, ...] = ()
    signatures: Signatures = field(default_factory=Signatures)
    handover_timeout_seconds: float = 600.0
    """How long a node that loses a deployment waits for those that are to serve it instead."""
    drain_seconds: float = 10.0
    """How long it goes on serving after that, until every caller has learnt of it."""
    member_timeout_seconds: float = 60.0
    """How long a node must be gone from a registry before its models move."""
