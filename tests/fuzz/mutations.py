"""Valid input made slightly wrong: byte by byte, and by pieces of what the formats are made of."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

_NUMBERS = """\
-1 0 1e999 NaN Infinity -Infinity 0x10 1_000 1.5 9223372036854775807 9223372036854775808
18446744073709551616 4294967296 99999999999999999999999999999999999999999999 2026-02-30 18:61 -0
"""
_SIGNS = '{ } [ ] : , " \' # &a *a !!python/name:os.system null true {} [] "" ~ - ? | > % @ ` <<'
_NAMES = "../ /etc/passwd .. // \\ C:\\ %2e%2e/ latest all version labels nodes size items"
TOKENS: tuple[bytes, ...] = (
    *(token.encode() for token in f"{_NUMBERS} {_SIGNS} {_NAMES}".split()),
    *(b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", b"\t", b"\x1b[2J"),
    *(b"---\n", b"<<: *a\n", b"\n- ", b": ", b"a" * 300, "\u00fc".encode(), "\u2028".encode()),
    *(b"[" * 2000, b"{" * 500, b'{"a":' * 500, b"- " * 500, b"(" * 100),
    *(b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"PK\x03\x04", b"PK\x05\x06"),
)


@dataclass(frozen=True)
class Change:
    """One change: what, where (as shares of the length, so that it fits any input), with what."""

    kind: str
    at: float
    length: float
    token: bytes = b""


KINDS = ("flip", "set", "insert", "delete", "repeat", "move", "cut", "replace", "nest")


def apply(data: bytes, changes: Sequence[Change]) -> bytes:
    """Return `data` after these changes."""
    for change in changes:
        data = _apply(data, change)
    return data


def draw(dice: random.Random, most: int = 6) -> list[Change]:
    """Return some changes by chance; mostly few, mostly small."""
    return [
        Change(
            dice.choice(KINDS),
            dice.random(),
            dice.random() ** 4,
            dice.choice(TOKENS) if dice.random() < 0.8 else dice.randbytes(dice.randint(1, 4)),
        )
        for _ in range(dice.choice((1, 1, 1, 2, 3, most)))
    ]


def _apply(data: bytes, change: Change) -> bytes:
    at = int(change.at * len(data))
    end = min(len(data), at + 1 + int(change.length * len(data)))
    match change.kind:
        case "flip" if data[at:end]:
            return data[:at] + bytes([data[at] ^ (1 << (end % 8))]) + data[at + 1 :]
        case "set" if data[at:end]:
            return data[:at] + change.token[:1] + data[at + 1 :]
        case "insert":
            return data[:at] + change.token + data[at:]
        case "delete":
            return data[:at] + data[end:]
        case "repeat":
            return data[:end] + data[at:end] * (1 + end % 3) + data[end:]
        case "move":
            return data[:at] + data[end:] + data[at:end]
        case "cut":
            return data[:at]
        case "replace":
            return data[:at] + change.token + data[end:]
        case "nest":
            return data[:at] + change.token + data[at:end] + change.token + data[end:]
    return data
