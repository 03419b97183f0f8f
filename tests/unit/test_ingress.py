"""Where requests go, what the proxies' files say of it, and when a proxy is told."""

import json
import string
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import SettingsError
from reconciler.fleet.answers import read_answer
from reconciler.fleet.poll import Sighting, Target
from reconciler.ingress.envoy import render_envoy
from reconciler.ingress.haproxy import render_haproxy
from reconciler.ingress.keep import Commands, IngressError, Keeper, parse_command
from reconciler.ingress.nginx import render_nginx
from reconciler.ingress.nodes import Node, find_shared, read_words
from reconciler.ingress.proxy import Frontend, find_hosts, is_address, read_head, render_head
from reconciler.ingress.routes import (
    Fitness,
    Routes,
    Server,
    Word,
    find_routes,
    place,
    read_word,
)
from reconciler.ingress.sidecar import describe_change
from reconciler.model import Condition, Member, Outcome, Phase
from tests.statuses import StatusNode, leaving, outcome

A, B, C = (Server(name, f"{name}:8500", f"{name}:8501") for name in ("a", "b", "c"))
UNREACHABLE = Condition("ServingReachable", False, "NoAnswer", "It cannot be reached.")


def word(server: Server, *outcomes: Outcome, **more: object) -> Word:
    node = StatusNode(server.node)
    node.say(*outcomes, **more)  # type: ignore[arg-type]
    return read_word(server, read_answer(node.body))


# --- whether a node is a good place for a model -------------------------------------------------


@pytest.mark.parametrize(
    ("said", "fitness"),
    [
        (outcome("m", Phase.DEPLOYED), Fitness.STAYING),
        (outcome("m", Phase.DEPLOYING, "Loading"), Fitness.STAYING),
        (outcome("m", Phase.FAILED, "LoadFailed"), Fitness.STAYING),
        (outcome("m", Phase.STOPPING, "Unloading"), Fitness.LEAVING),
        (outcome("m", Phase.DEPLOYING, "Loading", serving=None), None),
        (outcome("m", Phase.FAILED, "LoadFailed", serving=None), None),
        (outcome("m", Phase.STOPPED, "Stopped", serving=None), None),
    ],
)
def test_a_node_is_fit_where_a_version_answers(said: Outcome, fitness: Fitness | None) -> None:
    assert word(A, said).models.get("m") is fitness


@pytest.mark.parametrize(
    ("reason", "fitness"),
    [
        ("HandingOver", Fitness.STAYING),
        ("Draining", Fitness.LEAVING),
        ("Unloading", Fitness.LEAVING),
        ("RemovalsHeld", Fitness.LEAVING),
    ],
)
def test_a_model_that_leaves_is_asked_for_there_until_others_are_ready(
    reason: str, fitness: Fitness
) -> None:
    assert word(A, removals=(leaving("m", reason),)).models == {"m": fitness}


def test_an_agent_that_does_not_see_its_server_leaves_it_open_what_is_served() -> None:
    assert word(A, outcome("m", serving=None), conditions=(UNREACHABLE,)).is_blind
    assert word(A, commit=None).is_blind, "it has only just started"
    assert not word(A, outcome("m")).is_blind


def test_a_name_that_no_model_has_does_not_come_into_a_config() -> None:
    assert word(A, outcome("m; include /etc/passwd"), outcome("ok")).models.keys() == {"ok"}


def test_a_node_is_where_git_says_or_at_its_address() -> None:
    assert place(Member("a", "a.example:8080"), 8500, 8501) == Server(
        "a", "a.example:8500", "a.example:8501"
    )
    named = Member("a", "[::1]:8080", grpc="b:1")
    assert place(named, 8500, 8501) == Server("a", "b:1", "[::1]:8501")
    assert place(Member("a"), 8500, 8501) is None
    secured = place(Member("a", "https://[::1]:8443"), 8500, 8501)
    assert secured == Server("a", "[::1]:8500", "[::1]:8501")


# --- where requests go -------------------------------------------------------------------------


