"""The phrases that the plan for people and the one for a pull request have in common."""

from collections.abc import Iterable, Iterator, Sequence

from reconciler.config_repo.checkout import show_id
from reconciler.model import Commit
from reconciler.planning.wording import format_bytes
from reconciler.preview.catalog import Bytes
from reconciler.preview.remarks import OVER_QUOTA
from reconciler.preview.report import Action, Preview, ServerChange, Usage

MEANWHILE = (
    "what such a file said last, while it was good, stays in force, and no model is removed"
    " meanwhile"
)
"""What nodes do with files that have problems."""
_NAMED_NODES = 12


def summarize(preview: Preview) -> str:
    """Return the change in one line: "2 models change on 3 nodes: 1.2 GB to download, fits"."""
    models, nodes = preview.models, preview.nodes
    if not models and preview.servers:
        text = _summarize_servers(preview.servers)
    elif not models:
        text = "no node does anything"
    else:
        change = "changes" if len(models) == 1 else "change"
        text = f"{count(len(models), 'model')} {change} on {count(len(nodes), 'node')}: "
        text += _summarize_download(preview)
    if any(remark.reason == OVER_QUOTA for remark in preview.remarks):
        text += ", does not fit"
    elif preview.usages and models:
        is_sized = not any(usage.unsized for found in preview.usages for usage in found.usages)
        text += ", fits" if is_sized else ", fits as far as sizes are known"
    if models and preview.servers:
        text += f"; {_summarize_servers(preview.servers)}"
    if preview.problems:
        text += f"; {count(len(preview.problems), 'problem')} in the files"
    elif not preview.is_possible:
        text += "; it cannot be carried out as it is"
    return text


def _summarize_servers(changes: Sequence[ServerChange]) -> str:
    if len(changes) == 1:
        return f"git asks for another server in group {changes[0].group}"
    return f"git asks for other servers in {len(changes)} groups"


def _summarize_download(preview: Preview) -> str:
    if not any(found.action.downloads for found in preview.actions):
        return "nothing to download"
    if preview.is_sized:
        return f"{format_bytes(preview.download_bytes)} to download"
    if preview.download_bytes:
        return f"more than {format_bytes(preview.download_bytes)} to download, not all sizes known"
    return "a download of unknown size"


def headline(action: Action) -> str:
    """Return what the model goes from and to: `41 -> 42`, `new, 42`, `42 -> none`."""
    if action.before is None and action.after is not None:
        return f"none -> {action.show(action.after)}"
    if action.before == action.after or (action.is_idle and action.after is None):
        return action.show(action.before)
    return f"{action.show(action.before)} -> {action.show(action.after)}"


def list_doings(action: Action) -> Iterator[tuple[str, str]]:
    """Yield what a node does for the model, each as a verb and its object."""
    if action.is_idle:
        yield "nothing", "no node does anything for it"
    for item in action.downloads:
        yield "download", show_bytes(action, item)
    for version in action.reused:
        yield "reuse", f"{action.show(version)}: nothing is downloaded, it is still on disk"
    if action.loaded:
        yield "load", show_versions(action, action.loaded)
    for move in action.labels:
        yield "label", f"{move.label} {action.show(move.before)} -> {action.show(move.after)}"
    if action.unloaded:
        yield "unload", show_versions(action, action.unloaded)
    for item in action.deleted:
        yield "delete", show_bytes(action, item)
    if action.trouble:
        yield "but", action.trouble


def show_course(change: ServerChange) -> str:
    """Return how the servers of a group come to be as the head says."""
    if not change.replaces:
        return "not replaced: what git names no more stays as it runs"
    return "replaced, one node after the other, on nodes with RECONCILER_SUPERVISE=follow"


def list_server_changes(change: ServerChange) -> Iterator[tuple[str, str]]:
    """Yield what becomes other of a group's servers, each as a word and what it is about."""
    before, after = change.image_before, change.image_after
    if before != after:
        yield "image", f"{before or 'as it is'} -> {after or 'as it is'}"
    if change.flags_before is not None and change.flags_after is not None:
        if change.flags_added:
            yield "add", " ".join(change.flags_added)
        if change.flags_removed:
            yield "remove", " ".join(change.flags_removed)
    elif change.flags_before != change.flags_after:
        flags = (change.flags_before, change.flags_after)
        yield "flags", " -> ".join(map(_show_flags, flags))


def _show_flags(flags: tuple[str, ...] | None) -> str:
    return "as they are" if flags is None else " ".join(flags) or "none of its own"


def show_bytes(action: Action, item: Bytes) -> str:
    """Return a version with its size: `42 (4 files, 1.2 GB)`."""
    if item.size_bytes is None:
        return f"{action.show(item.version)} (size unknown)"
    files = f"{count(item.files, 'file')}, " if item.files is not None else ""
    return f"{action.show(item.version)} ({files}{format_bytes(item.size_bytes)})"


def show_versions(action: Action, versions: Iterable[int]) -> str:
    """Return versions as a list."""
    return ", ".join(map(action.show, versions))


def show_usage(usage: Usage) -> str:
    """Return one quota's numbers: `disk 11.0 GB -> 12.0 GB of 20.0 GB, 13.2 GB at most`."""
    show = str if usage.kind == "models" else format_bytes
    text = f"{usage.kind} {show(usage.before)} -> {show(usage.after)} of {show(usage.quota)}"
    if usage.peak > max(usage.before, usage.after):
        text += f", {show(usage.peak)} at most in between"
    return text if usage.fits else f"{text}: does not fit"


def show_nodes(nodes: Iterable[str]) -> str:
    """Return nodes by name, a long list cut."""
    names = list(nodes)
    more = f" and {len(names) - _NAMED_NODES} more" if len(names) > _NAMED_NODES else ""
    return ", ".join(names[:_NAMED_NODES]) + more


def show_commit(commit: Commit) -> str:
    """Return a commit's short name; the files as they lie have none."""
    is_commit = all(digit in "0123456789abcdef" for digit in commit.id)
    return show_id(commit.id) if is_commit else commit.id


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
