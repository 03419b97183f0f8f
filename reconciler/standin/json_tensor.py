"""Predict requests and answers as JSON: rows (`instances`) and columns (`inputs`).

The layout of the answers is that of the real server, spaces and line ends included, because
people compare with curl (TensorFlow Serving 2.20 source, util/json_tensor.cc).
"""

import base64
import json
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.serving.protocol.control_pb2 import Code
from reconciler.serving.protocol.inference_pb2 import (
    DataType,
    PredictRequest,
    PredictResponse,
    TensorInfo,
    TensorProto,
)
from reconciler.standin.errors import StatusError

_FIELDS: Mapping[str, tuple[str, str]] = {
    "DT_FLOAT": ("float", "float_val"),
    "DT_DOUBLE": ("double", "double_val"),
    "DT_INT32": ("int32", "int_val"),
    "DT_INT16": ("int16", "int_val"),
    "DT_INT8": ("int8", "int_val"),
    "DT_UINT8": ("uint8", "int_val"),
    "DT_STRING": ("string", "string_val"),
    "DT_INT64": ("int64", "int64_val"),
    "DT_BOOL": ("bool", "bool_val"),
    "DT_UINT32": ("uint32", "uint32_val"),
    "DT_UINT64": ("uint64", "uint64_val"),
}


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request; raises INVALID_ARGUMENT."""
    if not body:
        raise _invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        # A misspelt word is noticed at its second letter.
        offset = error.pos + (1 if body[error.pos : error.pos + 1] in (b"n", b"t", b"f") else 0)
        raise _invalid(f"JSON Parse error: Invalid value. at offset: {offset}") from None
    except UnicodeDecodeError as error:
        raise _invalid(
            f"JSON Parse error: Invalid encoding in string. at offset: {error.start}"
        ) from None
    except RecursionError:
        raise _invalid("JSON Parse error: the document is nested too deeply") from None
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {json.dumps(document)} Is not object")
    return document


def fill_request(
    document: Mapping[str, Any], inputs: Mapping[str, TensorInfo], request: PredictRequest
) -> bool:
    """Fill in the tensors of a request; return whether it is in rows. Raises INVALID_ARGUMENT."""
    if "instances" in document and "inputs" in document:
        raise _invalid(
            f"JSON Value: {json.dumps(document)} Not formatted correctly expecting only one of"
            " 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise _invalid("Excepting 'instances' to be an list/array")
        if not rows:
            raise _invalid("No values in 'instances' array")
        for name, values in _columns(rows, inputs).items():
            _fill(request.inputs[name], inputs[name].dtype, values)
        return True
    if "inputs" not in document:
        raise _invalid("Missing 'inputs' or 'instances' key")
    value = document["inputs"]
    if not isinstance(value, dict) or _is_base64(value):
        if len(inputs) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
                " required as per tensorinfo_map"
            )
        value = dict.fromkeys(inputs, value)
    for name, info in inputs.items():
        if name not in value:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
        _fill(request.inputs[name], info.dtype, value[name])
    return False


def render(response: PredictResponse, rows: bool) -> str:
    """Return the answer as JSON text."""
    tensors = dict(sorted(response.outputs.items()))
    values = {
        name: _nest(_shape(tensor), _values(name, tensor)) for name, tensor in tensors.items()
    }
    if not rows:
        content = values if len(values) > 1 else next(iter(values.values()))
        return "{\n" + f'    "outputs": {_pretty(content, 1)}\n' + "}"
    sizes = {name: len(value) if isinstance(value, list) else 0 for name, value in values.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        name = min(sizes, key=lambda name: sizes[name])
        raise _invalid(f"Tensor name: {name} has invalid batch size: {sizes[name]}")
    if len(values) == 1:
        items = [_line(item) for item in next(iter(values.values()))]
        return "{\n" + f'    "predictions": [{", ".join(items)}\n' + "    ]\n}"
    objects = [
        "        {\n"
        + ",\n".join(
            f"            {json.dumps(name)}: {_line(value[row])}" for name, value in values.items()
        )
        + "\n        }"
        for row in range(next(iter(sizes.values())))
    ]
    return '{\n    "predictions": [\n' + ",\n".join(objects) + "\n    ]\n}"


def _columns(rows: list[Any], inputs: Mapping[str, TensorInfo]) -> dict[str, list[Any]]:
    """Turn rows into one list per input; every row must name the same inputs."""
    named = isinstance(rows[0], dict) and not _is_base64(rows[0])
    if not named and len(inputs) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
            " required as per tensorinfo_map"
        )
    columns: dict[str, list[Any]] = {name: [] for name in inputs}
    for number, row in enumerate(rows):
        if named != (isinstance(row, dict) and not _is_base64(row)):
            raise _invalid(
                f"Expecting object but got list at item {number} of input list"
                if named
                else f"Expecting value/list but got object at item {number} of input list"
            )
        values = row if named else dict.fromkeys(inputs, row)
        for name in values:
            where = f" key: {name}" if named else ""
            prefix = f"Failed to process element: {number}{where} of 'instances' list. Error: "
            if name not in inputs:
                raise _invalid(
                    f"{prefix}INVALID_ARGUMENT: JSON object: does not have named input: {name}"
                )
            try:
                _fill(TensorProto(), inputs[name].dtype, values[name])
            except StatusError as error:
                raise _invalid(f"{prefix}{error}") from None
            columns[name].append(values[name])
        if set(values) != set(inputs):
            raise _invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object:"
                f" {json.dumps(row)} must only have keys: {','.join(sorted(inputs))}"
            )
    return columns


def _fill(tensor: TensorProto, dtype: DataType, value: Any) -> None:
    kind, name = _FIELDS.get(DataType.Name(dtype), ("", ""))
    tensor.dtype = dtype
    tensor.tensor_shape.SetInParent()
    inner = value
    while isinstance(inner, list):
        tensor.tensor_shape.dim.add(size=len(inner))
        inner = inner[0] if inner else None
    shape = _shape(tensor)
    for item in _leaves(value, shape, 0):
        converted = _convert(item, kind)
        if not name or converted is None:
            raise _invalid(
                f"JSON Value: {json.dumps(item)} Type: {_type_name(item)} is not of expected type:"
                f" {kind or DataType.Name(dtype)}"
            )
        try:
            getattr(tensor, name).append(converted)
        except ValueError:
            raise _invalid(f"JSON Value: {json.dumps(item)} is out of range for {kind}") from None


def _leaves(value: Any, shape: list[int], level: int) -> Iterator[Any]:
    if not isinstance(value, list):
        if level < len(shape):
            raise _invalid(
                f"JSON Value: {json.dumps(value)} found at incorrect level: {level + 1} in the"
                f" JSON DOM. Expected at level: {len(shape)}"
            )
        yield value
        return
    if level >= len(shape):
        raise _invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise _invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size:"
            f" {shape[level]}"
        )
    for item in value:
        yield from _leaves(item, shape, level + 1)


def _convert(value: Any, kind: str) -> Any:
    """Return the value as its type's field takes it, None if it is none of that type."""
    if kind == "string":
        if isinstance(value, str):
            return value.encode()
        return base64.b64decode(value["b64"]) if _is_base64(value) else None
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind in ("float", "double"):
        return float(value)
    return value if isinstance(value, int) else None


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _type_name(value: Any) -> str:
    names = {str: "String", list: "Array", dict: "Object", type(None): "Null"}
    return names.get(type(value), str(value) if isinstance(value, bool) else "Number")


