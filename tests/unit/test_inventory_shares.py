"""A models folder with thousands of models, looked at a share at a time."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from reconciler.model import LocalVersion
from reconciler.rotation import ROUND_SECONDS
from reconciler.store.inventory import Inventory

MODELS = [f"model-{number:03d}" for number in range(200)]


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of many models, which was not touched for a while."""
    for model in MODELS:
        (tmp_path / model / "1").mkdir(parents=True)
    settle(tmp_path)
    return tmp_path


def settle(folder: Path) -> None:
    """Make it look as if the last change of the folder was long ago."""
    past_ns = time.time_ns() - 60_000_000_000
    os.utime(folder, ns=(past_ns, past_ns))


def test_what_is_the_same_stays_the_same_value(models: Path) -> None:
    clock = Clock()
    inventory = Inventory(models, clock)
    first = inventory.read(())
    assert first.versions.keys() == set(MODELS)
    clock.now += 2
    assert inventory.read(()).versions is first.versions
    assert inventory.read().versions is first.versions


def test_a_change_is_seen_at_once_where_it_is_urgent_and_within_a_round_else(
    models: Path,
) -> None:
    clock = Clock()
    inventory = Inventory(models, clock)
    first = inventory.read(()).versions
    for model in ("model-007", "model-008"):
        (models / model / "2").mkdir()
    clock.now += 0.001
    second = inventory.read(["model-007"]).versions
    assert second["model-007"].keys() == {1, 2}
    assert second["model-009"] is first["model-009"]
    for _ in range(101):
        clock.now += ROUND_SECONDS / 100
        last = inventory.read(()).versions
    assert last["model-008"].keys() == {1, 2}


def test_models_that_come_and_go_are_seen_at_once(models: Path) -> None:
    clock = Clock()
    inventory = Inventory(models, clock)
    inventory.read(())
    (models / "new/3").mkdir(parents=True)
    (models / "model-000/1").rmdir()
    (models / "model-000").rmdir()
    found = inventory.read(()).versions
    assert found["new"] == {3: LocalVersion("new", 3, 0, None)}
    assert "model-000" not in found


def test_two_changes_that_come_close_to_each_other_are_both_seen(models: Path) -> None:
    inventory = Inventory(models, Clock())
    inventory.read(())
    (models / "first").mkdir()
    changed_ns = models.stat().st_mtime_ns
    assert "first" in inventory.read(()).versions
    (models / "second").mkdir()
    os.utime(models, ns=(changed_ns, changed_ns))  # as where the clock of files is a coarse one
    assert "second" in inventory.read(()).versions


def test_a_clock_that_was_set_back_hides_no_model(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = Inventory(models, Clock())
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time_ns", lambda now=time.time_ns: now() + 3600 * 10**9)
        inventory.read(())
    (models / "new").mkdir()
    settle(models)
    assert "new" in inventory.read(()).versions


def test_what_is_installed_can_be_asked_for_while_more_is_found(models: Path) -> None:
    for model in MODELS:
        folder = models / model / ".manifests"
        folder.mkdir()
        manifest = '{"source": "s", "digest": "d", "installed_at_seconds": 0, "files": []}'
        (folder / "1.json").write_text(manifest)
    inventory = Inventory(models, Clock())
    failures: list[BaseException] = []
    is_read = threading.Event()

    def ask() -> None:
        try:
            while not is_read.is_set():
                inventory.list_installed()
        except BaseException as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asking.start()
        inventory.read()
        is_read.set()
        asking.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
    assert len(inventory.list_installed()) == len(MODELS)


def test_what_a_reading_of_all_bytes_has_shown_is_told_at_once(models: Path) -> None:
    clock = Clock()
    inventory = Inventory(models, clock)
    folder = models / "model-150"
    (folder / ".manifests").mkdir()
    manifest = '{"source": "s", "digest": "d", "installed_at_seconds": 0, "files": []}'
    (folder / ".manifests/1.json").write_text(manifest)
    assert inventory.read(()).versions["model-150"][1].intact
    inventory.mark("model-150", 1, intact=False)
    clock.now += 0.001
    assert not inventory.read(()).versions["model-150"][1].intact
