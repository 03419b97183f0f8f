"""How the name of a version becomes the number that TensorFlow Serving needs, and back.

TensorFlow Serving knows versions as 64-bit integers and takes the highest for the newest. Where a
team names them otherwise, the deployment chooses one of these rules. Each is reversible and keeps
the order: a name that is not exactly what its number would be written as is no version at all, so
two names never share a number, and the highest number is the newest version.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property, lru_cache

INT64_MAX = 2**63 - 1
"""The highest version that TensorFlow Serving can count."""

_PART = 10**6
"""Minor and patch are each below; so they take six digits of the number each."""
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_SEMVER = re.compile(r"(0|[1-9][0-9]{0,6})\.(0|[1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
_STAMP = "%Y%m%d%H%M%S"
_STAMP_DIGITS = 14
_DIRECTIVES = {
    "Y": r"(?P<Y>[0-9]{4})",
    **{letter: rf"(?P<{letter}>[0-9]{{2}})" for letter in "mdHMS"},
}
_LITERAL = re.compile(r"[A-Za-z0-9_.+-]")


class Rule(StrEnum):
    """The kinds of names."""

    NUMBER = "number"
    SEMVER = "semver"
    DATES = "dates"
    NAMES = "names"


@dataclass(frozen=True, order=True)
class VersionScheme:
    """One rule with what it needs; by default names are the numbers themselves."""

    rule: Rule = Rule.NUMBER
    pattern: str = ""
    """Of DATES: how a date is written, in the letters of strftime."""
    names: tuple[tuple[str, int], ...] = ()
    """Of NAMES: every name with its number, one to one."""

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        # Made once: a listing asks for every object in it.
        return dict(self.names)

    @cached_property
    def _titles(self) -> Mapping[int, str]:
        return {number: name for name, number in self.names}

    def __str__(self) -> str:
        """Name the rule for a sentence, without the list of names, which is long and grows."""
        return f"{self.rule} {self.pattern}".rstrip()

    def parse(self, name: str) -> int | None:
        """Return the number of a version by its name, None for what is no name of a version."""
        match self.rule:
            case Rule.NUMBER:
                version = int(name) if _DECIMAL.fullmatch(name) else None
            case Rule.SEMVER:
                version = _parse_semver(name)
            case Rule.DATES:
                version = _parse_date(name, self.pattern)
            case Rule.NAMES:
                version = self._numbers.get(name)
        return version if version is not None and version <= INT64_MAX else None

    def name(self, version: int) -> str | None:
        """Return the name of a version by its number, None for a number that stands for none."""
        if not 0 <= version <= INT64_MAX:
            return None
        match self.rule:
            case Rule.NUMBER:
                return str(version)
            case Rule.SEMVER:
                major, rest = divmod(version, _PART * _PART)
                return f"{major}.{rest // _PART}.{rest % _PART}"
            case Rule.DATES:
                return _format_date(version, self.pattern)
            case Rule.NAMES:
                return self._titles.get(version)

    def alias(self, version: int) -> str | None:
        """Return the name of a version where names are not simply numbers, else None."""
        return None if self.rule is Rule.NUMBER else self.name(version)

    def show(self, version: int) -> str:
        """Return what a sentence calls a version, also one that has no name under this rule."""
        plain = str(version) if self.rule is Rule.NUMBER else f"number {version}"
        return self.name(version) or plain


NUMBER = VersionScheme()
"""What is in force where a deployment does not choose."""


def check_pattern(pattern: str) -> str | None:
    """Return what a pattern of dates needs to be one, None for a good one."""
    seen = set()
    rest = iter(pattern)
    for character in rest:
        if character != "%":
            if not _LITERAL.fullmatch(character):
                return f"holds {character!r}, which cannot be in the name of a folder here"
            continue
        letter = next(rest, "")
        if letter not in _DIRECTIVES:
            return f"holds %{letter}; known are %Y, %m, %d, %H, %M and %S"
        if letter in seen:
            return f"holds %{letter} twice"
        seen.add(letter)
    lacking = " and ".join(f"%{letter}" for letter in "Ymd" if letter not in seen)
    return f"lacks {lacking}" if lacking else None


def _parse_semver(name: str) -> int | None:
    match = _SEMVER.fullmatch(name)
    if match is None:
        return None
    major, minor, patch = map(int, match.groups())
    return (major * _PART + minor) * _PART + patch


def _parse_date(name: str, pattern: str) -> int | None:
    match = _compile(pattern).fullmatch(name)
    if match is None:
        return None
    written = match.groupdict()
    stamp = "".join(written.get(letter, "00") for letter in "YmdHMS")
    version = int(stamp)
    return version if _read_stamp(version) else None


@lru_cache(maxsize=64)
def _compile(pattern: str) -> re.Pattern[str]:
    # Not strptime: it takes 2026-1-1 and blanks as well, which are other names.
    parts = re.split("%(.)", pattern)  # text and letter by turns
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [_DIRECTIVES[letter] for letter in parts[1::2]]
    return re.compile("".join(parts))


def _format_date(version: int, pattern: str) -> str | None:
    moment = _read_stamp(version)
    if moment is None:
        return None
    name = re.sub("%(.)", lambda found: moment.strftime(found[0]), pattern)
    # A pattern without the time of day has no name for a number with one.
    return name if _parse_date(name, pattern) == version else None


def _read_stamp(version: int) -> datetime | None:
    stamp = str(version)
    if len(stamp) != _STAMP_DIGITS:
        return None  # so no year before 1000
    try:
        return datetime.strptime(stamp, _STAMP)
    except ValueError:
        return None