def test_those_that_leave_count_where_no_other_is_and_the_silent_ones_last() -> None:
    stays, leaves = Fitness.STAYING, Fitness.LEAVING
    known = {"m": (A, B)}
    blind = Word(A, is_blind=True)
    assert find_routes([Word(A, {"m": leaves}), Word(B, {"m": stays})], {}) == {"m": (B,)}
    assert find_routes([Word(A, {"m": leaves}), Word(B)], {}) == {"m": (A,)}
    assert find_routes([blind, Word(B, {"m": stays})], known) == {"m": (B,)}
    assert find_routes([blind, Word(B, {"m": leaves})], known) == {"m": (B,)}
    assert find_routes([blind, Word(B)], known) == {"m": (A,)}
    assert find_routes([Word(A), Word(B)], known) == {}, "they answer, and none has it"
    assert find_routes([Word(B)], known) == {}, "a is no node any more"
    moved = Server("a", "new:8500", "new:8501")
    assert find_routes([Word(moved, is_blind=True)], {"m": (A,)}) == {"m": (moved,)}
    unnamed = Server("10.0.0.7:8080", A.grpc, A.rest)
    assert find_routes([Word(unnamed, is_blind=True)], {"m": (A,)}) == {"m": (A,)}


WORDS = st.fixed_dictionaries(
    {
        server: st.one_of(
            st.builds(Word, st.just(server), is_blind=st.just(True)),
            st.builds(
                Word,
                st.just(server),
                st.dictionaries(
                    st.sampled_from("mn"), st.sampled_from([Fitness.LEAVING, Fitness.STAYING])
                ),
            ),
        )
        for server in (A, B, C)
    }
).map(lambda words: list(words.values()))
ROUTES = st.dictionaries(
    st.sampled_from("mn"),
    st.sets(st.sampled_from([A, B, C]), min_size=1).map(lambda found: tuple(sorted(found))),
)


@given(words=WORDS, before=ROUTES)
def test_no_list_is_empty_and_no_model_is_lost_that_anyone_may_serve(
    words: list[Word], before: Routes
) -> None:
    routes = find_routes(words, before)
    blind = {word.server for word in words if word.is_blind}
    for model in "mn":
        telling = {word.server for word in words if model in word.models}
        doubtful = blind & set(before.get(model, ()))
        found = set(routes.get(model, ()))
        assert bool(found) == bool(telling | doubtful)
        assert found <= (telling or doubtful), "doubt never stands beside knowledge"
    assert find_routes(words, routes) == routes, "looking again changes nothing"
    assert list(routes) == sorted(routes)


def test_what_a_node_says_counts_while_it_is_fresh_and_its_own() -> None:
    node = StatusNode("a")
    node.say(outcome("m"))
    answer = read_answer(node.body)
    target = Target("a:8080", "a", "g")

    def look(sighting: Sighting, target: Target = target) -> tuple[bool, str]:
        ((said,), notes) = read_words([Node(target, A)], [sighting], 100.0)
        assert bool(notes) == said.is_blind
        return said.is_blind, "".join(notes)

    assert look(Sighting(target, answer, 99.0)) == (False, "")
    assert look(Sighting(target, answer, 90.0)) == (True, "a: has not answered for more than 5 s")
    assert look(Sighting(target, answer, 99.0, "is away")) == (True, "a: is away")
    assert look(Sighting(target)) == (True, "a: has not answered yet")
    other = Target("a:8080", "z", "g")
    blind, note = look(Sighting(other, answer, 99.0), other)
    assert (blind, note) == (True, "z: its address is answered by a; correct it in groups/")


def test_of_two_nodes_that_say_one_name_the_first_counts() -> None:
    node = StatusNode("a")
    node.say(outcome("m"))
    answer = read_answer(node.body)
    targets = [Target("one:80"), Target("two:80")]
    words, notes = read_words(
        [Node(target, server) for target, server in zip(targets, (A, B), strict=True)],
        [Sighting(target, answer, 0.0) for target in targets],
        0.0,
    )
    assert [said.is_blind for said in words] == [False, True]
    assert notes == ["two:80: it says that it is a, as one:80 does"]


