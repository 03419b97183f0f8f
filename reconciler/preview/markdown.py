"""The plan as a comment under a pull request.

It begins with a hidden marker, by which a CI job finds the comment of the run before and puts this
one in its place. Whatever comes from git or a bucket is written by people who may not be trusted
to write comments in the name of the CI job, so it is escaped: no markup, no links, no mentions.
"""

import re
from collections.abc import Iterable, Iterator

from reconciler.preview.report import Level, ModelAction, Preview, Remark
from reconciler.preview.wording import (
    MEANWHILE,
    headline,
    list_doings,
    list_server_changes,
    show_bytes,
    show_commit,
    show_course,
    show_nodes,
    show_usage,
    show_versions,
    summarize,
)

MARKER = "<!-- reconciler plan -->"
MAX_CHARACTERS = 60_000
"""GitHub takes comments of up to 65,536."""

_TABLE_SHARE = 0.5
_REMARK_SHARE = 0.35
_SERVER_SHARE = 0.1
_MAX_TEXT = 1000
_NOTHING_WIDE = "\u200b"
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$^=:-])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_REFERENCE = re.compile(r"([@#]|\bGH-|\bwww|(?:https?|ftp|mailto|xmpp):)", re.IGNORECASE)
_HEADING = {Level.PROBLEM: "❌", Level.WARNING: "⚠️", Level.NOTE: "ℹ️"}
_FOLD_END = "\n</details>\n"


def escape(text: str) -> str:
    """Return text that is shown as it is written and refers to nobody and nothing.

    A zero-width space behind `@`, `#` and the like ends what would become a mention or a link; a
    backslash would not, because they are looked for after it is gone.
    """
    short = text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
    line = "".join(letter if letter.isprintable() else " " for letter in short)
    line = _REFERENCE.sub(rf"\1{_NOTHING_WIDE}", line)
    line = re.sub(r"[&<>]", lambda found: _ENTITIES[found[0]], line)
    return _MARKUP.sub(r"\\\1", line)


def render_markdown(preview: Preview) -> str:
    """Return the comment, at most MAX_CHARACTERS long; what does not fit is counted."""
    head = f"`{show_commit(preview.base)}` → `{show_commit(preview.head)}`"
    if preview.head.subject:
        head += f" {escape(preview.head.subject)}"
    parts = [f"{MARKER}\n### {escape(_capital(summarize(preview)))}\n\n{head}\n"]
    parts += _fit(list(_list_remarks(preview)), int(MAX_CHARACTERS * _REMARK_SHARE), "warnings")
    actions = [found for found in preview.actions if not found.action.is_idle]
    if actions:
        parts.append(
            "\n| Group | Model | Version | Download on each node | Deleted | Nodes |"
            "\n|---|---|---|---|---|---|\n"
        )
        rows = [_show_row(found) for found in actions]
        budget = int(MAX_CHARACTERS * _TABLE_SHARE)
        parts += _fit(rows, budget, "rows")
    parts += _fit(list(_list_servers(preview)), int(MAX_CHARACTERS * _SERVER_SHARE), "lines")
    parts.append(_fold("Every step", list(_list_steps(preview)), _left(parts)))
    parts.append(_fold("Quotas", [_show_quotas(preview)] if preview.usages else [], _left(parts)))
    return "".join(parts)


def _left(parts: Iterable[str]) -> int:
    return MAX_CHARACTERS - sum(map(len, parts))


def _fit(lines: list[str], budget: int, noun: str) -> Iterator[str]:
    """Yield as many lines as the budget allows, and then how many were left out."""
    for index, line in enumerate(lines):
        budget -= len(line)
        if budget < 0:
            yield f"\n{len(lines) - index} more {noun} are not shown; run `reconciler plan`.\n"
            return
        yield line


def _fold(title: str, lines: list[str], left: int) -> str:
    begin = f"\n<details><summary>{title}</summary>\n\n"
    budget = left - len(begin) - len(_FOLD_END) - 100
    if not lines or budget < 0:
        return ""
    return begin + "".join(_fit(lines, budget, "lines")) + _FOLD_END


def _list_remarks(preview: Preview) -> Iterator[str]:
    if preview.problems:
        yield f"\n❌ **Problems in the files** \\({escape(MEANWHILE)}\\):\n\n"
        yield from (f"- {escape(str(problem))}\n" for problem in preview.problems)
    if preview.remarks:
        yield "\n"
    for remark in preview.remarks:
        yield f"- {_HEADING[remark.level]} {_show_remark(remark)}\n"


def _show_remark(remark: Remark) -> str:
    where = "/".join(part for part in (remark.group, remark.model) if part)
    bold = f"**{escape(where)}**: " if where else ""
    nodes = f" \\({escape(show_nodes(remark.nodes))}\\)" if remark.nodes else ""
    return f"{bold}{escape(remark.sentence)}{nodes}"


def _show_row(found: ModelAction) -> str:
    action = found.action
    downloads = ", ".join(show_bytes(action, item) for item in action.downloads)
    if not downloads and action.reused:
        downloads = f"none, {show_versions(action, action.reused)} is still on disk"
    deleted = ", ".join(show_bytes(action, item) for item in action.deleted)
    cells = (
        action.group,
        action.model,
        headline(action).replace("->", "→"),
        downloads or "none",
        deleted or "none",
        show_nodes(found.nodes),
    )
    return "| " + " | ".join(map(escape, cells)) + " |\n"


def _list_steps(preview: Preview) -> Iterator[str]:
    for found in preview.actions:
        action = found.action
        place = f"{action.group}/{action.model}" if action.group else action.model
        about = f": {escape(action.description)}" if action.description else ""
        yield f"- **{escape(place)}** on {escape(show_nodes(found.nodes))}{about}\n"
        for verb, what in list_doings(action):
            yield f"  - {verb} {escape(what)}\n"


def _list_servers(preview: Preview) -> Iterator[str]:
    if preview.servers:
        yield "\n**Servers**\n\n"
    for change in preview.servers:
        nodes = escape(show_nodes(change.nodes))
        yield f"- **{escape(change.group)}** on {nodes}: {escape(show_course(change))}\n"
        for what, how in list_server_changes(change):
            yield f"  - {what} {escape(how.replace('->', '→'))}\n"


def _show_quotas(preview: Preview) -> str:
    lines = [
        f"- {escape(show_nodes(found.nodes))}: {escape('; '.join(map(show_usage, found.usages)))}\n"
        for found in preview.usages
    ]
    return "".join(lines)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
