"""What outlives a restart of the agent: a small JSON file in the state folder.

Only what cannot be read again from git, the bucket, the disk or the server: which versions have
served here, what a restart of the server may rely on, what `latest` last came to, which change was
begun, and which commit was last in force as a whole. Without the file the agent works; it then
knows no previous version to fall back on.

No step waits for it: what is remembered of a step is known only after it, so a kill in between has
always to be borne. The file is written beside the tick, which does not wait for the disk.
"""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any, TypeAlias

from reconciler.files import write_atomically
from reconciler.model import Ask, Commit
from reconciler.planning.memory import MAX_PROVEN, Memory, ModelMemory

_log = logging.getLogger(__name__)
_MAX_BYTES = 64 * 1024 * 1024
_Content: TypeAlias = tuple[dict[str, str], Commit | None]
"""Each model's line, and the commit."""


class MemoryFile:
    """Writes the file when something that belongs into it has changed, and not else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[str, tuple[ModelMemory, str]] = {}
        """Of each model what it was made from, so that only what is new is put into words."""
        self._written: _Content | None = None
        self._wanted: tuple[Memory, Commit | None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._has_failed = False

    def keep(self, memory: Memory, applied: Commit | None) -> bool:
        """See that the file comes to say this, beside the loop; return whether it says so already.

        To be called again until it does. A disk that is full or broken is said once, and holds
        nothing up.
        """
        self._wanted = memory, applied
        if self._writing is not None and not self._writing.done():
            return False
        content = self._phrase(memory, applied)
        if content == self._written:
            return True
        self._writing = asyncio.create_task(self._try_to_write(content))
        return False

    async def close(self) -> None:
        """Let the file say what it was last to say, if that can be had, before the program ends."""
        if self._writing is not None:
            await self._writing
        if self._wanted is not None and not self.keep(*self._wanted) and self._writing is not None:
            await self._writing

    def save(self, memory: Memory, applied: Commit | None) -> None:
        """Write the file here and now unless it says the same already; raises OSError."""
        content = self._phrase(memory, applied)
        if content != self._written:
            self._write(content)

    def _phrase(self, memory: Memory, applied: Commit | None) -> _Content:
        for name, known in memory.models.items():
            before = self._lines.get(name)
            if before is None or before[0] is not known:
                self._lines[name] = known, _dump_model(name, known)
        for name in self._lines.keys() - memory.models.keys():
            del self._lines[name]
        return {name: line for name, (_, line) in self._lines.items() if line}, applied

    async def _try_to_write(self, content: _Content) -> None:
        try:
            await asyncio.to_thread(self._write, content)
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:
                _log.warning("%s cannot be written, trying on: %s", self.path, error)
            self._has_failed = True

    def _write(self, content: _Content) -> None:
        lines, applied = content
        models = ",\n".join(lines[name] for name in sorted(lines))
        applied_text = json.dumps(_dump_commit(applied))
        text = f'{{"applied": {applied_text},\n"models": {{\n{models}\n}}}}\n'
        write_atomically(self.path, text.encode())
        self._written = content


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


def _dump_model(name: str, known: ModelMemory) -> str:
    """Return a model's line of the file, empty where nothing is kept of it."""
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
    return f" {json.dumps(name)}: {json.dumps(content, sort_keys=True)}"


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
