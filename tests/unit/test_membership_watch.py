"""When each registry is asked, and what is known of a group in the meantime."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.membership.registry import Registries, RegistryClient, RegistryError
from reconciler.membership.watch import MembershipWatch
from reconciler.model import Group, Member, Membership, Registry

TIMEOUT_SECONDS = 60.0


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class ScriptedRegistries(Registries):
    """Registries that say what the test tells them to, by query; counts the questions."""

    def __init__(self) -> None:
        super().__init__(docker_host="", nomad_address="", nomad_token_file=None)
        self.lists: dict[str, str | RegistryError] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    def open(self, registry: Registry) -> RegistryClient:
        return self

    async def list(self, membership: Membership) -> tuple[Member, ...]:
        query = membership.query
        self.asked.append(query)
        try:
            if query in self.held:
                await self.held[query].wait()
        except asyncio.CancelledError:
            self.cancelled.append(query)
            raise
        answer = self.lists[query]
        if isinstance(answer, RegistryError):
            raise answer
        return tuple(Member(name, f"{name}:{membership.port}") for name in answer)


def group(name: str, query: str | None = None) -> Group:
    membership = Membership(Registry.DNS, query, 8080) if query else None
    return Group(name, f"groups/{name}.yaml", (), membership=membership)


SEARCH = group("search", "tasks.search")
ADS = group("ads", "tasks.ads")


@dataclass
class Setting:
    folder: Path
    clock: Clock = field(default_factory=Clock)
    registries: ScriptedRegistries = field(default_factory=ScriptedRegistries)

    def __post_init__(self) -> None:
        self.registries.lists = {"tasks.search": "ab", "tasks.ads": "c"}
        self.watch = self.start()

    def start(self) -> MembershipWatch:
        return MembershipWatch(
            self.registries, state_file=self.folder / "members.json", clock=self.clock
        )

    def want(self, *groups: Group) -> bool:
        return self.watch.want(groups, TIMEOUT_SECONDS)

    def seen(self, watch: MembershipWatch | None = None) -> dict[str, str]:
        known = (watch or self.watch).members
        return {name: "".join(m.name for m in members) for name, members in known.items()}

    async def pass_time(self, seconds: int) -> int:
        """Let time pass in steps of a second; return how often something was asked."""
        before = len(self.registries.asked)
        for _ in range(seconds):
            self.clock.now += 1
            await self.watch.refresh()
        return len(self.registries.asked) - before


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting(tmp_path)
    yield made
    await made.watch.close()


async def test_a_group_is_asked_at_once_and_then_every_five_seconds(setting: Setting) -> None:
    assert setting.want(SEARCH, group("static"))
    assert setting.watch.members == {}
    assert await setting.watch.refresh()
    assert setting.seen() == {"search": "ab"}
    assert not setting.want(SEARCH)
    assert not await setting.watch.refresh()
    assert 4.9 < setting.watch.next_due_seconds() < 5.6
    assert await setting.pass_time(4) == 0
    assert await setting.pass_time(60) in (10, 11)


async def test_a_large_group_is_asked_less_often(setting: Setting) -> None:
    setting.registries.lists["tasks.search"] = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    setting.want(SEARCH)
    await setting.watch.refresh()
    assert await setting.pass_time(29) == 0
    assert await setting.pass_time(5) == 1


async def test_only_a_node_that_stays_away_leaves(setting: Setting) -> None:
    setting.want(SEARCH)
    await setting.watch.refresh()
    setting.registries.lists["tasks.search"] = "a"
    await setting.pass_time(50)
    assert setting.seen() == {"search": "ab"}
    setting.registries.lists["tasks.search"] = "abc"
    await setting.pass_time(10)
    setting.registries.lists["tasks.search"] = "ab"
    await setting.pass_time(50)
    assert setting.seen() == {"search": "abc"}
    await setting.pass_time(30)
    assert setting.seen() == {"search": "ab"}


async def test_a_registry_that_fails_keeps_its_members_and_is_told(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.want(SEARCH, ADS)
    await setting.pass_time(10)
    setting.registries.lists["tasks.search"] = RegistryError("DNS is away")
    await setting.pass_time(1000)
    assert setting.seen() == {"ads": "c", "search": "ab"}
    assert {name: t.reason for name, t in setting.watch.troubles.items()} == {
        "search": "RegistryUnreachable"
    }
    assert setting.watch.troubles["search"].sentence == (
        "group search, looked up as the DNS name tasks.search: DNS is away; meanwhile the group"
        " keeps the 2 members known last"
    )
    assert caplog.text.count("DNS is away") == 1
    setting.registries.lists["tasks.search"] = "ab"
    setting.clock.now += 10
    assert await setting.watch.refresh()
    assert not setting.watch.troubles


async def test_a_slow_registry_holds_up_no_other_group(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.membership.watch._INTERVAL_SECONDS", 3600.0)
    setting.registries.held["tasks.search"] = asyncio.Event()
    setting.want(SEARCH, ADS)
    async with asyncio.timeout(30):
        assert await setting.watch.refresh()
        assert setting.seen() == {"ads": "c"}
        assert setting.watch.next_due_seconds() == 0
        setting.registries.lists["tasks.ads"] = "cd"
        setting.clock.now += 4000
        assert await setting.watch.refresh()
        assert setting.seen() == {"ads": "cd"}
        setting.registries.held["tasks.search"].set()
        assert await setting.watch.refresh()
    assert setting.seen() == {"ads": "cd", "search": "ab"}
    assert setting.registries.asked.count("tasks.search") == 1


async def test_what_nobody_wants_any_more_is_forgotten(setting: Setting) -> None:
    setting.registries.held["tasks.ads"] = asyncio.Event()
    setting.want(SEARCH, ADS)
    await setting.watch.refresh()
    setting.want()
    assert setting.watch.members == {}
    assert await setting.pass_time(100) == 0
    await asyncio.sleep(0)
    assert setting.registries.cancelled == ["tasks.ads"]


async def test_a_new_query_is_asked_at_once_and_its_members_begin_with_the_old(
    setting: Setting,
) -> None:
    setting.want(SEARCH)
    await setting.watch.refresh()
    setting.registries.lists["tasks.other"] = RegistryError("no such name")
    changed = group("search", "tasks.other")
    assert setting.want(changed)
    assert await setting.watch.refresh()
    assert setting.seen() == {"search": "ab"}
    assert "tasks.other: no such name" in setting.watch.troubles["search"].sentence
    setting.registries.lists["tasks.other"] = "bc"
    await setting.pass_time(20)
    assert setting.seen() == {"search": "abc"}
    await setting.pass_time(70)
    assert setting.seen() == {"search": "bc"}


async def test_an_answer_to_a_query_that_has_changed_meanwhile_is_not_taken(
    setting: Setting,
) -> None:
    setting.registries.held["tasks.search"] = asyncio.Event()
    setting.registries.lists["tasks.other"] = "x"
    setting.want(SEARCH, ADS)
    await setting.watch.refresh()
    setting.want(group("search", "tasks.other"), ADS)
    setting.registries.held["tasks.search"].set()
    await setting.pass_time(10)
    assert setting.seen() == {"ads": "c", "search": "x"}


async def test_a_node_that_starts_while_the_registry_is_away_knows_its_group(
    setting: Setting,
) -> None:
    setting.want(SEARCH, ADS)
    await setting.pass_time(10)
    setting.registries.lists = dict.fromkeys(setting.registries.lists, RegistryError("away"))
    restarted = setting.start()
    assert setting.seen(restarted) == {"ads": "c", "search": "ab"}
    restarted.want([SEARCH], TIMEOUT_SECONDS)
    await restarted.refresh()
    assert setting.seen(restarted) == {"search": "ab"}
    assert restarted.troubles["search"].reason == "RegistryUnreachable"
    await restarted.close()


async def test_a_registry_that_never_answers_is_given_up(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.membership.watch._DEADLINE_SECONDS", 0.01)
    setting.registries.held["tasks.search"] = asyncio.Event()
    setting.want(SEARCH)
    async with asyncio.timeout(30):
        while not await setting.watch.refresh():
            pass
    assert "no answer came within" in setting.watch.troubles["search"].sentence
    assert setting.registries.cancelled == ["tasks.search"]
