"""From one version to the next: the order of states, failed loads, and the wedges of rollback."""

import pytest

from tests.conformance.harness import Server, is_in_order, model
from tests.savedmodels import write_savedmodel

BAD = "OUT_OF_RANGE: Read less bytes than requested"


def test_new_version_appears(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a")])
    incoming = write_savedmodel(server.folder / "incoming", 2, load_seconds=0.3)
    with server.watch("a") as seen:
        incoming.rename(server.folder / "a/2")
        server.until_states("a", {2: "AVAILABLE", 1: "END"})

    assert is_in_order(seen.states(2), ["START", "LOADING", "AVAILABLE"])
    assert is_in_order(seen.states(1), ["AVAILABLE", "UNLOADING", "END"])
    assert all("AVAILABLE" in snapshot.values() for snapshot in seen.snapshots)


def test_new_version_appears_without_a_failed_request(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start([model("a", server.folder / "a")], predict=True)
    incoming = write_savedmodel(server.folder / "incoming", 2)
    answers = []
    incoming.rename(server.folder / "a/2")

    def ask() -> bool:
        answers.append(server.predict("a", x=10))
        return server.states("a").get(1) == "END"

    server.eventually(ask)
    assert {answer.code for answer in answers} == {"OK"}
    assert [answer.value for answer in answers] == sorted(answer.value for answer in answers)
    assert {answer.value for answer in answers} <= {(11.0, 1), (12.0, 2)}
    assert server.predict("a", x=10).value == (12.0, 2)


def test_bad_new_version_keeps_old(server: Server) -> None:
    write_savedmodel(server.folder / "a/1", 1)
    server.start(
        [model("a", server.folder / "a")],
        "--max_num_load_retries=2",
        "--load_retry_interval_micros=200000",
    )
    with server.watch("a") as seen:
        write_savedmodel(server.folder / "a/2", 2, fault="junk")
        server.until_states("a", {2: "END"})

    assert server.states("a") == {2: f"END {BAD}", 1: "AVAILABLE"}
    assert is_in_order(seen.states(2), ["START", "LOADING", "END"])
    assert "LOADING" in seen.states(2)  # throughout the retries
    assert server.answering("a").value == 1


def test_two_old_one_bad_new(server: Server) -> None:
    for version in (1, 2):
        write_savedmodel(server.folder / f"a/{version}", version)
    server.start(
        [model("a", server.folder / "a", specific=[1, 2])],
        "--max_num_load_retries=2",
        "--load_retry_interval_micros=200000",
    )
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})
    write_savedmodel(server.folder / "a/3", 3, fault="junk")
    with server.watch("a") as seen:
        assert server.reload(model("a", server.folder / "a", specific=[3])).ok
        server.until_states("a", {3: "END"})

    assert server.states("a") == {3: f"END {BAD}", 2: "AVAILABLE", 1: "END"}
    loading = [snapshot for snapshot in seen.snapshots if snapshot.get(3) == "LOADING"]
    assert loading
    assert {snapshot[1] for snapshot in loading} == {"END"}  # gone before the load began


def test_two_old_one_good_new_takes_turns(server: Server) -> None:
    for version in (1, 2, 3):
        write_savedmodel(server.folder / f"a/{version}", version, load_seconds=0.2)
    server.start([model("a", server.folder / "a", specific=[1, 2])])
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})
    with server.watch("a") as seen:
        assert server.reload(model("a", server.folder / "a", specific=[3])).ok
        server.until_states("a", {1: "END", 2: "END", 3: "AVAILABLE"})

    assert all("AVAILABLE" in snapshot.values() for snapshot in seen.snapshots)
    assert any(s[1] == "END" and s[2] == "AVAILABLE" for s in seen.snapshots)


