"""The plan for a person at a terminal: group, model, what happens, on which nodes."""

from collections.abc import Iterator

from reconciler.preview.report import (
    Level,
    ModelAction,
    Preview,
    Remark,
    ServerChange,
    by_group,
)
from reconciler.preview.wording import (
    MEANWHILE,
    headline,
    list_doings,
    list_server_changes,
    show_commit,
    show_course,
    show_nodes,
    show_usage,
    summarize,
)

_VERB_WIDTH = 9


def render_text(preview: Preview) -> str:
    """Return the whole plan as lines of plain text."""
    return "\n".join(_printable(line) for line in _lines(preview)) + "\n"


def _lines(preview: Preview) -> Iterator[str]:
    yield f"{show_commit(preview.base)} -> {show_commit(preview.head)} {preview.head.subject}"
    yield f"{summarize(preview)}."
    if preview.problems:
        yield ""
        yield f"problems ({MEANWHILE}):"
        yield from (f"  {problem}" for problem in preview.problems)
    for level in Level:
        remarks = [remark for remark in preview.remarks if remark.level is level]
        if remarks:
            yield ""
            yield f"{level}s:"
            yield from (f"  {_show_remark(remark)}" for remark in remarks)
    groups = by_group(preview)
    for group in sorted({*groups, *(change.group for change in preview.servers)}):
        yield ""
        yield f"group {group}" if group else "in no group"
        for change in preview.servers:
            if change.group == group:
                yield from _show_server(change)
        for found in (item for items in groups.get(group, {}).values() for item in items):
            yield from _show_action(found)
        for usage in preview.usages:
            if usage.group == group:
                yield f"  {show_nodes(usage.nodes)}: {'; '.join(map(show_usage, usage.usages))}"


def _show_remark(remark: Remark) -> str:
    where = "/".join(part for part in (remark.group, remark.model) if part)
    nodes = f" [{show_nodes(remark.nodes)}]" if remark.nodes else ""
    return f"{where}: {remark.sentence}{nodes}" if where else f"{remark.sentence}{nodes}"


def _show_server(change: ServerChange) -> Iterator[str]:
    yield f"  the server of {show_nodes(change.nodes)}: {show_course(change)}"
    for what, how in list_server_changes(change):
        yield f"    {what:<{_VERB_WIDTH}}{how}"


def _show_action(found: ModelAction) -> Iterator[str]:
    action = found.action
    yield f"  {action.model} {headline(action)} on {show_nodes(found.nodes)}"
    for verb, what in list_doings(action):
        yield f"    {verb:<{_VERB_WIDTH}}{what}"


def _printable(line: str) -> str:
    """Return the line without what could move a terminal's cursor or break the line."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
