"""Finds the data folders that live at the top of the repository and travel in the wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def data_folder(name: str) -> Path:
    """Return the folder `name` (`schema`, `example-config-repo`), installed or in a checkout."""
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def read_schema(name: str) -> bytes:
    """Return the JSON Schema `name` (`deployment`, `status`)."""
    return (data_folder("schema") / f"{name}.schema.json").read_bytes()
