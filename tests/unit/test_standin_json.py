"""REST predict bodies: what they are read as and how answers are laid out."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.serving.protocol.inference_pb2 import (
    PredictRequest,
    PredictResponse,
    TensorInfo,
    TensorProto,
)
from reconciler.standin.errors import StatusError
from reconciler.standin.json_tensor import fill_request, parse_body, render

X = {"x": TensorInfo(name="x:0", dtype="DT_FLOAT")}
XY = {**X, "s": TensorInfo(name="s:0", dtype="DT_STRING")}


def shape(tensor: TensorProto) -> list[int]:
    return [dim.size for dim in tensor.tensor_shape.dim]


def fill(document: object, inputs: dict[str, TensorInfo]) -> tuple[PredictRequest, bool]:
    request = PredictRequest()
    rows = fill_request(parse_body(json.dumps(document).encode()), inputs, request)
    return request, rows


def test_rows_and_columns_make_the_same_request() -> None:
    rows, is_rows = fill({"instances": [[1, 2], [3, 4], [5, 6]]}, X)
    columns, is_columns = fill({"inputs": {"x": [[1, 2], [3, 4], [5, 6]]}}, X)

    assert (is_rows, is_columns) == (True, False)
    assert rows == columns
    assert shape(rows.inputs["x"]) == [3, 2]
    assert list(rows.inputs["x"].float_val) == [1, 2, 3, 4, 5, 6]


def test_several_inputs_are_named_in_every_row() -> None:
    request, _ = fill({"instances": [{"x": 1, "s": "a"}, {"x": 2, "s": {"b64": "/w=="}}]}, XY)

    assert list(request.inputs["s"].string_val) == [b"a", b"\xff"]
    assert shape(request.inputs["x"]) == [2]


@pytest.mark.parametrize(
    ("document", "inputs", "message"),
    [
        ({}, X, "Missing 'inputs' or 'instances' key"),
        ({"instances": []}, X, "No values in 'instances' array"),
        ({"instances": [1], "inputs": [1]}, X, "expecting only one of"),
        ({"instances": [1]}, XY, "instances is a plain list"),
        ({"inputs": [1]}, XY, "inputs is a plain value/list"),
        ({"inputs": {"y": [1]}}, X, "Missing named input: x"),
        ({"instances": [{"z": 1}]}, X, "does not have named input: z"),
        ({"instances": [{"x": 1}]}, XY, "must only have keys: s,x"),
        ({"instances": [{"x": 1}, 2]}, X, "Expecting object but got list at item 1"),
        ({"inputs": [[1], [2, 3]]}, X, "Encountered list at unexpected size: 2"),
        ({"inputs": [1, [2]]}, X, "Encountered list at unexpected level: 1"),
        ({"inputs": [True]}, X, "is not of expected type: float"),
        ([1], X, "Is not object"),
    ],
)
def test_requests_that_do_not_fit(
    document: object, inputs: dict[str, TensorInfo], message: str
) -> None:
    with pytest.raises(StatusError, match=message):
        fill(document, inputs)


def test_a_body_nested_without_end_is_refused() -> None:
    with pytest.raises(StatusError, match="JSON Parse error"):
        parse_body(b'{"inputs":' + b"[" * 100_000)


def answer(*values: float, dims: list[int]) -> PredictResponse:
    response = PredictResponse()
    tensor = response.outputs["y"]
    tensor.dtype = TensorProto(dtype="DT_FLOAT").dtype
    for size in dims:
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend(values)
    return response


def test_the_layout_of_answers() -> None:
    matrix = answer(1, 2.5, 3, 4, dims=[2, 2])

    assert render(matrix, rows=True) == '{\n    "predictions": [[1.0, 2.5], [3.0, 4.0]\n    ]\n}'
    assert json.loads(render(matrix, rows=False)) == {"outputs": [[1.0, 2.5], [3.0, 4.0]]}
    matrix.outputs["n"].CopyFrom(answer(7, 8, dims=[2]).outputs["y"])
    assert json.loads(render(matrix, rows=True)) == {
        "predictions": [{"n": 7.0, "y": [1.0, 2.5]}, {"n": 8.0, "y": [3.0, 4.0]}]
    }
    with pytest.raises(StatusError, match="invalid batch size"):
        render(answer(1, dims=[]), rows=True)


@given(st.floats(width=32))
def test_every_float_survives_its_text(value: float) -> None:
    (read,) = json.loads(render(answer(value, dims=[1]), rows=True))["predictions"]

    if math.isnan(value):
        assert math.isnan(read)
    else:
        assert struct.pack("f", read) == struct.pack("f", value)
