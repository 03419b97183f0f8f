"""What the stand-in's loader makes of whole and of damaged folders, without TensorFlow."""

import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.serving.protocol.inference_pb2 import SavedModel
from reconciler.standin.checkpoint import check_weights
from reconciler.standin.errors import StatusError
from reconciler.standin.loader import FolderLoader
from tests.savedmodels import write_savedmodel

DATA = "variables/variables.data-00000-of-00001"
INDEX = "variables/variables.index"


def load_error(folder: Path, loader: FolderLoader | None = None) -> str:
    with pytest.raises(StatusError) as caught:
        (loader or FolderLoader()).load(str(folder))
    return str(caught.value)


@given(value=st.floats(width=32, allow_nan=False))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_whole_model_of_any_value_loads(tmp_path: Path, value: float) -> None:
    folder = write_savedmodel(tmp_path / "1", value)

    assert set(FolderLoader().load(str(folder)).signatures) >= {"serving_default", "slow"}
    assert struct.unpack("<f", (folder / DATA).read_bytes()[:4]) == (value,)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (
            "empty",
            "NOT_FOUND: Specified file path does not appear to contain a SavedModel bundle"
            " (should have a file called `saved_model.pb`)\nSpecified file path: {}",
        ),
        ("junk", "OUT_OF_RANGE: Read less bytes than requested"),
        ("truncated_graph", "OUT_OF_RANGE: Read less bytes than requested"),
        (
            "truncated_data",
            "OUT_OF_RANGE: Read less bytes than requested\n\t [[{{{{node RestoreV2}}}}]]",
        ),
        (
            "no_data",
            "NOT_FOUND: {}/" + DATA + "; No such file or directory\n\t [[{{{{node RestoreV2}}}}]]",
        ),
    ],
)
def test_each_fault_has_the_loaders_own_message(tmp_path: Path, fault: str, error: str) -> None:
    folder = write_savedmodel(tmp_path / "1", 1, fault=fault)  # type: ignore[arg-type]

    assert load_error(folder) == error.format(folder)


def test_a_model_without_index_restores_nothing_and_loads(tmp_path: Path) -> None:
    folder = write_savedmodel(tmp_path / "1", 1, fault="no_variables")

    assert FolderLoader().load(str(folder)).signatures


def test_a_session_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "export.meta").touch()

    assert load_error(tmp_path) == "UNIMPLEMENTED: Session Bundle is deprecated and removed."


def test_tags_must_match_exactly(tmp_path: Path) -> None:
    folder = write_savedmodel(tmp_path / "1", 1)

    error = load_error(folder, FolderLoader(frozenset({"serve", "gpu"})))
    assert error.startswith(
        "NOT_FOUND: Could not find meta graph def matching supplied tags: { gpu serve }"
    )


def test_a_text_graph_loads(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pbtxt").write_text(
        'meta_graphs { meta_info_def { tags: "serve" } graph_def { node { name: "n" } } }'
    )

    assert FolderLoader().load(str(tmp_path)).signatures == {}


@given(position=st.integers(0, 3), flip=st.integers(1, 255))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_changed_byte_of_a_weight_is_noticed(
    tmp_path: Path, position: int, flip: int
) -> None:
    folder = write_savedmodel(tmp_path / "1", 1)
    data = bytearray((folder / DATA).read_bytes())
    data[position] ^= flip
    (folder / DATA).write_bytes(data)

    assert "Checksum does not match" in load_error(folder)


@given(cut=st.integers(0, 192), noise=st.binary(max_size=60))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_index_is_an_error_of_the_loader_or_none(
    tmp_path: Path, cut: int, noise: bytes
) -> None:
    folder = write_savedmodel(tmp_path / "1", 1)
    index = (folder / INDEX).read_bytes()
    (folder / INDEX).write_bytes(index[:cut] + noise + index[cut + len(noise) :])

    try:
        check_weights(str(folder))
    except StatusError as error:
        assert error.message


def test_the_estimate_names_what_it_cannot_read(tmp_path: Path) -> None:
    folder = write_savedmodel(tmp_path / "1", 1)
    FolderLoader().estimate(str(folder))
    (folder / "link").symlink_to("nowhere")

    with pytest.raises(StatusError, match="link; No such file or directory"):
        FolderLoader().estimate(str(folder))
    shutil.rmtree(folder)
    with pytest.raises(StatusError, match=r"^NOT_FOUND: .*/1 not found$"):
        FolderLoader().estimate(str(folder))


def test_scripts_are_obeyed_only_when_asked_for(tmp_path: Path) -> None:
    folder = write_savedmodel(tmp_path / "1", 1)
    (folder / "standin.json").write_text(
        '{"fail": {"code": "RESOURCE_EXHAUSTED", "message": "no room"}}'
    )

    assert FolderLoader().load(str(folder)).signatures
    scripted = FolderLoader(scripts=True)
    assert load_error(folder, scripted) == "RESOURCE_EXHAUSTED: no room"
    (folder / "standin.json").write_text("{")
    assert load_error(folder, scripted).startswith("INVALID_ARGUMENT: ")


def test_an_empty_graph_file_holds_no_graph(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(SavedModel().SerializeToString())

    assert load_error(tmp_path).startswith("NOT_FOUND: Could not find meta graph def")
