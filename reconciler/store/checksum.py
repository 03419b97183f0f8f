"""crc32c of what is on disk, and of a whole from the crc32c of its parts.

Chunks of one file arrive in any order over several connections. Each is summed up on its way to
the disk, and the sums are put together at the end, so that a file of any size is checked against
Cloud Storage's crc32c without being read again.
"""

import os
from functools import lru_cache
from pathlib import Path

import google_crc32c

_BLOCK_BYTES = 1024 * 1024
_POLYNOMIAL = 0x82F63B78
"""Castagnoli, bit-reversed: the highest bit is the coefficient of x to the 0."""
_ONE = 0x80000000
_X = 0x40000000


def extend(crc: int, piece: bytes) -> int:
    """Return the crc32c of what `crc` stands for followed by `piece`."""
    result: int = google_crc32c.extend(crc, piece)
    return result


def read_checksum(path: Path | str, start: int, end: int, crc: int = 0) -> int | None:
    """Return `crc` extended by the bytes of a file from `start` to `end`.

    None when the file is missing or ends before `end`, as it then is not what was written.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        while start < end:
            piece = os.pread(descriptor, min(_BLOCK_BYTES, end - start), start)
            if not piece:
                return None
            crc = extend(crc, piece)
            start += len(piece)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return crc


def combine(first: int, second: int, second_bytes: int) -> int:
    """Return the crc32c of two byte strings one after the other from those of each.

    To append n bytes is to multiply by x to the power of 8n, modulo the polynomial; the initial
    and final inversions of crc32c cancel out.
    """
    return _multiply(_shift(second_bytes), first) ^ second


@lru_cache(maxsize=128)
def _shift(count_bytes: int) -> int:
    """Return x to the power of 8 * `count_bytes`, by squaring."""
    result, square, bits = _ONE, _X, 8 * count_bytes
    while bits:
        if bits & 1:
            result = _multiply(result, square)
        square = _multiply(square, square)
        bits >>= 1
    return result


def _multiply(a: int, b: int) -> int:
    """Multiply two polynomials over GF(2), modulo the Castagnoli polynomial."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product
