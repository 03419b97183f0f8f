"""`reconciler rollback` and `reconciler pin`: commit another version of one model.

Both say first what they will do, and make one commit that touches the files of this deployment
alone. Nothing is pushed: whether the commit goes to the branch at once or by a pull request is the
team's own rule.

Exit codes: 0 committed, or nothing to do; 1 it cannot be done, and nothing was changed; 2 usage.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from reconciler.cli.access import access_options
from reconciler.cli.options import folder_option
from reconciler.config_repo.checkout import Checkout, show_id
from reconciler.config_repo.commits import (
    commit_files,
    count_behind,
    find_branch,
    name_push,
)
from reconciler.config_repo.names import UnknownModelError
from reconciler.errors import ConfigError, GitError, ReconcilerError
from reconciler.locking.resolve import resolve_lock
from reconciler.model import Deployment, Lock, Rule, VersionScheme
from reconciler.planning.placement import holders
from reconciler.rollback.bytes_check import Offer, check_bytes
from reconciler.rollback.proposal import NO_WAY_BACK, Proposal, propose_pin, propose_way_back
from reconciler.rollback.restore import LockAnew
from reconciler.rollback.subject import Subject, find_subject
from reconciler.rollback.way_back import Target, asks_the_same, find_former, find_serving
from reconciler.sources.registry import Sources
from reconciler.status.access import Access
from reconciler.status.client import printable

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the options say on how to commit."""

    reason: str | None
    branch: str | None
    dry_run: bool
    yes: bool
    access: Access
    """What nodes are asked with, whether they still have the bytes."""


