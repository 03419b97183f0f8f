"""What is noted of a change of the disk by the one who calls bad luck down on the agent."""

import json
import os
from pathlib import Path

import pytest

from tests.chaos.unlucky_agent import Luck


@pytest.mark.parametrize(
    ("event", "path", "is_shared", "is_touched"),
    [
        ("os.pwrite", "models/ranker/4/a", False, True),
        ("os.remove", "models/ranker/4/a", False, True),
        ("os.pwrite", "models/.staging/ranker/4-0123456789abcdef/files/a", False, False),
        ("os.pwrite", "models/.staging/ranker/4-0123456789abcdef/files/a", True, True),
        ("open", "models/.staging/ranker/4-0123456789abcdef/files/a", True, True),
        ("os.remove", "models/.staging/ranker/4-0123456789abcdef/files/a", True, False),
    ],
)
def test_a_change_of_what_the_server_reads_is_noted(
    event: str, path: str, is_shared: bool, is_touched: bool, tmp_path: Path
) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    if is_shared:
        os.link(file, tmp_path / "installed")
    journal = tmp_path / "journal"
    Luck(tmp_path, tmp_path / "control", journal, 0).meet(event, str(file))
    noted = [json.loads(line) for line in journal.read_text().splitlines()]
    assert ({"touched": str(file)} in noted) is is_touched
