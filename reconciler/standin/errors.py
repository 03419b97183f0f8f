"""A failed status as TensorFlow Serving carries it: one of gRPC's codes and a message."""

import errno
import os

from reconciler.serving.protocol.control_pb2 import Code


class StatusError(Exception):
    """Anything that TensorFlow Serving would answer with a status other than OK."""

    def __init__(self, code: "Code", message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{Code.Name(self.code)}: {self.message}"


def from_os_error(path: str, error: OSError) -> StatusError:
    """Return what TensorFlow makes of a failed file operation: its code and `path; reason`."""
    code = {
        "ENOENT": Code.NOT_FOUND,
        "ENOTDIR": Code.FAILED_PRECONDITION,
        "EISDIR": Code.FAILED_PRECONDITION,
        "EACCES": Code.PERMISSION_DENIED,
        "EPERM": Code.PERMISSION_DENIED,
        "EINVAL": Code.INVALID_ARGUMENT,
    }.get(errno.errorcode.get(error.errno or 0, ""), Code.UNKNOWN)
    return StatusError(code, f"{path}; {os.strerror(error.errno or 0)}")