def _commit_options(command: CommandT) -> CommandT:
    for option in (
        click.option("-y", "--yes", is_flag=True, help="Do not ask; only a terminal is asked."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and stop there."),
        click.option("--branch", metavar="NAME", help="Commit on a new branch of that name."),
        click.option("--reason", metavar="TEXT", help="Why; goes into the commit's message."),
        folder_option,
    ):
        command = option(command)
    return access_options(command)


@click.command("rollback")
@click.argument("model")
@click.option(
    "--to",
    metavar="REV|VERSION",
    help="A version, or a commit, branch or tag. What can be a version is always one.",
)
@_commit_options
def rollback(
    model: str,
    to: str | None,
    folder: Path,
    reason: str | None,
    branch: str | None,
    dry_run: bool,
    yes: bool,
    access: Access,
) -> None:
    """Commit the way back of MODEL (`ranker`, or `search/ranker`) to what it served before.

    Without --to that is what was asked before the newest change of its version, a lock's included.
    Where one commit changed nothing else it is reverted as `git revert` does; otherwise the version
    and its lock are set back, and later changes of others stay. Nothing is pushed.
    """
    wishes = _Wishes(reason, branch, dry_run, yes, access)
    subject = _open(folder, model, wishes)
    target = _find_target(subject, to)
    if _is_asked_already(subject, target):
        name = target.show(subject.scheme)
        click.echo(f"{subject.name} asks for {name} already; nothing to do.")
        return
    with closing(Sources()) as sources:
        proposal = propose_way_back(subject, target, reason, _locking_by(sources))
        command = f"reconciler rollback {subject.key} --to"
        _carry_out(subject, proposal, command, wishes, sources)


@click.command("pin")
@click.argument("model")
@click.argument("version", metavar="VERSION|latest")
@_commit_options
def pin(
    model: str,
    version: str,
    folder: Path,
    reason: str | None,
    branch: str | None,
    dry_run: bool,
    yes: bool,
    access: Access,
) -> None:
    """Commit VERSION as the version of MODEL (`ranker`, or `search/ranker`); `latest` unpins it.

    Where there is a lock file, or fleet.yaml asks for one, it is written too: the earlier one of
    that version if it was locked once, else a new one. Nothing is pushed.
    """
    wishes = _Wishes(reason, branch, dry_run, yes, access)
    subject = _open(folder, model, wishes)
    number = _parse_version(version, subject.scheme)
    if number is None and version != "latest":
        raise click.BadParameter(_explain_misfit(version, subject))
    with closing(Sources()) as sources:
        proposal = propose_pin(subject, number, reason, _locking_by(sources))
        if not proposal.pair.changes_from(subject.pair):
            click.echo(f"{subject.name} is pinned to {version} already; nothing to do.")
            return
        command = f"reconciler pin {subject.key}"
        _carry_out(subject, proposal, command, wishes, sources)


def _open(folder: Path, model: str, wishes: _Wishes) -> Subject:
    checkout = Checkout(folder)
    if wishes.branch is None and find_branch(checkout) is None:
        raise GitError(
            "no branch is checked out (HEAD is detached); name a new one by --branch, or switch to"
            " the branch that the nodes follow",
            NO_WAY_BACK,
        )
    try:
        subject = find_subject(checkout, model)
    except UnknownModelError as error:
        raise click.UsageError(str(error)) from None
    checkout.check_clean(subject.paths)
    return subject


def _locking_by(sources: Sources) -> LockAnew:
    """Return what makes a new lock, of what the sources hold now."""

    def lock(deployment: Deployment, keep: Lock | None) -> Lock:
        try:
            return asyncio.run(resolve_lock(deployment, sources, keep=keep))
        except ReconcilerError as error:
            raise ConfigError(
                f"{deployment.model} in {deployment.group} needs a lock, none in its history fits,"
                f" and no new one can be made: {error}; nothing was changed",
                error.reason,
            ) from None

    return lock


# --- where to -----------------------------------------------------------------------------------


def _find_target(subject: Subject, to: str | None) -> Target:
    scheme = subject.scheme
    number = None if to is None else _parse_version(to, scheme)
    if to is not None and number is not None:
        if len(to) >= 4 and subject.checkout.succeeds(
            "rev-parse", "--quiet", "--verify", f"{to}^0"
        ):
            _note(
                f"{to} is taken for a version; to mean the commit, write more of its id, or"
                f" refs/tags/{to}"
            )
        return Target(number, find_serving(subject.steps, number, subject.source, scheme))
    state = find_former(subject.steps) if to is None else subject.find_state_at(to)
    if state is None:
        place = "in the history that this clone holds" if to is None else f"at {to}"
        lack = "no earlier version" if to is None else "no such deployment, or a broken one,"
        raise ConfigError(
            f"{subject.name} has {lack} {place}; name the version to go to:"
            f" `reconciler rollback {subject.key} --to VERSION`",
            NO_WAY_BACK,
        )
    if state.serves is None:
        raise ConfigError(
            f"{subject.name} asked for `latest` without a lock then, so git does not say which"
            f" version ran; name it: `reconciler rollback {subject.key} --to VERSION`",
            NO_WAY_BACK,
        )
    return Target(state.serves, state)


def _explain_misfit(version: str, subject: Subject) -> str:
    match subject.scheme.rule:
        case Rule.NUMBER:
            return f"{version!r} is neither a version number nor latest"
        case Rule.NAMES:
            return (
                f"{version!r} is neither latest nor among the names of version_scheme in"
                f" {subject.pair.path}; add it there with a number of its own, and commit both"
            )
    return (
        f"{version!r} is neither latest nor a version as version_scheme in {subject.pair.path} has"
        f" it ({subject.scheme})"
    )


def _parse_version(text: str, scheme: VersionScheme) -> int | None:
    if scheme.rule is not Rule.NUMBER:
        return scheme.parse(text)
    if not (text.isascii() and text.isdecimal()):
        return None
    number = int(text[:20])
    if len(text) > 19 or number >= 2**63:
        raise click.UsageError(f"{text[:30]} is larger than any version number")
    return number


def _is_asked_already(subject: Subject, target: Target) -> bool:
    current = subject.state
    if current is None or not current.is_readable:
        return False
    if target.state is None:
        return current.serves == target.version
    return asks_the_same(current, target.state)


# --- say, ask, commit ---------------------------------------------------------------------------


def _carry_out(
    subject: Subject, proposal: Proposal, command: str, wishes: _Wishes, sources: Sources
) -> None:
    """Say what the proposal does, ask, and commit; `command` goes to another version."""
    deployment = proposal.pair.read()
    changes = proposal.pair.changes_from(subject.pair)
    asked = deployment.named_version
    goal = "latest" if asked is None else deployment.scheme.show(asked)
    files = f"{len(changes)} file{'' if len(changes) == 1 else 's'}"
    _say(f"{subject.name}: {subject.asked} -> {goal}, by {proposal.how} ({files})")
    offer = Offer(command, subject.serves)
    for note in (*proposal.notes, *_check(subject, deployment, offer, sources, wishes.access)):
        _note(note)
    if wishes.branch is None and (behind := count_behind(subject.checkout)):
        _note(f"this branch lacks {behind} of the commits of its upstream; `git pull` them first")
    if wishes.dry_run:
        return
    if not wishes.yes and sys.stdin.isatty():
        click.confirm("Commit this?", abort=True)
    commit = commit_files(
        subject.checkout, changes, proposal.message, subject.commit_id, wishes.branch
    )
    branch = find_branch(subject.checkout) or "HEAD"
    _say(f"committed {show_id(commit.id)} on {branch}: {commit.subject}")
    and_then = "" if wishes.branch is None else ", and open a pull request"
    _say(f"left to do: `{name_push(subject.checkout, branch)}`{and_then}")


def _check(
    subject: Subject, deployment: Deployment, offer: Offer, sources: Sources, access: Access
) -> list[str]:
    version = deployment.named_version
    if version is None:
        return []
    members = {node.name: node for node in subject.members}
    weights = {name: node.weight for name, node in members.items()}
    names = holders(f"{deployment.group}/{deployment.model}", weights, deployment.replicas)
    nodes = [members[name] for name in names]
    return check_bytes(deployment, version, nodes, sources, offer, access)


def _say(text: str) -> None:
    click.echo(printable(text))


def _note(text: str) -> None:
    click.echo(f"note: {printable(text)}", err=True)
