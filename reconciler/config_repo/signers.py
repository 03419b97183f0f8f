"""Who may sign, as lines of an allowed signers file (ssh-keygen(1)) say it.

git lets ssh-keygen judge a key as of the commit's own date (git 2.35, gpg-interface.c), which the
signer writes: a key that leaked after its end could sign for ever. So a line counts only within
its time by the node's clock too, as gpg does with its keys.
"""

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

_SIGNER = re.compile(
    r'(?P<principals>"[^"]+"|[^\s"#]\S*)\s+(?:(?P<options>(?:"[^"]*"|[^\s"])+)\s+)?'
    r"(?P<type>[a-z][a-z0-9@.+-]+)\s+(?P<key>AAAA[A-Za-z0-9+/]+={0,2})(?:\s.*)?"
)
_TIME_OPTION = re.compile(r'(?:^|,)(valid-after|valid-before)="(\d+)(Z?)"(?=,|$)', re.IGNORECASE)
_NAMESPACES = re.compile(r'(?:^|,)namespaces="([^"]*)"', re.IGNORECASE)
_ARMOUR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:\s*[A-Z][A-Za-z]+: .*\n)*\s*\n"
    r"(?P<data>(?:\s*[A-Za-z0-9+/]+=*\n)+)(?:\s*=(?P<checksum>[A-Za-z0-9+/]{4})\n)?"
    r"\s*-----END PGP PUBLIC KEY BLOCK-----"
)
_PUBLIC_KEY_TAG = 6
_TIME_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, slots=True)
class SshSigner:
    """One line of an allowed signers file: a key, and when it may sign (Unix time)."""

    line: str
    fingerprint: str
    after_seconds: float = -math.inf
    before_seconds: float = math.inf
    is_for_git: bool = True
    """Whether the line lets the key sign commits, and not files alone, say."""

    def may_sign_at(self, moment_seconds: float) -> bool:
        """Tell whether the moment lies within the time that the line gives the key."""
        return self.after_seconds <= moment_seconds < self.before_seconds


def parse_signer(line: str) -> SshSigner | None:
    """Return what a line of an allowed signers file says, None where ssh-keygen would not take it.

    A time without `Z` at its end is by the node's clock, as ssh-keygen reads it.
    """
    parts = _SIGNER.fullmatch(line.strip())
    if parts is None:
        return None
    try:
        key = base64.b64decode(parts["key"], validate=True)
        options = parts["options"] or ""
        times = {
            name.lower(): _parse_time(digits, zone) for name, digits, zone in _find_times(options)
        }
    except (binascii.Error, ValueError, OverflowError):
        return None
    kind = parts["type"].encode()
    if key[: 4 + len(kind)] != len(kind).to_bytes(4) + kind:
        return None
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return SshSigner(
        line.strip(),
        f"SHA256:{digest}",
        times.get("valid-after", -math.inf),
        times.get("valid-before", math.inf),
        _is_for_git(options),
    )


def parse_signers(lines: Iterable[str]) -> tuple[SshSigner, ...]:
    """Return the lines that can be used for commits."""
    found = (parse_signer(line) for line in lines)
    return tuple(signer for signer in found if signer is not None and signer.is_for_git)


def is_gpg_key(text: str) -> bool:
    """Tell whether the text is an armoured public key (RFC 4880, 6.2) of which nothing is lost."""
    block = _ARMOUR.fullmatch(text.strip().replace("\r", ""))
    if block is None:
        return False
    try:
        data = base64.b64decode("".join(block["data"].split()), validate=True)
        checksum = base64.b64decode(block["checksum"] or "", validate=True)
    except binascii.Error:
        return False
    if checksum and int.from_bytes(checksum) != _crc24(data):
        return False
    tag = data[0] & 0x3F if data[0] & 0x40 else data[0] >> 2 & 0x0F
    return bool(data[0] & 0x80) and tag == _PUBLIC_KEY_TAG


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc


def _find_times(options: str) -> list[tuple[str, str, str]]:
    found = _TIME_OPTION.findall(options)
    if len(found) != len(re.findall(r"valid-(?:after|before)", options, re.IGNORECASE)):
        raise ValueError(options)  # one that is not understood must not be taken for none
    return found


def _is_for_git(options: str) -> bool:
    namespaces = _NAMESPACES.search(options)
    if namespaces is None or "!" in namespaces[1]:
        return True  # what is excluded is left to ssh-keygen
    return any(fnmatchcase("git", pattern) for pattern in namespaces[1].split(","))


def _parse_time(digits: str, zone: str) -> float:
    moment = datetime.strptime(digits, _TIME_FORMATS.get(len(digits), "")).astimezone()
    return (moment.replace(tzinfo=UTC) if zone else moment).timestamp()
