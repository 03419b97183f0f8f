"""SavedModels for the demo: real ones, whose answer names the version.

Every version computes y = x + version, so a prediction shows which one answered.
"""

import shutil
import struct
from pathlib import Path

from reconciler.demo.make_savedmodel import CONSTANT

_TEMPLATE = Path(__file__).parent / "savedmodel"


def write_model(folder: Path, version: int) -> None:
    """Write a SavedModel that adds `version` to `folder`."""
    shutil.copytree(_TEMPLATE, folder)
    path = folder / "saved_model.pb"
    constant, number = struct.pack("<f", CONSTANT), struct.pack("<f", float(version))
    path.write_bytes(path.read_bytes().replace(constant, number))


def write_broken_model(folder: Path) -> None:
    """Write what looks like a SavedModel from outside and fails to load."""
    shutil.copytree(_TEMPLATE, folder)
    path = folder / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:1000])
