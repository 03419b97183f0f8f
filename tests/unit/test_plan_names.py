"""Versions by name in the plan: what is on disk is held to the name that it came as."""

from dataclasses import replace

from reconciler.model import (
    Available,
    Deployment,
    Listing,
    Local,
    LocalVersion,
    Phase,
    Query,
    Rule,
    State,
    Unavailable,
    VersionScheme,
)
from reconciler.planning.goals import RENUMBERED, fingerprint, wanted_queries
from reconciler.planning.memory import Failure, Memory, ModelMemory
from reconciler.planning.steps import World
from tests.unit.worlds import (
    NOW,
    SIZE,
    available,
    configured,
    deployment,
    desired,
    fetches,
    make_plan,
    remembered,
    removals,
    restart_config,
    served,
    snapshot,
    source,
)

UP = State.AVAILABLE
SEMVER = VersionScheme(Rule.SEMVER)
NAMES = VersionScheme(Rule.NAMES, names=(("first", 1), ("second", 2)))
TURNED = VersionScheme(Rule.NAMES, names=(("first", 2), ("second", 1)))


def asked(version: int | None, scheme: VersionScheme = NAMES, **more: object) -> Deployment:
    return deployment("a", version, scheme=scheme, **more)


def listed(scheme: VersionScheme, *versions: int, pin: int | None = None) -> Available:
    """The bucket as it is listed by a scheme; a version has its name's bytes."""
    found = {
        version: replace(
            snapshot("a", version, generation=int.from_bytes(scheme.show(version).encode())),
            name=scheme.alias(version),
        )
        for version in versions
    }
    return available(Listing(Query(source("a"), pin, scheme), 10_000.0, found))


def on_disk(scheme: VersionScheme, *versions: int) -> Local:
    bucket = listed(scheme, *versions).listings[Query(source("a"), None, scheme)]
    installed = {
        version: LocalVersion("a", version, SIZE, found.digest, name=found.name)
        for version, found in bucket.snapshots.items()
    }
    return Local({"a": installed}, free_bytes=10**9, total_bytes=10**10)


def world(
    wanted: Deployment, answers: Available, disk: Local, *serving: int, memory: Memory
) -> World:
    return World(
        desired=desired(wanted),
        available=answers,
        local=disk,
        served=served({"a": dict.fromkeys(serving, UP)}),
        restart_config=restart_config(memory),
    )


def test_the_same_source_by_two_schemes_is_two_questions() -> None:
    numbers, releases = deployment("a", None), asked(None, SEMVER)
    assert numbers.query != releases.query
    assert wanted_queries(releases, {}, ModelMemory(), Available()) == {
        Query(source("a"), None, SEMVER): False
    }


def test_what_is_there_by_its_name_is_served_and_told_by_it() -> None:
    memory = remembered({"a": [1]})
    found = world(asked(1), Available(), on_disk(NAMES, 1), 1, memory=memory)
    made = make_plan(found, memory)
    assert made.converged
    (outcome,) = made.outcomes
    assert (outcome.sentence, outcome.names) == ("serves version first", {1: "first"})


def test_a_number_that_came_as_another_version_is_not_served_as_the_new_one() -> None:
    memory = remembered({"a": [1]})
    answers = listed(TURNED, 1, pin=1)
    found = world(asked(1, TURNED), answers, on_disk(NAMES, 1), 1, memory=memory)
    made = make_plan(found, memory)
    (outcome,) = made.outcomes
    assert (outcome.phase, outcome.reason) == (Phase.FAILED, RENUMBERED)
    assert "number 1 on this node is version first" in outcome.sentence
    assert "version first goes on serving" in outcome.sentence
    assert outcome.names == {}
    assert (fetches(made), removals(made), configured(made)) == ([], [], None)


def test_it_is_replaced_once_the_server_does_not_hold_it() -> None:
    memory = remembered({"a": [2]})
    answers = listed(TURNED, 1, pin=1)
    disk = on_disk(NAMES, 1, 2)
    made = make_plan(world(asked(1, TURNED), answers, disk, 2, memory=memory), memory)
    assert (fetches(made), removals(made)) == ([], [("a", 1)])
    gone = replace(disk, versions={"a": {2: disk.versions["a"][2]}})
    made = make_plan(world(asked(1, TURNED), answers, gone, 2, memory=memory), memory)
    assert (fetches(made), removals(made)) == ([("a", 1)], [])


