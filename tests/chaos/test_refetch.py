"""What a kill -9 in the middle of a download costs: counted where the bytes come from."""

import random
import signal
from pathlib import Path

from reconciler.store.download import CHUNK_BYTES
from tests.bucket import read_files, run_fake_gcs
from tests.chaos.weather import run_skies
from tests.e2e.stage import GROUP, Stage, deployment, wait_until
from tests.faultproxy import Fault, FaultProxy, Request
from tests.savedmodels import write_savedmodel

_MIB = 1024 * 1024
_LARGE = {"assets/large": 40 * _MIB, "assets/other": 24 * _MIB}


def test_a_kill_costs_at_most_one_chunk_of_each_file_in_flight(tmp_path: Path) -> None:
    with run_fake_gcs() as endpoint, run_skies(1, endpoint) as (sky,):
        stage = Stage(tmp_path, endpoint, settings={"STORAGE_EMULATOR_HOST": sky.proxy.url})
        try:
            check(stage, sky.proxy)
        finally:
            stage.close()


def check(stage: Stage, proxy: FaultProxy) -> None:
    files = read_files(write_savedmodel(stage.folder / "export", 10))
    dice = random.Random(1)
    files |= {name: dice.randbytes(size) for name, size in _LARGE.items()}
    stage.bucket.put_version("1", files)
    size_bytes = sum(map(len, files.values()))

    def stall_in_the_middle(request: Request) -> Fault | None:
        if not (request.is_read and "assets" in request.decoded):
            return None
        return Fault(action="stall", after_bytes=dice.randint(13 * _MIB, 15 * _MIB))

    proxy.rules.append(stall_in_the_middle)
    stage.commit({"groups/g.yaml": GROUP}, deployment("ranker", 1))
    stage.start()
    # Three chunks stall near their ends; the shorter ones at the files' ends come whole.
    wait_until(lambda: arrived(stage) >= 3 * 12 * _MIB + 2 * 8 * _MIB, "all that comes to be here")
    stage.stop_agent(signal.SIGKILL)
    proxy.rules.remove(stall_in_the_middle)
    stage.start_agent()
    stage.wait_served("ranker", 1)
    installed = read_files(stage.models_dir / "ranker" / "1")
    assert installed == files
    again_bytes = proxy.read_bytes - size_bytes
    assert 0 < again_bytes <= len(_LARGE) * CHUNK_BYTES


def arrived(stage: Stage) -> int:
    progress = stage.deployment("ranker").get("progress") or {"done_bytes": 0}
    return int(progress["done_bytes"])
