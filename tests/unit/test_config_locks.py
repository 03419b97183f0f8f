"""A deployment and its lock file are followed together or not at all."""

from collections.abc import Mapping

import pytest

from reconciler.config_repo.assemble import Fleet
from reconciler.config_repo.layout import Kind, Misplaced, Place, locate, lock_path
from reconciler.model import Deployment, Lock
from reconciler.policy import Freeze, SignatureMode
from tests.unit.histories import History

RANKER = "deployments/search/ranker.yaml"
LOCK = "deployments/search/ranker.lock.yaml"


def deployment(version: int | str = 1, extra: str = "") -> str:
    return f"source: gs://demo-models/ranker\nversion: {version}\n{extra}"


def lock(version: int = 1, *others: int, **changes: str) -> str:
    values = {"model": "ranker", "source": "gs://demo-models/ranker", **changes}
    lines = [f"model: {values['model']}", f"source: {values['source']}", f"version: {version}"]
    lines.append("locked:")
    for number in (version, *others):
        digest = f"sha256:{number:064x}"
        lines.append(f"- {{version: {number}, files: 2, bytes: 10, digest: '{digest}'}}")
    return "\n".join(lines) + "\n"


BASE: Mapping[str, str | None] = {
    "groups/search.yaml": "nodes: [s1, s2]",
    RANKER: deployment("latest"),
    LOCK: lock(41),
}


@pytest.fixture
def history() -> History:
    history = History()
    assert history.commit(BASE).problems == []
    return history


def in_force(fleet: Fleet) -> Deployment | None:
    return fleet.deployments.get(RANKER)


def locked(fleet: Fleet) -> Lock:
    found = in_force(fleet)
    assert found is not None
    assert found.lock is not None
    return found.lock


def sentences(fleet: Fleet) -> str:
    return "\n".join(str(problem) for problem in fleet.problems)


def test_a_lock_says_what_latest_is(history: History) -> None:
    found = locked(history.commit({}))
    assert (found.path, found.version, found.versions[41].digest) == (LOCK, 41, f"{41:064x}")
    deployment = in_force(history.commit({}))
    assert deployment is not None
    assert (deployment.version, deployment.named_version) == (None, 41)
    assert locked(history.commit({LOCK: lock(42)})).version == 42


def test_a_lock_file_has_its_own_place() -> None:
    assert lock_path(RANKER) == LOCK
    assert locate(LOCK) == Place(Kind.LOCK, "search", "ranker")
    assert isinstance(locate("deployments/search/ranker.lock.yml"), Misplaced)


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({RANKER: deployment(42)}, f"{LOCK}:3:10", "wants version 42, but 41 is locked"),
        ({LOCK: lock(41, model="other")}, f"{LOCK}:1:8", "the lock of other, not of ranker"),
        ({LOCK: lock(41, source="gs://b/m")}, f"{LOCK}:2:9", "from gs://demo-models/ranker by now"),
        ({RANKER: deployment(41, "labels: {old: 7}")}, LOCK, "version 7 is not locked"),
        ({LOCK: lock(41, 41)}, LOCK, "locked twice"),
        ({LOCK: lock(41).replace("sha256:", "")}, f"{LOCK}:5:", "sha256: and 64 hex digits"),
        ({LOCK: f"<<<<<<< HEAD\n{lock(41)}=======\n{lock(42)}>>>>>>> x\n"}, f"{LOCK}:1:1", "merge"),
        ({LOCK: "- 1"}, LOCK, "reconciler lock"),
    ],
)
def test_a_pair_that_does_not_fit_leaves_the_last_good_pair_in_force(
    history: History, changes: Mapping[str, str], place: str, words: str
) -> None:
    fleet = history.commit(changes)
    assert len(fleet.problems) == 1
    assert sentences(fleet).startswith(place)
    assert words in sentences(fleet)
    assert locked(fleet).version == 41
    assert RANKER in fleet.broken
    # Once mended it is followed again.
    assert locked(history.commit({RANKER: deployment(43), LOCK: lock(43)})).version == 43


