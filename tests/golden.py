"""Golden requests for tests: records of PredictionLog, framed as TFRecords."""

import struct
from collections.abc import Iterable

import google_crc32c

from reconciler.serving.protocol.inference_pb2 import DT_FLOAT, PredictionLog


def predict_log(signature: str = "", **inputs: float | list[float]) -> bytes:
    """Return the log of one Predict request; a list is a vector, a number a scalar."""
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "recorded"
    request.model_spec.version_label = "recorded"
    request.model_spec.signature_name = signature
    for name, value in (inputs or {"x": [1.0]}).items():
        tensor = request.inputs[name]
        tensor.dtype = DT_FLOAT
        tensor.tensor_shape.SetInParent()
        values = value if isinstance(value, list) else [value]
        if isinstance(value, list):
            tensor.tensor_shape.dim.add(size=len(value))
        tensor.float_val.extend(values)
    return log.SerializeToString()


def write_records(records: Iterable[bytes]) -> bytes:
    """Return a TFRecord file."""
    content = b""
    for record in records:
        size = struct.pack("<Q", len(record))
        content += size + _masked_crc32c(size) + record + _masked_crc32c(record)
    return content


def _masked_crc32c(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")
