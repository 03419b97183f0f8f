"""The judge of a run: what must hold, and whether what was noted meanwhile says that it did."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.model import Ask
from reconciler.serving.config_file import parse
from tests.chaos.recording_server import sum_up
from tests.chaos.script import BROKEN, CRASHING

Bytes = Mapping[str, int]
"""File -> crc32c."""


class BrokenError(AssertionError):
    """Something that is promised did not hold."""


@dataclass
class Lines:
    """A file to which others append JSON lines, read on from where it was read last."""

    path: Path
    _at: int = 0

    def read(self) -> list[Any]:
        """Return what is new."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._at)
            whole, _, _ = file.read().rpartition(b"\n")
        self._at += len(whole) + 1 if whole else 0
        return [json.loads(line) for line in whole.splitlines()]


@dataclass
class Judge:
    """Holds what the agent and the server noted against what was published and asked."""

    models_dir: Path
    loads: Lines
    journal: Lines
    published: dict[tuple[str, int], Bytes] = field(default_factory=dict)
    points: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    loaded: int = 0
    removed: int = 0

    def check(self, wanted: Mapping[str, frozenset[int]]) -> None:
        """Raise BrokenError for anything that was noted and should not have been.

        `wanted` names the versions that every commit since the last look asked for.
        """
        for load in self.loads.read():
            self.loaded += 1
            key = (load["model"], load["version"])
            _check_bytes(f"the server loaded {key}", load["files"], self.published[key])
        for entry in self.journal.read():
            if "point" in entry:
                self.points[entry["point"]] += 1
            elif "died_at" in entry:
                self.deaths[entry["died_at"]] += 1
            elif "touched" in entry:
                raise BrokenError(f"{entry['touched']} was changed where the server reads it")
            else:
                self.removed += 1
                _check_removal(entry, wanted)
        self._check_disk()

    def _check_disk(self) -> None:
        """Every version on disk is whole, and what the server would start from is there."""
        for model, version in list_versions(self.models_dir):
            folder = self.models_dir / model / str(version)
            sums = sum_up(folder)
            if folder.exists():
                _check_bytes(f"{folder} holds", sums, self.published[model, version])
        config = parse((self.models_dir / "models.config").read_text())
        if config is None:
            raise BrokenError("models.config cannot be read")
        for model, ask in config.items():
            for version in ask.versions:
                if not (self.models_dir / model / str(version)).is_dir():
                    raise BrokenError(f"models.config names {model} {version}, which is not there")


def list_versions(models_dir: Path) -> Iterable[tuple[str, int]]:
    """Yield the versions that TensorFlow Serving would see."""
    for folder in models_dir.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            for entry in folder.iterdir():
                if entry.name.isdecimal():
                    yield folder.name, int(entry.name)


def _check_bytes(what: str, found: Bytes, published: Bytes) -> None:
    if found != published:
        names = found.keys() | published.keys()
        wrong = sorted(name for name in names if found.get(name) != published.get(name))
        raise BrokenError(f"{what} with other bytes than were published: {', '.join(wrong)}")


def _check_removal(entry: Mapping[str, Any], wanted: Mapping[str, frozenset[int]]) -> None:
    model, version = entry["removed"]
    states = entry["states"]
    what = f"{model} {version} was deleted"
    if version in wanted.get(model, frozenset()):
        raise BrokenError(f"{what} although every commit asks for it")
    if states is None:
        raise BrokenError(f"{what} while the server did not answer")
    if states.get(str(version), "END") not in ("END", "START"):
        raise BrokenError(f"{what} while the server has it: {states}")
    config = parse(entry["config"]) or {}
    if version in config.get(model, Ask(frozenset())).versions:
        raise BrokenError(f"{what} while models.config names it")
    never_served = version in (BROKEN, CRASHING)
    if model in wanted and "AVAILABLE" not in states.values() and not never_served:
        raise BrokenError(f"{what}, the last good one, while none of the model answers: {states}")
