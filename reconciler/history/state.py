"""What a deployment's files said at one commit, read as leniently as an audit must.

The rules of schemas and other files are left out: a trail is about what was written, and 10,000
texts are to be read in seconds. What cannot be understood is a state too, and hides no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from reconciler.config_repo.layout import MODEL_NAME, Place, locate
from reconciler.config_repo.schemes import build_scheme
from reconciler.config_repo.yaml_text import read_yaml
from reconciler.history.trail import Files
from reconciler.model import Rule, Strategy, VersionScheme
from reconciler.model.scheme import check_pattern


@dataclass(frozen=True, slots=True)
class State:
    """What one deployment's files said after a commit."""

    group: str
    model: str
    path: str
    """Path of the deployment's file in the config."""
    blob_id: str
    lock_blob_id: str | None = None
    """None where there was no lock file."""
    is_readable: bool = True
    """False where the text of the file or its lock was broken; the fields below say nothing then,
    and the nodes kept to the last good text."""
    scheme: VersionScheme = field(default_factory=VersionScheme)
    """How versions are named."""
    version: int | None = None
    """The pinned version; None is `latest`."""
    locked: int | None = None
    """What the lock said that `version` came to; None where there was no lock."""
    locked_digest: str | None = None
    """Of that version's bytes, hex sha256."""
    locked_name: str | None = None
    """What the lock calls that version; None where that is its number."""
    source: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    replicas: int | None = None
    """None is `all`."""
    stop: bool = False
    suspend: bool = False
    strategy: Strategy = Strategy.OVERLAP

    @property
    def serves(self) -> int | None:
        """The version that was asked for; None where only each node knew what `latest` was."""
        return self.locked if self.version is None else self.version

    @property
    def title(self) -> str | None:
        """What that version is called; None where there is none."""
        if self.version is not None:
            return self.scheme.show(self.version)
        return self.locked_name or (None if self.locked is None else str(self.locked))


class _UnreadableError(Exception):
    """A text is not what a deployment or a lock can be."""


def read_state(files: Files, data: bytes, lock_data: bytes | None) -> State:
    """Return what `data`, the deployment's text, and that of its lock say; never raises."""
    group, model = _names_by_path(files.path)
    nothing = State(group, model, files.path, files.blob_id, files.lock_blob_id, is_readable=False)
    try:
        written = _read_fields(data)
        lock = None if lock_data is None else _read_fields(lock_data)
        scheme = _read_scheme(written)
        labels = _take(written, "labels", dict, {})
        locked, locked_name = (None, None) if lock is None else _read_locked(lock)
        return State(
            group,
            _model(written, model),
            files.path,
            files.blob_id,
            files.lock_blob_id,
            scheme=scheme,
            version=None if written.get("version") == "latest" else _version(written, scheme),
            locked=locked,
            locked_digest=None if lock is None else _read_digest(lock),
            locked_name=locked_name,
            source=_take(written, "source", str, None).rstrip("/"),
            labels={label: _parse(name, scheme) for label, name in sorted(labels.items())},
            replicas=_replicas(written),
            stop=_take(written, "stop", bool, False),
            suspend=_take(written, "suspend", bool, False),
            strategy=_strategy(written),
        )
    except _UnreadableError:
        return nothing


def read_names(path: str, data: bytes) -> tuple[str, str]:
    """Return the group and the model that the deployment at `path` is about; never raises."""
    group, model = _names_by_path(path)
    if b"model" not in data:  # as most are, and reading YAML takes its time
        return group, model
    try:
        return group, _model(_read_fields(data), model)
    except _UnreadableError:
        return group, model


def _names_by_path(path: str) -> tuple[str, str]:
    place = locate(path)
    assert isinstance(place, Place)  # only deployments come here  # noqa: S101
    return place.group, place.model


@lru_cache(maxsize=1000)  # a text is met again in the next change, a lock's in several
def _read_fields(data: bytes) -> Mapping[str, Any]:
    text = read_yaml(data)
    if text.mistakes or not isinstance(text.value, dict):
        raise _UnreadableError
    return text.value


def _model(fields: Mapping[str, Any], default: str) -> str:
    model: str = _take(fields, "model", str, default)
    return model if MODEL_NAME.fullmatch(model) else default


def _take(fields: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """Return a field of one kind; one that is missing and has no default is not readable."""
    value = fields.get(name, default)
    if type(value) is not kind:
        raise _UnreadableError
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    number: int = _take(fields, name, int, None)
    return number


def _read_scheme(fields: Mapping[str, Any]) -> VersionScheme:
    try:
        scheme = build_scheme(fields.get("version_scheme", Rule.NUMBER))
    except (TypeError, ValueError, KeyError, AttributeError):
        raise _UnreadableError from None
    numbers = [number for _, number in scheme.names]
    is_pattern = type(scheme.pattern) is str and not check_pattern(scheme.pattern)
    if scheme.rule is Rule.DATES and not is_pattern:
        raise _UnreadableError
    if any(type(number) is not int for number in numbers) or len({*numbers}) < len(numbers):
        raise _UnreadableError
    return scheme


def _version(fields: Mapping[str, Any], scheme: VersionScheme) -> int:
    return _parse(fields.get("version"), scheme)


def _parse(written: object, scheme: VersionScheme) -> int:
    if scheme.rule is Rule.NUMBER:
        version = written if type(written) is int else None
    else:
        version = scheme.parse(written) if isinstance(written, str) else None
    if version is None:
        raise _UnreadableError
    return version


def _read_locked(lock: Mapping[str, Any]) -> tuple[int, str | None]:
    """Return the number of the version that a lock came to, and its name if it has one."""
    written = lock.get("version")
    if isinstance(written, str):
        for entry in _take(lock, "locked", list, []):
            if isinstance(entry, dict) and entry.get("version") == written:
                return _number(entry, "number"), written
    return _number(lock, "version"), None


def _replicas(fields: Mapping[str, Any]) -> int | None:
    return None if fields.get("replicas", "all") == "all" else _number(fields, "replicas")


def _strategy(fields: Mapping[str, Any]) -> Strategy:
    rollout = _take(fields, "rollout", dict, {})
    try:
        return Strategy(rollout.get("strategy", Strategy.OVERLAP))
    except ValueError:
        raise _UnreadableError from None


def _read_digest(lock: Mapping[str, Any]) -> str | None:
    for entry in _take(lock, "locked", list, []):
        if isinstance(entry, dict) and entry.get("version") == lock.get("version"):
            digest: str = _take(entry, "digest", str, None)
            return digest.removeprefix("sha256:")
    return None
