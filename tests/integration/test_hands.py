"""Steps that come while a cancelled download is still putting its files in place."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.apply import Hands, PolledFile
from reconciler.model import Query, Snapshot
from reconciler.planning.events import Event, Fetched
from reconciler.planning.memory import Memory
from reconciler.planning.steps import Fetch, Plan, RemoveStaging, Step
from reconciler.serving.config_file import OwnFile
from reconciler.sources.file import FileSource
from reconciler.sources.registry import Sources
from reconciler.store import install
from reconciler.store import store as store_module
from reconciler.store.store import Store
from tests.bucket import WHOLE, read_files, write_files

DEADLINE_SECONDS = 20.0


@dataclass
class SlowDisk:
    """A disk on which the last step of an installation takes until it is let go on."""

    begun: threading.Event = field(default_factory=threading.Event)
    may_go_on: threading.Event = field(default_factory=threading.Event)
    count: int = 0

    def place(self, *arguments: Any, **options: Any) -> None:
        """Put a version in its place, late."""
        self.count += 1
        self.begun.set()
        assert self.may_go_on.wait(DEADLINE_SECONDS)
        install.place(*arguments, **options)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr(store_module, "place", disk.place)
    yield disk
    disk.may_go_on.set()


async def test_what_a_cancelled_download_still_writes_is_left_to_it(
    disk: SlowDisk, tmp_path: Path
) -> None:
    write_files(tmp_path / "ranker" / "1", WHOLE)
    models = tmp_path / "models"
    snapshot = FileSource().list(Query(f"file://{tmp_path}/ranker")).snapshots[1]
    hands = make_hands(models)
    fetch = Fetch("ranker", snapshot, "it is wanted")
    await hands.carry_out(asking(fetch))
    assert await asyncio.to_thread(disk.begun.wait, DEADLINE_SECONDS)

    await hands.carry_out(asking(RemoveStaging("ranker", 1, snapshot.digest)))
    assert staged_files(models, snapshot) == WHOLE
    await hands.carry_out(asking(fetch))
    assert hands.fetching == {}
    disk.may_go_on.set()

    events: list[Event] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while Fetched("ranker", 1) not in events:
            await hands.carry_out(asking(fetch))
            await asyncio.sleep(0.01)
            events += hands.take_events()
    assert read_files(models / "ranker" / "1") == WHOLE
    assert disk.count == 1
    await hands.close()
    hands.store.close()


def make_hands(models: Path) -> Hands:
    own_file = OwnFile(models / "models.config", str(models))
    return Hands(
        store=Store(models),
        sources=Sources(""),
        server=PolledFile(own_file, 0.1),
        address="127.0.0.1:1",
        config_file=own_file,
        reload_deadline_seconds=1.0,
        wake=lambda: None,
        count_bytes=lambda _: None,
    )


def asking(*steps: Step) -> Plan:
    return Plan(steps, Memory(), (), (), (), {}, in_motion=True)


def staged_files(models: Path, snapshot: Snapshot) -> dict[str, bytes]:
    (folder,) = (models / ".staging" / "ranker").iterdir()
    assert snapshot.digest.startswith(folder.name.partition("-")[2])
    return read_files(folder / "files")
