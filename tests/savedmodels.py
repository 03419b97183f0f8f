"""Tiny SavedModels for tests: `y = x + value`, written in a millisecond without TensorFlow.

The template in tests/data/savedmodel was saved by TensorFlow once (`python -m tests.savedmodels`
makes it anew). Its one variable lies in the first four bytes of the data file; giving a model
another value means patching these and the two checksums over them, so that every model is real to
every loader. Beside `serving_default` there is a signature `slow`, which answers the same after
`seconds`; asked as a warm-up request it makes a load last.
"""

import json
import struct
import sys
from pathlib import Path
from typing import Literal

import google_crc32c

from reconciler.serving.protocol.inference_pb2 import PredictionLog

TEMPLATE = Path(__file__).parent / "data" / "savedmodel"
_TEMPLATE_VALUE = 7.0
_DATA = "variables.data-00000-of-00001"

Fault = Literal[
    "empty",  # no file at all
    "junk",  # saved_model.pb is no SavedModel
    "no_graph",  # the weights without saved_model.pb
    "truncated_graph",
    "truncated_data",
    "no_data",  # an index whose data file is missing
    "no_variables",  # loads, and fails at the first request
    "bad_warmup",  # a warm-up request for a signature that is not there
]


def write_savedmodel(
    folder: Path, value: float, *, fault: Fault | None = None, load_seconds: float = 0.0
) -> Path:
    """Write a model that adds `value`, whole or with a fault; return its folder.

    `load_seconds` makes loading it last that long: by a warm-up request for servers that predict,
    by a script for a stand-in that does not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {"saved_model.pb": (TEMPLATE / "saved_model.pb").read_bytes()}
    files["variables/variables.index"], files[f"variables/{_DATA}"] = _weights(value)
    if load_seconds:
        files["assets.extra/tf_serving_warmup_requests"] = _warmup("slow", load_seconds)
        files["standin.json"] = json.dumps({"delay_seconds": load_seconds}).encode()
    match fault:
        case "empty":
            files.clear()
        case "junk":
            files["saved_model.pb"] = b"this is no model\xff\xff"
        case "no_graph":
            del files["saved_model.pb"]
        case "truncated_graph":
            files["saved_model.pb"] = files["saved_model.pb"][:1000]
        case "truncated_data":
            files[f"variables/{_DATA}"] = files[f"variables/{_DATA}"][:2]
        case "no_data":
            del files[f"variables/{_DATA}"]
        case "no_variables":
            del files[f"variables/{_DATA}"], files["variables/variables.index"]
        case "bad_warmup":
            files["assets.extra/tf_serving_warmup_requests"] = _warmup("nosuch", 0.0)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _weights(value: float) -> tuple[bytes, bytes]:
    """Return the index and the data file of a model with this value."""
    index = (TEMPLATE / "variables.index").read_bytes()
    data = (TEMPLATE / _DATA).read_bytes()
    old, new = struct.pack("<f", _TEMPLATE_VALUE), struct.pack("<f", value)
    assert data.startswith(old)
    assert index.count(_masked_crc32c(old)) == 1
    patched = index.replace(_masked_crc32c(old), _masked_crc32c(new))
    # The first block ends where a checksum of all before it stands; it has changed with it.
    end = next(
        end
        for end in range(len(index) - 4)
        if index[end : end + 4] == _masked_crc32c(index[:end]) and end > 0
    )
    return patched[:end] + _masked_crc32c(patched[:end]) + patched[end + 4 :], new + data[4:]


def _warmup(signature: str, seconds: float) -> bytes:
    """Return a file of one warm-up request."""
    log = PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    request.inputs["x"].dtype = request.inputs["seconds"].dtype = 1  # type: ignore[assignment]
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].float_val.append(1.0)
    request.inputs["seconds"].tensor_shape.SetInParent()
    request.inputs["seconds"].float_val.append(seconds)
    record = log.SerializeToString()
    size = struct.pack("<Q", len(record))
    return size + _masked_crc32c(size) + record + _masked_crc32c(record)


def _masked_crc32c(data: bytes) -> bytes:
    checksum: int = google_crc32c.value(data)
    masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def make_template() -> None:
    """Save the template with TensorFlow."""
    import shutil
    import tempfile

    import tensorflow as tf

    class Adder(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.value = tf.Variable(_TEMPLATE_VALUE, name="value")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def add(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"y": x + self.value}

        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec([None], tf.float32, name="x"),
                tf.TensorSpec([], tf.float32, name="seconds"),
            ]
        )
        def add_slowly(self, x: tf.Tensor, seconds: tf.Tensor) -> dict[str, tf.Tensor]:
            end = tf.timestamp() + tf.cast(seconds, tf.float64)
            spent = tf.constant(0.0)
            while tf.timestamp() < end:
                spent = spent + tf.reduce_sum(tf.ones([512, 512]))
            return {"y": x + self.value + 0.0 * spent}

    adder = Adder()
    with tempfile.TemporaryDirectory() as folder:
        signatures = {"serving_default": adder.add, "slow": adder.add_slowly}
        tf.saved_model.save(adder, folder, signatures=signatures)
        TEMPLATE.mkdir(parents=True, exist_ok=True)
        for name in ("saved_model.pb", "variables/variables.index", f"variables/{_DATA}"):
            shutil.copy(Path(folder, name), TEMPLATE / Path(name).name)


if __name__ == "__main__":
    make_template()
    sys.stdout.write(f"wrote {TEMPLATE}\n")