def test_nodes_that_are_said_to_have_one_server_are_named() -> None:
    nodes = [
        Node(Target(f"{name}:8080", name, "g"), Server(name, "h:8500", place))
        for name, place in [*((name, "h:8501") for name in "abcdefg"), ("h", "i:1")]
    ]
    assert list(find_shared(nodes)) == [
        "requests for any of a, b, c, d, e and 2 more go to h:8501: say where each is by `rest`"
        " and `grpc` in groups/, and give the clone by -C"
    ]


def test_a_change_is_told_in_a_sentence() -> None:
    assert describe_change({"m": (A,)}, {"m": (A, B)}) == (
        "the proxy was told: m is served by a, b (was a)"
    )
    many = {f"m{number}": (A,) for number in range(7)}
    assert "m0 is served by no node (was a)" in describe_change(many, {})
    assert describe_change(many, {}).endswith("; 2 other models changed")


# --- what the files say ------------------------------------------------------------------------

NAMES = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=128).filter(
    lambda name: name[0] not in ".-"
)
SERVERS = st.builds(
    Server,
    st.sampled_from(["a", "b.2", "c-3"]),
    st.sampled_from(["a:8500", "[::1]:8500", "10.0.0.7:8500"]),
    st.just("a:8501"),
)
ANY_ROUTES = st.dictionaries(
    NAMES, st.sets(SERVERS, min_size=1).map(lambda found: tuple(sorted(found))), max_size=4
).map(lambda routes: dict(sorted(routes.items())))


@given(routes=ANY_ROUTES)
def test_a_file_can_be_read_back(routes: Routes) -> None:
    for render in (render_nginx, render_haproxy, render_envoy):
        assert read_head(render(routes, Frontend(domain="models.example"))) == routes


def test_what_a_file_says_is_taken_only_where_it_makes_sense() -> None:
    head = render_head({"m": (A,)})
    assert read_head(head + "#: n a; a:1 a:1\n#: n a a:1 a:99999\n#: n a\n#: \n") == {"m": (A,)}


def test_a_host_names_one_model() -> None:
    assert find_hosts(["Ranker", "other", "ranker", "Two", "tWo", "One"], "X.Example") == {
        "one.x.example": "One",
        "other.x.example": "other",
        "ranker.x.example": "ranker",
    }
    assert find_hosts(["ranker"], None) == {}


def test_an_address_is_an_address() -> None:
    assert all(map(is_address, ("a:1", "[::1]:8500", "10.0.0.7:65535", "tasks.agent_1:80")))
    assert not any(map(is_address, ("a", "a:65536", "a:1;", "a b:1", ":80", "a:1\n", "{a}:1")))


def test_envoy_s_file_is_yaml_that_names_each_cluster_it_routes_to() -> None:
    text = render_envoy({"Ranker": (A,), "ranker": (A, B)}, Frontend(domain="x.example"))
    document = json.loads("\n".join(ln for ln in text.splitlines() if not ln.startswith("#")))
    resources = document["static_resources"]
    clusters = {cluster["name"] for cluster in resources["clusters"]}
    assert clusters == {"tfs_rest:Ranker", "tfs_grpc:Ranker", "tfs_rest:ranker", "tfs_grpc:ranker"}
    (manager,) = (
        listener["filter_chains"][0]["filters"][0]["typed_config"]
        for listener in resources["listeners"]
        if listener["name"] == "tfs_grpc"
    )
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert [route.get("route", {}).get("cluster") for route in routes] == [
        "tfs_grpc:Ranker", "tfs_grpc:ranker", "tfs_grpc:ranker", None
    ]  # fmt: skip
    draws = {
        route["route"]["retry_policy"]["host_selection_retry_max_attempts"] for route in routes[:3]
    }
    # Envoy draws by chance: of two nodes it must not find the dead one each time.
    assert 0.5 ** min(draws) < 1e-6


# --- when a proxy is told ----------------------------------------------------------------------


