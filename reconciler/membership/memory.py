"""The members that were known last, in a file: for a node that starts while the registry is away.

Kept by group alone, also across a change of what is looked up: until the new query is answered the
members are those of the old one, and those it does not list leave like any other.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.files import write_atomically
from reconciler.membership.registry import is_node_name
from reconciler.model import Member

_log = logging.getLogger(__name__)

_MAX_BYTES = 64 * 1024 * 1024


class MemberMemory:
    """Group name -> members, kept in one file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._written: Mapping[str, tuple[Member, ...]] = {}
        self._has_failed = False

    def load(self) -> Mapping[str, tuple[Member, ...]]:
        """Return what is remembered; nothing where there is no file or it is damaged."""
        try:
            if self._file.stat().st_size > _MAX_BYTES:
                raise ValueError("it is larger than such a file can be")
            groups = json.loads(self._file.read_bytes())["groups"]
            self._written = {
                str(group): tuple(_load(item) for item in members)
                for group, members in groups.items()
                if members
            }
            return self._written
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _log.warning("%s cannot be used and is begun anew: %s", self._file, error)
            return {}

    def save(self, members: Mapping[str, tuple[Member, ...]]) -> None:
        """Remember `members` in place of all before; writes nothing when they are the same."""
        if members == self._written:
            return
        groups = {
            group: [{"name": member.name, "address": member.address} for member in members[group]]
            for group in sorted(members)
        }
        try:
            write_atomically(self._file, json.dumps({"groups": groups}, indent=1).encode())
        except OSError as error:
            # A full disk must not keep a node from learning of others; said once, tried on.
            if not self._has_failed:
                _log.warning("%s cannot be written (%s)", self._file, error.strerror)
            self._has_failed = True
        else:
            self._written, self._has_failed = dict(members), False


def _load(item: Any) -> Member:
    name, address = item["name"], item["address"]
    if not is_node_name(name) or not (address is None or isinstance(address, str)):
        raise ValueError("it names a node that cannot be")
    return Member(name, address)
