from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Batching(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BATCHING_UNSPECIFIED: _ClassVar[Batching]
    BATCHING_PADDED: _ClassVar[Batching]
    BATCHING_ALIGNED: _ClassVar[Batching]
    BATCHING_ALONE: _ClassVar[Batching]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_UNLOADED: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_UNLOADING: _ClassVar[ModelState]
    MODEL_STATE_FAILED: _ClassVar[ModelState]

class ModelFeature(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_FEATURE_UNSPECIFIED: _ClassVar[ModelFeature]
    MODEL_FEATURE_CHAT: _ClassVar[ModelFeature]
    MODEL_FEATURE_REPRODUCIBLE: _ClassVar[ModelFeature]
BATCHING_UNSPECIFIED: Batching
BATCHING_PADDED: Batching
BATCHING_ALIGNED: Batching
BATCHING_ALONE: Batching
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_UNLOADED: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_UNLOADING: ModelState
MODEL_STATE_FAILED: ModelState
MODEL_FEATURE_UNSPECIFIED: ModelFeature
MODEL_FEATURE_CHAT: ModelFeature
MODEL_FEATURE_REPRODUCIBLE: ModelFeature

class Model(_message.Message):
    __slots__ = ("id", "state", "error", "context_length", "vocab_size", "dtype", "weights_bytes", "kv_bytes_per_token", "revision", "features", "default", "batching")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_PER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: ModelState
    error: str
    context_length: int
    vocab_size: int
    dtype: str
    weights_bytes: int
    kv_bytes_per_token: int
    revision: str
    features: _containers.RepeatedScalarFieldContainer[ModelFeature]
    default: bool
    batching: Batching
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[ModelState, str]] = ..., error: _Optional[str] = ..., context_length: _Optional[int] = ..., vocab_size: _Optional[int] = ..., dtype: _Optional[str] = ..., weights_bytes: _Optional[int] = ..., kv_bytes_per_token: _Optional[int] = ..., revision: _Optional[str] = ..., features: _Optional[_Iterable[_Union[ModelFeature, str]]] = ..., default: _Optional[bool] = ..., batching: _Optional[_Union[Batching, str]] = ...) -> None: ...
