"""Our protos against tensorflow-serving-api, message by message, and against their generator."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

import reconciler.serving.protocol as package
from reconciler.serving.protocol import control_pb2, inference_pb2
from reconciler.serving.protocol.generate import PROTO_FILES
from reconciler.serving.protocol.methods import METHODS

OURS = "reconciler.tfserving."


def all_messages() -> list[Descriptor]:
    top = [
        *control_pb2.DESCRIPTOR.message_types_by_name.values(),
        *inference_pb2.DESCRIPTOR.message_types_by_name.values(),
    ]
    found: list[Descriptor] = []
    while top:
        message = top.pop()
        found.append(message)
        top.extend(message.nested_types)
    return sorted(found, key=lambda message: message.full_name)


@pytest.fixture(scope="session")
def official() -> Any:
    """Find the official message class or enum of one of ours by its short full name."""
    from google.protobuf import descriptor_pool, message_factory
    from tensorflow.core.framework import tensor_pb2
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_management_pb2,
        predict_pb2,
        prediction_log_pb2,
    )

    assert all((tensor_pb2, saved_model_pb2, get_model_metadata_pb2, get_model_status_pb2))
    assert all((model_management_pb2, predict_pb2, prediction_log_pb2))
    pool = descriptor_pool.Default()

    def find(ours: Descriptor | EnumDescriptor) -> Any:
        short = ours.full_name.removeprefix(OURS)
        for prefix in ("tensorflow.serving.", "tensorflow.", "tensorflow.error."):
            try:
                if isinstance(ours, EnumDescriptor):
                    return pool.FindEnumTypeByName(prefix + short)
                return message_factory.GetMessageClass(pool.FindMessageTypeByName(prefix + short))
            except KeyError:
                continue
        raise AssertionError(f"TensorFlow Serving has no {short}")

    return find


def shape(field: FieldDescriptor) -> tuple[object, ...]:
    """Return all that the wire, the text form and the JSON form of a field depend on."""
    kind = field.message_type or field.enum_type
    return (
        field.name,
        field.json_name,
        field.number,
        field.type,
        field.is_repeated,
        field.is_packed,
        field.has_presence,
        field.containing_oneof.name if field.containing_oneof else None,
        kind.full_name.rsplit(".", 1)[-1] if kind else None,
    )


@pytest.mark.parametrize("ours", all_messages(), ids=lambda message: message.name)
def test_every_field_is_the_official_one(ours: Descriptor, official: Any) -> None:
    theirs = official(ours).DESCRIPTOR
    for field in ours.fields:
        assert shape(field) == shape(theirs.fields_by_name[field.name])
        if field.enum_type:
            names = official(field.enum_type).values_by_name
            for value in field.enum_type.values:
                assert value.number == names[value.name].number


@pytest.mark.parametrize(
    "ours",
    [message for message in all_messages() if message.file.name.endswith("control.proto")],
    ids=lambda message: message.name,
)
def test_no_field_of_a_config_is_missing(ours: Descriptor, official: Any) -> None:
    if ours.full_name == f"{OURS}FileSystemStoragePathSourceConfig":
        return  # the name around the version policy, never itself sent
    theirs = official(ours).DESCRIPTOR
    assert {field.name for field in theirs.fields} == {field.name for field in ours.fields}


NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
VERSIONS = st.integers(-(2**63), 2**63 - 1)


@st.composite
def server_configs(draw: st.DrawFn) -> control_pb2.ModelServerConfig:
    """Draw a config that uses every field a models.config can have."""
    config = control_pb2.ModelServerConfig()
    config.model_config_list.SetInParent()
    for _ in range(draw(st.integers(0, 3))):
        model = config.model_config_list.config.add(
            name=draw(NAMES), base_path=draw(NAMES), model_platform=draw(NAMES)
        )
        model.model_type = draw(
            st.sampled_from([control_pb2.MODEL_TYPE_UNSPECIFIED, control_pb2.TENSORFLOW])
        )
        model.version_labels.update(draw(st.dictionaries(NAMES, VERSIONS, max_size=3)))
        policy = draw(st.sampled_from(["", "latest", "all", "specific"]))
        if policy:
            getattr(model.model_version_policy, policy).SetInParent()
        if policy == "latest":
            model.model_version_policy.latest.num_versions = draw(st.integers(0, 2**32 - 1))
        if policy == "specific":
            model.model_version_policy.specific.versions.extend(draw(st.lists(VERSIONS)))
        if draw(st.booleans()):
            logging = model.logging_config
            logging.log_collector_config.filename_prefix = draw(NAMES)
            logging.sampling_config.per_task_sampling_configs.add(task_index=draw(st.just(0)))
    return config


@given(config=server_configs())
@settings(max_examples=50)
def test_configs_survive_the_official_package_in_both_forms(
    config: control_pb2.ModelServerConfig, official: Any
) -> None:
    theirs = official(config.DESCRIPTOR).FromString(config.SerializeToString())
    text = text_format.MessageToString(config)

    assert control_pb2.ModelServerConfig.FromString(theirs.SerializeToString()) == config
    assert text_format.MessageToString(theirs) == text
    assert text_format.Parse(text, official(config.DESCRIPTOR)()) == theirs
    assert text_format.Parse(text, control_pb2.ModelServerConfig()) == config


SAMPLES: list[Message] = [
    control_pb2.ReloadConfigRequest(
        config=control_pb2.ModelServerConfig(
            model_config_list=control_pb2.ModelConfigList(config=[{"name": "m"}])
        ),
        metric_names=["/tensorflow/x"],
    ),
    control_pb2.ReloadConfigResponse(
        status={"error_code": control_pb2.UNKNOWN, "error_message": "no"},
        metric=[{"name": "x", "int64_value_increase": -3}],
    ),
    control_pb2.GetModelStatusRequest(model_spec={"name": "m", "version": {"value": 0}}),
    control_pb2.GetModelStatusResponse(
        model_version_status=[
            {
                "version": -1,
                "state": control_pb2.ModelVersionStatus.AVAILABLE,
                "status": {"error_code": control_pb2.UNAUTHENTICATED},
            }
        ]
    ),
    control_pb2.GetModelMetadataRequest(
        model_spec={"name": "m", "version_label": "l", "signature_name": "s"},
        metadata_field=["signature_def"],
    ),
    inference_pb2.PredictRequest(
        model_spec={"name": "m"},
        inputs={"x": inference_pb2.TensorProto(dtype="DT_FLOAT", float_val=[1.5, 2.5])},
        output_filter=["y"],
    ),
    inference_pb2.SignatureDefMap(
        signature_def={
            "s": inference_pb2.SignatureDef(
                inputs={"x": inference_pb2.TensorInfo(name="x:0", dtype="DT_FLOAT")},
                method_name="p",
            )
        }
    ),
]


@pytest.mark.parametrize("ours", SAMPLES, ids=lambda message: type(message).__name__)
def test_messages_round_trip(ours: Message, official: Any) -> None:
    theirs = official(ours.DESCRIPTOR).FromString(ours.SerializeToString())

    assert theirs.SerializeToString(deterministic=True) == ours.SerializeToString(
        deterministic=True
    )
    assert text_format.MessageToString(theirs) == text_format.MessageToString(ours)
    assert not theirs.DESCRIPTOR.full_name.startswith(OURS)


def test_methods_are_those_of_the_official_services(official: Any) -> None:
    from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

    services = {
        service.full_name: service
        for module in (model_service_pb2, prediction_service_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    for method in METHODS:
        theirs = services[method.service].methods_by_name[method.name]
        assert method.path == f"/{theirs.containing_service.full_name}/{theirs.name}"
        assert theirs.input_type is official(method.request.DESCRIPTOR).DESCRIPTOR
        assert theirs.output_type is official(method.response.DESCRIPTOR).DESCRIPTOR


def test_the_committed_modules_are_what_the_generator_makes(tmp_path: Path) -> None:
    # A process of its own: TensorFlow and the compiler bring two protobuf libraries that clash.
    command = [sys.executable, "-m", f"{package.__name__}.generate", str(tmp_path)]
    subprocess.run(command, timeout=60, check=True)

    folder = Path(package.__path__[0])
    made = tmp_path / "reconciler" / "serving" / "protocol"
    for name in PROTO_FILES:
        for suffix in ("_pb2.py", "_pb2.pyi"):
            module = name.removesuffix(".proto") + suffix
            assert (made / module).read_text() == (folder / module).read_text(), (
                f"{module} is not what {name} says; run python -m {package.__name__}.generate"
            )


def test_importing_the_protocol_does_not_import_tensorflow() -> None:
    code = "import reconciler.serving.protocol.methods, sys; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "False"
