"""The text of a lock file.

The same lock is the same bytes everywhere, so that git shows a difference only where there is one.
The text is written here and not by a YAML library, because what it may hold is little, and names
in buckets are odd: whatever could be read as something else than text stands in quotes.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from reconciler.config_repo.yaml_text import MAX_TEXT_BYTES
from reconciler.model import Lock, LockedVersion

_HEAD = "# Written by `reconciler lock`; do not edit it by hand.\n"
_PLAIN = re.compile(r"(?:gs://|file:///)?[A-Za-z][A-Za-z0-9_./-]*")
_NOT_TEXT = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
_LONGEST_SIMPLE_KEY = 1000
"""YAML takes a longer key (1,024 characters) only when it is announced by `? `."""


def render_lock(lock: Lock) -> str:
    """Return the lock's text, which config_repo.build.build_lock reads back as the same lock."""
    return "".join(_render(lock))


def trim_lock(lock: Lock) -> Lock:
    """Return the lock with as many of its sha256 sums as a file of the config repo may hold.

    Sums are dropped by whole versions, the one with the most first: those of half a version would
    look like a version with files too many. The digests, which hold nodes to the bytes, all stay.
    """
    while len(render_lock(lock).encode()) > MAX_TEXT_BYTES:
        most = max(lock.versions.values(), key=lambda locked: (len(locked.sha256), locked.version))
        if not most.sha256:
            break
        lock = replace(lock, versions={**lock.versions, most.version: replace(most, sha256={})})
    return lock


def _render(lock: Lock) -> Iterator[str]:
    yield _HEAD
    yield f"model: {_quote(lock.model)}\n"
    yield f"source: {_quote(lock.source)}\n"
    name = lock.versions[lock.version].name if lock.version in lock.versions else None
    yield f"version: {lock.version if name is None else _quote(name)}\n"
    yield "locked:\n"
    for _, locked in sorted(lock.versions.items()):
        yield from _render_version(locked)


def _render_version(locked: LockedVersion) -> Iterator[str]:
    yield f"  - version: {locked.version if locked.name is None else _quote(locked.name)}\n"
    if locked.name is not None:
        yield f"    number: {locked.version}\n"
    yield f"    files: {locked.files}\n"
    yield f"    bytes: {locked.size_bytes}\n"
    yield f"    digest: sha256:{locked.digest}\n"
    if locked.sha256:
        yield "    sha256:\n"
    for path, value in sorted(locked.sha256.items()):
        key = _quote(path)
        # The sum is quoted, as one of digits alone, or with one `e`, would be a number.
        if len(key) <= _LONGEST_SIMPLE_KEY:
            yield f'      {key}: "{value}"\n'
        else:
            yield f'      ? {key}\n      : "{value}"\n'


def _quote(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    return f'"{"".join(map(_escape, text))}"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
