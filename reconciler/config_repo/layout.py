"""Where the files of a config repo are, and where a file that is elsewhere was meant to be.

    fleet.yaml
    groups/<group>.yaml
    deployments/<group>/<model>.yaml
    deployments/<group>/<model>.lock.yaml

Other files (a README, a CI workflow) are left alone. YAML that was surely meant for the reconciler
but would never be read is a problem: a file that has no effect is the hardest mistake to see.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache

GROUP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_YAML_LIKE = (".yaml", ".yml", ".json")
_LOCK = ".lock"
_FOLDERS = ("groups", "deployments")


class Kind(StrEnum):
    """The kinds of file; the value is the stem of the schema's file name."""

    FLEET = "fleet"
    GROUP = "group"
    DEPLOYMENT = "deployment"
    LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Place:
    """What the path of a file says: its kind, its group, its model."""

    kind: Kind
    group: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A file that will not be read where it is, and a sentence on where it belongs."""

    message: str


@lru_cache(maxsize=65_536)
def locate(path: str) -> Place | Misplaced | None:
    """Return what the file at `path` is; None where it is none of the reconciler's business."""
    parts = path.split("/")
    stem, dot, suffix = parts[-1].rpartition(".")
    if any(part.startswith(".") for part in parts) or dot + suffix.lower() not in _YAML_LIKE:
        return None
    right = _right_path(parts, stem)
    if right is None:
        return None
    if path != right:
        return Misplaced(f"a file here is never read; move it to {right}")
    match parts:
        case ["groups", _]:
            return _checked(GROUP_NAME, stem, Place(Kind.GROUP, group=stem))
        case ["deployments", group, _] if stem.endswith(_LOCK):
            place = Place(Kind.LOCK, group=group, model=stem.removesuffix(_LOCK))
            return _checked(GROUP_NAME, group, place)
        case ["deployments", group, _]:
            return _checked(GROUP_NAME, group, Place(Kind.DEPLOYMENT, group=group, model=stem))
    return Place(Kind.FLEET)


def lock_path(path: str) -> str:
    """Return where the lock of the deployment at `path` is."""
    return f"{path.removesuffix('.yaml')}{_LOCK}.yaml"


def belongs(path: str) -> bool:
    """Tell whether whatever is at `path`, a link or a submodule too, stands in our folders."""
    return path == "fleet.yaml" or path.split("/")[0] in _FOLDERS


def _right_path(parts: list[str], stem: str) -> str | None:
    if len(parts) == 1:
        return "fleet.yaml" if get_close_matches(stem.lower(), ("fleet",), cutoff=0.8) else None
    match _nearest_folder(parts[0]), parts:
        case "groups", [_, _]:
            return f"groups/{stem}.yaml"
        case "groups", [_, group, *_]:
            return f"groups/{stem}.yaml (a group) or deployments/{group}/{stem}.yaml (a deployment)"
        case "deployments", [_, _]:
            return f"deployments/<group>/{stem}.yaml"
        case "deployments", [_, group, *_]:
            return f"deployments/{group}/{stem}.yaml"
    return None


def _nearest_folder(name: str) -> str | None:
    if name in _FOLDERS:
        return name
    return next(iter(get_close_matches(name.lower(), _FOLDERS, n=1, cutoff=0.75)), None)


def _checked(pattern: re.Pattern[str], name: str, place: Place) -> Place | Misplaced:
    if pattern.fullmatch(name):
        return place
    return Misplaced(
        f"{name!r} cannot be a group's name, so the file is not read; use letters, digits, dots,"
        " hyphens and underscores, 63 at most"
    )
