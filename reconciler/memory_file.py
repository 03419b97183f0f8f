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


def save(path: Path, memory: Memory, applied: Commit | None, written: bytes | None) -> bytes:
    """Write the file at `path` unless it says the same already; return what it says.

    `written` is what an earlier call returned, None before the first.
    """
    content = json.dumps(
        {"models": _dump_models(memory), "applied": _dump_commit(applied)}, indent=1, sort_keys=True
    ).encode()
    if content != written:
        write_atomically(path, content)
    return content


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


def _dump_models(memory: Memory) -> dict[str, Any]:
    return {
        name: {
            "admitted": known.admitted,
            "proven": list(known.proven),
            "resolved": dict(known.resolved),
            "good": None
            if known.good is None
            else {"versions": sorted(known.good.versions), "labels": dict(known.good.labels)},
        }
        for name, known in memory.models.items()
        if known.proven or known.resolved or known.good or known.admitted
    }


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
