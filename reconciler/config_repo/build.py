"""From the fields of a valid document to the words of the model."""

import re
from collections.abc import Mapping
from typing import Any

from reconciler.config_repo.documents import Document
from reconciler.config_repo.layout import Place
from reconciler.config_repo.schemes import build_scheme, parse_written
from reconciler.model import (
    Deployment,
    Golden,
    Group,
    Lock,
    LockedVersion,
    Member,
    Membership,
    Quota,
    Registry,
    Rollout,
    Rule,
    ServerSpec,
    Strategy,
    Wave,
)
from reconciler.policy import Freeze, Policy, SignatureMode, Signatures
from reconciler.settings import parse_duration

_SIZE = re.compile(r"([0-9.]+) ?([A-Za-z]+)")
_ALL_MODELS = 1_000_000
WARMUP_REQUESTS = "assets.extra/tf_serving_warmup_requests"
"""Where TensorFlow Serving looks for requests to warm a version up with."""
_GOLDEN_WITHIN_SECONDS = 1.0
_PLAIN_ROLLOUT = Rollout()
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
        requires_lock=fields.get("lock") == "required",
        freezes=tuple(_build_freeze(entry) for entry in fields.get("freezes", ())),
        signatures=_build_signatures(fields.get("signatures", {})),
        handover_timeout_seconds=_parse_time(
            fields, "handover_timeout", default.handover_timeout_seconds
        ),
        drain_seconds=_parse_time(fields, "drain", default.drain_seconds),
        member_timeout_seconds=_parse_time(
            fields, "member_timeout", default.member_timeout_seconds
        ),
    )


def build_group(path: str, place: Place, document: Document) -> Group:
    """Return the group that the file at `path` describes."""
    fields = document.fields
    quota, nodes = fields.get("quota", {}), fields["nodes"]
    return Group(
        name=place.group,
        path=path,
        nodes=tuple(_build_member(entry) for entry in nodes) if isinstance(nodes, list) else (),
        quota=Quota(
            disk_bytes=_parse_size(quota["disk"]) if "disk" in quota else None,
            models=quota.get("models"),
            memory_bytes=_parse_size(quota["memory"]) if "memory" in quota else None,
        ),
        enabled=fields.get("enabled", True),
        suspend=fields.get("suspend", False),
        membership=None if isinstance(nodes, list) else _build_membership(nodes),
        serving=_build_server(fields["serving"]) if "serving" in fields else None,
    )


def build_deployment(
    path: str, place: Place, document: Document, lock: Lock | None = None
) -> Deployment:
    """Return the deployment that the file at `path` describes."""
    fields = document.fields
    version, replicas = fields["version"], fields.get("replicas", "all")
    scheme = build_scheme(fields.get("version_scheme", Rule.NUMBER))
    return Deployment(
        model=fields.get("model", place.model),
        group=place.group,
        path=path,
        source=fields["source"].rstrip("/"),
        version=None if version == "latest" else parse_written(version, scheme),
        labels={
            label: parse_written(name, scheme) for label, name in fields.get("labels", {}).items()
        },
        replicas=None if replicas == "all" else replicas,
        stop=fields.get("stop", False),
        suspend=fields.get("suspend", False),
        lock=lock,
        rollout=_build_rollout(fields["rollout"]) if "rollout" in fields else _PLAIN_ROLLOUT,
        description=fields.get("description", ""),
        metadata=fields.get("metadata", {}),
        scheme=scheme,
    )


def build_lock(path: str, document: Document) -> Lock:
    """Return the lock that the file at `path` holds."""
    fields = document.fields
    numbers = {
        entry["version"]: entry.get("number", entry["version"]) for entry in fields["locked"]
    }
    versions = [
        LockedVersion(
            version=numbers[entry["version"]],
            files=entry["files"],
            size_bytes=entry["bytes"],
            digest=entry["digest"].removeprefix("sha256:"),
            sha256=entry.get("sha256", {}),
            name=entry["version"] if isinstance(entry["version"], str) else None,
        )
        for entry in fields["locked"]
    ]
    return Lock(
        path=path,
        model=fields["model"],
        source=fields["source"].rstrip("/"),
        version=numbers.get(fields["version"], fields["version"]),
        versions={locked.version: locked for locked in versions},
    )


def _build_freeze(fields: Mapping[str, Any]) -> Freeze:
    return Freeze(
        start=fields["start"],
        duration_seconds=parse_duration(fields["duration"]),
        timezone=fields["timezone"],
        reason=fields["reason"],
        groups=frozenset(fields.get("groups", ())),
    )


def _build_signatures(fields: Mapping[str, Any]) -> Signatures:
    return Signatures(
        mode=SignatureMode(fields.get("mode", SignatureMode.OFF)),
        ssh=tuple(fields.get("ssh", ())),
        gpg=tuple(fields.get("gpg", ())),
    )


def _build_member(entry: Any) -> Member:
    if isinstance(entry, str):
        return Member(entry)
    return Member(
        name=entry["name"],
        address=entry.get("address"),
        weight=entry.get("weight", 1.0),
        grpc=entry.get("grpc"),
        rest=entry.get("rest"),
    )


def _build_membership(fields: Mapping[str, Any]) -> Membership:
    registry = next(registry for registry in Registry if registry in fields)
    return Membership(registry, fields[registry], fields["port"], tls=fields.get("tls", False))


def _build_server(fields: Mapping[str, Any]) -> ServerSpec:
    flags = fields.get("flags")
    return ServerSpec(fields.get("image"), None if flags is None else tuple(flags))


def _build_rollout(fields: Mapping[str, Any]) -> Rollout:
    golden = fields.get("golden")
    return Rollout(
        strategy=Strategy(fields.get("strategy", Strategy.OVERLAP)),
        waves=tuple(_build_wave(entry) for entry in fields.get("waves", ())),
        pause_seconds=_parse_time(fields, "pause", 0.0),
        golden=None
        if golden is None
        else Golden(
            path=golden.get("requests", WARMUP_REQUESTS),
            within_seconds=_parse_time(golden, "within", _GOLDEN_WITHIN_SECONDS),
        ),
    )


def _build_wave(entry: int | str) -> Wave:
    if isinstance(entry, int):
        return Wave(entry)
    return Wave(int(entry.removesuffix("%")), is_percent=True)


def _parse_time(fields: Mapping[str, Any], name: str, default: float) -> float:
    return parse_duration(fields[name]) if name in fields else default


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
