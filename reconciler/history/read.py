"""The audit trail of each deployment, out of git alone.

The trail follows the branch as the nodes see it: its first-parent line, on which a pull request
arrives at once, by its merge. Each step of that line is told by the commits that made it: where
the commits of a merged branch lead, file by file, from what the branch held before to what it holds
now, each of them is an entry with its own author, and `merged_by` names the merge. Where they do
not (a conflict was resolved, both sides changed the file), the merge itself is the entry and
`parts` names the commits it was made of. A change is so listed once, work that a merge threw away
is not listed, and the entries of one deployment form a chain: `before` is the `after` of the next
older one.

A deployment is followed by its file through renames and moves between groups. One that was
removed and comes back at the same path goes on where it ended.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from reconciler.config_repo.checkout import Checkout
from reconciler.config_repo.names import UnknownModelError
from reconciler.history.log import read_steps
from reconciler.history.objects import (
    Message,
    in_batches,
    read_messages,
    read_texts,
)
from reconciler.history.state import State, read_names, read_state
from reconciler.history.trail import Files, Turn, trace
from reconciler.model import Commit

__all__ = ["Entry", "State", "read_history"]

_REVERTS = re.compile(r"^This reverts commit ([0-9a-f]{7,40})\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of one deployment."""

    commit: Commit
    """The commit that made the change."""
    author_email: str
    committer: str
    committer_email: str
    body: str
    """The message below its subject, cut where it is long."""
    group: str
    model: str
    path: str
    """Where the deployment is after the change, or was, if it was removed."""
    before: State | None
    """None where the deployment was created."""
    after: State | None
    """None where the deployment was removed."""
    reverts: str | None = None
    """The commit that this one says it reverts, as its message names it: 7 digits or more."""
    only_this: bool = False
    """Whether `commit` touched nothing in the repository but this deployment's files."""
    merged_by: Commit | None = None
    """The merge by which the change reached the branch; None where it was made on the branch.
    Entries with the same `merged_by` took effect together."""
    parts: tuple[Commit, ...] = ()
    """Where `commit` is a merge: the commits of the merged branch that touched the deployment."""

    @property
    def landed(self) -> Commit:
        """The commit of the branch with which the change took effect."""
        return self.merged_by or self.commit


def read_history(
    checkout: Checkout,
    revision: str = "HEAD",
    model: str | None = None,
    limit: int | None = None,
    since_seconds: float | None = None,
) -> list[Entry]:
    """Return the changes up to `revision` that took effect since then, newest first.

    `model` is a model's name or `group/model`, of today or else of former times; None is all of
    them. Of the entries the newest `limit` are returned.

    Raises GitError where the history cannot be read, UnknownModelError where nothing has the name.
    """
    turns = trace(read_steps(checkout, checkout.resolve(revision).id))
    if model is not None:
        chosen = _find_threads(checkout, turns, model)
        turns = [turn for turn in turns if turn.thread in chosen]
    turns.reverse()
    if since_seconds is None:
        turns = turns[:limit]
    messages = _read_messages(checkout, turns)
    if since_seconds is not None:
        recent = (turn for turn in turns if _landed(turn, messages).time_seconds >= since_seconds)
        turns = list(recent)[:limit]
    states = _read_states(checkout, turns)
    return [_build(turn, messages, states) for turn in turns]


# --- which deployment is meant --------------------------------------------------------------------


def _find_threads(checkout: Checkout, turns: Sequence[Turn], name: str) -> set[int]:
    """Return the deployments that have the name; else those removed with it; else once had it."""
    newest = {turn.thread: turn for turn in turns}
    group, _, model = name.rpartition("/")
    alive = [turn for turn in newest.values() if turn.after]
    removed = [turn for turn in newest.values() if not turn.after]
    known: set[tuple[str, str]] = set()
    for candidates in (alive, removed, turns):
        names = _read_names(checkout, (turn.newest for turn in candidates))
        found = {
            turn.thread
            for turn in candidates
            if names[turn.newest][1] == model and group in ("", names[turn.newest][0])
        }
        if found:
            return found
        known.update(names.values())
    raise UnknownModelError(_explain_unknown(checkout, name, known))


def _read_names(checkout: Checkout, files: Iterable[Files]) -> dict[Files, tuple[str, str]]:
    """Return group and model of each."""
    names = {}
    for some in in_batches(files):
        texts = read_texts(checkout, (item.blob_id for item in some))
        for item in some:
            names[item] = read_names(item.path, texts[item.blob_id])
    return names


def _explain_unknown(checkout: Checkout, name: str, known: set[tuple[str, str]]) -> str:
    full = {f"{group}/{model}" for group, model in known}
    choices = full if "/" in name else {model for _, model in known}
    near = get_close_matches(name, sorted(choices), n=3)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif full:
        hint = "leave the name out to see the history of all"
    else:
        hint = "there is no deployment in it at all; name the config's folder by -C"
    return f"the history of {checkout.folder} has no model {name}; {hint}"


# --- what commits and files say -------------------------------------------------------------------


def _read_messages(checkout: Checkout, turns: Iterable[Turn]) -> dict[str, Message]:
    named = ((turn.commit_id, turn.merge_id, *turn.part_ids) for turn in turns)
    return read_messages(checkout, (commit_id for ids in named for commit_id in ids if commit_id))


def _read_states(checkout: Checkout, turns: Iterable[Turn]) -> dict[Files, State]:
    pairs = ((turn.before, turn.after) for turn in turns)
    wanted = dict.fromkeys(files for pair in pairs for files in pair if files is not None)
    states = {}
    for some in in_batches(wanted):
        blob_ids = (blob_id for item in some for blob_id in (item.blob_id, item.lock_blob_id))
        texts = read_texts(checkout, filter(None, blob_ids))
        for item in some:
            lock = texts[item.lock_blob_id] if item.lock_blob_id else None
            states[item] = read_state(item, texts[item.blob_id], lock)
    return states


def _landed(turn: Turn, messages: Mapping[str, Message]) -> Commit:
    return messages[turn.merge_id or turn.commit_id].commit


def _build(turn: Turn, messages: Mapping[str, Message], states: Mapping[Files, State]) -> Entry:
    message = messages[turn.commit_id]
    before = states[turn.before] if turn.before else None
    after = states[turn.after] if turn.after else None
    newest = states[turn.newest]
    reverts = _REVERTS.search(message.body)
    return Entry(
        commit=message.commit,
        author_email=message.author_email,
        committer=message.committer,
        committer_email=message.committer_email,
        body=message.body,
        group=newest.group,
        model=newest.model,
        path=newest.path,
        before=before,
        after=after,
        reverts=reverts[1] if reverts else None,
        only_this=turn.only_this,
        merged_by=messages[turn.merge_id].commit if turn.merge_id else None,
        parts=tuple(messages[part_id].commit for part_id in turn.part_ids),
    )
