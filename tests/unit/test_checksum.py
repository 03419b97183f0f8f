"""crc32c of parts and of what is on disk."""

from pathlib import Path

import google_crc32c
from hypothesis import given
from hypothesis import strategies as st

from reconciler.store.checksum import combine, extend, read_checksum


@given(st.binary(max_size=2000), st.binary(max_size=2000))
def test_the_sum_of_parts_is_the_sum_of_the_whole(first: bytes, second: bytes) -> None:
    parts = combine(google_crc32c.value(first), google_crc32c.value(second), len(second))
    assert parts == google_crc32c.value(first + second)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**20))
def test_combining_zeros_is_extending_by_zeros(crc: int, count: int) -> None:
    zeros = b"\0" * count
    assert combine(crc, google_crc32c.value(zeros), count) == extend(crc, zeros)


def test_what_is_on_disk_is_summed_by_range(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_checksum(path, 2, 7) == google_crc32c.value(b"23456")
    assert read_checksum(path, 5, 10, google_crc32c.value(b"01234")) == google_crc32c.value(
        b"0123456789"
    )
    assert read_checksum(path, 2, 11) is None, "the file is too short"
    assert read_checksum(tmp_path / "absent", 0, 1) is None
    (tmp_path / "link").symlink_to(path)
    assert read_checksum(tmp_path / "link", 0, 1) is None, "a link is not what was written"
