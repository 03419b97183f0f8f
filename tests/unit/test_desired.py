"""From all files of a commit to what is in force, and to one node's share of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.desired import choose_desired
from reconciler.config_repo.layout import Place, locate
from reconciler.config_repo.tree import Blob, survey
from reconciler.errors import ConfigError
from reconciler.model import (
    Commit,
    Deployment,
    Desired,
    Member,
    Membership,
    Quota,
    Registry,
    Rollout,
    Strategy,
)
from reconciler.policy import Policy
from reconciler.resources import data_folder
from tests.unit.histories import History

COMMIT = Commit("ab" * 20, "Ada", "Change", 1.0)


def deployment(version: int = 1, extra: str = "") -> str:
    return f"source: gs://demo-models/m\nversion: {version}\n{extra}"


BASE: dict[str, str | None] = {
    "groups/search.yaml": "nodes: [s1, s2]",
    "groups/vision.yaml": "nodes: [v1]",
    "deployments/search/ranker.yaml": deployment(),
    "deployments/search/suggest.yaml": deployment(),
    "deployments/vision/detector.yaml": deployment(),
}


@pytest.fixture
def history() -> History:
    history = History()
    assert not history.commit(BASE).problems
    return history


def versions(fleet: Fleet, node: str = "s1") -> dict[str, int | None]:
    return {item.model: item.version for item in on(fleet, node).deployments}


def on(fleet: Fleet, node: str = "s1") -> Desired:
    return choose_desired(fleet, COMMIT, node)


def sentences(fleet: Fleet) -> list[str]:
    return [str(problem) for problem in fleet.problems]


# --- what the fields become ------------------------------------------------------------------


def test_every_field_arrives() -> None:
    fleet = History().commit(
        {
            "fleet.yaml": "keep: 3\nmax_removals: 25%\nallow_empty: true",
            "groups/g.yaml": "nodes: [{name: n1, address: 'n1:8080'}, {name: n2, address: 'https://n2:8443'}]\n"
            "quota: {disk: 1.5GiB, models: 4}",
            "deployments/g/ranker.yaml": "model: rank\nsource: gs://demo-models/m/\n"
            "version: latest\nreplicas: 2\nlabels: {stable: 4}\nrollout: {strategy: recreate}\n"
            "description: Ranks\nmetadata: {a: 1.10, b: true, c: x, d: '007'}",
        }
    )
    desired = on(fleet, "n2")
    assert not desired.problems
    assert desired.policy == Policy(keep=3, max_removals=0.25, allow_empty=True)
    assert desired.group is not None
    assert desired.group.nodes == (Member("n1", "n1:8080"), Member("n2", "https://n2:8443"))
    assert desired.group.quota == Quota(int(1.5 * 1024**3), 4)
    assert desired.deployments == (
        Deployment(
            model="rank",
            group="g",
            path="deployments/g/ranker.yaml",
            source="gs://demo-models/m",
            version=None,
            labels={"stable": 4},
            replicas=2,
            stop=False,
            rollout=Rollout(Strategy.RECREATE),
            description="Ranks",
            metadata={"a": "1.10", "b": "true", "c": "x", "d": "007"},
        ),
    )


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [("7", 7), ("50GB", 50 * 10**9), ("1.5 TB", 15 * 10**11), ("2KiB", 2048), ("3kB", 3000)],
)
def test_sizes(written: str, size_bytes: int) -> None:
    fleet = History().commit({"groups/g.yaml": f"nodes: [n]\nquota: {{disk: {written}}}"})
    assert fleet.groups["g"].quota.disk_bytes == size_bytes


@pytest.mark.parametrize(
    ("written", "share"), [("0.25", 0.25), ("3", 3), ("50%", 0.5), ("100%", 1_000_000)]
)
def test_max_removals(written: str, share: float) -> None:
    assert History().commit({"fleet.yaml": f"max_removals: {written}"}).policy == Policy(
        max_removals=share
    )


def test_a_node_sees_its_group_and_only_its_share(history: History) -> None:
    fleet = history.commit({"deployments/search/one.yaml": deployment(extra="replicas: 1")})
    shares = [set(versions(fleet, node)) for node in ("s1", "s2")]
    assert all(share >= {"ranker", "suggest"} for share in shares)
    assert sorted("one" in share for share in shares) == [False, True]
    assert versions(fleet, "v1") == {"detector": 1}


def test_a_node_in_no_group(history: History) -> None:
    desired = on(history.commit({"deployments/nope/x.yaml": deployment()}), "stranger")
    assert desired.group is None
    assert desired.deployments == ()
    assert len(desired.problems) == 1


def test_a_disabled_group_stops_all_of_its_models(history: History) -> None:
    desired = on(history.commit({"groups/search.yaml": "nodes: [s1, s2]\nenabled: false"}))
    assert {item.model: item.stop for item in desired.deployments} == {
        "ranker": True,
        "suggest": True,
    }


# --- a broken file never harms the others ----------------------------------------------------


def test_a_broken_deployment_keeps_its_last_good_text(history: History) -> None:
    history.commit({"deployments/search/ranker.yaml": deployment(2)})
    fleet = history.commit(
        {
            "deployments/search/ranker.yaml": "version: [",
            "deployments/search/suggest.yaml": deployment(5),
        }
    )
    assert versions(fleet) == {"ranker": 2, "suggest": 5}
    desired = on(fleet)
    assert set(desired.broken) == {"ranker"}
    assert desired.broken["ranker"] in desired.problems
    assert not on(fleet, "v1").broken
    assert (
        versions(history.commit({"deployments/search/ranker.yaml": "still: broken"}))["ranker"] == 2
    )
    fleet = history.commit({"deployments/search/ranker.yaml": deployment(3)})
    assert versions(fleet)["ranker"] == 3
    assert not on(fleet).broken


def test_a_deployment_that_was_never_good_is_named_so_that_nobody_removes_it(
    history: History,
) -> None:
    fleet = history.commit(
        {
            "deployments/search/new.yaml": "version: 1",
            "deployments/search/other.yaml": "model: renamed\nversion: 1",
            "deployments/search/bad name.yaml": "",
        }
    )
    assert set(on(fleet).broken) == {"new", "renamed"}
    assert versions(fleet) == {"ranker": 1, "suggest": 1}
    assert not on(fleet, "v1").broken


def test_a_deleted_file_is_not_remembered(history: History) -> None:
    history.commit({"deployments/search/ranker.yaml": None})
    fleet = history.commit({"deployments/search/ranker.yaml": "broken"})
    assert versions(fleet) == {"suggest": 1}


def test_a_broken_group_keeps_its_last_good_text(history: History) -> None:
    fleet = history.commit({"groups/search.yaml": "nodes: oops"})
    assert versions(fleet) == {"ranker": 1, "suggest": 1}
    assert sentences(fleet)[0].startswith("groups/search.yaml:1:8: nodes (the text 'oops') must be")


def test_a_broken_group_that_was_never_good_leaves_nodes_alone() -> None:
    history = History()
    fleet = history.commit({**BASE, "groups/search.yaml": "nodes: oops"})
    assert versions(fleet, "v1") == {"detector": 1}
    assert len(fleet.problems) == 1, "its deployments are not blamed for the group"
    with pytest.raises(ConfigError, match="cannot be told, because a group file is broken"):
        on(fleet, "s1")


def test_a_broken_fleet_file_keeps_its_last_good_text(history: History) -> None:
    history.commit({"fleet.yaml": "keep: 7"})
    assert history.commit({"fleet.yaml": "keep: many"}).policy == Policy(keep=7)
    assert history.commit({"fleet.yaml": None}).policy == Policy()


def test_a_broken_fleet_file_that_was_never_good_makes_careful(history: History) -> None:
    policy = history.commit({"fleet.yaml": "keep: many"}).policy
    assert policy.keep > Policy().keep
    assert policy.max_removals == 0
    assert not policy.allow_empty


EXAMPLE = {
    file.relative_to(data_folder("example-config-repo")).as_posix(): file.read_text()
    for file in data_folder("example-config-repo").rglob("*.yaml")
    if locate(file.relative_to(data_folder("example-config-repo")).as_posix())
}


@settings(max_examples=150)
@given(path=st.sampled_from(sorted(EXAMPLE)), data=st.data())
def test_whatever_one_file_becomes_the_others_stay_as_they_are(
    path: str, data: st.DataObject
) -> None:
    history = History()
    before = history.commit(EXAMPLE)
    cut = data.draw(st.integers(0, len(EXAMPLE[path])))
    text = EXAMPLE[path][:cut] + data.draw(st.text(max_size=20))
    after = history.commit({path: text})
    place = locate(path)
    assert isinstance(place, Place)
    for other, deployment in before.deployments.items():
        if other != path:
            assert after.deployments[other] == deployment
    if path in after.broken:
        assert after.deployments == before.deployments
        assert after.groups == before.groups
        assert after.policy == before.policy


# --- mistakes between files ------------------------------------------------------------------


def test_a_model_twice_in_a_group_blames_the_newcomer(history: History) -> None:
    fleet = history.commit({"deployments/search/a.yaml": deployment(9, "model: ranker")})
    assert versions(fleet)["ranker"] == 1
    assert sentences(fleet) == [
        "deployments/search/a.yaml:3:8: model ranker is deployed by"
        " deployments/search/ranker.yaml already; remove one of the two"
    ]
    assert not on(fleet).broken, "ranker's own file is followed"


def test_without_a_past_the_file_named_as_its_model_wins() -> None:
    fleet = History().commit({**BASE, "deployments/search/a.yaml": deployment(9, "model: ranker")})
    assert versions(fleet)["ranker"] == 1
    assert [problem.path for problem in fleet.problems] == ["deployments/search/a.yaml"]


def test_a_file_that_turns_to_a_taken_model_keeps_its_own(history: History) -> None:
    fleet = history.commit(
        {
            "deployments/search/ranker.yaml": "broken",
            "deployments/search/suggest.yaml": deployment(9, "model: ranker"),
        }
    )
    assert versions(fleet) == {"ranker": 1, "suggest": 1}
    assert set(on(fleet).broken) == {"ranker", "suggest"}


def test_a_newcomer_cannot_take_the_model_of_a_broken_file() -> None:
    history = History()
    history.commit({**BASE, "deployments/search/z.yaml": deployment(4, "model: m")})
    fleet = history.commit(
        {"deployments/search/z.yaml": "broken", "deployments/search/m.yaml": deployment(5)}
    )
    assert versions(fleet)["m"] == 4
    assert [problem.path for problem in fleet.problems] == [
        "deployments/search/m.yaml",
        "deployments/search/z.yaml",
    ]


def test_a_model_that_moved_is_served_once_even_if_its_old_file_is_wrong() -> None:
    history = History()
    history.commit({**BASE, "deployments/search/b.yaml": deployment(4, "model: m")})
    fleet = history.commit(
        {
            "deployments/search/a.yaml": deployment(5, "model: m"),
            "deployments/search/b.yaml": deployment(6, "model: ranker"),
        }
    )
    assert sorted(item.model for item in fleet.deployments.values() if item.group == "search") == [
        "m",
        "ranker",
        "suggest",
    ]


def test_two_files_may_swap_their_models(history: History) -> None:
    fleet = history.commit(
        {
            "deployments/search/ranker.yaml": deployment(8, "model: suggest"),
            "deployments/search/suggest.yaml": deployment(9, "model: ranker"),
        }
    )
    assert not fleet.problems
    assert versions(fleet) == {"suggest": 8, "ranker": 9}


def test_names_that_differ_by_case_only(history: History) -> None:
    fleet = history.commit({"deployments/search/Ranker.yaml": deployment(9)})
    assert versions(fleet) == {"ranker": 1, "suggest": 1}
    assert (
        "differs from ranker in deployments/search/ranker.yaml by case only" in sentences(fleet)[0]
    )
    assert not history.commit(
        {"deployments/search/Ranker.yaml": None, "deployments/vision/Ranker.yaml": deployment()}
    ).problems


def test_more_replicas_than_nodes(history: History) -> None:
    fleet = history.commit({"deployments/search/ranker.yaml": deployment(2, "replicas: 3")})
    assert versions(fleet)["ranker"] == 1
    assert sentences(fleet) == [
        "deployments/search/ranker.yaml:3:11: replicas is 3 but group search has 2 nodes;"
        " write 2 or all, or add nodes"
    ]


def test_drained_nodes_do_not_count_for_replicas(history: History) -> None:
    group = "nodes: [s1, {name: s2, weight: 0}]"
    fleet = history.commit(
        {
            "groups/search.yaml": group,
            "deployments/search/ranker.yaml": deployment(2, "replicas: 2"),
        }
    )
    assert sentences(fleet) == [
        "deployments/search/ranker.yaml:3:11: replicas is 2 but group search has 1 node of a"
        " weight above 0; write 1 or all, or add nodes"
    ]


def test_how_many_nodes_a_registry_knows_is_no_mistake(history: History) -> None:
    group = "nodes: {dns: tasks.agent, port: 8443, tls: true}"
    fleet = history.commit(
        {
            "groups/search.yaml": group,
            "deployments/search/ranker.yaml": deployment(2, "replicas: 9"),
        }
    )
    assert not fleet.problems
    assert fleet.groups["search"].nodes == ()
    membership = Membership(Registry.DNS, "tasks.agent", 8443, tls=True)
    assert fleet.groups["search"].membership == membership


@pytest.mark.parametrize(
    ("rollout", "sentence"),
    [
        ("{waves: [1, 50%]}", "3:22: the last wave must be 100%, or some nodes would never have"),
        ("{waves: [2, 1, 100%]}", "3:22: wave 1 is no more than 2 before it; each must have more"),
        ("{waves: [50%, 25%, 100%]}", "wave 25% is no more than 50% before it"),
        ("{waves: [100%, 3, 100%]}", "wave 3 is no more than 100% before it"),
        ("{pause: 5m}", "3:18: pause is the time between waves; add waves such as [1, 25%, 100%]"),
        ("{waves: [100%], pause: 5m}", "pause is the time between waves"),
        ("{strategy: recreate, golden: {}}", "golden requests need the new version loaded beside"),
    ],
)
def test_rollouts_that_no_node_could_carry_out(
    history: History, rollout: str, sentence: str
) -> None:
    fleet = history.commit({"deployments/search/ranker.yaml": deployment(2, f"rollout: {rollout}")})
    assert versions(fleet)["ranker"] == 1
    (only,) = sentences(fleet)
    assert sentence in only


@pytest.mark.parametrize(
    "waves", ["[100%]", "[1, 25%, 100%]", "[1, 2, 50%, 100%]", "[10%, 3, 100%]"]
)
def test_waves_that_end_with_all(history: History, waves: str) -> None:
    fleet = history.commit(
        {"deployments/search/ranker.yaml": deployment(2, f"rollout: {{waves: {waves}}}")}
    )
    assert not fleet.problems


def test_a_group_that_shrinks_takes_no_model_down(history: History) -> None:
    history.commit({"deployments/search/ranker.yaml": deployment(2, "replicas: 2")})
    fleet = history.commit({"groups/search.yaml": "nodes: [s1]"})
    assert versions(fleet)["ranker"] == 2
    assert set(on(fleet).broken) == {"ranker"}


def test_a_node_in_two_groups_stays_where_it_was(history: History) -> None:
    fleet = history.commit({"groups/aaa.yaml": "nodes: [x1, s2]"})
    assert on(history.commit({}), "s2").group == fleet.groups["search"]
    assert sentences(fleet) == [
        "groups/aaa.yaml:1:13: node s2 is in groups/search.yaml already;"
        " a node is in one group only"
    ]
    fleet = history.commit({"groups/aaa.yaml": "nodes: [x1]"})
    assert not fleet.problems


def test_a_node_twice_in_one_group() -> None:
    fleet = History().commit({"groups/g.yaml": "nodes:\n- a\n- name: a"})
    assert sentences(fleet) == ["groups/g.yaml:3:3: node a is listed twice; remove one"]


def test_an_unknown_group_names_the_nearest(history: History) -> None:
    fleet = history.commit({"deployments/serach/x.yaml": deployment()})
    assert sentences(fleet) == [
        "deployments/serach/x.yaml:1:1: there is no groups/serach.yaml; move the file to"
        " deployments/search/"
    ]


def test_the_group_field_must_match_the_folder(history: History) -> None:
    fleet = history.commit({"deployments/search/ranker.yaml": deployment(2, "group: vision")})
    assert versions(fleet)["ranker"] == 1
    assert "3:8: group is vision but the file is in deployments/search/; move it to" in str(
        fleet.problems[0]
    )


def test_a_file_name_that_is_no_model_name(history: History) -> None:
    fleet = history.commit({"deployments/search/my model.yaml": deployment()})
    assert "the file's name 'my model' cannot be a model's name" in sentences(fleet)[0]
    named = {"deployments/search/my model.yaml": deployment(1, "model: mine")}
    assert not history.commit(named).problems


@pytest.mark.parametrize(
    ("path", "right"),
    [
        ("fleet.yml", "fleet.yaml"),
        ("Fleet.yaml", "fleet.yaml"),
        ("groups/search.yml", "groups/search.yaml"),
        ("group/search.yaml", "groups/search.yaml"),
        ("groups/search/ranker.yaml", "deployments/search/ranker.yaml"),
        ("deployments/ranker.yaml", "deployments/<group>/ranker.yaml"),
        ("deployment/search/ranker.yaml", "deployments/search/ranker.yaml"),
        ("Deployments/search/ranker.yaml", "deployments/search/ranker.yaml"),
        ("deployments/search/ranker.json", "deployments/search/ranker.yaml"),
        ("deployments/search/eu/ranker.yaml", "deployments/search/ranker.yaml"),
    ],
)
def test_a_file_that_would_never_be_read_is_a_problem(path: str, right: str) -> None:
    found = survey({path: Blob("x", 1)})
    assert [problem.path for problem in found.problems] == [path]
    assert right in found.problems[0].message
    assert not found.places


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "mkdocs.yml",
        ".github/workflows/check.yaml",
        "deployments/search/README.md",
        "deployments/search/.hidden.yaml",
        "tools/groups/x.yaml",
        "docs/deployment.yaml",
    ],
)
def test_files_of_others_are_left_alone(path: str) -> None:
    found = survey({path: Blob("x", 1)})
    assert not found.problems
    assert not found.places


def test_links_and_huge_files_are_broken_files_not_missing_ones() -> None:
    found = survey(
        {
            "deployments/g/link.yaml": Blob("x", 0, is_file=False),
            "deployments/g/huge.yaml": Blob("y", 50_000_000),
            "deployments/folder": Blob("z", 0, is_file=False),
        }
    )
    assert set(found.unreadable) == {"deployments/g/link.yaml", "deployments/g/huge.yaml"}
    assert not found.readable
    assert [problem.path for problem in found.problems] == ["deployments/folder"]


def test_far_too_much_text_is_refused_before_it_is_read() -> None:
    tree = {f"deployments/g/m{number}.yaml": Blob("x", 1_000_000) for number in range(70)}
    with pytest.raises(ConfigError, match="70 MB"):
        survey(tree)


def test_the_order_of_files_does_not_matter() -> None:
    files: dict[str, str | None] = {
        **BASE,
        "deployments/search/b.yaml": deployment(2, "model: x"),
        "deployments/search/a.yaml": deployment(1, "model: x"),
        "groups/b.yaml": "nodes: [s1]",
    }
    forward = History().commit(files)
    backward = History().commit(dict(reversed(list(files.items()))))
    assert forward.problems == backward.problems
    assert forward.deployments == backward.deployments
    assert [problem.path for problem in forward.problems] == [
        "deployments/search/b.yaml",
        "groups/search.yaml",
    ]
