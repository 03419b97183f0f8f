"""One entry of the audit trail as a block of text for a terminal, and as JSON.

All texts come from commits and nodes: nothing in them may steer the terminal.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import click

from reconciler.cli.history_nodes import Served
from reconciler.cli.history_words import find_changes, headline
from reconciler.config_repo.checkout import show_id
from reconciler.history.read import Entry, State
from reconciler.history.signatures import Signature
from reconciler.model import Commit, Rule
from reconciler.status.changes import Result
from reconciler.status.client import printable
from reconciler.status.report import Json, render_commit, timestamp

_WIDTH = 80
_MAX_BODY_LINES = 20


@dataclass(frozen=True, slots=True)
class Told:
    """An entry with all that is known of it."""

    entry: Entry
    signature: Signature
    merge_signature: Signature | None
    served: Sequence[Served]


def show(told: Told) -> str:
    """Return the block of one entry, with colours, which click takes out where none are wanted."""
    entry = told.entry
    first = _line(f"{_moment(entry.commit.time_seconds)}  {headline(entry)}")
    lines = [click.style(first, bold=True)]
    for change in find_changes(entry):
        lines += _wrap(change, "  ")
    if entry.reverts:
        lines.append(click.style(f"  reverts {show_id(entry.reverts)}", fg="yellow"))
    lines += _wrap(f"commit {show_id(entry.commit.id)} by {_author(entry)}, {told.signature}", "  ")
    if entry.merged_by is not None:
        merge = f"merged by {entry.merged_by.author} with {show_id(entry.merged_by.id)}"
        when = _moment(entry.merged_by.time_seconds)
        lines += _wrap(f"{merge} at {when}, {told.merge_signature}", "  ")
    for part in entry.parts:
        lines += _wrap(f"made of {show_id(part.id)} by {part.author}: {part.subject}", "  ")
    lines += _why(entry)
    for served in sorted(told.served, key=lambda served: (served.time_seconds, served.node)):
        colour = "red" if served.result is Result.FAILED else "green"
        lines += (click.style(line, fg=colour) for line in _wrap(_fate(served), "  "))
    return "\n".join(lines)


def render(told: Told) -> Json:
    """Return one entry as JSON."""
    entry = told.entry
    return {
        "model": entry.model,
        "group": entry.group,
        "path": entry.path,
        "summary": headline(entry),
        "changes": find_changes(entry),
        "from_version": entry.before.serves if entry.before else None,
        "to_version": entry.after.serves if entry.after else None,
        **_render_names(entry),
        "commit": {
            **render_commit(entry.commit),
            "author_email": entry.author_email,
            "committer": entry.committer,
            "committer_email": entry.committer_email,
            "body": entry.body,
        },
        "signature": _render_signature(told.signature),
        "reverts": entry.reverts,
        "only_this": entry.only_this,
        "merged_by": _render_merge(entry.merged_by, told.merge_signature),
        "parts": [render_commit(part) for part in entry.parts],
        "before": _render_state(entry.before),
        "after": _render_state(entry.after),
        "nodes": [
            {
                "node": served.node,
                "result": served.result.value,
                "reason": served.reason,
                "version": served.version,
                **({"version_name": served.name} if served.name else {}),
                "time": timestamp(served.time_seconds),
                "commit_to_serving_seconds": served.seconds,
            }
            for served in told.served
        ],
    }


def _render_names(entry: Entry) -> Json:
    """Return what the versions are called, where they are not simply called by their numbers."""
    names = [state.title if state else None for state in (entry.before, entry.after)]
    states = [state for state in (entry.before, entry.after) if state and state.serves is not None]
    if all(state.title == str(state.serves) for state in states):
        return {}
    return {"from_name": names[0], "to_name": names[1]}


def _author(entry: Entry) -> str:
    author = f"{entry.commit.author} <{entry.author_email}>"
    if entry.committer_email == entry.author_email:
        return author
    return f"{author}, committed by {entry.committer} <{entry.committer_email}>"


def _why(entry: Entry) -> Iterator[str]:
    yield from _wrap(entry.commit.subject, "    ")
    body = [line for line in entry.body.splitlines() if line.strip()]
    for line in body[:_MAX_BODY_LINES]:
        yield from _wrap(line, "    ")
    if len(body) > _MAX_BODY_LINES:
        yield f"    ({len(body) - _MAX_BODY_LINES} more lines: git show {show_id(entry.commit.id)})"


def _fate(served: Served) -> str:
    when = _moment(served.time_seconds)
    match served.result:
        case Result.DEPLOYED:
            waited = "" if served.seconds is None else f", {_duration(served.seconds)} after it"
            return f"{served.node} served {served.name or served.version} at {when}{waited}"
        case Result.FAILED:
            return f"{served.node} failed at {when} ({served.reason})"
    return f"{served.node} {served.result} at {when}"


def _moment(seconds: float) -> str:
    return timestamp(seconds)[:16].replace("T", " ") + " UTC"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _line(text: str) -> str:
    return text if text.isprintable() else printable(text.replace("\n", " "))


def _wrap(text: str, indent: str) -> list[str]:
    line = _line(text)
    if len(indent) + len(line) <= _WIDTH:  # as most are: wrapping 10,000 entries takes a second
        return [indent + line]
    return textwrap.wrap(
        line, _WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _render_signature(signature: Signature) -> Json:
    return {
        "signed": signature.is_signed,
        "verified": signature.is_verified,
        "signer": signature.signer or None,
        "key": signature.key or None,
        "sentence": str(signature),
    }


def _render_merge(merge: Commit | None, signature: Signature | None) -> Json | None:
    if merge is None or signature is None:
        return None
    return {**render_commit(merge), "signature": _render_signature(signature)}


def _render_state(state: State | None) -> Json | None:
    if state is None:
        return None
    fields = asdict(state)
    scheme, name = fields.pop("scheme"), fields.pop("locked_name")
    if state.scheme.rule is not Rule.NUMBER or name is not None:
        fields |= {"version_scheme": scheme, "version_name": state.title}
    return fields