def test_error_version_not_retried_while_aspired(server: Server) -> None:
    folder = server.folder / "a"
    write_savedmodel(folder / "1", 1)
    server.start([model("a", folder, specific=[1])])
    write_savedmodel(folder / "2", 2, fault="junk")
    both = model("a", folder, specific=[1, 2])
    assert server.reload(both).ok
    server.until_states("a", {2: "END"})

    write_savedmodel(folder / "2", 2)
    server.let_polls_pass()
    assert server.states("a") == {2: f"END {BAD}", 1: "AVAILABLE"}
    assert server.reload(both).ok
    server.let_polls_pass()
    assert server.states("a") == {2: f"END {BAD}", 1: "AVAILABLE"}

    assert server.reload(model("a", folder, specific=[1])).ok
    server.let_polls_pass()  # the set without 2 has to be taken in between
    assert server.states("a") == {2: f"END {BAD}", 1: "AVAILABLE"}
    assert server.reload(both).ok
    server.until_states("a", {2: "AVAILABLE", 1: "AVAILABLE"})


def test_replace_then_rollback_wedge(server: Server) -> None:
    folder = server.folder / "a"
    write_savedmodel(folder / "1", 1)
    write_savedmodel(folder / "3", 3)
    write_savedmodel(folder / "2", 2, fault="junk")
    server.start([model("a", folder, specific=[1])])
    assert server.reload(model("a", folder, specific=[2])).ok
    server.until_states("a", {2: "END"})

    wedged = {2: f"END {BAD}", 1: "AVAILABLE"}
    assert server.reload(model("a", folder, specific=[1])).ok
    server.let_polls_pass()
    assert server.reload(model("a", folder, specific=[1, 3])).ok
    server.let_polls_pass()
    assert server.status("a", 3).code == "NOT_FOUND"
    write_savedmodel(folder / "2", 2)
    for versions in ([1, 2], [2]):
        assert server.reload(model("a", folder, specific=versions)).ok
        server.let_polls_pass()
        assert server.states("a") == wedged
    assert server.answering("a").value == 1

    with server.watch("a") as seen:
        assert server.reload(model("a", folder, specific=[3])).ok
        server.until_states("a", {3: "AVAILABLE", 1: "END"})
    assert all("AVAILABLE" in snapshot.values() for snapshot in seen.snapshots)
    assert server.reload(model("a", folder, specific=[2, 3])).ok
    server.until_states("a", {2: "AVAILABLE", 3: "AVAILABLE"})


def test_wedge_of_the_latest_policy_heals_by_a_newer_version(server: Server) -> None:
    folder = server.folder / "a"
    write_savedmodel(folder / "1", 1)
    server.start([model("a", folder)])
    write_savedmodel(folder / "2", 2, fault="junk")
    server.until_states("a", {2: "END"})
    (folder / "2").rename(folder / "2.bad")
    server.let_polls_pass()
    write_savedmodel(server.folder / "incoming", 2).rename(folder / "2")
    server.let_polls_pass()
    assert server.states("a") == {2: f"END {BAD}", 1: "AVAILABLE"}

    write_savedmodel(server.folder / "incoming", 3).rename(folder / "3")
    server.until_states("a", {3: "AVAILABLE", 1: "END"})


def test_removing_and_re_adding_heals_the_wedge(server: Server) -> None:
    folder = server.folder / "a"
    write_savedmodel(folder / "1", 1)
    write_savedmodel(folder / "2", 2, fault="junk")
    server.start([model("a", folder, specific=[1])])
    assert server.reload(model("a", folder, specific=[2])).ok
    server.until_states("a", {2: "END"})
    assert server.reload().ok
    server.until_states("a", {1: "END"})
    write_savedmodel(folder / "2", 2)

    assert server.reload(model("a", folder, specific=[1, 2])).ok
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})


def test_add_then_drop_rollback_clean(server: Server) -> None:
    folder = server.folder / "a"
    write_savedmodel(folder / "1", 1)
    write_savedmodel(folder / "2", 2, fault="junk")
    server.start([model("a", folder, specific=[1])])
    with server.watch("a") as seen:
        assert server.reload(model("a", folder, specific=[1, 2])).ok
        server.until_states("a", {2: "END"})
        assert server.reload(model("a", folder, specific=[1])).ok
        server.let_polls_pass()
        write_savedmodel(folder / "2", 2)
        assert server.reload(model("a", folder, specific=[1, 2])).ok
        server.until_states("a", {2: "AVAILABLE"})

    assert seen.states(1) == ["AVAILABLE"]


