"""Which versions each model should have: read from its folder by its policy, once per poll.

One pass collects all models and then hands all of them on. The first missing base path ends the
pass before anything is handed on, so one missing folder freezes every model (facts that look like
bugs here are TensorFlow Serving 2.20 source, file_system_storage_path_source.cc). A reload does
not start a pass; only models that left the config are told so at once.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.serving.protocol.control_pb2 import FileSystemStoragePathSourceConfig
from reconciler.standin import paths
from reconciler.standin.errors import StatusError
from reconciler.standin.threads import PeriodicFunction

_LOG = logging.getLogger(__name__)

VersionPolicy = FileSystemStoragePathSourceConfig.ServableVersionPolicy


@dataclass(frozen=True, slots=True)
class AspiredVersion:
    """A version that should be served and the folder (or whatever bears its name) it is in."""

    version: int
    path: str


SetAspired = Callable[[str, tuple[AspiredVersion, ...]], None]


@dataclass(frozen=True, slots=True)
class WatchedModel:
    """One model of the source's config."""

    name: str
    base_path: str
    policy: VersionPolicy


class FileSystemSource:
    """Polls the folders of a list of models and hands on the versions each should have."""

    def __init__(self, models: tuple[WatchedModel, ...], poll_seconds: float) -> None:
        self._lock = threading.Lock()
        self._models = models
        self._poll_seconds = poll_seconds
        self._set_aspired: SetAspired | None = None
        self._polling: PeriodicFunction | threading.Thread | None = None

    @property
    def names(self) -> frozenset[str]:
        """The models of the present config."""
        with self._lock:
            return frozenset(model.name for model in self._models)

    def start(self, set_aspired: SetAspired) -> None:
        """Poll from now on: every interval, once with interval 0, never with a negative one."""
        self._set_aspired = set_aspired
        if self._poll_seconds > 0:
            self._polling = PeriodicFunction(self.poll, self._poll_seconds, "file-system-poll")
        elif self._poll_seconds == 0:
            self._polling = threading.Thread(target=self.poll, name="file-system-poll", daemon=True)
            self._polling.start()

    def close(self) -> None:
        """Stop polling, after the sleep that is running."""
        if isinstance(self._polling, PeriodicFunction):
            self._polling.close()
        elif self._polling is not None:
            self._polling.join()

    def update(self, models: tuple[WatchedModel, ...]) -> None:
        """Take another config; models that left it are to have no versions from now on."""
        with self._lock:
            staying = {model.name for model in models}
            for name in sorted({model.name for model in self._models} - staying):
                if self._set_aspired is not None:
                    self._set_aspired(name, ())
            self._models = models

    def poll(self) -> None:
        """Make one pass over all models."""
        with self._lock:
            try:
                found = {model.name: find_versions(model) for model in self._models}
            except StatusError as error:
                _LOG.error(
                    "FileSystemStoragePathSource encountered a filesystem access error: %s",
                    error.message,
                )
                return
            for name, versions in sorted(found.items()):
                if self._set_aspired is not None:
                    self._set_aspired(name, versions)


def find_versions(model: WatchedModel) -> tuple[AspiredVersion, ...]:
    """Return the versions that a model's policy asks for and its folder holds.

    Raises FAILED_PRECONDITION or NOT_FOUND when the folder cannot be listed.
    """
    try:
        paths.require(model.base_path)
    except StatusError as error:
        raise StatusError(
            error.code,
            f"Could not find base path {model.base_path} for servable {model.name}"
            f" with error {error}",
        ) from None
    choice = model.policy.WhichOneof("policy_choice")
    if choice == "specific":
        return _specific(model)
    children = _numbered_children(model)
    by_version = _index(children)
    if choice == "all":
        # Of two names for one number the first is loaded, whatever the warning says.
        versions = tuple(children)
    else:
        count = max(model.policy.latest.num_versions, 1)
        versions = tuple(by_version[number] for number in sorted(by_version)[-count:])
    if not versions:
        _LOG.warning(
            "No versions of servable %s found under base path %s. Did you forget to name your leaf"
            " directory as a number (eg. '/1/')?",
            model.name,
            model.base_path,
        )
    return versions


def _specific(model: WatchedModel) -> tuple[AspiredVersion, ...]:
    wanted = set(model.policy.specific.versions)
    if not wanted:
        _LOG.warning("No specific versions requested for servable %s.", model.name)
        return ()
    literal = [AspiredVersion(n, paths.join(model.base_path, str(n))) for n in sorted(wanted)]
    if all(paths.exists(version.path) for version in literal):
        return tuple(literal)
    by_version = _index(_numbered_children(model))
    for number in sorted(wanted - by_version.keys()):
        _LOG.warning(
            "Version %d of servable %s, which was requested to be served as a 'specific' version"
            " in the servable's version policy, was not found in the file system",
            number,
            model.name,
        )
    return tuple(by_version[number] for number in sorted(wanted & by_version.keys()))


def _numbered_children(model: WatchedModel) -> list[AspiredVersion]:
    """Return what bears a version's name, folder or not, in the byte order of the names."""
    return [
        AspiredVersion(number, paths.join(model.base_path, name))
        for name in paths.list_children(model.base_path)
        if (number := paths.parse_version(name)) is not None
    ]


def _index(children: list[AspiredVersion]) -> dict[int, AspiredVersion]:
    by_version: dict[int, AspiredVersion] = {}
    for child in children:
        if child.version in by_version:
            _LOG.warning(
                "Duplicate version directories detected. Version %d will be loaded from %s, %s"
                " will be ignored.",
                child.version,
                child.path.rpartition("/")[2],
                by_version[child.version].path.rpartition("/")[2],
            )
        by_version[child.version] = child
    return by_version
