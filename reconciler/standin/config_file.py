"""Reads a models.config as the real server does: all of it or nothing."""

import logging
from pathlib import Path

from google.protobuf import text_format

from reconciler.serving.protocol.control_pb2 import Code, ModelServerConfig
from reconciler.standin.errors import StatusError, from_os_error

_LOG = logging.getLogger(__name__)


def read_config_file(path: str) -> ModelServerConfig:
    """Return the config in a text file; raises StatusError with the real server's words."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise from_os_error(path, error) from None
    if not content:
        # The real server maps the file into memory, which a file of no bytes cannot be.
        raise StatusError(Code.INVALID_ARGUMENT, f"{path}; Invalid argument")
    try:
        return text_format.Parse(content.decode(errors="surrogateescape"), ModelServerConfig())
    except (text_format.ParseError, ValueError, RecursionError) as error:
        _LOG.error("Error parsing text-format tensorflow.serving.ModelServerConfig: %s", error)
        raise StatusError(Code.INVALID_ARGUMENT, f"Invalid protobuf file: '{path}'") from None
