"""Who counts as a member: pure tracking, what is remembered, and what goes into the fleet."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.members import check_members, with_members
from reconciler.errors import ConfigError
from reconciler.membership.memory import MemberMemory
from reconciler.membership.tracker import DUPLICATE, EMPTY, MemberTracker
from reconciler.model import Group, Member, Membership, Registry, Unavailable

TIMEOUT_SECONDS = 60.0
NODES = ("a", "b", "c", "d")


def members(names: Iterable[str]) -> tuple[Member, ...]:
    return tuple(Member(name, f"{name}.internal:8080") for name in names)


def names(tracker: MemberTracker) -> str:
    return "".join(member.name for member in tracker.members)


class Story:
    """One registry over time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tracker = MemberTracker()

    def lists(self, listed: str, after_seconds: float = 5.0) -> str:
        """Let the registry answer; return who are members then."""
        self.now += after_seconds
        self.tracker = self.tracker.take(members(listed), self.now, TIMEOUT_SECONDS)
        return names(self.tracker)

    def fails(self, after_seconds: float = 5.0) -> str:
        self.now += after_seconds
        self.tracker = self.tracker.miss("RegistryUnreachable", "it is away")
        return names(self.tracker)


def test_a_new_node_counts_at_once_and_one_that_is_gone_stays_until_the_timeout() -> None:
    story = Story()
    assert story.lists("ab") == "ab"
    assert story.lists("abc") == "abc"
    assert story.lists("ab") == "abc"
    assert story.lists("ab", after_seconds=59) == "abc"
    assert story.lists("ab", after_seconds=1) == "ab"


def test_one_that_comes_back_in_time_begins_anew_when_it_goes_again() -> None:
    story = Story()
    story.lists("ab")
    story.lists("a")
    assert story.lists("a", after_seconds=50) == "ab"
    assert story.lists("ab") == "ab"
    assert story.lists("a") == "ab"
    assert story.lists("a", after_seconds=50) == "ab"


def test_nobody_leaves_while_the_registry_cannot_be_asked() -> None:
    story = Story()
    story.lists("ab")
    story.lists("a")
    for _ in range(1000):
        assert story.fails() == "ab"
    assert story.tracker.trouble == Unavailable(
        "RegistryUnreachable", "it is away; meanwhile the group keeps the 2 members known last"
    )


def test_the_time_without_answers_does_not_count_against_a_missing_node() -> None:
    story = Story()
    story.lists("ab")
    story.lists("a")
    story.lists("a", after_seconds=30)
    story.fails(after_seconds=500)
    assert story.lists("a", after_seconds=500) == "ab"
    assert story.lists("a", after_seconds=29) == "ab"
    assert story.lists("a", after_seconds=1) == "a"


def test_an_empty_list_is_never_believed() -> None:
    story = Story()
    story.lists("abc")
    for _ in range(100):
        assert story.lists("") == "abc"
    assert story.tracker.trouble is not None
    assert story.tracker.trouble.reason == EMPTY
    assert story.tracker.trouble.sentence == (
        "it lists no node, which is not believed; check the query;"
        " meanwhile the group keeps the 3 members known last"
    )
    assert story.lists("abc") == "abc"
    assert story.tracker.trouble is None


def test_of_an_empty_list_at_the_start_nothing_is_known() -> None:
    story = Story()
    assert story.lists("") == ""
    assert story.tracker.trouble is not None
    assert "the group's members are not known" in story.tracker.trouble.sentence


