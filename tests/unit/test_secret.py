"""Secrets as they are read from files, and those that are none."""

from pathlib import Path

import pytest

from reconciler.status.secret import read_secret, read_tokens


def test_each_line_is_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b" new \r\n\nold\n")
    assert read_tokens(file) == (b"new", b"old")


def test_half_a_token_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"t" * 4096)
    assert len(read_secret(file)) == 4096
    file.write_bytes(b"first\n" + b"t" * 4096)
    assert read_tokens(file) == ()
    assert "more than 4096 bytes" in caplog.text
    assert "ttt" not in caplog.text


def test_a_file_that_is_not_there_lets_nobody_in(tmp_path: Path) -> None:
    assert read_tokens(tmp_path / "nowhere") == ()
