"""REST: paths, codes, and the exact layout of the bodies."""

import pytest

from tests.conformance.harness import OK, Server, model
from tests.savedmodels import write_savedmodel

STATUS = """\
{
 "model_version_status": [
  {
   "version": "2",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  },
  {
   "version": "1",
   "state": "AVAILABLE",
   "status": {
    "error_code": "OK",
    "error_message": ""
   }
  }
 ]
}
"""


def error(message: str) -> str:
    return '{\n    "error": "' + message + '"\n}'


def serve_two(server: Server, predict: bool = False) -> None:
    for number in (1, 2):
        write_savedmodel(server.folder / f"a/{number}", number)
    server.start([model("a", server.folder / "a", specific=[1, 2])], predict=predict)
    server.until_states("a", {1: "AVAILABLE", 2: "AVAILABLE"})
    labelled = model("a", server.folder / "a", specific=[1, 2], labels={"s": 1})
    assert server.reload(labelled) == OK


def test_rest_status_json_shape(server: Server) -> None:
    serve_two(server)

    answer = server.get("/v1/models/a")
    assert (answer.status_code, answer.text) == (200, STATUS)
    assert answer.headers["content-type"] == "application/json"
    assert server.get("/V1/MODELS/a").text == STATUS
    one = server.get("/v1/models/a/versions/1").json()["model_version_status"]
    assert [entry["version"] for entry in one] == ["1"]
    write_savedmodel(server.folder / "a/3", 3, fault="junk")
    assert server.reload(model("a", server.folder / "a", specific=[1, 2, 3])) == OK
    server.until_states("a", {3: "END"})
    failed = server.get("/v1/models/a/versions/3").json()["model_version_status"]
    assert failed == [
        {
            "version": "3",
            "state": "END",
            "status": {
                "error_code": "OUT_OF_RANGE",
                "error_message": "Read less bytes than requested",
            },
        }
    ]


def test_rest_error_shape(server: Server) -> None:
    serve_two(server)

    for method, path, status, body in (
        ("GET", "/v1/models/zzz", 404, error("Could not find any versions of model zzz")),
        ("GET", "/v1/models/a/versions/9", 404, error("Could not find version 9 of model a")),
        ("GET", "/v1/models", 400, error("Missing model name in request.")),
        ("GET", "/v1/foo", 400, error("Malformed request: GET /v1/foo")),
        ("POST", "/v1/models/a", 400, error("Malformed request: POST /v1/models/a")),
        ("DELETE", "/v1/models/a", 400, error("Malformed request: DELETE /v1/models/a")),
        ("GET", "/v1/models/a:predict", 400, error("Malformed request: GET /v1/models/a:predict")),
        ("GET", f"/v1/models/a/versions/{'9' * 20}", 400, ""),
        (
            "GET",
            "/v1/models/a/labels/nosuch/metadata",
            400,
            error("Unrecognized servable version label: nosuch"),
        ),
    ):
        answer = server.http(method, path)
        assert (path, answer.status_code, answer.text) == (path, status, body)
        assert answer.headers["content-type"] == "application/json"
    assert server.get("/foo").status_code == 404


def test_rest_metadata_resolves_labels(server: Server) -> None:
    serve_two(server)

    for path, version in (("", "2"), ("/labels/s", "1"), ("/versions/1", "1")):
        answer = server.get(f"/v1/models/a{path}/metadata").json()
        assert answer["model_spec"] == {"name": "a", "version": version, "signature_name": ""}
        signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert signature["method_name"] == "tensorflow/serving/predict"
        assert signature["defaults"] == {}
        assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
        assert signature["inputs"]["x"]["tensor_shape"] == {
            "dim": [{"size": "-1", "name": ""}],
            "unknown_rank": False,
        }


def test_rest_predict(server: Server) -> None:
    serve_two(server, predict=True)

    for path, content, status, body in (
        ("", '{"instances": [1.0, 2.0]}', 200, '{\n    "predictions": [3.0, 4.0\n    ]\n}'),
        (
            "",
            '{"inputs": [1.0, 2.0]}',
            200,
            '{\n    "outputs": [\n        3.0,\n        4.0\n    ]\n}',
        ),
        ("/labels/s", '{"instances": [1.0]}', 200, '{\n    "predictions": [2.0\n    ]\n}'),
        (
            "/versions/1",
            '{"signature_name": "serving_default", "instances": [{"x": 5.0}]}',
            200,
            '{\n    "predictions": [6.0\n    ]\n}',
        ),
        (
            "",
            '{"signature_name": "nosuch", "instances": [1.0]}',
            400,
            error('Serving signature name: \\"nosuch\\" not found in signature def'),
        ),
        (
            "",
            '{"instances": ["str"]}',
            400,
            error(
                "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON"
                ' Value: \\"str\\" Type: String is not of expected type: float'
            ),
        ),
        ("", "not json", 400, error("JSON Parse error: Invalid value. at offset: 1")),
        ("", "{}", 400, error("Missing 'inputs' or 'instances' key")),
        ("/versions/7", "{}", 404, error("Servable not found for request: Specific(a, 7)")),
        ("/labels/no", "{}", 400, error("Unrecognized servable version label: no")),
    ):
        answer = server.http("POST", f"/v1/models/a{path}:predict", content)
        assert (content, answer.status_code, answer.text) == (content, status, body)
    # gRPC tells the version that answered, too, and never a label.
    assert server.predict("a", x=10, label="s").value == (11.0, 1)
    assert server.predict("a", x=10).value == (12.0, 2)


def test_predict_without_tensorflow_names_what_to_install(server: Server) -> None:
    if not server.is_standin:
        pytest.skip("a real server always predicts")
    serve_two(server)

    refused = server.predict("a")
    assert refused.code == "UNIMPLEMENTED"
    assert "tfserving-reconciler[tensorflow]" in refused.message
    # Where nothing is served, that is still what is said.
    assert server.predict("zzz").code == "NOT_FOUND"
    content = '{"instances": [1.0]}'
    assert server.http("POST", "/v1/models/a:predict", content).status_code == 501
