"""The preview of a change: what nodes would do, without any node."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config_repo.assemble import File, Fleet
from reconciler.config_repo.documents import Broken
from reconciler.config_repo.layout import Kind, Place
from reconciler.model import (
    Available,
    Commit,
    Deployment,
    Group,
    Listing,
    Lock,
    LockedVersion,
    Member,
    Membership,
    Problem,
    Query,
    Quota,
    Registry,
    Rollout,
    ServerSpec,
    Snapshot,
    StoredFile,
    Strategy,
    Unavailable,
    Wave,
)
from reconciler.planning.steps import Limits
from reconciler.policy import Freeze, Policy
from reconciler.preview.actions import find_actions
from reconciler.preview.catalog import Bytes, Catalog
from reconciler.preview.listings import find_queries
from reconciler.preview.pairs import Pair, Side, pair_nodes
from reconciler.preview.preview import make_preview
from reconciler.preview.report import LabelMove, Level, Preview, Remark, ServerChange
from reconciler.preview.simulate import simulate
from reconciler.preview.standing import Past, stand
from reconciler.preview.usages import find_scope, find_sizes
from tests.unit.worlds import deployment, source

BASE = Commit("b" * 40, "Ada", "Before", 1000.0)
HEAD = Commit("a" * 40, "Ada", "After", 2000.0)
KB = 1000
FRIDAY = 1_704_480_000.0
"""A Friday, 18:40 UTC."""


def fleet(
    *deployments: Deployment, nodes: int = 2, policy: Policy | None = None, **group: object
) -> Fleet:
    members = tuple(Member(f"n{number}") for number in range(1, nodes + 1))
    made = Group("g", "groups/g.yaml", members, **group)  # type: ignore[arg-type]
    return Fleet(
        policy=policy or Policy(),
        groups={"g": made},
        deployments={item.path: item for item in deployments},
    )


def snapshot(model: str, version: int) -> Snapshot:
    """Version 3 has 3 kB, and so on."""
    file = StoredFile("saved_model.pb", version * KB, version, 7, 0.0)
    return Snapshot(source(model), version, str(version), (file,))


def locked(item: Deployment, version: int | None = None) -> Deployment:
    """The deployment with a lock on its version and labels."""
    main = version if item.version is None else item.version
    assert main is not None
    entries = {
        number: LockedVersion(number, 1, number * KB, snapshot(item.model, number).digest)
        for number in {main, *item.labels.values()}
    }
    return replace(item, lock=Lock("x.lock.yaml", item.model, item.source, main, entries))


def bucket(**versions: Iterable[int]) -> Callable[[Iterable[Query]], Available]:
    """A bucket that holds these versions and answers every query."""

    def answer(queries: Iterable[Query]) -> Available:
        listings = {}
        for query in queries:
            model = query.source.rpartition("/")[2]
            held = {v: snapshot(model, v) for v in versions.get(model, ())}
            listings[query] = Listing(query, 10_000.0, held)
        return Available(listings)

    return answer


def silent(queries: Iterable[Query]) -> Available:
    trouble = Unavailable("ListingFailed", "listing failed: no route")
    return Available(troubles=dict.fromkeys(queries, trouble))


def preview(
    base: Fleet,
    head: Fleet,
    ask: Callable[[Iterable[Query]], Available],
    past: Past | None = None,
    wall_seconds: float = 0.0,
) -> Preview:
    before, after = Side(BASE, base), Side(HEAD, head)
    pairs, undecided = pair_nodes(before, after)
    return make_preview(
        before, after, pairs, undecided, past or {}, ask(find_queries(pairs)), wall_seconds
    )


def reasons(found: Preview, level: Level | None = None) -> list[str]:
    return [r.reason for r in found.remarks if level in (None, r.level)]


def remark(found: Preview, reason: str) -> Remark:
    (only,) = [r for r in found.remarks if r.reason == reason]
    return only


# --- what a change does -------------------------------------------------------------------------


def test_a_new_version_is_downloaded_loaded_and_takes_the_place_of_the_old_one() -> None:
    base, head = deployment("a", 1), deployment("a", 2)
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2]), {base.path: [base]})
    (action,) = found.actions
    assert action.nodes == ("n1", "n2")
    assert (action.action.before, action.action.after) == (1, 2)
    assert action.action.downloads == (Bytes(2, 1, 2 * KB, snapshot("a", 2).digest),)
    assert (action.action.loaded, action.action.unloaded) == ((2,), (1,))
    assert action.action.deleted == ()
    assert found.download_bytes == 2 * 2 * KB
    assert found.is_possible
    assert reasons(found) == ["AllAtOnce"]


def test_of_nodes_that_a_registry_knows_one_stands_for_all() -> None:
    base = fleet(deployment("a", 1), deployment("b", 1, replicas=2), quota=Quota(models=1))
    head = fleet(deployment("a", 2), deployment("b", 1, replicas=2), quota=Quota(models=1))
    for side in (base, head):
        (group,) = side.groups.values()
        membership = Membership(Registry.DNS, "tasks.agent", 8080)
        side.groups[group.name] = replace(group, nodes=(), membership=membership)
    found = preview(base, head, bucket(a=[1, 2], b=[1]))
    (action,) = found.actions
    assert action.nodes == ("any node of g",)
    assert (action.action.loaded, action.action.unloaded) == ((2,), (1,))
    assert reasons(found) == ["NodesUnknown"]
    assert "only dns knows which nodes g has" in found.remarks[0].sentence


def test_another_server_is_told_and_the_order_of_flags_makes_none() -> None:
    old, new = ServerSpec("s:1", ("--a", "--b")), ServerSpec("s:2", ("--b", "--a"))
    found = preview(fleet(serving=old), fleet(serving=new), bucket())
    assert found.servers == (
        ServerChange(
            *("g", "groups/g.yaml", ("n1", "n2"), "s:1", "s:2", ("--a", "--b"), ("--a", "--b"))
        ),
    )
    assert (found.actions, found.is_possible) == ((), True)
    turned = replace(old, flags=("--b", "--a"))
    assert preview(fleet(serving=old), fleet(serving=turned), bucket()).servers == ()
    assert preview(Fleet(), fleet(serving=old), bucket()).servers[0].image_before is None
    assert preview(fleet(serving=old), Fleet(), bucket()).servers == ()
    base, head = (
        fleet(nodes=0, membership=Membership(Registry.SWARM, "a=b", 8080), serving=serving)
        for serving in (None, old)
    )
    (change,) = preview(base, head, bucket()).servers
    assert change.nodes == ("any node of g",)


def test_waves_are_not_all_nodes_at_once() -> None:
    rollout = Rollout(waves=(Wave(1), Wave(100, is_percent=True)))
    base, head = (deployment("a", version, rollout=rollout) for version in (1, 2))
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2]), {base.path: [base]})
    assert [action.nodes for action in found.actions] == [("n1", "n2")]
    assert reasons(found) == []


def test_nodes_keep_so_many_versions_and_delete_the_one_before() -> None:
    base, head = deployment("a", 2), deployment("a", 3)
    past = {base.path: [base, locked(deployment("a", 1))]}
    (done,) = preview(fleet(base), fleet(head), bucket(a=[2, 3]), past).actions
    assert [(item.version, item.size_bytes) for item in done.action.deleted] == [(1, KB)]


def test_a_revert_downloads_nothing_while_the_version_is_on_disk() -> None:
    base, head = deployment("a", 2), deployment("a", 1)
    past = {base.path: [base, head]}
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2]), past)
    (done,) = found.actions
    assert (done.action.downloads, done.action.reused, done.action.loaded) == ((), (1,), (1,))
    assert "DownloadedAgain" not in reasons(found)


def test_what_an_unlocked_latest_came_to_takes_the_place_of_an_earlier_version() -> None:
    base, head = deployment("a", 3), deployment("a", 1)
    past = {base.path: [base, deployment("a", None), head]}
    (done,) = preview(fleet(base), fleet(head), bucket(a=[1, 3]), past).actions
    assert [item.version for item in done.action.downloads] == [1]
    assert done.action.deleted == ()


def test_a_stopped_model_keeps_all_that_it_served_last() -> None:
    base = deployment("a", 3, labels={"canary": 4}, stop=True)
    ran = replace(base, stop=False)
    past = {base.path: [base, ran, deployment("a", 2), deployment("a", 1)]}
    (done,) = preview(fleet(base), fleet(ran), bucket(a=[3, 4]), past).actions
    assert (done.action.downloads, done.action.reused) == ((), (3, 4))


def test_a_version_that_only_disks_hold_is_named_where_it_is_a_newer_one_too() -> None:
    base, head = deployment("a", 1), deployment("a", 2)
    found = preview(fleet(base), fleet(head), bucket(a=[1]), {base.path: [base, head]})
    assert "one that did not, or is replaced, cannot get it" in (
        remark(found, "GoneFromBucket").sentence
    )


def test_a_rollback_to_a_version_that_nodes_have_deleted_is_said_to_download_it() -> None:
    base, head = deployment("a", 3), deployment("a", 1)
    past = {base.path: [base, deployment("a", 2), head]}
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2, 3]), past)
    assert [item.version for item in found.actions[0].action.downloads] == [1]
    assert remark(found, "DownloadedAgain").level is Level.WARNING
    assert found.is_possible


def test_a_rollback_to_a_version_that_is_nowhere_is_a_problem() -> None:
    base, head = deployment("a", 3), deployment("a", 1)
    found = preview(fleet(base), fleet(head), bucket(a=[3]), {base.path: [base]})
    missing = remark(found, "VersionNotFound")
    assert missing.level is Level.PROBLEM
    assert "version 3 goes on serving" in missing.sentence
    assert not found.is_possible
    assert found.actions[0].action.trouble == missing.sentence


def test_a_rollback_to_a_version_that_only_disks_hold_is_a_warning() -> None:
    base, head = deployment("a", 2), deployment("a", 1)
    found = preview(fleet(base), fleet(head), bucket(a=[2]), {base.path: [base, head]})
    assert remark(found, "GoneFromBucket").level is Level.WARNING
    assert found.is_possible


def test_bytes_that_are_not_those_of_the_lock_are_a_problem() -> None:
    base, head = deployment("a", 1), locked(deployment("a", 2))
    assert head.lock is not None
    forged = replace(head.lock.versions[2], digest="0" * 64)
    head = replace(head, lock=replace(head.lock, versions={2: forged}))
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2]))
    assert remark(found, "LockMismatch").level is Level.PROBLEM


def test_only_the_nodes_that_are_asked_something_else_are_named() -> None:
    base = [deployment("a", 1, replicas=1), deployment("b", 1)]
    head = [deployment("a", 2, replicas=1), deployment("b", 1)]
    found = preview(fleet(*base, nodes=5), fleet(*head, nodes=5), bucket(a=[1, 2]))
    assert [(x.action.model, len(x.nodes)) for x in found.actions] == [("a", 1)]
    assert "AllAtOnce" not in reasons(found)


def test_a_node_that_joins_takes_everything_and_the_others_do_nothing() -> None:
    item = deployment("a", 1)
    found = preview(fleet(item, nodes=2), fleet(item, nodes=3), bucket(a=[1]))
    (done,) = found.actions
    assert (done.nodes, done.action.before, done.action.loaded) == (("n3",), None, (1,))
    assert not done.action.has_gap


def test_a_node_that_leaves_every_group_keeps_what_it_has() -> None:
    item = deployment("a", 1)
    found = preview(fleet(item, nodes=2), fleet(item, nodes=1), bucket(a=[1]))
    assert found.models == []
    held = remark(found, "RemovalsHeld")
    assert (held.nodes, held.level) == (("n2",), Level.WARNING)


def test_a_model_that_leaves_is_unloaded_and_deleted() -> None:
    kept, going = deployment("a", 1), locked(deployment("b", 2))
    found = preview(fleet(kept, going), fleet(kept), bucket(), {going.path: [going]})
    (done,) = found.actions
    assert (done.action.model, done.action.unloaded, done.action.after) == ("b", (2,), None)
    assert [(item.version, item.size_bytes) for item in done.action.deleted] == [(2, 2 * KB)]


def test_too_many_removals_at_once_are_said_to_be_held_back() -> None:
    base = [deployment(name, 1) for name in "abc"]
    found = preview(fleet(*base), fleet(base[0]), bucket(), {d.path: [d] for d in base})
    assert [r.model for r in found.remarks if r.reason == "RemovalsHeld"] == ["b", "c"]
    assert found.models == []
    assert "max_removals" in remark_of(found, "b").sentence


def remark_of(found: Preview, model: str) -> Remark:
    return next(r for r in found.remarks if r.model == model)


def test_labels_move_once_their_version_is_loaded() -> None:
    base = deployment("a", 1, labels={"stable": 1})
    head = deployment("a", 2, labels={"stable": 2, "canary": 1})
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2]))
    (done,) = found.actions
    assert done.action.labels == (LabelMove("canary", None, 1), LabelMove("stable", 1, 2))
    assert done.action.unloaded == ()
    assert "from 1 to 2" in remark(found, "LabelsMove").sentence


def test_a_recreated_model_is_gone_for_a_while() -> None:
    base, head = (deployment("a", v, rollout=Rollout(Strategy.RECREATE)) for v in (1, 2))
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2]))
    assert found.actions[0].action.has_gap
    assert "Gap" in reasons(found, Level.WARNING)


def test_an_overlapping_model_is_never_gone() -> None:
    found = preview(fleet(deployment("a", 1)), fleet(deployment("a", 2)), bucket(a=[1, 2]))
    assert not found.actions[0].action.has_gap


def test_a_stopped_model_comes_back_from_disk() -> None:
    base, head = deployment("a", 1, stop=True), deployment("a", 1)
    found = preview(fleet(base), fleet(head), bucket(a=[1]), {base.path: [base, head]})
    assert (found.actions[0].action.before, found.actions[0].action.reused) == (None, (1,))


def test_a_version_that_was_only_asked_for_while_stopped_is_not_taken_to_be_on_disk() -> None:
    base, head = deployment("a", 2), deployment("a", 1)
    past = {base.path: [base, deployment("a", 1, stop=True)]}
    (done,) = preview(fleet(base), fleet(head), bucket(a=[1, 2]), past).actions
    assert [item.version for item in done.action.downloads] == [1]


def test_a_suspended_model_stays_as_it_is() -> None:
    base, head = deployment("a", 1), deployment("a", 2, suspend=True)
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2]))
    assert found.models == []
    assert reasons(found) == ["Suspended"]
    assert found.is_possible


def test_a_model_that_was_suspended_starts_from_what_was_before() -> None:
    base, head = deployment("a", 2, suspend=True), deployment("a", 3)
    past = {base.path: [base, deployment("a", 2, suspend=True), deployment("a", 1)]}
    (done,) = preview(fleet(base), fleet(head), bucket(a=[3]), past).actions
    assert (done.action.before, done.action.unloaded) == (1, (1,))


def test_a_freeze_that_is_on_is_said_and_what_comes_after_it_is_shown() -> None:
    freeze = Freeze("0 18 * * fri", 3600, "UTC", "weekend")
    frozen = Policy(freezes=(freeze,))
    base, head = fleet(deployment("a", 1)), fleet(deployment("a", 2), policy=frozen)
    found = preview(base, head, bucket(a=[1, 2]), wall_seconds=FRIDAY)
    assert "frozen until Fri 2024-01-05 19:00 UTC: weekend" in remark(found, "Frozen").sentence
    assert found.models == [("g", "a")]
    later = preview(base, head, bucket(a=[1, 2]), wall_seconds=FRIDAY + 3600)
    assert "Frozen" not in reasons(later)


def test_a_freeze_at_whatever_time_hides_nothing() -> None:
    always = Policy(freezes=(Freeze("0 * * * *", 3599, "UTC", "nearly always"),))
    base, head = fleet(deployment("a", 1)), fleet(deployment("a", 2), policy=always)
    assert preview(base, head, bucket(a=[1, 2])).models == [("g", "a")]


def test_a_version_that_was_uploaded_just_now_is_shown_already() -> None:
    def fresh(queries: Iterable[Query]) -> Available:
        listings = {q: Listing(q, 1.0, {2: snapshot("a", 2)}) for q in queries}
        return Available(listings)

    found = preview(fleet(deployment("a", 1)), fleet(deployment("a", None)), fresh)
    assert found.actions[0].action.after == 2
    assert "Settling" not in reasons(found)


def test_latest_without_a_lock_says_what_it_comes_to_now() -> None:
    found = preview(fleet(deployment("a", 1)), fleet(deployment("a", None)), bucket(a=[1, 7]))
    assert found.actions[0].action.after == 7
    assert "now it comes to 7" in remark(found, "NotLocked").sentence


def test_a_locked_latest_is_what_its_lock_says() -> None:
    base = locked(deployment("a", None), 1)
    head = locked(deployment("a", None), 2)
    found = preview(fleet(base), fleet(head), bucket(a=[1, 2, 9]))
    assert [item.version for item in found.actions[0].action.downloads] == [2]
    assert "NotLocked" not in reasons(found)


def test_problems_of_the_head_are_kept_apart() -> None:
    problem = Problem("fleet.yaml", 1, 1, "wrong")
    head = fleet(deployment("a", 1))
    head.problems.append(problem)
    found = preview(fleet(deployment("a", 1)), head, bucket())
    assert (found.problems, found.is_possible) == ((problem,), False)


def test_keeping_fewer_versions_deletes_those_of_models_that_do_not_change() -> None:
    item = deployment("a", 3)
    past = {item.path: [item, deployment("a", 2), deployment("a", 1)]}
    base, head = (fleet(item, policy=Policy(keep=keep)) for keep in (2, 0))
    pairs, _ = pair_nodes(Side(BASE, base), Side(HEAD, head))
    assert [pair.eventful for pair in pairs] == [{item.path}]
    found = preview(base, head, bucket(a=[3]), past)
    assert [item.version for item in found.actions[0].action.deleted] == [1, 2]


def test_a_node_of_which_the_head_leaves_its_group_open_is_undecided() -> None:
    item = deployment("a", 1)
    problem = Problem("groups/g.yaml", 1, 1, "wrong")
    place = File("groups/g.yaml", Place(Kind.GROUP, group="g"), "", Broken(()))
    head = Fleet(problems=[problem], broken={place.path: (place, problem)})
    found = preview(fleet(item, nodes=1), head, bucket())
    assert remark(found, "Undecided").nodes == ("n1",)
    assert found.models == []
    assert not found.is_possible


def test_a_base_with_problems_is_noted() -> None:
    base = fleet(deployment("a", 1))
    base.problems.append(Problem("fleet.yaml", 1, 1, "wrong"))
    found = preview(base, fleet(deployment("a", 2)), bucket(a=[1, 2]))
    assert remark(found, "BaseHasProblems").level is Level.NOTE
    assert found.is_possible


# --- what fits ----------------------------------------------------------------------------------


def test_what_is_over_the_quota_is_a_problem_with_numbers() -> None:
    items = [deployment("a", 3), deployment("b", 4)]
    quota = Quota(disk_bytes=6 * KB)
    found = preview(fleet(items[0], quota=quota), fleet(*items, quota=quota), bucket(a=[3], b=[4]))
    assert set(reasons(found, Level.PROBLEM)) == {"OverQuota", "GroupQuotaExceeded"}
    assert "7.0 kB of the 6.0 kB" in remark(found, "OverQuota").sentence
    (used,) = found.usages[0].usages
    assert (used.before, used.after, used.fits) == (3 * KB, 7 * KB, False)


def test_the_peak_is_told_while_old_and_new_are_there() -> None:
    quota = Quota(memory_bytes=4 * KB, models=1)
    base, head = fleet(deployment("a", 2), quota=quota), fleet(deployment("a", 3), quota=quota)
    found = preview(base, head, bucket(a=[2, 3]))
    assert remark(found, "PeakOverQuota").level is Level.WARNING
    kinds = {usage.kind: usage for usage in found.usages[0].usages}
    assert (kinds["memory"].before, kinds["memory"].after, kinds["memory"].peak) == (
        2000,
        3000,
        5000,
    )
    assert (kinds["models"].before, kinds["models"].after, kinds["models"].peak) == (1, 1, 1)
    assert found.is_possible


def test_recreating_never_has_both_in_memory() -> None:
    quota = Quota(memory_bytes=4 * KB)
    base, head = (
        fleet(deployment("a", version, rollout=Rollout(Strategy.RECREATE)), quota=quota)
        for version in (2, 3)
    )
    found = preview(base, head, bucket(a=[2, 3]))
    assert found.usages[0].usages[0].peak == 3 * KB
    assert "PeakOverQuota" not in reasons(found)


def test_sizes_of_models_that_do_not_change_are_asked_for_only_if_a_quota_needs_them() -> None:
    same = [locked(deployment("b", 1)), deployment("c", 1)]
    base, head = deployment("a", 1), deployment("a", 2)
    without, _ = pair_nodes(Side(BASE, fleet(base, *same)), Side(HEAD, fleet(head, *same)))
    assert find_queries(without) == {Query(source("a"), 2)}
    quota = Quota(disk_bytes=KB)
    with_quota, _ = pair_nodes(
        Side(BASE, fleet(base, *same, quota=quota)), Side(HEAD, fleet(head, *same, quota=quota))
    )
    assert find_queries(with_quota) == {
        Query(source("a"), 1),
        Query(source("a"), 2),
        Query(source("c"), 1),
    }


def test_a_bucket_that_cannot_be_asked_leaves_a_plan_without_sizes() -> None:
    found = preview(fleet(deployment("a", 1)), fleet(deployment("a", 2)), silent)
    (done,) = found.actions
    assert [(item.version, item.size_bytes) for item in done.action.downloads] == [(2, None)]
    assert done.action.loaded == (2,)
    assert not found.is_sized
    assert remark(found, "BucketSilent").level is Level.WARNING
    assert found.is_possible


def test_a_lock_says_sizes_even_while_the_bucket_is_silent() -> None:
    base, head = locked(deployment("a", 1)), locked(deployment("a", 2))
    found = preview(fleet(base), fleet(head), silent)
    assert found.download_bytes == 2 * 2 * KB
    assert found.is_sized


def test_a_source_that_is_not_there_is_a_problem() -> None:
    def nowhere(queries: Iterable[Query]) -> Available:
        return Available(troubles={q: Unavailable("BucketNotFound", "no bucket") for q in queries})

    found = preview(fleet(deployment("a", 1)), fleet(deployment("a", 2)), nowhere)
    assert reasons(found, Level.PROBLEM) == ["BucketNotFound"]


def test_an_unlocked_latest_whose_bucket_is_silent_shows_no_made_up_number() -> None:
    base = deployment("a", None)
    found = preview(fleet(base), fleet(replace(base, labels={"x": 3})), silent)
    assert "-1" not in " ".join(r.sentence for r in found.remarks)
    assert "cannot be told" in remark(found, "NotLocked").sentence


def test_a_group_that_is_switched_on_may_have_to_download_everything() -> None:
    item = deployment("a", 1)
    found = preview(fleet(item, enabled=False), fleet(item), bucket(a=[1]), {item.path: [item]})
    assert [x.version for x in found.actions[0].action.downloads] == [1]
    assert remark(found, "BaseIsHeld").level is Level.NOTE


def test_a_group_that_is_switched_off_unloads_and_keeps_its_files() -> None:
    item = deployment("a", 1)
    found = preview(fleet(item), fleet(item, enabled=False), bucket(), {item.path: [item]})
    (done,) = found.actions
    assert (done.action.unloaded, done.action.deleted) == ((1,), ())


def test_what_nobody_can_tell_is_not_told_as_a_number() -> None:
    def ask(queries: Iterable[Query]) -> Available:
        pins = bucket(a=[1])(query for query in queries if query.version is not None)
        return replace(pins, troubles=silent([Query(source("a"))]).troubles)

    found = preview(fleet(deployment("a", None)), fleet(deployment("a", 3)), ask)
    assert "; what is there goes on serving" in remark(found, "VersionNotFound").sentence
    assert "what is there" in (found.actions[0].action.trouble or "")


# --- whatever the change: properties ------------------------------------------------------------

VERSIONS = range(1, 6)


@st.composite
def deployments(draw: st.DrawFn) -> dict[str, Deployment]:
    made = {}
    for model in draw(st.sets(st.sampled_from("abcde"))):
        item = deployment(
            model,
            draw(st.sampled_from([None, *VERSIONS])),
            labels=draw(
                st.dictionaries(st.sampled_from(["stable", "canary"]), st.sampled_from(VERSIONS))
            ),
            stop=draw(st.booleans()) and draw(st.booleans()),
            rollout=Rollout(draw(st.sampled_from(Strategy))),
        )
        made[model] = locked(item, 5) if draw(st.booleans()) else item
    return made


def only_pair(base: Mapping[str, Deployment], head: Mapping[str, Deployment]) -> Pair | None:
    free = Policy(max_removals=100.0, allow_empty=True)
    before = fleet(*base.values(), nodes=1, policy=free)
    after = fleet(*head.values(), nodes=1, policy=free)
    pairs, _ = pair_nodes(Side(BASE, before), Side(HEAD, after))
    return pairs[0] if pairs else None


ALL = bucket(**dict.fromkeys("abcde", VERSIONS))


@given(deployments(), deployments(), st.data())
def test_a_node_ends_as_the_head_says_and_downloads_what_is_missing(
    base: dict[str, Deployment], head: dict[str, Deployment], data: st.DataObject
) -> None:
    pair = only_pair(base, head)
    if pair is None:
        return
    catalog = Catalog(ALL(find_queries([pair])), Limits())
    earlier = st.lists(st.sampled_from(VERSIONS), max_size=4)
    past = {
        item.path: [item, *(deployment(item.model, v) for v in data.draw(earlier))]
        for item in base.values()
    }
    standing = stand(pair.base, past, catalog)
    course = simulate(standing, pair.head, catalog.assume(head.values()), Limits())

    wanted = {m: catalog.find_versions(item) for m, item in head.items() if not item.stop}
    last = course.looks[-1]
    assert {m: found for m, found in last.loaded.items() if found} == wanted
    assert course.memory.asked_config.keys() == wanted.keys()
    for model, ask in course.memory.asked_config.items():
        assert ask.labels == head[model].labels
    assert last.on_disk.keys() <= head.keys()
    had = course.looks[0].on_disk
    missing = {(m, v) for m, found in wanted.items() for v in found - had.get(m, frozenset())}
    assert sorted((f.model, f.snapshot.version) for f in course.fetches) == sorted(missing)
    actions = find_actions(pair, standing, course, catalog)
    assert sum(item.size_bytes or 0 for a in actions for item in a.downloads) == sum(
        version * KB for _, version in missing
    )
    assert all(a.trouble is None for a in actions)


@given(deployments(), deployments(), deployments())
def test_models_that_do_not_change_make_no_difference_where_they_are_left_out(
    base: dict[str, Deployment], head: dict[str, Deployment], same: dict[str, Deployment]
) -> None:
    pair = only_pair({**base, **same}, {**head, **same})
    if pair is None:
        return
    catalog = Catalog(ALL(find_queries([pair])), Limits())
    standing = stand(pair.base, {}, catalog)
    scope = find_scope(pair, find_sizes(pair, standing, catalog), catalog)
    available = catalog.assume(pair.head.deployments)
    whole = simulate(standing, pair.head, available, Limits())
    part = simulate(standing, pair.head, available, Limits(), scope)
    assert find_actions(pair, standing, part, catalog) == find_actions(
        pair, standing, whole, catalog
    )
    assert (
        part.looks[-1].loaded.items()
        >= {m: found for m, found in whole.looks[-1].loaded.items() if found}.items()
    )


@pytest.mark.parametrize("size", [6, 7])
def test_models_that_do_not_change_count_where_the_quota_is_near(size: int) -> None:
    base, head = deployment("b", 3), deployment("b", 4)
    same = deployment("a", 3)
    quota = Quota(disk_bytes=size * KB)
    found = preview(
        fleet(base, same, quota=quota), fleet(head, same, quota=quota), bucket(a=[3], b=[3, 4])
    )
    assert found.is_possible == (size == 7)
    assert bool(found.models) == (size == 7)
