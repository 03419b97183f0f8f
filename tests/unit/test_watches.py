"""What is kept fresh beside the tick."""

import json
import time
from pathlib import Path

from reconciler.model import Member
from reconciler.settings import Settings
from reconciler.sources.registry import Sources
from reconciler.status.peers import Badge
from reconciler.watches import Watches


def test_members_are_remembered_until_a_commit_says_whether_they_are_asked_for(
    tmp_path: Path,
) -> None:
    """A node may start with a damaged mirror while the registry is away."""
    remembered = {"groups": {"g": [{"name": "n", "address": "10.0.0.1:8080"}]}}
    (tmp_path / "members.json").write_text(json.dumps(remembered))
    watches = Watches(
        Settings(repo=f"file://{tmp_path}/none.git", node="n", state_dir=tmp_path),
        Sources(),
        Badge("n", "1"),
        clock=time.monotonic,
        wake=lambda: None,
        note_fetch=lambda _: None,
    )
    watches.want_members(None)
    assert watches.members.members == {"g": (Member("n", "10.0.0.1:8080"),)}
