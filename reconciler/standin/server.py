"""Starts the server: config, core, models, then the ports - in this order, as the real one does.

Until every model of the first config has a version no port is open; a model that fails ends the
program with 255; a folder that is missing is waited for without end. There is no signal handler:
the process ends at once by whatever signal it gets.
"""

import logging
import threading
from dataclasses import dataclass

import grpc

from reconciler.serving.protocol.control_pb2 import Code, ModelServerConfig
from reconciler.standin.api import Api, answer_predict, can_predict
from reconciler.standin.config_file import read_config_file
from reconciler.standin.core import CoreOptions, ServerCore
from reconciler.standin.errors import StatusError
from reconciler.standin.flags import THREADS, Flags
from reconciler.standin.loader import FolderLoader
from reconciler.standin.manager import ModelLoader, Retries
from reconciler.standin.pacing import PacedLoader
from reconciler.standin.rest import RestServer
from reconciler.standin.rpc import open_server
from reconciler.standin.threads import PeriodicFunction

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers as long as this is kept."""

    where: str
    grpc_server: grpc.Server


def start_server(flags: Flags) -> RunningServer:
    """Load what the flags name, then open the ports.

    Raises StatusError when the real server would not start. Does not return while a model is
    waited for.
    """
    _check_flags(flags)
    loader = PacedLoader(make_loader(flags), flags.standin_load_seconds)
    core = ServerCore(_core_options(flags), loader)
    core.reload(_first_config(flags))
    if flags.model_config_file and flags.model_config_file_poll_wait_seconds > 0:
        PeriodicFunction(
            lambda: reapply_config_file(core, flags.model_config_file),
            flags.model_config_file_poll_wait_seconds,
            "config-file-poll",
        )
    api = Api(core)
    grpc_server, where = _open_grpc(flags, api)
    return RunningServer(where + _open_rest(flags, api), grpc_server)


def make_loader(flags: Flags) -> ModelLoader:
    """Return the loader that the flags ask for; TensorFlow is imported here if at all."""
    tags = frozenset(flags.saved_model_tags.split(","))
    folders = FolderLoader(tags, flags.standin_scripts)
    if flags.standin_predict == "off" or (flags.standin_predict == "auto" and not can_predict()):
        return folders
    try:
        from reconciler.standin.session import SessionLoader
    except ImportError as error:
        raise StatusError(
            Code.FAILED_PRECONDITION,
            f"--standin_predict=on needs TensorFlow, which cannot be imported ({error}): install"
            " the extra tfserving-reconciler[tensorflow]",
        ) from None
    return SessionLoader(folders, answer_predict, flags.enable_model_warmup)


def reapply_config_file(core: ServerCore, path: str) -> None:
    """Read the file and reload it, changed or not; what is wrong is only logged."""
    try:
        config = read_config_file(path)
    except StatusError as error:
        _LOG.error("Failed to read ModelServerConfig file: %s", error.message)
        return
    try:
        core.reload(config)
    except StatusError as error:
        _LOG.error("PollFilesystemAndReloadConfig failed to ReloadConfig: %s", error.message)


def _check_flags(flags: Flags) -> None:
    if flags.port == 0 and not flags.grpc_socket_path:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be"
            " set.",
        )
    if not flags.model_base_path and not flags.model_config_file:
        raise StatusError(
            Code.INVALID_ARGUMENT,
            "Both server_options.model_base_path and server_options.model_config_file are empty!",
        )
    for name in ("ssl_config_file", "platform_config_file"):
        if getattr(flags, name):
            raise StatusError(
                Code.UNIMPLEMENTED, f"The stand-in server does not take --{name}; leave it out"
            )


def _core_options(flags: Flags) -> CoreOptions:
    return CoreOptions(
        poll_seconds=flags.file_system_poll_wait_seconds,
        tick_seconds=flags.standin_tick_seconds,
        load_threads=flags.num_load_threads,
        unload_threads=flags.num_unload_threads,
        initial_load_threads=THREADS,
        retries=Retries(flags.max_num_load_retries, flags.load_retry_interval_micros / 1e6),
        allow_labels_for_unavailable=flags.allow_version_labels_for_unavailable_models,
    )


def _first_config(flags: Flags) -> ModelServerConfig:
    if flags.model_config_file:
        return read_config_file(flags.model_config_file)
    config = ModelServerConfig()
    config.model_config_list.config.add(
        name=flags.model_name, base_path=flags.model_base_path, model_platform="tensorflow"
    )
    return config


def _open_grpc(flags: Flags, api: Api) -> tuple[grpc.Server, str]:
    places = []
    if flags.port:
        places.append(f"{flags.standin_listen_host}:{flags.port}")
    if flags.grpc_socket_path:
        places.append(f"unix:{flags.grpc_socket_path}")
    grpc_server = open_server(
        api,
        places,
        flags.grpc_max_threads,
        flags.grpc_channel_arguments,
        flags.enable_grpc_healthcheck_service,
    )
    return grpc_server, f"Running gRPC ModelServer at {' and '.join(places)} ..."


def _open_rest(flags: Flags, api: Api) -> str:
    """Open the REST port, if any; a server whose REST port is taken runs without."""
    if flags.rest_api_port == 0:
        return ""
    if flags.rest_api_port == flags.port:
        _LOG.error("server_options.http_port cannot be same as grpc_port. Skipped REST API.")
        return ""
    try:
        rest = RestServer(flags.standin_listen_host, flags.rest_api_port, api)
    except OSError as error:
        _LOG.error("Failed to start HTTP Server at port %d: %s", flags.rest_api_port, error)
        return ""
    threading.Thread(target=rest.serve_forever, name="rest", daemon=True).start()
    return f" Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ..."
