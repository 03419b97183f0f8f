"""The plan for machines: one object with these keys, in this order.

schema_version   1; grows when a key goes or changes its meaning, not when one is added
base, head       id, author, subject, time_seconds of the two commits; the id of the files as
                 they lie is "worktree"
summary          the change in one line
possible         whether the head can be carried out as it is; the exit code says the same
models_changed, nodes_changed, download_bytes (on all nodes together), sizes_known
actions          a list, by group and model:
    group, model, path, nodes
    version_before, version_after   null where none is served; -1 where nobody can tell
    downloads, deletions            version, files, bytes (null where unknown), on each node
    reused                          versions that are still on disk and not downloaded
    loads, unloads                  versions
    labels                          label, version_before, version_after
    gap                             whether a node serves no version of it in between
    version_names                   number -> name, where versions are not called by their numbers
    trouble                         why it does not come to be as the head says, or null
servers          a list, by group, of changes of its `serving`:
    group, path, nodes
    image_before, image_after       null where git leaves the image as it is
    flags_before, flags_after       null where git leaves the flags as they are
    flags_added, flags_removed
    replaces                        whether servers have to be replaced for it
    sentence                        in which order, and on which nodes
usages           a list, by group: group, nodes, quotas (each kind, before, after, peak, quota,
                 fits, unsized; kind `models` counts, `disk` and `memory` are bytes)
remarks          a list, the gravest first: level (problem, warning, note), reason, sentence,
                 group, model, nodes
problems         what is wrong in the head's files: path, line, column, message
"""

import json
from typing import Any

from reconciler.model import Commit
from reconciler.preview.catalog import Bytes
from reconciler.preview.report import ModelAction, NodeUsage, Preview, ServerChange
from reconciler.preview.wording import show_course, summarize

SCHEMA_VERSION = 1


def render_json(preview: Preview) -> str:
    """Return the plan as one JSON object."""
    return json.dumps(to_json(preview), indent=2) + "\n"


def to_json(preview: Preview) -> dict[str, Any]:
    """Return the plan as values that JSON has."""
    return {
        "schema_version": SCHEMA_VERSION,
        "base": _commit(preview.base),
        "head": _commit(preview.head),
        "summary": summarize(preview),
        "possible": preview.is_possible,
        "models_changed": len(preview.models),
        "nodes_changed": len(preview.nodes),
        "download_bytes": preview.download_bytes,
        "sizes_known": preview.is_sized,
        "actions": [_action(found) for found in preview.actions],
        "servers": [_server(change) for change in preview.servers],
        "usages": [_usage(usage) for usage in preview.usages],
        "remarks": [
            {
                "level": remark.level.value,
                "reason": remark.reason,
                "sentence": remark.sentence,
                "group": remark.group,
                "model": remark.model,
                "nodes": list(remark.nodes),
            }
            for remark in preview.remarks
        ],
        "problems": [
            {"path": p.path, "line": p.line, "column": p.column, "message": p.message}
            for p in preview.problems
        ],
    }


def _commit(commit: Commit) -> dict[str, Any]:
    return {
        "id": commit.id,
        "author": commit.author,
        "subject": commit.subject,
        "time_seconds": commit.time_seconds,
    }


def _action(found: ModelAction) -> dict[str, Any]:
    action = found.action
    return {
        "group": action.group,
        "model": action.model,
        "path": action.path,
        "nodes": list(found.nodes),
        "version_before": action.before,
        "version_after": action.after,
        "downloads": [_bytes(item) for item in action.downloads],
        "reused": list(action.reused),
        "loads": list(action.loaded),
        "unloads": list(action.unloaded),
        "deletions": [_bytes(item) for item in action.deleted],
        "labels": [
            {"label": move.label, "version_before": move.before, "version_after": move.after}
            for move in action.labels
        ],
        "gap": action.has_gap,
        "trouble": action.trouble,
        "version_names": {str(version): name for version, name in action.names},
    }


def _bytes(item: Bytes) -> dict[str, Any]:
    return {"version": item.version, "files": item.files, "bytes": item.size_bytes}


def _server(change: ServerChange) -> dict[str, Any]:
    return {
        "group": change.group,
        "path": change.path,
        "nodes": list(change.nodes),
        "image_before": change.image_before,
        "image_after": change.image_after,
        "flags_before": None if change.flags_before is None else list(change.flags_before),
        "flags_after": None if change.flags_after is None else list(change.flags_after),
        "flags_added": list(change.flags_added),
        "flags_removed": list(change.flags_removed),
        "replaces": change.replaces,
        "sentence": show_course(change),
    }


def _usage(found: NodeUsage) -> dict[str, Any]:
    return {
        "group": found.group,
        "nodes": list(found.nodes),
        "quotas": [
            {
                "kind": usage.kind,
                "before": usage.before,
                "after": usage.after,
                "peak": usage.peak,
                "quota": usage.quota,
                "fits": usage.fits,
                "unsized": list(usage.unsized),
            }
            for usage in found.usages
        ],
    }