def test_a_node_that_moves_has_its_new_address_at_once() -> None:
    story = Story()
    story.lists("a")
    moved = story.tracker.take([Member("a", "elsewhere:8080")], story.now, TIMEOUT_SECONDS)
    assert moved.members == (Member("a", "elsewhere:8080"),)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_two_nodes_of_one_name_are_told(is_reversed: bool) -> None:
    listed = [Member("a", "10.0.0.1:8080"), Member("a", "10.0.0.2:8080"), Member("b", None)]
    if is_reversed:
        listed.reverse()
    tracker = MemberTracker().take(listed, 0, TIMEOUT_SECONDS)
    assert tracker.members == (Member("a", "10.0.0.1:8080"), Member("b", None))
    assert tracker.trouble is not None
    assert tracker.trouble.reason == DUPLICATE
    assert "two nodes as a, at 10.0.0.1:8080 and 10.0.0.2:8080" in tracker.trouble.sentence


def test_a_clock_that_goes_back_lets_nobody_go() -> None:
    story = Story()
    story.lists("ab")
    story.lists("a")
    assert story.lists("a", after_seconds=-3600) == "ab"
    assert story.lists("a", after_seconds=59) == "ab"
    assert story.lists("a", after_seconds=1) == "a"


@given(st.lists(st.permutations(NODES), min_size=2, max_size=2), st.floats(0, 1e9))
def test_the_order_of_an_answer_does_not_matter(orders: list[list[str]], now: float) -> None:
    first, second = (MemberTracker().take(members(order), now, 60) for order in orders)
    assert first == second
    assert names(first) == "abcd"


