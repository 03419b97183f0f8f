"""The roll-up: from what nodes say to what is so, worst first, and never more than is known."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.fleet.expected import Expected, ExpectedDeployment
from reconciler.fleet.nodes import Now
from reconciler.fleet.poll import Sighting, Target
from reconciler.fleet.roll_up import roll_up
from reconciler.fleet.view import (
    PHASE_RANK,
    SEVERITY_RANK,
    DeploymentView,
    FleetPhase,
    FleetState,
    FleetView,
    NodeState,
    Role,
    Severity,
    Standing,
    render,
    render_lasting,
)
from reconciler.model import Condition, Outcome, Phase
from reconciler.resources import data_folder
from reconciler.status.changes import Result
from reconciler.status.client import NodeChange
from tests.fleetnodes import NEW, OLD, WALL_SECONDS, outcome, report, seen

SCHEMA: dict[str, Any] = json.loads((data_folder("schema") / "fleet-view.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)
NOW = Now(101.0, WALL_SECONDS)
GONE = "http://search-2:8080/status did not answer within 3 s; is the agent running there?"


def view_of(*sightings: Sighting, expected: Expected | None = None, now: Now = NOW) -> FleetView:
    return roll_up(sightings, expected, now, "search-1")


def only(view: FleetView) -> DeploymentView:
    (deployment,) = view.deployments
    return deployment


def standing(view: DeploymentView, node: str) -> Standing:
    (found,) = [standing for standing in view.nodes if standing.node == node]
    return found


def expecting(
    holders: tuple[str, ...] | None = ("search-1", "search-2"),
    version: int | None = 42,
    *,
    stop: bool = False,
) -> Expected:
    ranker = ExpectedDeployment(
        "search", "ranker", "deployments/search/ranker.yaml", "gs://acme/ranker", "", version,
        stop, holders,
    )  # fmt: skip
    nodes = tuple(Target(f"{name}:8080", name, "search") for name in holders or ())
    return Expected(nodes, (ranker,), {"search": True}, positions={NEW.id: 0, OLD.id: 1})


BOTH = {"ranker": ["search-1", "search-2"]}
WELL_1 = seen(report("search-1", [outcome("ranker")], BOTH))
WELL_2 = seen(report("search-2", [outcome("ranker")], BOTH))


# --- deployments ------------------------------------------------------------------------------


def test_a_fleet_in_which_all_serve_what_is_wanted_is_well() -> None:
    view = view_of(WELL_1, WELL_2)
    assert (view.state, view.wrong, view.is_settled) == (FleetState.WELL, (), True)
    ranker = only(view)
    assert (ranker.phase, ranker.wanted_versions) == (FleetPhase.DEPLOYED, (42,))
    assert (ranker.wanted_replicas, ranker.available_replicas, ranker.serving_replicas) == (2, 2, 2)
    assert ranker.sentence == "2 of 2 replicas serve version 42"
    assert [node.state for node in view.nodes] == [NodeState.WELL, NodeState.WELL]


def test_an_old_version_that_goes_on_serving_serves_but_is_not_what_is_wanted() -> None:
    under_way = outcome("ranker", Phase.DEPLOYING, 42, (41,), sentence="version 42 is downloaded")
    view = view_of(WELL_1, seen(report("search-2", [under_way], BOTH)))
    ranker = only(view)
    assert (ranker.phase, ranker.available_replicas, ranker.serving_replicas) == (
        FleetPhase.DEPLOYING,
        1,
        2,
    )
    assert ranker.sentence == (
        "1 of 2 replicas serve version 42; search-2: version 42 is downloaded"
    )
    assert (view.state, view.is_settled) == (FleetState.WELL, False)


def test_the_worst_phase_of_any_node_is_the_deployments_and_the_groups() -> None:
    failed = outcome("ranker", Phase.FAILED, 42, (41,), sentence="Data loss: no variables")
    speller = outcome("speller", wanted=7)
    view = view_of(WELL_1, seen(report("search-2", [failed, speller], BOTH)))
    assert [(item.model, item.phase) for item in view.deployments] == [
        ("ranker", FleetPhase.FAILED),
        ("speller", FleetPhase.DEPLOYED),
    ]
    (group,) = view.groups
    assert (group.name, group.phase) == ("search", FleetPhase.FAILED)
    (trouble,) = view.wrong
    assert (trouble.severity, trouble.node, trouble.model) == (
        Severity.SERIOUS,
        "search-2",
        "ranker",
    )
    assert "search/ranker: 1 of 2 replicas serve version 42; search-2: Data loss" in (
        trouble.sentence
    )
    states = {node.name: (node.state, node.sentence) for node in view.nodes}
    assert states["search-2"] == (NodeState.TROUBLE, "ranker failed: Data loss: no variables")


def test_while_a_model_moves_the_old_node_counts_beside_the_new_one() -> None:
    holders = {"ranker": ["search-1", "search-3"]}
    leaving = outcome("ranker", Phase.STOPPING, None, (42,), reason="HandingOver")
    view = view_of(
        seen(report("search-1", [outcome("ranker")], holders)),
        seen(report("search-2", (), holders, removals=[leaving])),
        seen(report("search-3", [outcome("ranker", Phase.DEPLOYING)], holders)),
    )
    ranker = only(view)
    assert (ranker.wanted_replicas, ranker.available_replicas) == (2, 2)
    assert [(node.node, node.role) for node in ranker.nodes] == [
        ("search-1", Role.HOLDER),
        ("search-3", Role.HOLDER),
        ("search-2", Role.LEAVING),
    ]
    assert "1 of 2 replicas serve version 42; 1 more serves it until these do" in ranker.sentence
    assert view.state is FleetState.WELL


def test_the_version_in_git_counts_where_no_node_that_is_to_serve_it_answers() -> None:
    leaving = outcome("ranker", Phase.STOPPING, None, (42,), reason="HandingOver")
    leaving = replace(leaving, deployment=replace(leaving.deployment, version=42))
    never = Sighting(Target("search-2:8080", "search-2", "search"), trouble=GONE)
    last = seen(report("search-1", (), {"ranker": ["search-2"]}, removals=[leaving]))
    ranker = only(view_of(last, never))
    assert (ranker.phase, ranker.wanted_versions) == (FleetPhase.UNKNOWN, (42,))
    assert (ranker.wanted_replicas, ranker.available_replicas) == (1, 1)


def test_what_a_dead_node_was_to_serve_is_unknown_there() -> None:
    dead = seen(report("search-2", [outcome("ranker")], BOTH), trouble=GONE, answered_at=60.0)
    view = view_of(WELL_1, dead)
    ranker = only(view)
    assert (ranker.phase, ranker.wanted_replicas, ranker.available_replicas) == (
        FleetPhase.UNKNOWN,
        2,
        1,
    )
    unknown = standing(ranker, "search-2")
    assert (unknown.phase, unknown.reason, unknown.serving_versions) == (
        FleetPhase.UNKNOWN,
        "NoAnswer",
        (),
    )
    assert unknown.sentence == (
        "it has not answered since 09:29:31 UTC; its last word was Deployed: ranker is Deployed"
    )
    node = next(node for node in view.nodes if node.name == "search-2")
    assert (node.state, node.silent_seconds) == (NodeState.DEAD, 41.0)
    (trouble,) = view.wrong  # the node explains its models
    assert (trouble.severity, trouble.node) == (Severity.SERIOUS, "search-2")
    assert GONE in trouble.sentence


def test_a_dead_node_that_never_answered_is_unknown_by_what_the_others_say() -> None:
    never = Sighting(Target("search-2:8080", "search-2", "search"), trouble=GONE)
    ranker = only(view_of(WELL_1, never))
    assert standing(ranker, "search-2").phase is FleetPhase.UNKNOWN
    assert standing(ranker, "search-2").sentence == "it has not answered yet"


def test_a_model_that_nobody_serves_any_more_is_critical() -> None:
    dead = seen(report("search-2", [outcome("ranker")], {"ranker": ["search-2"]}), trouble=GONE)
    view = view_of(seen(report("search-1")), dead)
    assert [(trouble.severity, trouble.model) for trouble in view.wrong] == [
        (Severity.CRITICAL, "ranker"),
        (Severity.SERIOUS, None),
    ]


def test_without_git_the_node_with_the_newest_commit_says_who_holds_what() -> None:
    early = seen(
        report("search-2", [outcome("ranker", wanted=41)], {"ranker": ["search-2"]}, observed=OLD)
    )
    holding = report("search-1", [outcome("ranker")], {"ranker": ["search-1"]})
    ranker = only(view_of(early, seen(holding)))
    assert [(node.node, node.role) for node in ranker.nodes] == [
        ("search-1", Role.HOLDER),
        ("search-2", Role.LEAVING),
    ]
    assert ranker.wanted_versions == (42,)


def test_a_model_that_left_git_is_not_asked_of_nodes_that_know_so() -> None:
    late = seen(report("search-2", [outcome("ranker")], BOTH, observed=OLD), trouble=GONE)
    ranker = only(view_of(seen(report("search-1")), late))
    assert [(node.node, node.reason) for node in ranker.nodes] == [("search-2", "NoAnswer")]


def test_a_node_that_has_not_read_the_commit_yet_does_not_list_what_it_is_to_serve() -> None:
    late = seen(report("search-2", observed=OLD))
    ranker = only(view_of(WELL_1, late))
    assert standing(ranker, "search-2").reason == "NotListed"
    assert standing(ranker, "search-2").sentence == (
        "it does not list this model; it is at commit aaaaaaa"
    )


# --- what git expects -------------------------------------------------------------------------


def test_git_says_what_is_expected_also_of_nodes_that_never_answered() -> None:
    silent = Sighting(Target("search-2:8080", "search-2", "search"), trouble=GONE)
    view = view_of(WELL_1, silent, expected=expecting())
    assert view.expected_from == "git"
    assert standing(only(view), "search-2").phase is FleetPhase.UNKNOWN
    assert only(view).wanted_replicas == 2


def test_a_node_that_still_serves_what_was_asked_before_is_not_done() -> None:
    early = seen(report("search-2", [outcome("ranker", wanted=41)], BOTH, observed=OLD))
    ranker = only(view_of(WELL_1, early, expected=expecting()))
    assert (ranker.phase, ranker.wanted_versions, ranker.available_replicas) == (
        FleetPhase.DEPLOYING,
        (42,),
        1,
    )


def test_a_clone_that_lacks_the_newest_commit_is_not_held_against_the_nodes() -> None:
    behind = expecting(("search-9",))
    view = view_of(WELL_1, WELL_2, expected=Expected(behind.targets, behind.deployments, {}))
    assert (view.expected_from, only(view).wanted_replicas) == ("nodes", 2)


def test_git_that_drops_a_model_has_all_its_nodes_leave() -> None:
    git = expecting()
    view = view_of(WELL_1, expected=Expected(git.targets, (), git.enabled, positions=git.positions))
    assert [node.role for node in only(view).nodes] == [Role.LEAVING]
    assert only(view).wanted_replicas == 0


@pytest.mark.parametrize(
    ("phase", "serving", "words"),
    [(Phase.STOPPED, (), "it is stopped"), (Phase.STOPPING, (42,), "search-1: it is unloaded")],
)
def test_a_stopped_model_wants_no_replica(
    phase: Phase, serving: tuple[int, ...], words: str
) -> None:
    stopped = outcome("ranker", phase, 42, serving, stop=True, sentence="it is unloaded")
    view = view_of(
        seen(report("search-1", [stopped], BOTH)), expected=expecting(("search-1",), stop=True)
    )
    ranker = only(view)
    assert (ranker.phase, ranker.sentence) == (FleetPhase(phase), words)
    assert (ranker.wanted_versions, ranker.wanted_replicas, ranker.available_replicas) == ((), 0, 0)
    assert view.state is FleetState.WELL
    assert view.is_settled is (phase is Phase.STOPPED)


def test_a_model_that_no_node_is_to_serve_is_critical() -> None:
    view = view_of(seen(report("search-1")), expected=expecting(()))
    assert [(t.severity, t.model) for t in view.wrong] == [(Severity.CRITICAL, "ranker")]


def test_nodes_that_only_a_registry_knows_are_no_alarm_but_said_to_be_missing() -> None:
    git = replace(expecting(None), unlisted_groups=("search",), enabled={"ads": True})
    elsewhere = seen(report("ads-1", group="ads"))
    view = view_of(elsewhere, expected=git)
    (trouble,) = view.wrong
    assert (trouble.severity, trouble.group, trouble.model) == (Severity.WARNING, "search", None)
    assert "only a registry knows the nodes of group search" in trouble.sentence
    assert only(view).phase is FleetPhase.UNKNOWN
    assert "none of them was asked" in only(view).sentence
    assert not view_of(elsewhere, WELL_1, WELL_2, expected=git).wrong, "whoever was asked is there"


def test_a_group_file_that_cannot_be_followed_is_said_to_hide_its_nodes() -> None:
    git = expecting()
    broken = Expected(
        git.targets, git.deployments, {}, positions=git.positions, lost_files=("groups/ads.yaml",)
    )
    (trouble,) = view_of(WELL_1, WELL_2, expected=broken).wrong
    assert trouble.severity is Severity.WARNING
    assert "groups/ads.yaml cannot be followed" in trouble.sentence


def test_how_far_a_node_is_behind_is_counted_in_commits_where_git_is_at_hand() -> None:
    late = seen(report("search-2", [outcome("ranker")], BOTH, applied=OLD))
    by_git = view_of(WELL_1, late, expected=expecting())
    by_nodes = view_of(WELL_1, late)
    lags = [[node.lag for node in view.nodes] for view in (by_git, by_nodes)]
    assert [(lag.commits, lag.seconds) for lag in lags[0] if lag] == [(0, 0.0), (1, 340.0)]
    assert [(lag.commits, lag.seconds) for lag in lags[1] if lag] == [(0, 0.0), (None, 340.0)]


# --- names, addresses, clocks -----------------------------------------------------------------


def test_two_agents_of_one_name_at_two_addresses_are_critical() -> None:
    twin = seen(report("search-1", instance="another"), address="10.0.0.9:8080")
    view = view_of(WELL_1, twin)
    assert [(t.severity, t.node) for t in view.wrong] == [(Severity.CRITICAL, "search-1")]
    assert "two agents run as search-1, at search-1:8080 and at 10.0.0.9:8080" in (
        view.wrong[0].sentence
    )
    assert [node.name for node in view.nodes] == ["search-1"]
    assert view.nodes[0].state is NodeState.TROUBLE


def test_two_agents_behind_one_address_are_critical() -> None:
    view = view_of(seen(report("search-1"), has_namesake=True))
    assert "both answer at search-1:8080" in view.wrong[0].sentence
    assert view.wrong[0].severity is Severity.CRITICAL


def test_one_node_asked_by_two_addresses_is_one_node() -> None:
    again = Sighting(Target("10.0.0.9:8080"), WELL_1.answer, 100.0)
    view = view_of(again, WELL_1, WELL_2)
    assert [node.name for node in view.nodes] == ["search-1", "search-2"]
    assert view.nodes[0].address == "search-1:8080"  # the one that git names
    assert view.wrong == ()


def test_an_address_that_another_node_answers_is_that_nodes_trouble_alone() -> None:
    astray = seen(report("search-1"), name="search-2", address="10.0.0.9:8080")
    view = view_of(WELL_1, astray)
    (trouble,) = view.wrong
    assert (trouble.severity, trouble.node) == (Severity.SERIOUS, "search-2")
    assert "its address 10.0.0.9:8080 is answered by search-1" in trouble.sentence
    assert {node.name: node.state for node in view.nodes} == {
        "search-1": NodeState.WELL,
        "search-2": NodeState.DEAD,
    }


def test_an_address_that_a_second_agent_of_another_name_answers_says_both() -> None:
    astray = seen(report("search-1", instance="x"), name="search-2", address="10.0.0.9:8080")
    view = view_of(WELL_1, astray)
    assert [(t.severity, t.node) for t in view.wrong] == [
        (Severity.CRITICAL, "search-1"),
        (Severity.SERIOUS, "search-2"),
    ]


@pytest.mark.parametrize(
    ("ahead_seconds", "words"), [(3600.0, "1 h 0 min ahead of"), (-3600.0, "1 h 0 min behind")]
)
def test_a_clock_an_hour_off_is_said_and_changes_nothing_else(
    ahead_seconds: float, words: str
) -> None:
    askew = report(
        "search-1", [outcome("ranker")], generated_at_seconds=WALL_SECONDS + ahead_seconds
    )
    view = view_of(seen(askew, ahead_seconds=ahead_seconds))
    (trouble,) = view.wrong
    assert trouble.severity is Severity.WARNING
    assert words in trouble.sentence
    assert view.nodes[0].silent_seconds == 1.0
    assert only(view).phase is FleetPhase.DEPLOYED


def test_nodes_that_see_different_members_are_said_to() -> None:
    one = seen(report("search-1", members=("search-1", "search-2", "search-3")))
    other = seen(report("search-2", members=("search-1", "search-2")))
    (trouble,) = view_of(one, other).wrong
    assert trouble.sentence == (
        "search-1 and search-2 do not see the same nodes in group search: only search-1 sees"
        " search-3, only search-2 sees nobody; both place models by what they see"
    )
    later = seen(report("search-2", members=("search-1", "search-2"), observed=OLD))
    assert view_of(one, later).wrong == ()  # another commit may well name other nodes


def test_what_all_nodes_say_alike_is_wrong_once() -> None:
    broken = Condition("ConfigValid", False, "InvalidConfig", "fleet.yaml:1:1: no")
    view = view_of(*(seen(report(f"search-{n}", broken=[broken])) for n in range(300)))
    (trouble,) = view.wrong
    assert trouble.sentence == (
        "search-0, search-1, search-2 and 297 more: ConfigValid does not hold (InvalidConfig):"
        " fleet.yaml:1:1: no"
    )
    assert {node.state for node in view.nodes} == {NodeState.TROUBLE}


def test_a_node_without_an_address_was_not_asked() -> None:
    view = view_of(Sighting(Target(None, "vision-1", "vision")), WELL_1)
    node = view.nodes[-1]
    assert (node.state, node.address) == (NodeState.UNASKED, None)
    assert view.wrong[0].sentence == (
        "vision-1: nobody knows its address; write it in groups/vision.yaml"
    )


def test_a_fleet_of_which_no_node_answers_is_blind() -> None:
    silent = Sighting(Target("search-2:8080", "search-2", "search"), trouble=GONE)
    assert view_of(silent).state is FleetState.BLIND
    assert view_of().state is FleetState.BLIND


def test_one_change_on_many_nodes_is_one_and_the_newest_come_first() -> None:
    def change(seconds: float, model: str) -> NodeChange:
        return NodeChange(seconds, NEW.id, model, 42, Result.DEPLOYED, "Serving", 4.0)

    view = view_of(
        seen(report("search-1"), changes=(change(WALL_SECONDS - 9, "ranker"),)),
        seen(
            report("search-2"),
            changes=(change(WALL_SECONDS - 5, "speller"), change(WALL_SECONDS - 8, "ranker")),
        ),
    )
    assert [(item.model, item.nodes, item.time[11:19]) for item in view.changes] == [
        ("speller", ("search-2",), "09:30:07"),
        ("ranker", ("search-1", "search-2"), "09:30:04"),
    ]


# --- any fleet at all -------------------------------------------------------------------------

_NODES = ("a", "b", "c", "d")
_MODELS = ("m", "n")
_versions = st.sampled_from((1, 2, 3))


@st.composite
def _outcomes(draw: st.DrawFn) -> list[Outcome]:
    models = draw(st.lists(st.sampled_from(_MODELS), unique=True))
    return [
        outcome(
            model,
            draw(st.sampled_from(Phase)),
            draw(st.none() | _versions),
            tuple(sorted(draw(st.sets(_versions, max_size=2)))),
        )
        for model in models
    ]


@st.composite
def _fleets(draw: st.DrawFn) -> tuple[list[Sighting], Expected | None]:
    sightings = []
    names = st.lists(st.sampled_from(_NODES), unique=True, max_size=4)
    holders = st.fixed_dictionaries(dict.fromkeys(_MODELS, names))
    for name in _NODES:
        trouble = draw(st.none() | st.just(GONE))
        if draw(st.integers(0, 5)) == 0:
            address = draw(st.none() | st.just(f"{name}:8080"))
            sightings.append(Sighting(Target(address, name, "search"), trouble=trouble))
            continue
        everything = draw(_outcomes())
        kept = [item for item in everything if draw(st.booleans())]
        made = report(
            draw(st.sampled_from([name] * 5 + list(_NODES))),
            kept,
            draw(holders),
            observed=draw(st.sampled_from((OLD, NEW, None))),
            applied=draw(st.sampled_from((OLD, NEW, None))),
            removals=[item for item in everything if item not in kept],
            members=tuple(draw(names)),
            instance=draw(st.sampled_from(("", "i", "j"))),
            broken=draw(st.just(()) | st.just((Condition("GitReachable", False, "No", "no"),))),
        )
        given_name = draw(st.sampled_from((name, None)))
        seconds = draw(st.floats(-4000, 4000))
        found = seen(made, name=name, trouble=trouble, ahead_seconds=seconds)
        target = Target(f"{name}:8080", given_name, "search" if given_name else None)
        sightings.append(
            Sighting(target, found.answer, 100.0, trouble, clock_ahead_seconds=seconds)
        )
    expected = draw(
        st.none()
        | st.builds(
            expecting,
            st.none() | names.map(tuple),
            st.none() | _versions,
            stop=st.booleans(),
        )
    )
    return sightings, expected


@given(_fleets())
@settings(max_examples=100)
def test_whatever_is_seen_the_view_claims_no_more_than_that(
    fleet: tuple[list[Sighting], Expected | None],
) -> None:
    sightings, expected = fleet
    view = view_of(*sightings, expected=expected)
    alive = {node.name for node in view.nodes if node.state in (NodeState.WELL, NodeState.TROUBLE)}
    for deployment in view.deployments:
        holders = [node for node in deployment.nodes if node.role is Role.HOLDER]
        leaving = [node for node in deployment.nodes if node.role is Role.LEAVING]
        serving = [node for node in deployment.nodes if node.serving_versions]
        assert {node.node for node in serving} <= alive
        assert deployment.available_replicas <= deployment.serving_replicas == len(serving)
        assert deployment.available_replicas <= len(holders) + len(leaving)
        assert deployment.wanted_replicas == (0 if deployment.stop else len(holders))
        assert len({node.node for node in deployment.nodes}) == len(deployment.nodes)
        for node in deployment.nodes:
            assert PHASE_RANK[deployment.phase] <= PHASE_RANK[node.phase]
            if node.node not in alive:
                assert node.phase is FleetPhase.UNKNOWN
        if deployment.phase is FleetPhase.DEPLOYED:
            assert deployment.available_replicas >= deployment.wanted_replicas
    _check_order(view)
    _check_counts(view)
    if any(node.state in (NodeState.DEAD, NodeState.TROUBLE) for node in view.nodes):
        assert view.state is not FleetState.WELL
    shown = json.loads(render(view))
    VALIDATOR.validate(shown)
    _check_fields(shown, SCHEMA)


def _check_order(view: FleetView) -> None:
    ranks = [PHASE_RANK[deployment.phase] for deployment in view.deployments]
    assert ranks == sorted(ranks)
    severities = [SEVERITY_RANK[trouble.severity] for trouble in view.wrong]
    assert severities == sorted(severities)


def _check_counts(view: FleetView) -> None:
    assert sum(view.counts.nodes.values()) == len(view.nodes)
    assert sum(view.counts.deployments.values()) == len(view.deployments)
    assert sum(sum(group.nodes.values()) for group in view.groups) == sum(
        node.group is not None for node in view.nodes
    )
    assert sum(sum(group.deployments.values()) for group in view.groups) == len(view.deployments)


def _check_fields(value: Any, schema: dict[str, Any]) -> None:
    """Every object has the fields that the schema names, and no other."""
    schema = next((s for s in schema.get("anyOf", ()) if "$ref" in s), schema)
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list) and "items" in schema:
        for item in value:
            _check_fields(item, schema["items"])
    elif isinstance(value, dict) and "properties" in schema:
        assert value.keys() == schema["properties"].keys()
        for name, inner in value.items():
            _check_fields(inner, schema["properties"][name])


def test_the_example_is_as_the_schema_says() -> None:
    example = json.loads((data_folder("tests") / "data" / "fleet-view.json").read_text())
    VALIDATOR.validate(example)
    _check_fields(example, SCHEMA)


# --- what makes a view another one -------------------------------------------------------------


def _later(sightings: Sequence[Sighting], seconds: float) -> FleetView:
    return view_of(*sightings, now=Now(101.0 + seconds, WALL_SECONDS + seconds))


def test_a_view_that_only_grew_older_is_the_same() -> None:
    dead = seen(report("search-2", [outcome("ranker")], BOTH), trouble=GONE)
    early, late = (_later([WELL_1, dead], seconds) for seconds in (0, 3))
    assert render(early) != render(late)
    assert render_lasting(early) == render_lasting(late)


def test_a_view_in_which_something_happened_is_another() -> None:
    dead = seen(report("search-2", [outcome("ranker")], BOTH), trouble=GONE)
    assert render_lasting(_later([WELL_1, WELL_2], 0)) != render_lasting(_later([WELL_1, dead], 0))


# --- names of versions ------------------------------------------------------------------------


def named(wanted: int, names: dict[int, str], *serving: int) -> Outcome:
    phase = Phase.DEPLOYED if wanted in serving else Phase.DEPLOYING
    return replace(outcome("ranker", phase, wanted, serving), names=names)


def test_a_version_is_called_by_its_name_where_nodes_or_git_tell_it() -> None:
    by_node = seen(report("search-1", [named(42, {41: "1.9.0", 42: "1.10.0"}, 42)], BOTH))
    view = only(view_of(by_node, WELL_2))
    assert view.version_names == {41: "1.9.0", 42: "1.10.0"}
    assert view.sentence == "2 of 2 replicas serve version 1.10.0"
    expected = expecting()
    (ranker,) = expected.deployments
    by_git = replace(expected, deployments=(replace(ranker, names={42: "1.10.0"}),))
    silent = only(view_of(expected=by_git))
    assert silent.sentence.startswith("0 of 2 replicas serve version 1.10.0")
    VALIDATOR.validate(json.loads(render(view_of(by_node, WELL_2, expected=by_git))))


def test_a_number_that_nodes_call_by_two_names_stays_a_number() -> None:
    one = seen(report("search-1", [named(1, {1: "first"}, 1)], BOTH))
    other = seen(report("search-2", [named(1, {1: "second", 2: "first"}, 2)], BOTH))
    view = only(view_of(one, other))
    assert view.version_names == {2: "first"}
    assert "replicas serve version 1;" in view.sentence
