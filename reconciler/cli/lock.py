"""`reconciler lock`: writes down which bytes each deployment stands for, and moves `latest` on.

Three ways to run it. Plain, it locks what has no lock that fits, and leaves the rest. `--update`
moves `latest` on and makes the commit. `--check` only says what the plain run would find to do, by
the same code, so that a pull request is judged as it will be locked.

Exit codes: 0 all is well, 1 something could not be locked or a check found something, 2 wrong
usage.
"""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import click

from reconciler.cli.options import folder_option
from reconciler.config_repo.checkout import Checkout, show_id
from reconciler.config_repo.names import UnknownModelError
from reconciler.errors import ReconcilerError
from reconciler.locking.commit import (
    LockChange,
    commit_locks,
    describe_change,
    remove_lock,
    write_locks,
    write_message,
)
from reconciler.locking.folder import (
    Entry,
    LockFolder,
    place_trouble,
    read_lock_folder,
)
from reconciler.locking.resolve import Locksmith
from reconciler.model import Commit, Lock, Problem
from reconciler.settings import environment_name, parse_duration
from reconciler.sources.registry import Sources

_NAMED_FILES = 3
_OURS = ("fleet.yaml", "groups", "deployments")


@dataclass(slots=True)
class Report:
    """What a run found and did."""

    changes: list[LockChange] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: int = 0
    """How many locks stand as they are."""
    commit: Commit | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the commit goes."""

    checkout: Checkout
    base_id: str
    """The commit that was checked out when the files were read."""
    branch: str | None


@click.command("lock")
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@folder_option
@click.option("--update", is_flag=True, help="Move `latest` on and commit the lock files.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a lock is not right.")
@click.option("--offline", is_flag=True, help="With --check: compare the files, ask no bucket.")
@click.option("--branch", metavar="NAME", help="With --update: commit on a new branch.")
@click.option("--no-commit", is_flag=True, help="With --update: write the files only.")
@click.option(
    "--settle",
    metavar="DURATION",
    default="10s",
    show_default=True,
    envvar=environment_name("settle"),
    help="How long a version must have been unchanged before `latest` takes it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def lock(
    models: tuple[str, ...],
    folder: Path,
    update: bool,
    check: bool,
    offline: bool,
    branch: str | None,
    no_commit: bool,
    settle: str,
    as_json: bool,
) -> None:
    """Write down which bytes each deployment stands for, in a lock file beside it.

    MODEL is a model's name, or group/model; without any, all deployments are locked. A lock that
    is there keeps `latest` where it is, until --update moves it on. Nodes follow the lock and
    refuse other bytes.

    Exit code: 0 all is well, 1 something could not be locked, or --check found something, 2 wrong
    usage.
    """
    if check and update:
        raise click.UsageError("--check writes nothing and --update does; give one of them")
    if offline and not check:
        raise click.UsageError("--offline goes with --check: to lock, the bucket must be asked")
    if (branch or no_commit) and not update:
        raise click.UsageError("--branch and --no-commit go with --update, which makes a commit")
    if branch and no_commit:
        raise click.UsageError("--branch is for the commit that --no-commit leaves out")
    if not any((folder / name).exists() for name in _OURS):
        raise click.UsageError(
            f"{folder} holds neither fleet.yaml nor groups/ nor deployments/; name the folder of"
            " the config repo by -C"
        )
    settle_seconds = parse_duration(settle)
    place = _open(folder, branch) if update and not no_commit else None
    try:
        found = read_lock_folder(folder, models)
    except UnknownModelError as error:
        raise click.UsageError(str(error)) from None
    report = Report(problems=list(found.problems))
    if check:
        _check_files(found, report)
    if not offline:
        asyncio.run(_resolve(folder, found, report, settle_seconds, update=update, check=check))
    if check:
        _judge_changes(report)
    else:
        _write(folder, found, report, place, removes_orphans=not (update or models))
    _print_json(report) if as_json else _print_text(report, check=check)
    raise SystemExit(1 if report.problems else 0)


def _open(folder: Path, branch: str | None) -> _Place:
    checkout = Checkout(folder)
    return _Place(checkout, checkout.resolve("HEAD").id, branch)


def _check_files(found: LockFolder, report: Report) -> None:
    for entry in found.entries:
        report.problems += entry.problems
    for path in found.orphans:
        report.problems.append(Problem(path, 1, 1, f"{_lacks(path)}; remove it"))


async def _resolve(
    folder: Path,
    found: LockFolder,
    report: Report,
    settle_seconds: float,
    *,
    update: bool,
    check: bool,
) -> None:
    """Lock what must be locked, as far as it can be; a check leaves out what the files judged."""
    sources = Sources()
    locksmith = Locksmith(sources, settle_seconds)
    due = [entry for entry in found.entries if entry.is_wanted and not (check and entry.problems)]

    async def resolve(entry: Entry) -> Lock | Problem:
        try:
            if check and entry.lock is not None and entry.deployment.version is None:
                report.notes += await _find_news(locksmith, entry, entry.lock)
            return await locksmith.lock(entry.deployment, entry.lock, update=update)
        except ReconcilerError as error:
            return place_trouble(folder, entry.deployment, error)

    try:
        answers = await asyncio.gather(*map(resolve, due))
    finally:
        sources.close()
    report.notes += locksmith.remarks
    for entry, answer in zip(due, answers, strict=True):
        if isinstance(answer, Problem):
            report.problems.append(answer)
        elif answer == entry.lock and not entry.problems:
            report.kept += 1
        else:
            report.changes.append(LockChange(entry.deployment, entry.lock, answer))
            if entry.is_broken:
                report.notes.append(f"{entry.problems[0]}; it is made anew")


async def _find_news(locksmith: Locksmith, entry: Entry, lock: Lock) -> list[str]:
    """Return a note where `latest` could move on; what is wrong with it is not asked here."""
    deployment = entry.deployment
    try:
        latest = await locksmith.find_latest(deployment)
    except ReconcilerError:
        return []
    if latest <= lock.version:
        return []
    name = deployment.scheme.show(latest)
    return [
        f"{deployment.model} in {deployment.group} is locked at {lock.title} and latest is"
        f" {name} by now; `reconciler lock --update {deployment.model}` moves it on"
    ]


def _judge_changes(report: Report) -> None:
    """Turn what a plain run would change into findings: a check changes nothing."""
    for change in report.changes:
        before = change.before
        if before is not None and change.is_move:
            what = (
                f"version {before.title} is gone from {before.source} and latest is"
                f" {change.after.title} now"
            )
        else:
            what = "this is not what the source says of the locked versions"
        model = change.deployment.model
        message = f"{what}; run `reconciler lock {model}` and commit the file"
        report.problems.append(Problem(change.after.path, 1, 1, message))
    report.changes.clear()


def _write(
    folder: Path,
    found: LockFolder,
    report: Report,
    place: _Place | None,
    *,
    removes_orphans: bool,
) -> None:
    if report.changes and place is not None:
        report.commit = commit_locks(place.checkout, report.changes, place.base_id, place.branch)
    elif report.changes:
        write_locks(folder, report.changes)
    for path in found.orphans:
        if not removes_orphans:
            report.notes.append(f"{path}: {_lacks(path)}; `reconciler lock` removes it")
        elif found.problems:
            # A deployment that was misspelt or moved by mistake still needs its lock.
            report.notes.append(f"{path}: {_lacks(path)}; it stays until the mistakes are mended")
        else:
            remove_lock(folder, path)
            report.removed.append(path)


def _lacks(path: str) -> str:
    name = Path(path).name.removesuffix(".lock.yaml")
    return f"there is no {name}.yaml beside this lock"


def _print_text(report: Report, *, check: bool) -> None:
    for change in report.changes:
        click.echo(describe_change(change))
    for path in report.removed:
        click.echo(f"removed {path}: {_lacks(path)}")
    for note in sorted(report.notes):
        click.echo(note, err=True)
    for problem in sorted(report.problems):
        click.echo(str(problem), err=not check)
    if check and not report.problems:
        click.echo("Every deployment has a lock that is right.")
    if check:
        return
    if not report.changes and not report.removed:
        if report.kept or not report.problems:
            stand = "lock stands" if report.kept == 1 else "locks stand"
            click.echo(f"Nothing changed: {report.kept} {stand} as written.")
    elif report.commit is not None:
        click.echo(f"Committed {show_id(report.commit.id)} {report.commit.subject}")
        click.echo("Push it, or open a pull request.", err=True)
    else:
        click.echo(f"Commit {_name_files(report)}, so that the nodes follow.", err=True)


def _name_files(report: Report) -> str:
    paths = sorted([*(change.after.path for change in report.changes), *report.removed])
    more = len(paths) - _NAMED_FILES
    named = ", ".join(paths[:_NAMED_FILES])
    return f"{named} and {more:,} more" if more > 0 else named


def _name_ends(change: LockChange) -> dict[str, str | None]:
    """Return what the versions are called, where they are not simply called by their numbers."""
    before, after = change.before, change.after
    if after.title == str(after.version):
        return {}
    return {"from_name": before.title if before else None, "to_name": after.title}


def _print_json(report: Report) -> None:
    answer = {
        "changed": [
            {
                "group": change.deployment.group,
                "model": change.deployment.model,
                "path": change.after.path,
                "from_version": change.before.version if change.before else None,
                "to_version": change.after.version,
                **_name_ends(change),
                "files": change.files,
                "bytes": change.size_bytes,
            }
            for change in report.changes
        ],
        "removed": report.removed,
        "problems": [
            {
                "path": problem.path,
                "line": problem.line,
                "column": problem.column,
                "message": problem.message,
            }
            for problem in sorted(report.problems)
        ],
        "notes": sorted(report.notes),
        "message": write_message(report.changes) if report.changes else None,
        "commit": report.commit.id if report.commit else None,
    }
    click.echo(json.dumps(answer, indent=2))
