"""Which versions are served: names of folders, policies, what appears and disappears on disk."""

import shutil

from tests.conformance.harness import Outcome, Server, model
from tests.savedmodels import write_savedmodel


def put(server: Server, *versions: str) -> None:
    """Rename models into place, each bearing the value 1."""
    for number, path in enumerate(versions):
        (server.folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_savedmodel(server.folder / f".incoming-{number}", 1).rename(server.folder / path)


def test_startup_serves_latest_only(server: Server) -> None:
    put(server, "a/1", "a/2", "a/10")
    server.start([model("a", server.folder / "a")])

    assert server.states("a") == {10: "AVAILABLE"}
    assert server.answering("a").value == 10


def test_version_name_parsing(server: Server) -> None:
    odd = ("v3", "4.tmp", "foo", ".8", "1e3", "0x5", "9" * 20)
    put(server, "a/0002", *(f"a/{name}" for name in odd))
    server.start([model("a", server.folder / "a", all_versions=True)])
    assert server.states("a") == {2: "AVAILABLE"}

    put(server, "a/+5", "a/-1", "a/ 6")
    server.until_states("a", {6: "AVAILABLE", 5: "AVAILABLE", 2: "AVAILABLE", -1: "AVAILABLE"})
    assert server.answering("a", -1).value == -1


def test_plain_file_is_taken_for_a_version(server: Server) -> None:
    put(server, "a/6")
    server.start([model("a", server.folder / "a")])
    path = server.folder / "a/9"
    path.write_text("not a folder")
    server.until_states("a", {9: "END"})

    assert server.states("a") == {
        9: "END FAILED_PRECONDITION: Error while attempting to reserve resources to load servable"
        f" {{name: a version: 9}}: {path}; Not a directory",
        6: "AVAILABLE",
    }


def test_latest_num_versions(server: Server) -> None:
    put(server, "a/1", "a/2", "a/10")
    server.start([model("a", server.folder / "a", latest=0)])
    server.let_polls_pass()
    assert server.states("a") == {10: "AVAILABLE"}

    assert server.reload(model("a", server.folder / "a", latest=2)).ok
    server.until_states("a", {2: "AVAILABLE", 10: "AVAILABLE"})
    server.let_polls_pass()
    assert server.states("a") == {10: "AVAILABLE", 2: "AVAILABLE"}


def test_specific_leading_zero_dir_found(server: Server) -> None:
    put(server, "a/0005", "a/1")
    server.start([model("a", server.folder / "a", specific=[5, 1])])
    server.until_states("a", {5: "AVAILABLE", 1: "AVAILABLE"})

    assert server.answering("a", 5).value == 5


def test_specific_empty_unloads_all(server: Server) -> None:
    put(server, "a/1", "a/2")
    server.start([model("a", server.folder / "a", specific=[1, 2])])
    assert server.reload(model("a", server.folder / "a", specific=[])).ok
    server.until_states("a", {1: "END", 2: "END"})

    assert server.states("a") == {2: "END", 1: "END"}
    assert server.answering("a") == Outcome(
        "NOT_FOUND", "Servable not found for request: Latest(a)"
    )


def test_specific_partially_missing(server: Server) -> None:
    put(server, "a/1", "a/2")
    server.start([model("a", server.folder / "a", specific=[1])])
    assert server.reload(model("a", server.folder / "a", specific=[1, 2, 7])).ok
    server.until_states("a", {2: "AVAILABLE"})
    assert server.status("a", 7).code == "NOT_FOUND"

    put(server, "a/7")
    server.until_states("a", {7: "AVAILABLE"})


def test_specific_all_missing_on_running_model(server: Server) -> None:
    put(server, "a/1")
    server.start([model("a", server.folder / "a", specific=[1])])
    assert server.reload(model("a", server.folder / "a", specific=[8])).ok
    server.until_states("a", {1: "END"})
    assert server.answering("a").code == "NOT_FOUND"

    assert server.reload(model("a", server.folder / "a", specific=[1])).ok
    server.until_states("a", {1: "AVAILABLE"})


def test_version_dir_renamed_or_deleted_unloads(server: Server) -> None:
    put(server, "a/1", "a/2", "b/1", "b/2")
    server.start(
        [
            model("a", server.folder / "a", specific=[1, 2]),
            model("b", server.folder / "b", latest=1),
        ]
    )
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})
    (server.folder / "a/2").rename(server.folder / "a/2.denied")
    server.until_states("a", {1: "AVAILABLE", 2: "END"})

    with server.watch("b") as seen:
        shutil.rmtree(server.folder / "b/2")
        server.until_states("b", {1: "AVAILABLE", 2: "END"})
    # The lower one first: never a moment without a version.
    assert all("AVAILABLE" in snapshot.values() for snapshot in seen.snapshots)


def test_base_path_deleted_keeps_serving_and_freezes_others(server: Server) -> None:
    put(server, "a/1", "b/1")
    a = model("a", server.folder / "a", latest=1)
    server.start([a, model("b", server.folder / "b", latest=1)])
    (server.folder / "a").rename(server.folder / "a.gone")
    server.let_polls_pass()  # a pass that had begun before is over
    put(server, "b/3")
    assert server.reload(a, model("b", server.folder / "b", specific=[3])).ok
    server.let_polls_pass()
    assert server.answering("a").value == 1
    assert server.states("b") == {1: "AVAILABLE"}

    assert server.reload(a).ok  # removing a model needs no pass
    server.until_states("b", {1: "END"})
    (server.folder / "a.gone").rename(server.folder / "a")
    assert server.reload(a, model("b", server.folder / "b", specific=[3])).ok
    server.until_states("b", {3: "AVAILABLE"})


def test_duplicate_numbers_take_the_later_name_and_all_the_first(server: Server) -> None:
    put(server, "a/0002", "b/0002")
    write_savedmodel(server.folder / "a/2", 1, fault="junk")
    write_savedmodel(server.folder / "b/2", 1, fault="junk")
    put(server, "a/1")
    server.start([model("a", server.folder / "a", specific=[1])])
    assert server.reload(model("a", server.folder / "a", specific=[1, 2])).ok
    server.until_states("a", {2: "END OUT_OF_RANGE"})

    assert server.reload(model("b", server.folder / "b", all_versions=True)).ok
    assert server.states("b") == {2: "AVAILABLE"}


def test_files_of_a_loaded_version_are_not_needed(server: Server) -> None:
    put(server, "a/1")
    server.start([model("a", server.folder / "a")])
    shutil.rmtree(server.folder / "a/1/variables")
    (server.folder / "a/1/saved_model.pb").write_text("something else")
    server.let_polls_pass()

    assert server.states("a") == {1: "AVAILABLE"}
    assert server.answering("a").value == 1


def test_same_number_at_another_base_path_keeps_the_old_data(server: Server) -> None:
    put(server, "a/1", "b/1", "b/2")
    server.start([model("a", server.folder / "a", specific=[1])])
    assert server.reload(model("a", server.folder / "b", specific=[1, 2])).ok
    with server.watch("a") as seen:
        server.until_states("a", {2: "AVAILABLE"})

    assert seen.states(1) == ["AVAILABLE"]
    assert server.reload(model("a", server.folder / "nowhere", specific=[2])).ok
    server.let_polls_pass()
    assert server.states("a") == {2: "AVAILABLE", 1: "AVAILABLE"}
