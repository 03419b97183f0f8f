"""The Nomad job in motion: what its tasks start, and the whole on a real Nomad where one is."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.services import free_port
from tests.e2e.stage import wait_until
from tests.gitserver import ConfigRemote
from tests.nomadjobs import FOLDER, RAW_EXEC, NomadJob, read_job
from tests.savedmodels import write_savedmodel

RECONCILER = Path(sys.executable).with_name("reconciler")


@contextmanager
def running(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


def fetch(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return json.load(answer)
    except (OSError, urllib.error.URLError):
        return None


def play(value: str, given: dict[str, str]) -> str:
    """Fill in what a Nomad client fills in."""
    for name, text in given.items():
        value = value.replace("${" + name + "}", text)
    assert "${" not in value, value
    return value


def command_of(job: NomadJob, task: str, given: dict[str, str]) -> list[str]:
    [config] = job.tasks[task]["config"]
    return [config["command"], *(play(item, given) for item in config["args"])]


def test_what_the_tasks_start_serves_a_model(tmp_path: Path) -> None:
    write_savedmodel(tmp_path / "source" / "ranker" / "1", 10)
    remote = ConfigRemote(tmp_path)
    remote.commit(
        {
            "groups/search.yaml": "nodes: [node-1]\n",
            "deployments/search/ranker.yaml": f"source: file://{tmp_path}/source/ranker\n"
            "version: 1\n",
        },
        "Serve ranker",
    )
    status, grpc, rest = free_port(), free_port(), free_port()
    job = read_job(
        RAW_EXEC,
        group="search",
        repo=remote.url,
        agent_command=str(RECONCILER),
        server_command=f"{RECONCILER} dev tf-serving --standin_predict=off",
        models_dir=f"{tmp_path}/models",
        state_dir=f"{tmp_path}/state",
    )
    given = {
        "node.unique.name": "node-1",
        "NOMAD_ADDR_status": f"127.0.0.1:{status}",
        "NOMAD_PORT_grpc": str(grpc),
        "NOMAD_PORT_rest": str(rest),
        "NOMAD_SECRETS_DIR": str(tmp_path),
    }
    for template in job.tasks["agent"]["template"]:
        Path(play(template["destination"], given)).write_text("")
    (tmp_path / "git-token").write_text("token")
    [env] = job.tasks["agent"]["env"]
    settings = {name: play(value, given) for name, value in env.items()}
    with (
        # The server first: it has to wait for the agent's file, whichever Nomad starts sooner.
        running(command_of(job, "server", given), dict(os.environ), tmp_path / "server.log"),
        running(
            command_of(job, "agent", given), {**os.environ, **settings}, tmp_path / "agent.log"
        ),
    ):
        wait_until(lambda: fetch(f"http://127.0.0.1:{status}/readyz"), "a ready agent")
        answer = wait_until(
            lambda: fetch(f"http://127.0.0.1:{rest}/v1/models/ranker/versions/1"),
            lambda: (tmp_path / "agent.log").read_text() + (tmp_path / "server.log").read_text(),
        )
        wait_until(
            lambda: (
                fetch(f"http://127.0.0.1:{rest}/v1/models/ranker/versions/1")[
                    "model_version_status"
                ][0]["state"]
                == "AVAILABLE"
            ),
            f"AVAILABLE after {answer}",
        )


@pytest.mark.timeout(600)
def test_the_script_plays_deploy_update_and_revert_on_a_real_nomad() -> None:
    if shutil.which("nomad") is None:
        pytest.skip("nomad is not on PATH: deploy/nomad/try.sh was NOT run")
    done = subprocess.run(
        [FOLDER / "try.sh"],
        env={**os.environ, "RECONCILER": str(RECONCILER)},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "version 1 is served again after the revert" in done.stdout
