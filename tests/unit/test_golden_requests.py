"""Reading golden requests: what goes to the server is what was recorded, but for the name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from reconciler.serving import golden
from reconciler.serving.golden import GoldenError, GoldenRequest, read_requests
from reconciler.serving.protocol.golden_pb2 import PredictionLog
from tests.golden import predict_log, write_records

FILE = "assets.extra/golden_requests"


def write(folder: Path, records: Iterable[bytes]) -> Path:
    file = folder / FILE
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(write_records(records))
    return file


def read(folder: Path) -> list[GoldenRequest]:
    return read_requests(folder, FILE, name="ranker@golden", version=43)


def complaint(folder: Path) -> str:
    with pytest.raises(GoldenError) as caught:
        read(folder)
    assert caught.value.reason == "GoldenFailed"
    return str(caught.value)


@pytest.fixture(scope="session")
def official() -> Any:
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import prediction_log_pb2

    return prediction_log_pb2


def test_every_kind_reaches_the_server_whole_under_another_name(
    tmp_path: Path, official: Any
) -> None:
    logs = [official.PredictionLog() for _ in range(3)]
    logs[0].log_metadata.model_spec.name = "ranker"
    predict = logs[0].predict_log.request
    predict.model_spec.version_label = "stable"
    predict.model_spec.signature_name = "rank"
    predict.inputs["x"].float_val.extend([1.5, 2.5])
    predict.inputs["x"].dtype = 1
    predict.output_filter.append("y")
    predict.client_id = b"\xff\x00"
    logs[0].predict_log.response.outputs["y"].float_val.append(3.0)
    classify = logs[1].classify_log.request
    classify.model_spec.version.value = 7
    classify.input.example_list.examples.add().features.feature["f"].float_list.value.append(1.0)
    regress = logs[2].regress_log.request
    regress.model_spec.name = "ranker"
    regress.input.example_list_with_context.context.features.feature["c"].bytes_list.value.append(
        b"\xfe"
    )
    write(tmp_path, [log.SerializeToString() for log in logs])

    requests = read(tmp_path)

    assert [(item.kind, item.path.rsplit("/", 1)[1]) for item in requests] == [
        ("predict", "Predict"),
        ("classify", "Classify"),
        ("regress", "Regress"),
    ]
    for item, recorded in zip(requests, (predict, classify, regress), strict=True):
        sent = type(recorded).FromString(item.content)
        assert (sent.model_spec.name, sent.model_spec.version.value) == ("ranker@golden", 43)
        assert sent.model_spec.signature_name == recorded.model_spec.signature_name
        assert not sent.model_spec.version_label
        sent.model_spec.CopyFrom(recorded.model_spec)
        assert sent == recorded


def test_the_messages_are_a_part_of_the_official_ones(official: Any) -> None:
    theirs = official.PredictionLog.DESCRIPTOR.fields_by_name
    ours: Any = PredictionLog.DESCRIPTOR
    for field in ours.fields:
        assert theirs[field.name].number == field.number
        assert theirs[field.name].containing_oneof.name == field.containing_oneof.name
        request = theirs[field.name].message_type.fields_by_name["request"]
        for nested in field.message_type.fields:
            assert nested.number == request.number
            (spec,) = nested.message_type.fields
            assert spec.number == request.message_type.fields_by_name[spec.name].number
    assert {name for name in theirs if name not in ours.fields_by_name} == {"log_metadata"}


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("multi_inference_log", "a multi_inference request"),
        ("session_run_log", "a session_run request"),
        ("predict_streamed_log", "a predict_streamed request"),
        (None, "no request"),
    ],
)
def test_a_kind_that_cannot_be_asked_is_named(tmp_path: Path, field: str, said: str) -> None:
    log = PredictionLog()
    if field:
        getattr(log, field).SetInParent()
    write(tmp_path, [predict_log(), log.SerializeToString()])

    assert complaint(tmp_path) == (
        f"record 2 of {FILE} holds {said}, which cannot be replayed; only predict, classify and"
        " regress can"
    )


def test_a_missing_file_says_where_it_would_have_to_be(tmp_path: Path) -> None:
    assert complaint(tmp_path) == (
        f"there is no {FILE} in its folder; publish the requests with the version, or take"
        " `golden` out of the deployment"
    )


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir(parents=True)

    assert complaint(tmp_path) == f"{FILE} in its folder cannot be read: Is a directory"


def test_a_file_without_requests_proves_nothing(tmp_path: Path) -> None:
    write(tmp_path, [])

    assert "asked nothing" in complaint(tmp_path)


@pytest.mark.parametrize("kept", [1, 11, 12, 20, -1])
def test_a_file_that_is_cut_off_is_not_asked_at_all(tmp_path: Path, kept: int) -> None:
    whole = write_records([predict_log()])
    write(tmp_path, []).write_bytes(whole + whole[:kept])

    assert complaint(tmp_path).startswith(f"record 2 of {FILE} is cut off or damaged")


def test_a_file_with_a_flipped_bit_is_not_asked_at_all(tmp_path: Path) -> None:
    whole = bytearray(write_records([predict_log()]))
    file = write(tmp_path, [])
    for position in range(len(whole)):
        whole[position] ^= 0x10
        file.write_bytes(whole)
        assert complaint(tmp_path).startswith(f"record 1 of {FILE} is cut off or damaged")
        whole[position] ^= 0x10
    file.write_bytes(whole)
    assert len(read(tmp_path)) == 1


def test_a_record_that_is_no_log_is_said(tmp_path: Path) -> None:
    write(tmp_path, [predict_log(), b"\xff\xff\xff"])

    assert complaint(tmp_path).startswith(f"record 2 of {FILE} is no PredictionLog")


def test_no_more_is_read_than_a_warm_up_may_hold(tmp_path: Path) -> None:
    write(tmp_path, [predict_log()] * golden.MAX_REQUESTS)
    assert len(read(tmp_path)) == golden.MAX_REQUESTS
    write(tmp_path, [predict_log()] * (golden.MAX_REQUESTS + 1))

    assert complaint(tmp_path) == f"{FILE} holds more than 1000 requests; keep fewer"


def test_a_file_without_an_end_is_not_read(tmp_path: Path) -> None:
    with write(tmp_path, []).open("wb") as file:
        file.truncate(golden.MAX_FILE_BYTES + 1)

    assert complaint(tmp_path) == f"{FILE} is larger than the 64 MiB that are read; keep fewer"
