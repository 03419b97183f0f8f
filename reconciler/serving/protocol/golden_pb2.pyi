from reconciler.serving.protocol import control_pb2 as _control_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PredictionLog(_message.Message):
    __slots__ = ("classify_log", "regress_log", "multi_inference_log", "session_run_log", "predict_log", "predict_streamed_log")
    CLASSIFY_LOG_FIELD_NUMBER: _ClassVar[int]
    REGRESS_LOG_FIELD_NUMBER: _ClassVar[int]
    MULTI_INFERENCE_LOG_FIELD_NUMBER: _ClassVar[int]
    SESSION_RUN_LOG_FIELD_NUMBER: _ClassVar[int]
    PREDICT_LOG_FIELD_NUMBER: _ClassVar[int]
    PREDICT_STREAMED_LOG_FIELD_NUMBER: _ClassVar[int]
    classify_log: RequestLog
    regress_log: RequestLog
    multi_inference_log: UnreadLog
    session_run_log: UnreadLog
    predict_log: RequestLog
    predict_streamed_log: UnreadLog
    def __init__(self, classify_log: _Optional[_Union[RequestLog, _Mapping]] = ..., regress_log: _Optional[_Union[RequestLog, _Mapping]] = ..., multi_inference_log: _Optional[_Union[UnreadLog, _Mapping]] = ..., session_run_log: _Optional[_Union[UnreadLog, _Mapping]] = ..., predict_log: _Optional[_Union[RequestLog, _Mapping]] = ..., predict_streamed_log: _Optional[_Union[UnreadLog, _Mapping]] = ...) -> None: ...

class RequestLog(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: InferenceRequest
    def __init__(self, request: _Optional[_Union[InferenceRequest, _Mapping]] = ...) -> None: ...

class InferenceRequest(_message.Message):
    __slots__ = ("model_spec",)
    MODEL_SPEC_FIELD_NUMBER: _ClassVar[int]
    model_spec: _control_pb2.ModelSpec
    def __init__(self, model_spec: _Optional[_Union[_control_pb2.ModelSpec, _Mapping]] = ...) -> None: ...

class UnreadLog(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