def test_rollback_does_not_cancel_the_retries_of_a_replacement(server: Server) -> None:
    folder = server.folder / "a"
    write_savedmodel(folder / "1", 1)
    write_savedmodel(folder / "2", 2, fault="junk")
    flags = ("--max_num_load_retries=5", "--load_retry_interval_micros=300000")
    server.start([model("a", folder, specific=[1])], *flags)
    assert server.reload(model("a", folder, specific=[2])).ok
    server.until_states("a", {2: "LOADING"})
    assert server.reload(model("a", folder, specific=[1])).ok
    write_savedmodel(folder / "2", 2)

    # Wanted by nobody any more, 2 is loaded nonetheless; 1 goes, and only then comes back.
    with server.watch("a") as seen:
        server.until_states("a", {1: "AVAILABLE", 2: "END"})
    assert len(seen.states(1)) > 1
    assert is_in_order(
        seen.states(1), ["AVAILABLE", "UNLOADING", "END", "START", "LOADING", "AVAILABLE"]
    )
    assert all("AVAILABLE" in snapshot.values() for snapshot in seen.snapshots)


@pytest.mark.parametrize("repaired", [True, False])
def test_dropping_a_version_in_retries_ends_it_after_the_next_try(
    server: Server, repaired: bool
) -> None:
    folder = server.folder / "a"
    write_savedmodel(folder / "1", 1)
    write_savedmodel(folder / "2", 2, fault="junk")
    flags = ("--max_num_load_retries=1000", "--load_retry_interval_micros=1000000")
    server.start([model("a", folder, specific=[1])], *flags)
    assert server.reload(model("a", folder, specific=[1, 2])).ok
    server.until_states("a", {2: "LOADING"})
    assert server.reload(model("a", folder, specific=[1])).ok
    if repaired:
        write_savedmodel(folder / "2", 2)
    server.until_states("a", {2: "END"})

    error = "CANCELLED: Loading of servable cancelled" if repaired else BAD
    assert server.states("a") == {2: f"END {error}", 1: "AVAILABLE"}


def test_folder_completed_between_two_tries_loads(server: Server) -> None:
    folder = server.folder / "a"
    write_savedmodel(folder / "1", 1)
    flags = ("--max_num_load_retries=1000", "--load_retry_interval_micros=100000")
    server.start([model("a", folder)], *flags)
    (folder / "2").mkdir()
    server.until_states("a", {2: "LOADING"})
    write_savedmodel(folder / "2", 2)

    server.until_states("a", {2: "AVAILABLE", 1: "END"})


@pytest.mark.parametrize(
    ("threads", "meanwhile"), [(0, None), (1, "START"), (2, "AVAILABLE")], ids=str
)
def test_manager_thread_blocked_by_failing_load(
    server: Server, threads: int, meanwhile: str | None
) -> None:
    for name in ("a", "b", "d"):
        write_savedmodel(server.folder / f"{name}/1", 1)
    a, b = model("a", server.folder / "a", specific=[1]), model("b", server.folder / "b")
    retry_seconds = 0.4 if server.is_standin else 2.0
    server.start(
        [a, b],
        f"--num_load_threads={threads}",
        f"--num_unload_threads={threads}",
        "--max_num_load_retries=4",
        f"--load_retry_interval_micros={retry_seconds * 1e6:.0f}",
    )
    write_savedmodel(server.folder / "a/2", 2, fault="junk")
    a = model("a", server.folder / "a", specific=[1, 2])
    assert server.reload(a, b).ok
    server.until_states("a", {2: "LOADING"})
    write_savedmodel(server.folder / "b/2", 2)
    wait = server.reload_async(a, b, model("d", server.folder / "d"))
    during: dict[int, str] = {}
    while True:  # the last look at b/2 while a/2 was certainly still being tried
        looked = server.states("b")
        if not server.states("a")[2].startswith("LOADING"):
            break
        during = looked

    assert during.get(2) == meanwhile
    assert wait().ok
    server.until_states("b", {2: "AVAILABLE"})