class Bench:
    """A keeper whose check and reload are scripts that note that they ran."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self.folder = folder
        self.refuses = folder / "refuses"
        """Where it is, check and reload whose names are in it fail."""
        script = folder / "tool.py"
        script.write_text(
            "import pathlib, sys\n"
            f"folder = pathlib.Path({str(folder)!r})\n"
            "name, *files = sys.argv[1:]\n"
            "said = [pathlib.Path(file).read_text() for file in files]\n"
            "with (folder / 'calls').open('a') as calls: calls.write(' '.join([name, *said, '']))\n"
            "refuses = folder / 'refuses'\n"
            "if refuses.exists() and name in refuses.read_text(): sys.exit(f'{name} says no')\n"
        )
        tool = (sys.executable, "-I", "-S", str(script))
        commands = Commands((*tool, "check", "{file}"), (*tool, "reload"))
        self.file = folder / "proxy.conf"
        self.keeper = Keeper(self.file, commands, clock=lambda: self.now)

    def calls(self) -> str:
        """Return what ran since the last call."""
        file = self.folder / "calls"
        text = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return text.strip()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_proxy_is_told_of_what_is_new_and_not_more_often_than_every_two_seconds(
    bench: Bench,
) -> None:
    assert bench.keeper.keep("one")
    assert (bench.calls(), bench.file.read_text()) == ("check one reload", "one")
    bench.now += 100
    assert not bench.keeper.keep("one")
    assert bench.keeper.keep("two")
    bench.calls()
    bench.now += 1.9
    assert not bench.keeper.keep("three"), "too soon"
    assert (bench.calls(), bench.file.read_text()) == ("", "two")
    bench.now += 0.2
    assert bench.keeper.keep("four")
    assert bench.calls() == "check four reload", "what came between is not told at all"


def test_a_sidecar_that_starts_reloads_once_since_its_predecessor_may_not_have(
    bench: Bench,
) -> None:
    bench.file.write_text("one")
    assert bench.keeper.keep("one")
    assert bench.calls() == "reload"


def test_a_file_that_somebody_removed_comes_back(bench: Bench) -> None:
    bench.keeper.keep("one")
    bench.file.unlink()
    bench.now += 3
    assert bench.keeper.keep("one")
    assert bench.file.read_text() == "one"


def test_what_the_check_refuses_stays_out_and_is_tried_ever_more_rarely(bench: Bench) -> None:
    bench.keeper.keep("one")
    bench.refuses.write_text("check")
    bench.now += 100
    with pytest.raises(IngressError, match=r"would not take .* stays as it was: .*check says no"):
        bench.keeper.keep("two")
    assert bench.file.read_text() == "one"
    assert not bench.keeper.candidate.exists()
    bench.calls()
    waits = []
    for _ in range(7):
        start = bench.now
        while not bench.calls():
            bench.now += 1
            with pytest.raises(IngressError, match="check says no"):
                bench.keeper.keep("two")
        waits.append(bench.now - start)
    assert waits == [4, 8, 16, 32, 60, 60, 60]
    bench.refuses.unlink()
    with pytest.raises(IngressError, match="check says no"):
        bench.keeper.keep("three")
    assert not bench.calls(), "too soon, and nothing says that the trouble is over"
    bench.now += 2
    assert bench.keeper.keep("three"), "something else is wanted: that is tried soon"
    assert bench.file.read_text() == "three"


def test_a_reload_that_fails_is_tried_again_though_the_file_is_there(bench: Bench) -> None:
    bench.refuses.write_text("reload")
    with pytest.raises(IngressError, match=r"is written, but the proxy was not reloaded: .* no"):
        bench.keeper.keep("one")
    assert (bench.calls(), bench.file.read_text()) == ("check one reload", "one")
    bench.refuses.unlink()
    bench.now += 4
    assert bench.keeper.keep("one")
    assert bench.calls() == "reload"


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "f", Commands(("/no/such/command",), ()))
    with pytest.raises(IngressError, match="/no/such/command cannot be run"):
        keeper.keep("one")
    missing = Keeper(tmp_path / "no" / "f", Commands())
    with pytest.raises(IngressError, match="cannot be written"):
        missing.keep("one")


def test_a_command_is_words() -> None:
    assert parse_command("nginx -s 'a b'", "--reload") == ("nginx", "-s", "a b")
    for text in ("", "'"):
        with pytest.raises(SettingsError, match="--reload"):
            parse_command(text, "--reload")