class Flapping(RuleBasedStateMachine):
    """Nodes come and go, always back before the timeout; the registry fails, or lists nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.tracker = MemberTracker().take(members(NODES), self.now, TIMEOUT_SECONDS)
        self.down: set[str] = set()
        self.unlisted_since: dict[str, float] = {}
        """Less the time in which the registry said nothing to go by."""
        self.answered_at = self.now
        self.is_blind = False

    @rule(node=st.sampled_from(NODES))
    def go_down(self, node: str) -> None:
        self.down.add(node)

    @rule(node=st.sampled_from(NODES))
    def come_back(self, node: str) -> None:
        self.down.discard(node)

    @rule(seconds=st.floats(0, 59))
    def answer(self, seconds: float) -> None:
        self.now += seconds
        if self.is_blind:
            blind_seconds = self.now - self.answered_at
            for node in self.unlisted_since:
                self.unlisted_since[node] += blind_seconds
        self.answered_at, self.is_blind = self.now, False
        for node, since in self.unlisted_since.items():
            if self.now - since > TIMEOUT_SECONDS - 1e-6:  # sums of floats
                self.down.discard(node)
        listed = [node for node in NODES if node not in self.down]
        self.is_blind = not listed
        for node in listed:
            self.unlisted_since.pop(node, None)
        for node in self.down:
            self.unlisted_since.setdefault(node, self.now)
        self.tracker = self.tracker.take(members(listed), self.now, TIMEOUT_SECONDS)

    @rule(seconds=st.floats(0, 10_000))
    def fail(self, seconds: float) -> None:
        self.now += seconds
        self.tracker = self.tracker.miss("RegistryUnreachable", "it is away")
        self.is_blind = True

    @invariant()
    def nobody_has_left(self) -> None:
        assert self.tracker.members == members(NODES)


Flapping.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestFlapping = Flapping.TestCase


@given(
    st.lists(st.floats(0.5, 30), min_size=1, max_size=80),
    st.sets(st.sampled_from(NODES), min_size=1),
)
def test_whoever_is_gone_for_good_leaves_after_the_timeout_and_not_before(
    steps: list[float], staying: set[str]
) -> None:
    story = Story()
    story.lists("abcd")
    gone_since = story.now + 1
    story.lists("".join(staying), after_seconds=1)
    for step in steps:
        seen = story.lists("".join(staying), after_seconds=step)
        missing_seconds = story.now - gone_since
        if abs(missing_seconds - TIMEOUT_SECONDS) > 1e-6:  # sums of floats
            expected = set(NODES) if missing_seconds < TIMEOUT_SECONDS else staying
            assert seen == "".join(sorted(expected))


# --- memory -------------------------------------------------------------------------------


def test_members_outlive_a_restart(tmp_path: Path) -> None:
    known = {"search": (Member("a", "10.0.0.1:8080"), Member("b", None)), "ads": members("c")}
    MemberMemory(tmp_path / "members.json").save(known)
    assert MemberMemory(tmp_path / "members.json").load() == known


def test_without_a_file_nothing_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert MemberMemory(tmp_path / "members.json").load() == {}
    assert not caplog.records


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"groups": 3}',
        '{"groups": {"search": 3}}',
        '{"groups": {"search": ["a"]}}',
        '{"groups": {"search": [{"name": "a"}]}}',
        '{"groups": {"search": [{"name": "../a", "address": null}]}}',
        '{"groups": {"search": [{"name": "a", "address": 3}]}}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_a_damaged_file_is_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    file = tmp_path / "members.json"
    file.write_bytes(text.encode("latin-1"))
    memory = MemberMemory(file)
    assert memory.load() == {}
    assert "is begun anew" in caplog.text
    memory.save({"search": members("a")})
    assert MemberMemory(file).load() == {"search": members("a")}


def test_a_file_is_written_only_when_it_would_say_something_else(tmp_path: Path) -> None:
    file = tmp_path / "members.json"
    MemberMemory(file).save({"search": members("a")})
    memory = MemberMemory(file)
    memory.load()
    file.write_text("untouched")
    memory.save({"search": members("a")})
    assert file.read_text() == "untouched"
    memory.save({"search": members("ab")})
    assert len(json.loads(file.read_text())["groups"]["search"]) == 2


def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = MemberMemory(tmp_path / "away" / "members.json")
    memory.save({"search": members("a")})
    memory.save({"search": members("ab")})
    assert caplog.text.count("cannot be written") == 1
    (tmp_path / "away").mkdir()
    memory.save({"search": members("ab")})
    assert memory.load() == {"search": members("ab")}


# --- the fleet ----------------------------------------------------------------------------

DNS = Membership(Registry.DNS, "tasks.agent", 8080)


def make_fleet(**groups: tuple[str, Membership | None]) -> Fleet:
    return Fleet(
        groups={
            name: Group(name, f"groups/{name}.yaml", members(nodes), membership=membership)
            for name, (nodes, membership) in groups.items()
        }
    )


def test_the_groups_that_git_does_not_list_are_filled_in() -> None:
    fleet = make_fleet(search=("", DNS), ads=("xy", None), late=("", DNS))
    filled = with_members(fleet, {"search": members("ab"), "ads": members("z"), "no": members("q")})
    assert {name: len(group.nodes) for name, group in filled.groups.items()} == {
        "search": 2,
        "ads": 2,
        "late": 0,
    }
    assert filled.groups["search"].nodes == members("ab")
    assert filled.groups["ads"].nodes == members("xy")
    assert not fleet.groups["search"].nodes


def test_a_node_that_a_registry_puts_into_a_second_group_is_told() -> None:
    fleet = make_fleet(search=("ab", DNS), ads=("bc", None))
    with pytest.raises(ConfigError) as caught:
        check_members(fleet, "b")
    assert str(caught.value) == (
        "node b is in more than one group: search (groups/search.yaml, by dns: tasks.agent) and"
        " ads (groups/ads.yaml); a node is in one group only, so nothing is changed on this node"
        " until the others leave it out"
    )
    check_members(fleet, "a")
    check_members(fleet, "c")
    check_members(fleet, "elsewhere")


def test_whether_a_node_is_in_a_group_nobody_knows_yet_is_left_open() -> None:
    fleet = make_fleet(search=("", DNS), ads=("bc", None))
    troubles = {"search": Unavailable("RegistryUnreachable", "DNS is away")}
    with pytest.raises(ConfigError, match=r"group search cannot be told.*\(DNS is away\)"):
        check_members(fleet, "a", troubles)
    with pytest.raises(ConfigError, match="is not known yet; nothing is changed"):
        check_members(fleet, "a")
    check_members(fleet, "b", troubles)
