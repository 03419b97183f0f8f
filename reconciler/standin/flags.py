"""The flags of tensorflow_model_server, by their real names, and a few of our own.

Syntax as there: `--flag=value`, a boolean also as a bare `--flag`. An unknown flag is named and
otherwise ignored; a value that does not fit ends the program. Flags of the real server that change
nothing here are taken, so that a real command line works.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from reconciler.serving.protocol.control_pb2 import Code
from reconciler.standin.errors import StatusError

THREADS = 4 * (os.cpu_count() or 1)


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said."""

    port: int = _flag(8500, "gRPC port; 0 for none")
    grpc_socket_path: str = _flag("", "unix socket to listen on besides")
    rest_api_port: int = _flag(0, "HTTP/REST port; 0 for none")
    grpc_max_threads: int = _flag(THREADS, "how many gRPC requests are worked on at a time")
    grpc_channel_arguments: str = _flag("", "comma separated key=value pairs for the gRPC server")
    model_config_file: str = _flag("", "text ModelServerConfig; --model_name and path are ignored")
    model_config_file_poll_wait_seconds: float = _flag(
        0.0, "re-read and re-apply the file every so often; 0 reads it once"
    )
    model_name: str = _flag("default", "name of the one model at --model_base_path")
    model_base_path: str = _flag("", "serve one model from here")
    file_system_poll_wait_seconds: float = _flag(
        1.0, "how often folders are looked at; fractions are taken; 0 once, below 0 never"
    )
    num_load_threads: int = _flag(0, "0: loads and their retries stop the manager")
    num_unload_threads: int = _flag(0, "0: unloads stop the manager")
    max_num_load_retries: int = _flag(5, "tries after the first one that failed")
    load_retry_interval_micros: int = _flag(60_000_000, "between two tries")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "let a new label name a version that is not loaded"
    )
    enable_model_warmup: bool = _flag(True, "run assets.extra/tf_serving_warmup_requests at load")
    saved_model_tags: str = _flag("serve", "comma separated tags of the graph to load")
    enable_grpc_healthcheck_service: bool = _flag(False, "answer grpc.health.v1")
    standin_listen_host: str = _flag("0.0.0.0", "OURS: address to bind")  # noqa: S104, as theirs
    standin_tick_seconds: float = _flag(0.1, "OURS: how often the manager acts")
    standin_load_seconds: float = _flag(
        0.12, "OURS: the least time a load takes, three times that for the first ones"
    )
    standin_predict: str = _flag(
        "auto", "OURS: on, off, or auto: predict where TensorFlow is installed"
    )
    standin_scripts: bool = _flag(
        False, "OURS: obey standin.json in a version's folder (delay_seconds, fail, crash)"
    )
    ssl_config_file: str = _flag("", "refused: the stand-in does not speak TLS")
    platform_config_file: str = _flag("", "refused: only the platform `tensorflow` is known here")


_WITHOUT_EFFECT = frozenset(
    {
        "batching_parameters_file",
        "enable_batching",
        "enable_per_model_batching_parameters",
        "enable_profiler",
        "enable_serialization_as_tensor_content",
        "enable_signature_method_name_check",
        "flush_filesystem_caches",
        "monitoring_config_file",
        "num_request_iterations_for_warmup",
        "per_process_gpu_memory_fraction",
        "prefer_tflite_model",
        "remove_unused_fields_from_bundle_metagraph",
        "rest_api_enable_cors_support",
        "rest_api_num_threads",
        "rest_api_timeout_in_ms",
        "tensorflow_inter_op_parallelism",
        "tensorflow_intra_op_parallelism",
        "tensorflow_session_parallelism",
        "xla_cpu_compilation_enabled",
        "xla_gpu_compilation_enabled",
    }
)


def parse_flags(arguments: Sequence[str]) -> tuple[Flags, tuple[str, ...]]:
    """Return the flags and the arguments that are none.

    Raises INVALID_ARGUMENT when a value does not fit its flag.
    """
    values: dict[str, Any] = {}
    unknown: list[str] = []
    kinds = {item.name: item.type for item in fields(Flags)}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in kinds:
            if name not in _WITHOUT_EFFECT:
                unknown.append(argument)
            continue
        if not equals and kinds[name] is bool:
            text = "true"
        try:
            values[name] = _convert(kinds[name], text)
        except ValueError:
            raise StatusError(
                Code.INVALID_ARGUMENT, f"Couldn't interpret value {text} for flag {name}."
            ) from None
    flags = Flags(**values)
    if flags.standin_predict not in ("auto", "off", "on"):
        raise StatusError(
            Code.INVALID_ARGUMENT,
            f"Couldn't interpret value {flags.standin_predict} for flag standin_predict.",
        )
    return flags, tuple(unknown)


def describe_flags() -> str:
    """Return the list of flags for people."""
    lines = ["Flags (--flag=value), those of tensorflow_model_server and, marked, OURS:"]
    for item in fields(Flags):
        lines.append(f"  --{item.name}={item.default}")
        lines.append(f"        {item.metadata['help']}")
    lines.append("  Taken without effect: " + ", ".join(sorted(_WITHOUT_EFFECT)))
    return "\n".join(lines)


def _convert(kind: Any, text: str) -> Any:
    if kind is not bool:
        return kind(text)
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")
