"""Who takes part: the agent and its peers, each a command, with the settings that may suit it.

A peer has several settings where its speed depends on them; each is tried once and the fastest
is measured. Peers in Python may live in a virtualenv of their own, as their pins exclude ours:

    python3 -m venv .venv-peers && .venv-peers/bin/pip install -r bench/sync/peers.txt
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.sync.cases import BUCKET, PREFIX, Case

PEERS_BIN = Path(".venv-peers/bin")
OURS = "reconciler"
RCLONE = "rclone"
SINGLE_STREAM = "google-cloud-storage, plain"
_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 60


@dataclass(frozen=True)
class Setting:
    """One way to call a tool; `{target}`, `{endpoint}` and `{models}` are filled in."""

    label: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_loaded: bool = False
    """Whether its process is there before the work begins, see clock.py; others are started."""
    is_one_stream: bool = False
    """Whether a file comes over one connection alone."""

    def fill(self, case: Case, target: Path, endpoint: str) -> list[str]:
        """Return the command for a case."""
        words = {"target": str(target), "endpoint": endpoint}
        filled = [word.format(**words) for word in self.command if word != "{models}"]
        if "{models}" in self.command:
            filled += sorted({path.partition("/")[0] for path, _ in case.list_files()})
        return filled


@dataclass(frozen=True)
class Tool:
    """One competitor; `absent` says why it cannot take part."""

    name: str
    version: str
    settings: tuple[Setting, ...]
    absent: str = ""


def find_tools() -> list[Tool]:
    """Return all competitors, us first; those that are not installed say so."""
    version = _ask(["git", "describe", "--always"])
    peer_python = str(PEERS_BIN / "python") if (PEERS_BIN / "python").exists() else ""
    return [
        Tool(OURS, version, (_agent(is_loaded=True),)),
        Tool(f"{OURS}, started for it", version, (_agent(is_loaded=False),)),
        _find_rclone(),
        _find_gcloud(),
        _find_library("plain", ["1"]),
        _find_library("threads", ["8", "16"]),
        _find_library("transfer_manager", ["4", "8"]),
        _find_kserve(peer_python),
    ]


def _agent(*, is_loaded: bool) -> Setting:
    command = (sys.executable, "-m", "bench.sync.agent", "{target}", BUCKET, PREFIX, "{models}")
    return Setting("running already" if is_loaded else "a command", command, is_loaded=is_loaded)


def _find_rclone() -> Tool:
    program = shutil.which("rclone", path=os.pathsep.join([str(PEERS_BIN), os.environ["PATH"]]))
    if program is None:
        return Tool(RCLONE, "", (), "not installed (bench/sync/peers.txt, or apt-get)")
    program = str(Path(program).absolute())
    common = ("copy", f":gcs:{BUCKET}/{PREFIX}", "{target}", "--config", os.devnull)
    common += ("--gcs-anonymous", "--gcs-endpoint", "{endpoint}/storage/v1/", "--checkers", "16")
    common += ("--multi-thread-cutoff", "100M")
    settings = tuple(
        Setting(
            f"--transfers {transfers} --multi-thread-streams {streams}",
            (program, *common, "--transfers", transfers, "--multi-thread-streams", streams),
            is_one_stream=streams == "1",
        )
        for transfers, streams in (("4", "4"), ("8", "1"), ("16", "16"), ("32", "4"))
    )
    return Tool(RCLONE, _ask([program, "version"]).removeprefix("rclone "), settings)


def _find_gcloud() -> Tool:
    program = shutil.which("gcloud")
    if program is None:
        return Tool("gcloud storage cp", "", (), "not installed")
    command = (program, "storage", "cp", "-r", f"gs://{BUCKET}/{PREFIX}/*", "{target}", "--quiet")
    environment = {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": "{endpoint}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_PROJECT": "bench",
        "CLOUDSDK_STORAGE_SLICED_OBJECT_DOWNLOAD_MAX_COMPONENTS": "16",
    }
    threads = {
        "CLOUDSDK_STORAGE_PROCESS_COUNT": "1",
        "CLOUDSDK_STORAGE_THREAD_COUNT": "16",
    }
    settings = (
        Setting("its defaults", command, environment),
        Setting("1 process of 16 threads", command, environment | threads),
    )
    version = _ask([program, "--version"]).removeprefix("Google Cloud SDK ")
    return Tool("gcloud storage cp", version, settings)


def _find_library(way: str, counts: list[str]) -> Tool:
    version = _ask_package(sys.executable, "google-cloud-storage")
    settings = tuple(_client(sys.executable, way, count) for count in counts)
    return Tool(f"google-cloud-storage, {way}", version, settings)


def _find_kserve(python: str) -> Tool:
    version = _ask_package(python, "kserve-storage") if python else ""
    if not version:
        return Tool("kserve-storage", "", (), "not installed (bench/sync/peers.txt)")
    return Tool("kserve-storage", version, (_client(python, "kserve", "1"),))


def _client(python: str, way: str, count: str) -> Setting:
    command = (str(Path(python).absolute()), str(_ROOT / "bench/sync/clients.py"), way)
    environment = {"STORAGE_EMULATOR_HOST": "{endpoint}"}
    label = f"{count} workers" if count != "1" else "one by one"
    command = (*command, "{target}", BUCKET, PREFIX, count)
    return Setting(label, command, environment, True, way != "transfer_manager")


def _ask_package(python: str, name: str) -> str:
    return _ask([python, "-c", f"from importlib.metadata import version; print(version('{name}'))"])


def _ask(command: list[str]) -> str:
    """Return the first line that a command prints, nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
