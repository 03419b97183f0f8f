"""From the fields of a valid document to the words of the model."""

import re
from typing import Any

from reconciler.config_repo.documents import Document
from reconciler.config_repo.layout import Place
from reconciler.model import Deployment, Group, Member, Policy, Quota, Strategy

_SIZE = re.compile(r"([0-9.]+) ?([A-Za-z]+)")
_ALL_MODELS = 1_000_000
_UNIT_BYTES = {
    **{unit: 1000**power for power, unit in enumerate(("B", "kB", "MB", "GB", "TB"))},
    **{unit: 1024**power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))},
    "KB": 1000,
}


def build_policy(document: Document) -> Policy:
    """Return what fleet.yaml says."""
    fields = document.fields
    default = Policy()
    return Policy(
        keep=fields.get("keep", default.keep),
        max_removals=_parse_share(fields.get("max_removals", default.max_removals)),
        allow_empty=fields.get("allow_empty", default.allow_empty),
    )


def build_group(path: str, place: Place, document: Document) -> Group:
    """Return the group that the file at `path` describes."""
    fields = document.fields
    quota = fields.get("quota", {})
    return Group(
        name=place.group,
        path=path,
        nodes=tuple(_build_member(entry) for entry in fields["nodes"]),
        quota=Quota(
            disk_bytes=_parse_size(quota["disk"]) if "disk" in quota else None,
            models=quota.get("models"),
        ),
        enabled=fields.get("enabled", True),
    )


def build_deployment(path: str, place: Place, document: Document) -> Deployment:
    """Return the deployment that the file at `path` describes."""
    fields = document.fields
    version, replicas = fields["version"], fields.get("replicas", "all")
    return Deployment(
        model=fields.get("model", place.model),
        group=place.group,
        path=path,
        source=fields["source"].rstrip("/"),
        version=None if version == "latest" else version,
        labels=fields.get("labels", {}),
        replicas=None if replicas == "all" else replicas,
        stop=fields.get("stop", False),
        strategy=Strategy(fields.get("rollout", {}).get("strategy", Strategy.OVERLAP)),
        description=fields.get("description", ""),
        # As written: 1.10 stays 1.10, where the number would say 1.1.
        metadata={
            name: document.spots["metadata", name].text for name in fields.get("metadata", {})
        },
    )


def _build_member(entry: Any) -> Member:
    if isinstance(entry, str):
        return Member(entry)
    return Member(entry["name"], entry.get("address"))


def _parse_share(written: float | int | str) -> float:
    if isinstance(written, str):
        percent = int(written.removesuffix("%"))
        # From 1 on it is a number of models, so "100%" is more than any node has.
        return _ALL_MODELS if percent == 100 else percent / 100
    return written


def _parse_size(written: int | str) -> int:
    if isinstance(written, int):
        return written
    parts = _SIZE.fullmatch(written)
    assert parts is not None  # the schema's pattern  # noqa: S101
    return int(float(parts[1]) * _UNIT_BYTES[parts[2]])
