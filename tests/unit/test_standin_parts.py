"""The stand-in's small parts, each by itself: names, policy, retries, locks, flags, files."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from reconciler.cli.dev import dev
from reconciler.serving.protocol.control_pb2 import Code
from reconciler.standin import paths
from reconciler.standin.aspired import choose_action
from reconciler.standin.config_file import read_config_file
from reconciler.standin.errors import StatusError
from reconciler.standin.flags import parse_flags
from reconciler.standin.manager import Managed, Phase, Retries
from reconciler.standin.monitor import EventBus, ServableId, ServableState, State, StateMonitor
from reconciler.standin.source import VersionPolicy, WatchedModel, find_versions
from reconciler.standin.threads import FairLock


@given(st.integers(-(2**70), 2**70))
def test_whole_numbers_of_64_bits_are_versions(number: int) -> None:
    expected = number if -(2**63) <= number < 2**63 else None

    for name in (str(number), f" {number}\n", f"{'-' if number < 0 else '+'}00{abs(number)}"):
        assert paths.parse_version(name) == expected


@pytest.mark.parametrize("name", ["", "v3", "4.tmp", ".8", "1e3", "0x5", "1_0", "- 1", "٣"])
def test_other_names_are_no_versions(name: str) -> None:
    assert paths.parse_version(name) is None


@pytest.mark.parametrize(
    ("uri", "relative"),
    [("/a", False), ("file:///a", False), ("gs://b/a", False), ("a/b", True), ("", True)],
)
def test_relative_paths(uri: str, relative: bool) -> None:
    assert paths.is_relative(uri) == relative


def test_remote_base_paths_are_not_looked_for_on_disk() -> None:
    with pytest.raises(StatusError, match="UNIMPLEMENTED: Could not find base path gs://b/a"):
        find_versions(WatchedModel("a", "gs://b/a", VersionPolicy()))


def test_file_uris_are_folders(tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    versions = find_versions(WatchedModel("a", f"file://{tmp_path}", VersionPolicy()))

    assert [(found.version, found.path) for found in versions] == [(3, f"file://{tmp_path}/3")]


managed = st.builds(
    Managed,
    id=st.builds(ServableId, st.just("a"), st.integers(0, 9)),
    path=st.just("/"),
    aspired=st.booleans(),
    phase=st.sampled_from(Phase),
)


@given(st.lists(managed, max_size=6, unique_by=lambda item: item.id.version))
def test_the_last_ready_version_stays_until_another_is_ready(versions: list[Managed]) -> None:
    chosen, unload = choose_action(versions)
    ready = [item for item in versions if item.phase is Phase.READY]
    wanted = [item for item in versions if item.aspired]

    if chosen is None:
        return
    if unload:
        assert chosen.phase is Phase.READY
        assert not chosen.aspired
        assert len(ready) > 1 or not wanted
    else:
        assert chosen.phase is Phase.NEW
        assert chosen.id.version == max(
            item.id.version for item in wanted if item.phase is Phase.NEW
        )


@pytest.mark.parametrize(
    ("max_retries", "cancelled", "attempts"), [(0, False, 1), (3, False, 4), (3, True, 1)]
)
def test_retries_end(max_retries: int, cancelled: bool, attempts: int) -> None:
    made = []

    def attempt() -> None:
        made.append(1)
        raise StatusError(Code.UNKNOWN, f"attempt {len(made)}")

    with pytest.raises(StatusError, match=f"attempt {attempts}$"):
        Retries(max_retries, 0.0).run(attempt, lambda: cancelled)


def test_the_fair_lock_is_handed_on_in_the_order_of_asking() -> None:
    lock, order, threads = FairLock(), [], []

    def take(number: int) -> None:
        with lock.hold():
            order.append(number)

    with lock.hold():
        for number in range(20):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(lock._waiting) <= number:
                assert threads[-1].is_alive()
    for thread in threads:
        thread.join(10)
    assert order == list(range(20))


def test_a_fresh_monitor_knows_only_what_is_published_after_it() -> None:
    bus, old = EventBus(), ServableId("a", 1)
    monitor = StateMonitor(bus)
    bus.publish(ServableState(old, State.AVAILABLE))
    fresh = StateMonitor(bus)

    assert monitor.wait_until_decided(["a"]) == {old: ServableState(old, State.AVAILABLE)}
    assert fresh.versions("a") == []
    fresh.close()
    bus.publish(ServableState(old, State.END))
    assert fresh.state(old) is None
    assert monitor.state(old) == ServableState(old, State.END)


def test_the_state_at_the_event_decides_not_the_one_at_waking_up() -> None:
    bus, first, second = EventBus(), ServableId("a", 1), ServableId("b", 1)
    monitor = StateMonitor(bus)
    reached: list[dict[ServableId, ServableState]] = []
    waiting = threading.Thread(
        target=lambda: reached.append(monitor.wait_until_decided(["a", "b"]))
    )
    waiting.start()
    while not monitor._waiters:
        assert waiting.is_alive()
    bus.publish(ServableState(first, State.AVAILABLE))
    bus.publish(ServableState(second, State.AVAILABLE))
    bus.publish(ServableState(first, State.END))
    waiting.join(10)

    assert [state.state for state in reached[0].values()] == [State.AVAILABLE] * 2


def test_flags() -> None:
    flags, unknown = parse_flags(
        [
            "--port=1",
            "--file_system_poll_wait_seconds=0.5",
            "--allow_version_labels_for_unavailable_models",
            "--standin_scripts=false",
            "--enable_batching=true",
            "--port=2",
            "--nonsense",
            "stray",
        ]
    )

    assert (flags.port, flags.file_system_poll_wait_seconds) == (2, 0.5)
    assert flags.allow_version_labels_for_unavailable_models
    assert not flags.standin_scripts
    assert unknown == ("--nonsense", "stray")


@pytest.mark.parametrize(
    "flag", ["--port=x", "--port", "--standin_scripts=maybe", "--standin_predict=perhaps"]
)
def test_values_that_do_not_fit(flag: str) -> None:
    with pytest.raises(StatusError, match="Couldn't interpret value"):
        parse_flags([flag])


def test_labels_in_a_config_file(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(
        'model_config_list { config { version_labels { key: "a" value: 1 }'
        ' version_labels { value: 2 key: "a" } version_labels { key: "none" } } }'
    )

    labels = read_config_file(str(path)).model_config_list.config[0].version_labels
    assert dict(labels) == {"a": 2, "none": 0}


def test_a_missing_config_file(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match=r"NOT_FOUND: .*/none; No such file or directory"):
        read_config_file(str(tmp_path / "none"))


def test_the_command_lists_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr("os._exit", exits.append)
    result = CliRunner().invoke(dev, ["tf-serving", "--help"])

    assert exits == [0]
    assert "--model_config_file_poll_wait_seconds" in result.output
    assert "--standin_tick_seconds" in result.output


def test_the_stand_in_does_not_import_tensorflow() -> None:
    code = "import reconciler.standin.program, sys; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "False"
