"""The locks of a config repo as it lies in a folder: which are there, and what is wrong with them.

Deployments are read as if there were no locks, so that a lock that is missing, broken or out of
date can be made anew: whatever is wrong with a lock is no reason not to lock.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.config_repo.build import build_lock
from reconciler.config_repo.documents import Broken, Document, parse_document
from reconciler.config_repo.fleets import read_folder
from reconciler.config_repo.layout import Kind, Place, locate, lock_path
from reconciler.config_repo.locks import find_misfits
from reconciler.config_repo.names import find_named
from reconciler.config_repo.yaml_text import MAX_TEXT_BYTES, Mistake
from reconciler.errors import ReconcilerError
from reconciler.locking.resolve import UnfitVersionError, wanted_versions
from reconciler.model import Deployment, Lock, Problem
from reconciler.planning.locks import LOCK_MISMATCH

_LOCKS = "deployments/*/*.lock.yaml"


@dataclass(frozen=True, slots=True)
class Entry:
    """One deployment and the lock beside it."""

    deployment: Deployment
    lock: Lock | None
    """None where there is none that could be read."""
    problems: tuple[Problem, ...]
    """Why the lock must be written, as far as the files alone tell."""
    is_broken: bool = False
    """Whether there is a lock file that cannot be read."""

    @property
    def is_wanted(self) -> bool:
        """Whether there must be a lock that is true; a stopped model's is left alone if it fits."""
        return not self.deployment.stop or bool(self.problems)


@dataclass(frozen=True, slots=True)
class LockFolder:
    """All deployments of a folder, or those that were asked for, with their locks."""

    entries: tuple[Entry, ...]
    """Sorted by path."""
    problems: tuple[Problem, ...]
    """What is wrong beside the locks; deployments that are not followed are no entries."""
    orphans: tuple[str, ...]
    """Lock files without a deployment beside them."""


def read_lock_folder(folder: Path, names: Sequence[str] = ()) -> LockFolder:
    """Return the locks in a folder; `names` of models, `ranker` or `search/ranker`, are a choice.

    A name without its group stands for the model in every group. Raises
    UnknownModelError for a name that no deployment has, ConfigError when there is far too much.
    """
    fleet = read_folder(folder, with_locks=False)
    if names:
        paths = {item.path for name in names for item in find_named(fleet, name)}
        problems = [problem for problem in fleet.problems if problem.path in paths]
        orphans: Iterable[str] = ()
    else:
        paths, problems, orphans = set(fleet.deployments), fleet.problems, _find_orphans(folder)
    chosen = sorted(paths & fleet.deployments.keys())
    entries = tuple(_read_entry(folder, fleet.deployments[path]) for path in chosen)
    return LockFolder(entries, tuple(problems), tuple(orphans))


def place_trouble(folder: Path, deployment: Deployment, error: ReconcilerError) -> Problem:
    """Return what kept a deployment from being locked, at the line that a person would change."""
    if error.reason == LOCK_MISMATCH:
        return Problem(lock_path(deployment.path), 1, 1, str(error))
    data = _read(folder / deployment.path)
    document = parse_document(Kind.DEPLOYMENT, data) if isinstance(data, bytes) else None
    if not isinstance(document, Document):  # it was changed meanwhile
        return Problem(deployment.path, 1, 1, str(error))
    line: tuple[str, ...] = ("source",)
    if isinstance(error, UnfitVersionError):
        labels = [name for name, version in deployment.labels.items() if version == error.version]
        is_main = error.version == deployment.version or not labels
        line = ("version",) if is_main else ("labels", labels[0])
    mistake = document.complain(str(error), *line)
    return Problem(deployment.path, mistake.line, mistake.column, mistake.message)


def _find_orphans(folder: Path) -> Iterator[str]:
    for file in sorted(folder.glob(_LOCKS)):
        path = file.relative_to(folder).as_posix()
        place = locate(path)
        if not isinstance(place, Place) or place.kind is not Kind.LOCK or file.parent.is_symlink():
            continue
        if not (folder / f"{path.removesuffix('.lock.yaml')}.yaml").exists():
            yield path


def _read_entry(folder: Path, deployment: Deployment) -> Entry:
    path = lock_path(deployment.path)
    data = _read(folder / path)
    if data is None:
        message = (
            f"there is no lock for {deployment.model} in {deployment.group}; run"
            f" `reconciler lock {deployment.model}` and commit the file"
        )
        problems = () if deployment.stop else (Problem(path, 1, 1, message),)
        return Entry(deployment, None, problems)
    document = data if isinstance(data, Broken) else parse_document(Kind.LOCK, data)
    if isinstance(document, Broken):
        return Entry(deployment, None, _at(path, document.mistakes), is_broken=True)
    lock = build_lock(path, document)
    mistakes = find_misfits(deployment, lock, document)
    # What the deployment asked before it was changed harms no node, but is not what git says now.
    surplus = lock.versions.keys() - set(wanted_versions(deployment, lock.version))
    if surplus and not mistakes and not deployment.stop:
        names = ", ".join(map(deployment.scheme.show, sorted(surplus)))
        message = f"version {names} is locked, but {deployment.path} does not ask for it any more"
        remedy = f"run `reconciler lock {deployment.model}` and commit the file"
        mistakes.append(document.complain(f"{message}; {remedy}", "locked"))
    return Entry(deployment, lock, _at(path, mistakes))


def _read(path: Path) -> bytes | Broken | None:
    if path.is_symlink():
        return Broken((Mistake(1, 1, "this is a symbolic link; a lock is a plain file"),))
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Broken((Mistake(1, 1, f"the file cannot be read ({error.strerror})"),))


def _at(path: str, mistakes: Iterable[Mistake]) -> tuple[Problem, ...]:
    return tuple(Problem(path, item.line, item.column, item.message) for item in sorted(mistakes))
