"""Loads SavedModels with TensorFlow and predicts: restore, initialise, warm up, run.

The steps are those of TensorFlow's C++ loader, one by one in a session, so that what it does with
half a model is done here too: without an index file nothing is restored, the load succeeds, and
the first request fails. Importing this module imports TensorFlow.
"""

import os
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import numpy
    import tensorflow
    from tensorflow.core.framework import tensor_pb2
    from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from reconciler.serving.protocol.control_pb2 import Code
from reconciler.serving.protocol.inference_pb2 import (
    PredictionLog,
    PredictRequest,
    PredictResponse,
    TensorProto,
)
from reconciler.standin import paths
from reconciler.standin.errors import StatusError
from reconciler.standin.loader import FolderLoader, LoadedModel, obey_script, read_meta_graph

_WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
_MAX_WARMUP_RECORDS = 1000
_MAX_RECORD_BYTES = 64 * 1024 * 1024
_INIT_SIGNATURE = "__saved_model_init_op"
_CHECKSUM_MASK_DELTA = 0xA282EAD8

# How a request is answered by a loaded model, for warm-up.
Answer = Callable[[PredictRequest, int, LoadedModel], PredictResponse]

_VALUE_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
}


@dataclass(frozen=True, slots=True)
class SessionLoader:
    """Loads what TensorFlow can run."""

    folders: FolderLoader
    answer: Answer
    warm_up: bool = True

    def estimate(self, path: str) -> None:
        """Look at every file."""
        self.folders.estimate(path)

    def load(self, path: str) -> LoadedModel:
        """Restore and initialise the model, and run its warm-up requests."""
        if self.folders.scripts:
            obey_script(path)
        graph_def, content = read_meta_graph(path, self.folders.tags)
        session = _open_session(path, self.folders.tags, content)
        model = LoadedModel(
            dict(graph_def.signature_def),
            lambda feeds, fetches: _run(session, feeds, fetches),
            session.close,
        )
        try:
            if self.warm_up:
                self._warm_up(path, model)
        except StatusError:
            session.close()
            raise
        return model

    def _warm_up(self, path: str, model: LoadedModel) -> None:
        name = paths.join(path, _WARMUP_FILE)
        file = Path(paths.to_local(name))
        if not file.exists():
            return
        for number, record in enumerate(_read_records(file, name)):
            if number >= _MAX_WARMUP_RECORDS:
                raise StatusError(
                    Code.INVALID_ARGUMENT,
                    f"Number of warmup records exceeeds the maximum ({_MAX_WARMUP_RECORDS})"
                    f" at {name}",
                )
            log = PredictionLog.FromString(record)
            if log.HasField("predict_log"):
                self.answer(log.predict_log.request, 0, model)


def _open_session(path: str, tags: frozenset[str], content: bytes) -> Any:
    if not content:
        raise StatusError(
            Code.UNIMPLEMENTED,
            f"{path} holds a saved_model.pbtxt; the stand-in predicts from saved_model.pb only",
        )
    meta_graph = next(
        graph
        for graph in saved_model_pb2.SavedModel.FromString(content).meta_graphs
        if set(graph.meta_info_def.tags) == tags
    )
    try:
        graph = tensorflow.Graph()
        with graph.as_default():
            tensorflow.graph_util.import_graph_def(meta_graph.graph_def, name="")
        session = tensorflow.compat.v1.Session(graph=graph)
        assets = _asset_feeds(meta_graph, path)
        prefix = paths.join(paths.to_local(path), "variables/variables")
        saver = meta_graph.saver_def
        if Path(f"{prefix}.index").exists() and saver.restore_op_name:
            session.run(saver.restore_op_name, {saver.filename_tensor_name: prefix, **assets})
        for operation in _init_operations(meta_graph):
            session.run(operation, assets)
    except tensorflow.errors.OpError as error:
        raise _from_tensorflow(error) from None
    except ValueError as error:
        raise StatusError(Code.INVALID_ARGUMENT, str(error)) from None
    return session


def _init_operations(meta_graph: Any) -> list[str]:
    if _INIT_SIGNATURE in meta_graph.signature_def:
        return [meta_graph.signature_def[_INIT_SIGNATURE].outputs[_INIT_SIGNATURE].name]
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta_graph.collection_def:
            return list(meta_graph.collection_def[key].node_list.value)
    return []


def _asset_feeds(meta_graph: Any, path: str) -> dict[str, str]:
    assets = (
        meta_graph_pb2.AssetFileDef.FromString(packed.value)
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value
    )
    folder = Path(paths.to_local(path), "assets")
    return {asset.tensor_info.name: str(folder / asset.filename) for asset in assets}


def _run(
    session: Any, feeds: Mapping[str, TensorProto], fetches: Sequence[str]
) -> list[TensorProto]:
    try:
        values = {name: _to_array(tensor) for name, tensor in feeds.items()}
        for name, value in values.items():
            wanted = session.graph.get_tensor_by_name(name).dtype.as_numpy_dtype
            if value.dtype != wanted and not (value.dtype.kind in "OSU" and wanted is object):
                raise StatusError(
                    Code.INVALID_ARGUMENT,
                    f"Expects {name} to be {numpy.dtype(wanted)} but {value.dtype} is provided",
                )
        return [_to_tensor(value) for value in session.run(list(fetches), values)]
    except tensorflow.errors.OpError as error:
        raise _from_tensorflow(error) from None
    except (ValueError, TypeError) as error:
        raise StatusError(Code.INVALID_ARGUMENT, str(error)) from None


def _to_array(tensor: TensorProto) -> Any:
    return tensorflow.make_ndarray(tensor_pb2.TensorProto.FromString(tensor.SerializeToString()))


def _to_tensor(value: Any) -> TensorProto:
    """Return a tensor with its values in the typed list, as the server answers by default."""
    array = numpy.asarray(value)
    tensor = TensorProto()
    tensor.tensor_shape.SetInParent()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "OSU":
        tensor.dtype = tensorflow.string.as_datatype_enum
        tensor.string_val.extend(
            item if isinstance(item, bytes) else str(item).encode() for item in array.flat
        )
        return tensor
    tensor.dtype = tensorflow.as_dtype(array.dtype).as_datatype_enum
    if name := _VALUE_FIELDS.get(array.dtype.name):
        getattr(tensor, name).extend(array.ravel().tolist())
    else:
        tensor.tensor_content = array.tobytes()
    return tensor


def _from_tensorflow(error: Any) -> StatusError:
    # Python's session wraps the message of the C++ one in lines of its own.
    message = str(error.message).removeprefix("Graph execution error:\n\n")
    return StatusError(error.error_code, message.split("\n\nOriginal stack trace")[0])


def _read_records(file: Path, name: str) -> Iterator[bytes]:
    """Yield the records of a TFRecord file; raises DATA_LOSS where one is cut or damaged."""
    with file.open("rb") as stream:
        while header := stream.read(12):
            size = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
            intact = len(header) == 12 and _is_intact(header[:8], header[8:])
            record = stream.read(size) if intact and size <= _MAX_RECORD_BYTES else b""
            if not intact or len(record) != size or not _is_intact(record, stream.read(4)):
                raise StatusError(
                    Code.DATA_LOSS,
                    f"corrupted record at {stream.tell()}. Failed to read warmup file {name}",
                )
            yield record


def _is_intact(data: bytes, stored: bytes) -> bool:
    checksum: int = google_crc32c.value(data)
    masked = ((checksum >> 15 | checksum << 17) + _CHECKSUM_MASK_DELTA) & 0xFFFFFFFF
    return stored == masked.to_bytes(4, "little")