def test_a_broken_deployment_keeps_its_lock_too(history: History) -> None:
    fleet = history.commit({RANKER: "version: [", LOCK: lock(42)})
    assert locked(fleet).version == 41


def test_without_its_lock_a_deployment_is_resolved_by_each_node(history: History) -> None:
    fleet = history.commit({LOCK: None})
    assert fleet.problems == []
    found = in_force(fleet)
    assert found is not None
    assert found.lock is None
    # A mistake later on brings the text without a lock back, not an older one with it.
    again = in_force(history.commit({RANKER: "version: ["}))
    assert again is not None
    assert again.lock is None


def test_a_lock_without_a_deployment_is_named(history: History) -> None:
    fleet = history.commit({RANKER: None})
    assert "there is no ranker.yaml beside this lock" in sentences(fleet)
    assert in_force(fleet) is None


def test_where_locks_are_required_an_unlocked_deployment_is_not_followed(history: History) -> None:
    required = {"fleet.yaml": "lock: required"}
    assert history.commit(required).problems == []
    fleet = history.commit({LOCK: None, RANKER: deployment("latest", "description: new\n")})
    assert "run `reconciler lock ranker`" in sentences(fleet)
    assert locked(fleet).version == 41


def test_what_was_never_locked_is_not_followed_any_more_once_locks_are_required() -> None:
    history = History()
    history.commit(BASE)
    history.commit({LOCK: None})
    fleet = history.commit({"fleet.yaml": "lock: required"})
    assert in_force(fleet) is None
    assert RANKER in fleet.broken


def test_a_stopped_deployment_needs_no_lock() -> None:
    fleet = History().commit(
        {**BASE, "fleet.yaml": "lock: required", RANKER: deployment(1, "stop: true")}
        | {LOCK: lock(1)}
    )
    assert fleet.problems == []
    history = History()
    texts = {**BASE, "fleet.yaml": "lock: required", RANKER: deployment(1, "stop: true")}
    del texts[LOCK]
    assert history.commit(texts).problems == []


def test_the_rules_of_the_fleet_arrive() -> None:
    fleet = History().commit(
        {
            "fleet.yaml": """
lock: required
freezes:
- {start: "0 18 * * fri", duration: 2d14h, timezone: Europe/Berlin, groups: [search], reason: rest}
signatures:
  mode: range
  ssh: ["ada@example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ8"]
"""
        }
    )
    assert fleet.problems == []
    policy = fleet.policy
    assert policy.requires_lock
    assert policy.freezes == (
        Freeze("0 18 * * fri", 62 * 3600.0, "Europe/Berlin", "rest", frozenset({"search"})),
    )
    assert policy.signatures.mode is SignatureMode.RANGE
    assert len(policy.signatures.ssh) == 1


@pytest.mark.parametrize(
    ("freeze", "place", "words"),
    [
        ('{start: "0 0 31 6 *", duration: 1h, timezone: UTC, reason: x}', "2:11", "ever comes"),
        ('{start: "0 0 1 6 *", duration: 1h, timezone: Mars/One, reason: x}', "", "no time zone"),
        ('{start: "0 * * * *", duration: 1h, timezone: UTC, reason: x}', "", "never ends"),
        ('{start: "0 0 * * * *", duration: 1h, timezone: UTC, reason: x}', "", "five fields"),
        ('{start: "0 0 1 6 *", duration: 1h, timezone: UTC}', "", "reason"),
    ],
)
def test_a_freeze_that_cannot_be_meant_is_a_mistake_and_the_last_good_rules_stay(
    freeze: str, place: str, words: str
) -> None:
    history = History()
    history.commit({"fleet.yaml": "keep: 7"})
    fleet = history.commit({"fleet.yaml": f"freezes:\n- {freeze}\n"})
    assert sentences(fleet).startswith(f"fleet.yaml:{place}")
    assert words in sentences(fleet)
    assert fleet.policy.keep == 7
