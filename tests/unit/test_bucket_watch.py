"""When each source is listed: as often as needed, and no more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.errors import SourceError
from reconciler.model import Listing, Query
from reconciler.sources.file import FileSource
from reconciler.sources.registry import Sources
from reconciler.sources.watch import BucketWatch
from tests.bucket import write_files


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingSources(Sources):
    """Real folders; counts what is asked and fails while told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Query] = []
        self.fails = False
        self.bug: Exception | None = None
        self.meanwhile: list[Callable[[], None]] = []
        """What happens during the next listings."""

    def open(self, url: str) -> FileSource:
        counting = self

        class Counting(FileSource):
            def list(self, query: Query) -> Listing:
                counting.asked.append(query)
                if counting.meanwhile:
                    counting.meanwhile.pop()()
                if counting.fails:
                    raise SourceError("the folder is away", "ListingFailed")
                if counting.bug is not None:
                    raise counting.bug
                return super().list(query)

        return Counting()


@dataclass
class Setting:
    folder: Path
    clock: Clock = field(default_factory=Clock)
    sources: CountingSources = field(default_factory=CountingSources)

    def __post_init__(self) -> None:
        write_files(self.folder / "1")
        self.latest = Query(f"file://{self.folder}")
        self.pin = Query(f"file://{self.folder}", 1)
        self.watch = BucketWatch(
            self.sources, interval_seconds=60, recheck_seconds=3600, clock=self.clock
        )

    async def pass_time(self, seconds: float, wanted: Mapping[Query, bool]) -> int:
        """Let time pass in steps of a second; return how often something was asked."""
        before = len(self.sources.asked)
        for _ in range(round(seconds)):
            self.watch.want(wanted)
            await self.watch.refresh()
            self.clock.now += 1
        return len(self.sources.asked) - before


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path / "ranker")


async def test_what_is_needed_is_asked_at_once_and_then_every_interval(setting: Setting) -> None:
    is_due = setting.watch.want({setting.latest: False})
    assert (is_due, setting.watch.answered) == (True, False)
    assert await setting.watch.refresh()
    assert (setting.watch.answered, setting.watch.want({setting.latest: False})) == (True, False)
    assert 1 in setting.watch.available.listings[setting.latest].snapshots
    assert 8 <= await setting.pass_time(600, {setting.latest: False}) <= 11


async def test_what_nobody_wants_any_more_is_forgotten(setting: Setting) -> None:
    await setting.pass_time(1, {setting.latest: False, setting.pin: False})
    setting.watch.want({setting.latest: None, setting.pin: True})
    assert setting.watch.available.listings.keys() == {setting.pin}
    assert await setting.pass_time(120, {}) == 0
    setting.watch.want({setting.latest: None})
    assert not await setting.watch.refresh()


async def test_an_installed_pin_is_compared_once_an_hour(setting: Setting) -> None:
    assert await setting.pass_time(3000, {setting.pin: True}) == 0
    assert await setting.pass_time(7200, {setting.pin: True}) in (2, 3)


async def test_a_pin_that_comes_to_be_needed_is_asked_at_once(setting: Setting) -> None:
    assert await setting.pass_time(10, {setting.pin: True}) == 0
    assert await setting.pass_time(1, {setting.pin: False}) == 1
    assert await setting.pass_time(600, {setting.pin: True}) == 0


async def test_after_a_long_outage_it_is_listed_within_half_a_minute(tmp_path: Path) -> None:
    setting = Setting(tmp_path / "ranker")
    setting.watch = BucketWatch(
        setting.sources, interval_seconds=3600, recheck_seconds=3600, clock=setting.clock
    )
    setting.sources.fails = True
    await setting.pass_time(1800, {setting.latest: False})
    setting.sources.fails = False
    await setting.pass_time(35, {setting.latest: False})
    assert 1 in setting.watch.available.listings[setting.latest].snapshots


async def test_a_bug_in_a_listing_is_that_sources_trouble_alone(setting: Setting) -> None:
    await setting.pass_time(1, {setting.latest: False})
    setting.sources.bug = RuntimeError("nobody thought of this")
    setting.watch.hasten(setting.latest)
    await setting.watch.refresh()
    available = setting.watch.available
    assert 1 in available.listings[setting.latest].snapshots
    assert available.troubles[setting.latest].reason == "Bug"
    assert "nobody thought of this" in available.troubles[setting.latest].sentence


async def test_a_failure_keeps_the_last_listing_and_is_tried_sooner(setting: Setting) -> None:
    await setting.pass_time(1, {setting.latest: False})
    setting.sources.fails = True
    setting.watch.hasten(setting.latest)
    await setting.watch.refresh()
    available = setting.watch.available
    assert 1 in available.listings[setting.latest].snapshots
    assert available.troubles[setting.latest].reason == "ListingFailed"
    assert await setting.pass_time(10, {setting.latest: False}) in (2, 3, 4)
    setting.sources.fails = False
    await setting.pass_time(60, {setting.latest: False})
    assert not setting.watch.available.troubles


async def test_an_upload_that_is_about_to_settle_is_looked_at_then(setting: Setting) -> None:
    await setting.pass_time(1, {setting.latest: False})
    setting.watch.hasten(setting.latest, 5)
    setting.watch.hasten(setting.latest, 20)
    assert await setting.pass_time(4, {setting.latest: False}) == 0
    assert await setting.pass_time(3, {setting.latest: False}) == 1


async def test_what_changes_during_a_listing_is_asked_for_again(setting: Setting) -> None:
    source = setting.latest.source
    setting.sources.meanwhile = [lambda: setting.watch.hasten_source(source)]
    assert await setting.pass_time(10, {setting.latest: False}) == 2
    setting.sources.meanwhile = [setting.watch.hasten_all]
    setting.watch.hasten_all()
    assert await setting.pass_time(10, {setting.latest: False}) == 2


def test_an_objects_sources_are_those_that_are_asked_about(setting: Setting) -> None:
    folder = setting.latest.source
    nested, sibling = Query(f"{folder}/nested/"), Query(f"{folder}-b")
    setting.watch.want({setting.latest: False, setting.pin: True, nested: False, sibling: False})
    assert setting.watch.find_sources(f"{folder}/42/saved_model.pb") == {folder}
    assert setting.watch.find_sources(f"{folder}/nested/1/x") == {folder, nested.source}
    assert setting.watch.find_sources(folder) == set()
