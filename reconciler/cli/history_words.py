"""The words for what one entry of the audit trail changed. Pure."""

from collections.abc import Iterator, Mapping

from reconciler.history.read import Entry, State
from reconciler.model import VersionScheme


def headline(entry: Entry) -> str:
    """Return the change in a line: `ranker 41 -> 42 in search`."""
    before, after = entry.before, entry.after
    place = f"in {entry.group}"
    if before is None:
        return f"{entry.model} {_version(after)} {place}: created"
    if after is None:
        return f"{entry.model} {_version(before)} {place}: removed"
    if not after.is_readable:
        return f"{entry.model} {place}: broken"
    old, new = _versions(before, after)
    return f"{entry.model} {old if old == new else f'{old} -> {new}'} {place}"


def find_changes(entry: Entry) -> list[str]:
    """Return what else changed beside the version, a few words each."""
    before, after = entry.before, entry.after
    if after is None:
        return []
    if not after.is_readable:
        return ["cannot be read; the nodes keep to the text before it"]
    if before is None:
        return list(_flags(after))
    moves = list(_moves(before, after))
    if not before.is_readable:
        return [*moves, "can be read again", *_flags(after)]
    changes = [*moves, *_settings(before, after), *_locks(before, after)]
    same = _versions(before, after)
    if not changes and same[0] == same[1]:
        return ["nothing that is served: description, metadata, comments or layout"]
    return changes


def _version(state: State | None) -> str:
    if state is None or not state.is_readable:
        return "(unreadable)"
    if state.version is not None:
        return str(state.title)
    return "latest" if state.locked is None else f"{state.title} (latest)"


def _versions(before: State, after: State) -> tuple[str, str]:
    old, new = _version(before), _version(after)
    if old.endswith(" (latest)") and new.endswith(" (latest)"):
        return old.removesuffix(" (latest)"), new.removesuffix(" (latest)")
    return old, new


def _flags(state: State) -> Iterator[str]:
    if state.stop:
        yield "stopped"
    if state.suspend:
        yield "suspended"
    if state.replicas is not None:
        yield f"replicas {state.replicas}"
    yield from _labels({}, _name_labels(state))


def _moves(before: State, after: State) -> Iterator[str]:
    if before.group != after.group:
        yield f"moved from group {before.group} to {after.group}"
    if before.model != after.model:
        yield f"renamed from {before.model}"
    elif before.path.rpartition("/")[2] != after.path.rpartition("/")[2]:
        yield f"file renamed from {before.path}"


def _settings(before: State, after: State) -> Iterator[str]:
    if before.source != after.source:
        yield f"source {before.source} -> {after.source}"
    yield from _schemes(before.scheme, after.scheme)
    yield from _labels(_name_labels(before), _name_labels(after))
    if before.replicas != after.replicas:
        yield f"replicas {before.replicas or 'all'} -> {after.replicas or 'all'}"
    if before.stop != after.stop:
        yield "stopped" if after.stop else "started again"
    if before.suspend != after.suspend:
        yield "suspended" if after.suspend else "no longer suspended"
    if before.strategy != after.strategy:
        yield f"rollout {before.strategy} -> {after.strategy}"


def _schemes(before: VersionScheme, after: VersionScheme) -> Iterator[str]:
    if str(before) != str(after):
        yield f"version_scheme {before} -> {after}"
        return
    old, new = dict(before.names), dict(after.names)
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"name {name} = {new[name]} added"
        elif name not in new:
            yield f"name {name} = {old[name]} removed"
        elif old[name] != new[name]:
            yield f"name {name} = {old[name]} -> {new[name]}"


def _name_labels(state: State) -> dict[str, str]:
    return {label: state.scheme.show(version) for label, version in state.labels.items()}


def _labels(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for label in sorted(before.keys() | after.keys()):
        old, new = before.get(label), after.get(label)
        if old is None:
            yield f"label {label} {new}"
        elif new is None:
            yield f"label {label} removed (was {old})"
        elif old != new:
            yield f"label {label} {old} -> {new}"


def _locks(before: State, after: State) -> Iterator[str]:
    if before.lock_blob_id is None and after.lock_blob_id is not None:
        yield "locked"
    elif before.lock_blob_id is not None and after.lock_blob_id is None:
        yield "lock removed"
    elif before.locked == after.locked and before.locked_digest != after.locked_digest:
        yield f"other bytes locked for version {after.locked_name or after.locked}"
