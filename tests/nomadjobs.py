"""Nomad job files as values: blocks with one label by name, `${var.x}` filled in.

Nomad itself leaves references that it does not know (`${node.…}`, `${NOMAD_…}`) for the client to
fill in; so does this.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hcl2

FOLDER = Path(__file__).parents[1] / "deploy" / "nomad"
DOCKER = FOLDER / "docker.nomad.hcl"
RAW_EXEC = FOLDER / "raw_exec.nomad.hcl"
_OPTIONS = hcl2.SerializationOptions(
    with_comments=False,
    explicit_blocks=False,
    strip_string_quotes=True,
    preserve_heredocs=False,
)
_VARIABLE = re.compile(r"\$\{var\.(\w+)\}")


@dataclass(frozen=True)
class NomadJob:
    """A job file read with values for its variables."""

    text: str
    declared: frozenset[str]
    used: frozenset[str]
    job: dict[str, Any]

    @property
    def group(self) -> dict[str, Any]:
        """The job's one group."""
        [(_, group)] = labelled(self.job["group"]).items()
        return group

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """The group's tasks by name."""
        return labelled(self.group["task"])


def read_job(path: Path, **values: str | int) -> NomadJob:
    """Return the job that the file at `path` describes; raises KeyError for a missing value."""
    text = path.read_text()
    parsed = read_hcl(text)
    declared = labelled(parsed["variable"])
    known = {name: item["default"] for name, item in declared.items() if "default" in item}
    unknown = values.keys() - declared.keys()
    if unknown:
        raise KeyError(f"{path} has no variable {', '.join(sorted(unknown))}")
    [(_, job)] = labelled(parsed["job"]).items()
    return NomadJob(
        text,
        frozenset(declared),
        frozenset(_VARIABLE.findall(str(job))),
        fill(job, {**known, **values}),
    )


def read_hcl(text: str) -> dict[str, Any]:
    """Return HCL as blocks in lists, by their kinds."""
    parsed: dict[str, Any] = hcl2.loads(text, serialization_options=_OPTIONS)
    return parsed


def labelled(blocks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return blocks with one label by that label."""
    merged: dict[str, dict[str, Any]] = {}
    for block in blocks:
        for label, body in block.items():
            if label in merged:
                raise ValueError(f"there are two blocks {label}")
            merged[label] = body
    return merged


def fill(value: Any, variables: dict[str, Any]) -> Any:
    """Put the variables' values in; a text that is nothing but a reference takes its type."""
    if isinstance(value, dict):
        return {key: fill(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, variables) for item in value]
    if not isinstance(value, str):
        return value
    whole = _VARIABLE.fullmatch(value)
    if whole:
        return variables[whole[1]]
    return _VARIABLE.sub(lambda found: str(variables[found[1]]), value.replace('\\"', '"'))
