"""Files from outside: archives, sums and requests of a version, and what lies in the folders."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from reconciler import memory_file, pause_file
from reconciler.errors import ReconcilerError, SettingsError
from reconciler.follow import trusted_file
from reconciler.membership.memory import MemberMemory
from reconciler.model import Query
from reconciler.serving.config_file import read_own
from reconciler.serving.golden import GoldenError, read_requests
from reconciler.settings import load_settings
from reconciler.sources.file import FileSource
from reconciler.sources.sums import parse_sums
from reconciler.status.changes import Change, Result
from reconciler.status.journal import Journal, render_change
from reconciler.store.manifest import read_manifest
from reconciler.store.store import Store
from tests.archives import PACKINGS, Packing, pack
from tests.bucket import WHOLE, write_files
from tests.fuzz.target import Target, allow
from tests.savedmodels import write_savedmodel
from tests.statuses import COMMIT

_OUT = "../" * 5
"""From where an archive is unpacked to, out of the models folder."""
_SETTINGS = b"repo: https://git.example.org/acme/fleet\ngit_interval: 15s\nconnections: 8\n"
_CONFIG = b"""\
model_config_list { config { name: "ranker" base_path: "/m/ranker" model_platform: "tensorflow"
  model_version_policy { specific { versions: 4 } } version_labels { key: "stable" value: 4 } } }
"""
_MANIFEST = b'{"source": "gs://b/m", "digest": "ab", "installed_at_seconds": 1, "files": [{"path":'
_MANIFEST += b' "a", "size_bytes": 1, "generation": 1, "crc32c": 7, "updated_seconds": 0.0}]}'
_MEMBERS = b'{"groups": {"g": [{"name": "n", "address": "n:80"}]}}'
_CHANGE = Change(1e9, COMMIT, "ranker", 3, 4, Result.DEPLOYED, "Serving", "it serves", 1.5)
_PAUSE = b'{"reason": "a repair", "until_seconds": 2000000000.0}'
_MEMORY: dict[str, Any] = {
    "models": {
        "ranker": {
            "admitted": "x",
            "good": {"labels": {"stable": 4}, "versions": [3, 4]},
            "proven": [3, 4],
            "resolved": {"gs://b/ranker": 4},
        }
    },
    "applied": {"id": "1" * 40, "author": "Ada", "subject": "Change", "time_seconds": 1.0},
}
_TRUSTED = {
    "origin": "o",
    "commit": "1" * 40,
    "signer": "ada",
    "signatures": {"mode": "head", "ssh": ["ada@example.org ssh-ed25519 AAAA"], "gpg": []},
}


def make_targets(folder: Path) -> Iterator[Target]:
    """Yield all targets; they write below `folder`."""
    for packing in PACKINGS:
        archives = tuple(pack(WHOLE, packing, within) for within in ("", "export/", _OUT))
        yield Target(f"an archive .{packing}", archives, partial(_unpack, folder, packing), True)
    write_savedmodel(folder / "export", 1.0, load_seconds=0.01)
    golden = (folder / "export/assets.extra/tf_serving_warmup_requests").read_bytes()
    sums = f"{'ab' * 32}  saved_model.pb\n{'cd' * 32}  variables/x\n".encode()
    yield Target("golden requests", (golden,), partial(_read_golden, folder))
    yield Target("SHA256SUMS", (sums,), partial(allow, parse_sums, ValueError))
    yield Target("a settings file", (_SETTINGS,), partial(_read_settings, folder))
    yield Target("models.config", (_CONFIG,), partial(_read_config, folder))
    memory = json.dumps(_MEMORY).encode()
    yield Target("memory.json", (memory,), partial(_read_memory, folder))
    yield Target("a manifest", (_MANIFEST,), partial(_read_manifest, folder))
    yield Target("members.json", (_MEMBERS,), partial(_read_members, folder))
    line = json.dumps(render_change(_CHANGE)).encode() + b"\n"
    yield Target("history.jsonl", (line * 3,), partial(_read_history, folder))
    yield Target("a pause", (_PAUSE,), partial(_read_pause, folder))
    trusted = json.dumps(_TRUSTED).encode()
    yield Target("trusted.json", (trusted,), partial(_read_trusted, folder))


def _unpack(folder: Path, packing: Packing, data: bytes) -> None:
    """Fetch an archive and hold what is on disk then against where it may be."""
    with tempfile.TemporaryDirectory(dir=folder) as text:
        within = Path(text)
        write_files(within / "source", {f"42.{packing}": data})
        before = sorted(folder.iterdir())

        async def fetch() -> None:
            store = Store(within / "models")
            source = FileSource()
            try:
                listing = source.list(Query(f"file://{within / 'source'}"))
                for snapshot in listing.snapshots.values():
                    await store.fetch("ranker", snapshot, source)
            except ReconcilerError as error:
                assert str(error).encode(), "an error that says nothing"
            finally:
                store.close()

        asyncio.run(fetch())
        assert sorted(folder.iterdir()) == before, "something came out of the models folder"
        assert {path.name for path in within.iterdir()} <= {"source", "models"}
        assert {path.name for path in (within / "source").rglob("*")} == {f"42.{packing}"}
        for path in (within / "models").rglob("*"):
            assert path.is_file() or path.is_dir(), f"{path} came out of an archive"
            assert not path.is_symlink(), f"the link {path} came out of an archive"


def _read_golden(folder: Path, data: bytes) -> None:
    (folder / "golden").write_bytes(data)
    read = partial(read_requests, folder, name="ranker@golden", version=42)
    allow(lambda _: read("golden"), GoldenError, data)


def _read_settings(folder: Path, data: bytes) -> None:
    path = folder / "settings.yaml"
    path.write_bytes(data)
    allow(lambda _: load_settings({}, {"RECONCILER_CONFIG": str(path)}), SettingsError, data)


def _read_config(folder: Path, data: bytes) -> None:
    (folder / "models.config").write_bytes(data)
    read_own(folder / "models.config", "/m")


def _read_memory(folder: Path, data: bytes) -> None:
    (folder / "memory.json").write_bytes(data)
    memory_file.load(folder / "memory.json")


def _read_manifest(folder: Path, data: bytes) -> None:
    (folder / "42.json").write_bytes(data)
    read_manifest(folder / "42.json")


def _read_members(folder: Path, data: bytes) -> None:
    (folder / "members.json").write_bytes(data)
    MemberMemory(folder / "members.json").load()


def _read_history(folder: Path, data: bytes) -> None:
    (folder / "history.jsonl").write_bytes(data)
    Journal(folder / "history.jsonl").read(10)


def _read_pause(folder: Path, data: bytes) -> None:
    (folder / "pause.json").write_bytes(data)
    pause_file.load(folder)


def _read_trusted(folder: Path, data: bytes) -> None:
    (folder / "trusted.json").write_bytes(data)
    trusted_file.load(folder / "trusted.json", "o")