def _shape(tensor: TensorProto) -> list[int]:
    return [dim.size for dim in tensor.tensor_shape.dim]


def _values(name: str, tensor: TensorProto) -> Iterator[str]:
    """Yield each value of a tensor as JSON text."""
    kind = DataType.Name(tensor.dtype)
    if kind not in _FIELDS:
        raise _invalid(f"Failed to write JSON value for tensor type: {kind}")
    for value in getattr(tensor, _FIELDS[kind][1]):
        if isinstance(value, bytes):
            yield (
                json.dumps({"b64": base64.b64encode(value).decode()}, indent=1)
                if name.endswith("_bytes")
                else json.dumps(value.decode("utf-8", "replace"), ensure_ascii=False)
            )
        elif kind in ("DT_FLOAT", "DT_DOUBLE"):
            yield _decimal(value, single=kind == "DT_FLOAT")
        else:
            yield json.dumps(value)


def _decimal(value: float, single: bool) -> str:
    """Return the shortest of two precisions that gives the same number back, with a point."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = f"{value:.{6 if single else 15}g}"
    same = struct.pack("f", float(text)) == struct.pack("f", value) if single else False
    if not same and float(text) != value:
        text = f"{value:.{9 if single else 17}g}"
    return text if set(text) & set(".e") else f"{text}.0"


def _nest(shape: list[int], values: Iterator[str]) -> Any:
    if not shape:
        return next(values)
    return [_nest(shape[1:], values) for _ in range(shape[0])]


def _line(value: Any) -> str:
    """Return a nested list in one line."""
    return f"[{', '.join(map(_line, value))}]" if isinstance(value, list) else str(value)


def _pretty(value: Any, level: int) -> str:
    indent, close = "    " * (level + 1), "    " * level
    if isinstance(value, dict):
        items = [
            f"{indent}{json.dumps(name)}: {_pretty(v, level + 1)}" for name, v in value.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{close}}}"
    if isinstance(value, list):
        return (
            "[\n" + ",\n".join(indent + _pretty(v, level + 1) for v in value) + f"\n{close}]"
            if value
            else "[]"
        )
    return str(value)


def _invalid(message: str) -> StatusError:
    return StatusError(Code.INVALID_ARGUMENT, message)