def test_it_stays_while_the_right_bytes_cannot_be_had() -> None:
    memory = remembered({"a": [2]})
    answers = listed(TURNED, pin=1)
    disk = on_disk(NAMES, 1, 2)
    made = make_plan(world(asked(1, TURNED), answers, disk, 2, memory=memory), memory)
    assert removals(made) == []
    assert made.outcomes[0].reason == RENUMBERED


def test_a_label_is_not_moved_to_a_number_that_came_as_another_version() -> None:
    memory = remembered({"a": [2]})
    answers = available(
        *listed(TURNED, 1, pin=1).listings.values(), *listed(TURNED, 2, pin=2).listings.values()
    )
    wanted = asked(2, replace(TURNED, names=(("second", 1), ("third", 2))), labels={"stable": 1})
    disk = on_disk(NAMES, 1, 2)
    made = make_plan(world(wanted, answers, disk, 2, memory=memory), memory)
    assert configured(made) is None
    assert made.outcomes[0].reason == RENUMBERED


def test_latest_by_another_scheme_is_not_what_it_was() -> None:
    """While the bucket is silent, 5 must not be taken for 0.0.5, be it on disk or not."""
    numbers, releases = deployment("a", None), asked(None, SEMVER)
    memory = remembered({"a": [5]})
    known = replace(memory.of("a"), resolved={numbers.source: 5})
    silent = Available(troubles={releases.query: Unavailable("ListingFailed", "it is away")})
    found = world(
        releases, silent, on_disk(VersionScheme(), 5), 5, memory=memory.with_model("a", known)
    )
    made = make_plan(found, memory.with_model("a", known))
    assert (made.outcomes[0].wanted, made.outcomes[0].serving) == (None, (5,))
    assert (removals(made), configured(made)) == ([], None)
    made = make_plan(replace(found, local=Local({})), memory.with_model("a", known))
    assert made.outcomes[0].wanted is None


def test_latest_is_remembered_while_the_bucket_is_silent() -> None:
    memory = remembered({"a": [2]})
    wanted = asked(None)
    first = make_plan(world(wanted, listed(NAMES, 2), on_disk(NAMES, 2), 2, memory=memory), memory)
    silent = Available(troubles={wanted.query: Unavailable("ListingFailed", "it is away")})
    later = world(wanted, silent, on_disk(NAMES, 2), 2, memory=first.memory)
    assert make_plan(later, first.memory).outcomes[0].wanted == 2
    turned = asked(None, TURNED)
    other = Available(troubles={turned.query: Unavailable("ListingFailed", "it is away")})
    later = world(turned, other, on_disk(NAMES, 2), 2, memory=first.memory)
    assert make_plan(later, first.memory).outcomes[0].wanted is None


def test_a_failure_is_forgotten_where_its_number_means_another_version() -> None:
    assert fingerprint(asked(1)) != fingerprint(asked(1, TURNED))
    assert fingerprint(asked(1, labels={"x": 2})) != fingerprint(
        asked(1, replace(NAMES, names=(("first", 1), ("third", 2))), labels={"x": 2})
    )
    grown = replace(NAMES, names=(*NAMES.names, ("third", 3)))
    assert fingerprint(asked(1)) == fingerprint(asked(1, grown))
    assert fingerprint(deployment("a", 1)) == "gs://models/a 1  overlap False"


def test_a_failure_is_told_by_name() -> None:
    memory = remembered({"a": [1]})
    known = replace(
        memory.of("a"),
        desired=fingerprint(asked(2)),
        load_failures={2: Failure("no such op", 1, NOW, NOW + 60)},
    )
    memory = memory.with_model("a", known)
    found = world(asked(2), Available(), on_disk(NAMES, 1, 2), 1, memory=memory)
    sentence = make_plan(found, memory).outcomes[0].sentence
    assert sentence.startswith("version second failed to load: no such op")
    assert sentence.endswith("version first goes on serving")
