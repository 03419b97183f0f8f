"""Changes the version in a deployment's file and leaves every other byte as people wrote it.

A YAML writer would lose comments, quotes and layout, and a reviewer would see a changed file
instead of a changed line. So the value alone is replaced where it stands, and the result is read
again: if it says anything else than before beside the version, the change is not made.
"""

import re
from codecs import BOM_UTF8
from typing import TypeAlias

from reconciler.config_repo.yaml_text import Json, Mistake, Spot, Text, read_yaml, write_scalar
from reconciler.errors import ConfigError

Version: TypeAlias = int | str
"""A number, or text: a name, or `latest`."""

_LINE_END = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""What ends a line for the YAML parser, by whose lines the places are counted."""


def set_version(data: bytes, version: Version) -> bytes:
    """Return the text of a deployment's file with another `version`.

    Raises ConfigError where that cannot be done without touching anything else; the message goes
    after the file's path and a colon.
    """
    new = write_scalar(version) if isinstance(version, str) else str(version)
    before = read_yaml(data)
    if before.mistakes or not before.is_complete:
        raise ConfigError(_describe(before.mistakes))
    if not isinstance(before.value, dict) or "version" not in before.value:
        raise ConfigError(f"1:1: there is no `version` to change; add the line `version: {new}`")
    spot = before.spots["version",]
    text = data.removeprefix(BOM_UTF8).decode()
    start = _find_offset(text, spot)
    written = _read_scalar(text, start, spot)
    edited = data[: len(data) - len(text.encode())]
    edited += f"{text[:start]}{new}{text[start + len(written) :]}".encode()
    if not _differs_in_version_alone(before.value, read_yaml(edited), version):
        raise _ask_for_hand(spot, new)
    return edited


def _describe(mistakes: tuple[Mistake, ...]) -> str:
    first = min(mistakes)
    return f"{first.line}:{first.column}: {first.message}; repair that first"


def _find_offset(text: str, spot: Spot) -> int:
    start = 0
    for number, end in enumerate(_LINE_END.finditer(text), start=1):
        if number == spot.line:
            break
        start = end.end()
    return start + spot.column - 1


def _read_scalar(text: str, start: int, spot: Spot) -> str:
    """Return the value as written, quotes included; empty where it is written in another way."""
    for quote in ("", '"', "'"):
        written = f"{quote}{spot.text}{quote}"
        if text.startswith(written, start):
            return written
    return ""


def _differs_in_version_alone(before: dict[str, Json], after: Text, version: Version) -> bool:
    if after.mistakes or not isinstance(after.value, dict):
        return False
    return list(after.value.items()) == list((before | {"version": version}).items())


def _ask_for_hand(spot: Spot, version: str) -> ConfigError:
    return ConfigError(
        f"{spot.line}:{spot.column}: the version is written in a way that cannot be changed alone;"
        f" write `version: {version}` there by hand"
    )
