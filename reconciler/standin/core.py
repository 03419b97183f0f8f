"""The config, the labels and the lookup: what a reload does, in the order it does it.

One lock is held over the whole of a reload, including the wait for new models, which has no
deadline and does not care whether its caller is still there. Status and Predict do not take it.
The config is stored before the steps that can still fail; a refused config can therefore spoil
all later ones (TensorFlow Serving 2.20 source, model_servers/server_core.cc).
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reconciler.serving.protocol.control_pb2 import (
    Code,
    ModelConfig,
    ModelServerConfig,
    ModelSpec,
    ModelType,
)
from reconciler.standin import paths
from reconciler.standin.aspired import AspiredVersionsManager
from reconciler.standin.errors import StatusError
from reconciler.standin.loader import LoadedModel
from reconciler.standin.manager import Manager, ModelLoader, Retries
from reconciler.standin.monitor import EventBus, ServableId, ServableState, State, StateMonitor
from reconciler.standin.source import FileSystemSource, WatchedModel
from reconciler.standin.threads import FairLock

_LOG = logging.getLogger(__name__)
_TENSORFLOW = "tensorflow"


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """The flags that the core depends on."""

    poll_seconds: float
    tick_seconds: float
    load_threads: int
    unload_threads: int
    initial_load_threads: int
    retries: Retries
    allow_labels_for_unavailable: bool


class ServerCore:
    """All models of one server."""

    def __init__(self, options: CoreOptions, loader: ModelLoader) -> None:
        self._options = options
        self._bus = EventBus()
        self.monitor = StateMonitor(self._bus)
        self._manager = Manager(
            loader, self._bus, options.retries, options.load_threads, options.unload_threads
        )
        self._aspired = AspiredVersionsManager(self._manager, options.tick_seconds)
        self._config_lock = FairLock()
        self._config = ModelServerConfig()
        self._source: FileSystemSource | None = None
        self._labels_lock = threading.Lock()
        self._labels: dict[str, dict[str, int]] | None = None

    def reload(self, config: ModelServerConfig) -> None:
        """Make `config` the one that is served; returns when every new model is there.

        Raises StatusError. What was applied before the error stays applied.
        """
        with self._config_lock.hold():
            self._check(config)
            if config.WhichOneof("config") is None:
                _LOG.info("Taking no action for empty config.")
                return
            self._config = config
            if config.HasField("custom_model_config"):
                _LOG.critical("ModelServer does not yet support custom model config.")
                os.abort()
            self._update_labels(config)
            _LOG.info("Adding/updating models.")
            models = _watched(config)
            _check_platforms(config)
            if self._source is None:
                self._add_first(models)
            else:
                self._change(self._source, models)
            if any(model.HasField("logging_config") for model in _models(config)):
                raise StatusError(Code.INVALID_ARGUMENT, "No request-logger-creator provided.")

    @contextmanager
    def borrow(self, spec: ModelSpec) -> Iterator[tuple[int, LoadedModel]]:
        """Keep the version that `spec` names for one request.

        Raises StatusError when the spec names none that is ready.
        """
        if not spec.name:
            raise StatusError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        version = None
        if choice == "version":
            version = spec.version.value
        elif choice == "version_label":
            version = self._version_of(spec.name, spec.version_label)
        with self._manager.borrow(spec.name, version) as borrowed:
            yield borrowed

    def _check(self, config: ModelServerConfig) -> None:
        stored, wanted = self._config.WhichOneof("config"), config.WhichOneof("config")
        if stored is not None and not stored == wanted == "model_config_list":
            raise StatusError(
                Code.FAILED_PRECONDITION,
                "Cannot transition to requested config. It is only legal to transition from one"
                " ModelConfigList to another.",
            )
        names: set[str] = set()
        for model in _models(config):
            if model.name in names:
                raise StatusError(
                    Code.INVALID_ARGUMENT,
                    f"Illegal to list model {model.name} multiple times in config list",
                )
            names.add(model.name)
        for model in _models(config):
            if paths.is_relative(model.base_path):
                raise StatusError(
                    Code.INVALID_ARGUMENT,
                    f"Expected model {model.name} to have an absolute path or URI;"
                    f" got base_path()={model.base_path}",
                )
        old = {model.name: _platform(model) for model in _models(self._config)}
        for model in _models(config):
            if model.name in old and (platform := _platform(model)) != old[model.name]:
                raise StatusError(
                    Code.INVALID_ARGUMENT,
                    f"Illegal to change a model's platform. For model {model.name} platform was"
                    f" {old[model.name]} and new platform requested is {platform}",
                )

    def _update_labels(self, config: ModelServerConfig) -> None:
        """Replace all labels, or none: checked against what is available before any load."""
        labels: dict[str, dict[str, int]] = {}
        for model in _models(config):
            for label, version in model.version_labels.items():
                current = (self._labels or {}).get(model.name, {}).get(label, version)
                may_be_missing = self._options.allow_labels_for_unavailable and current == version
                state = self.monitor.state(ServableId(model.name, version))
                available = state is not None and state.state is State.AVAILABLE
                if not available and not may_be_missing:
                    raise StatusError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name},"
                        " which is not currently available for inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        with self._labels_lock:
            self._labels = labels

    def _version_of(self, name: str, label: str) -> int:
        with self._labels_lock:
            if self._labels is None:
                raise StatusError(Code.UNAVAILABLE, f"Model labels does not init yet.{label}")
            version = self._labels.get(name, {}).get(label)
        if version is None:
            raise StatusError(
                Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}"
            )
        return version

    def _add_first(self, models: tuple[WatchedModel, ...]) -> None:
        """Start polling; every model has to come up, or the polling is given up again.

        This path waits on the long-lived monitor, where what happened in an earlier try counts.
        """
        source = FileSystemSource(models, self._options.poll_seconds)
        load_threads = self._manager.load_threads
        self._manager.set_load_threads(self._options.initial_load_threads)
        source.start(self._aspired.set_aspired)
        reached = self.monitor.wait_until_decided(model.name for model in models)
        self._manager.set_load_threads(load_threads)
        try:
            _require_available(reached, "servable")
        except StatusError:
            source.close()
            raise
        self._source = source

    def _change(self, source: FileSystemSource, models: tuple[WatchedModel, ...]) -> None:
        fresh = StateMonitor(self._bus)
        try:
            new = {model.name for model in models} - source.names
            source.update(models)
            _require_available(fresh.wait_until_decided(sorted(new)), "model")
        finally:
            fresh.close()


def _models(config: ModelServerConfig) -> list[ModelConfig]:
    return list(config.model_config_list.config)


def _watched(config: ModelServerConfig) -> tuple[WatchedModel, ...]:
    return tuple(
        WatchedModel(model.name, model.base_path, model.model_version_policy)
        for model in _models(config)
    )


def _platform(model: ModelConfig) -> str:
    if model.model_type != ModelType.MODEL_TYPE_UNSPECIFIED:
        if model.model_platform:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                "Illegal setting both ModelServerConfig::model_type (deprecated) and"
                f" ModelServerConfig::model_platform, model name is {model.name}",
            )
        if model.model_type != ModelType.TENSORFLOW:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"ModelServerConfig::model_type choice {int(model.model_type)} not supported.",
            )
        return _TENSORFLOW
    if not model.model_platform:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor"
            f" ModelServerConfig::model_platform, model name is {model.name}",
        )
    return model.model_platform


def _check_platforms(config: ModelServerConfig) -> None:
    for model in _models(config):
        if (platform := _platform(model)) != _TENSORFLOW:
            raise StatusError(
                Code.INVALID_ARGUMENT,
                f"Model {model.name} requests unsupported platform {platform}",
            )


def _require_available(reached: dict[ServableId, ServableState], kind: str) -> None:
    failed = [state for _, state in sorted(reached.items()) if state.state is not State.AVAILABLE]
    if failed:
        parts = "".join(
            f"{{{state.id}{f' due to error: {state.error}' if state.error else ''}}}, "
            for state in failed
        )
        raise StatusError(
            Code.UNKNOWN, f"{len(failed)} {kind}(s) did not become available: {{{parts}}}"
        )
