"""The stand-in server, which writes down the bytes of all that it loads, and predicts cheaply.

Each load appends one line to CHAOS_LOADS: the model, the version, and the checksum of every file
that was there when the load began. Predictions are made without TensorFlow: the one variable of
the tests' models lies in the first bytes of its data file.
"""

import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import google_crc32c

from reconciler.serving.protocol.inference_pb2 import DT_FLOAT, TensorProto
from reconciler.standin import server
from reconciler.standin.flags import Flags
from reconciler.standin.loader import FolderLoader, LoadedModel
from reconciler.standin.program import run

_DATA = "variables/variables.data-00000-of-00001"


@dataclass(frozen=True)
class RecordingLoader:
    """Loads as the stand-in does, and notes what."""

    folders: FolderLoader
    record: Path

    def estimate(self, path: str) -> None:
        self.folders.estimate(path)

    def load(self, path: str) -> LoadedModel:
        folder = Path(path)
        sums = sum_up(folder)
        line = {"model": folder.parent.name, "version": int(folder.name), "files": sums}
        with self.record.open("a") as file:
            file.write(json.dumps(line) + "\n")
        model = self.folders.load(path)
        (value,) = struct.unpack("<f", (folder / _DATA).read_bytes()[:4])

        def add(feeds: Mapping[str, TensorProto], fetches: Sequence[str]) -> list[TensorProto]:
            ((x,),) = (tensor.float_val for tensor in feeds.values())
            return [TensorProto(dtype=DT_FLOAT, float_val=[x + value]) for _ in fetches]

        return replace(model, run=add)


def sum_up(folder: Path) -> dict[str, int]:
    """Return the checksum of every file below a folder."""
    return {
        str(path.relative_to(folder)): int(google_crc32c.value(path.read_bytes()))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make_loader(flags: Flags) -> RecordingLoader:
    folders = FolderLoader(frozenset({"serve"}), flags.standin_scripts)
    return RecordingLoader(folders, Path(os.environ["CHAOS_LOADS"]))


if __name__ == "__main__":
    server.make_loader = make_loader
    os._exit(run(sys.argv[1:]))
