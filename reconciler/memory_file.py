"""What outlives a restart of the agent: a small JSON file in the state folder.

Only what cannot be read again from git, the bucket, the disk or the server: which versions have
served here, what a restart of the server may rely on, what `latest` last came to, which change was
begun, and which commit was last in force as a whole. Without the file the agent works; it then
knows no previous version to fall back on.
"""

import json
import logging
from pathlib import Path
from typing import Any

from reconciler.files import write_atomically
from reconciler.model import Ask, Commit
from reconciler.planning.memory import MAX_PROVEN, Memory, ModelMemory

_log = logging.getLogger(__name__)
_MAX_BYTES = 64 * 1024 * 1024


class MemoryFile:
    """Writes the file when something that belongs into it has changed, and not else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts: dict[str, tuple[ModelMemory, str]] = {}
        """Of each model what it was made from, so that only what is new is put into words."""
        self._written: tuple[dict[str, str], Commit | None] | None = None

    def save(self, memory: Memory, applied: Commit | None) -> None:
        """Write the file unless it says the same already; raises OSError."""
        texts = {}
        for name, known in memory.models.items():
            before = self._texts.get(name)
            texts[name] = before if before and before[0] is known else (known, _dump_model(known))
        self._texts = texts
        lines = {name: text for name, (_, text) in texts.items() if text}
        if self._written == (lines, applied):
            return
        models = ",\n".join(f" {json.dumps(name)}: {lines[name]}" for name in sorted(lines))
        applied_text = json.dumps(_dump_commit(applied))
        text = f'{{"applied": {applied_text},\n"models": {{\n{models}\n}}}}\n'
        write_atomically(self.path, text.encode())
        self._written = lines, applied


def load(path: Path) -> tuple[Memory, Commit | None]:
    """Return what the file at `path` says; nothing where there is none or it is damaged."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("it is larger than such a file can be")
        content = json.loads(path.read_bytes())
        models = {str(name): _load_model(item) for name, item in content["models"].items()}
        return Memory(models=models), _load_commit(content["applied"])
    except FileNotFoundError:
        return Memory(), None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        _log.warning("%s cannot be used and is begun anew: %s", path, error)
        return Memory(), None


def _dump_model(known: ModelMemory) -> str:
    """Return what is kept of a model as JSON, empty where that is nothing."""
    if not (known.proven or known.resolved or known.good or known.admitted):
        return ""
    good = known.good
    content = {
        "admitted": known.admitted,
        "good": None
        if good is None
        else {"labels": dict(good.labels), "versions": sorted(good.versions)},
        "proven": list(known.proven),
        "resolved": dict(known.resolved),
    }
    return json.dumps(content, sort_keys=True)


def _load_model(item: dict[str, Any]) -> ModelMemory:
    good = item["good"]
    return ModelMemory(
        admitted=str(item.get("admitted", "")),  # files of earlier releases lack it
        proven=tuple(int(version) for version in item["proven"])[-MAX_PROVEN:],
        resolved={str(source): int(version) for source, version in item["resolved"].items()},
        good=None
        if good is None
        else Ask(
            frozenset(int(version) for version in good["versions"]),
            {str(label): int(version) for label, version in good["labels"].items()},
        ),
    )


def _dump_commit(commit: Commit | None) -> dict[str, Any] | None:
    if commit is None:
        return None
    return {
        "id": commit.id,
        "author": commit.author,
        "subject": commit.subject,
        "time_seconds": commit.time_seconds,
    }


def _load_commit(item: dict[str, Any] | None) -> Commit | None:
    if item is None:
        return None
    return Commit(
        str(item["id"]), str(item["author"]), str(item["subject"]), float(item["time_seconds"])
    )
