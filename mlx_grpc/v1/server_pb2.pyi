from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ServerFeature(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SERVER_FEATURE_UNSPECIFIED: _ClassVar[ServerFeature]
    SERVER_FEATURE_MODEL_MANAGEMENT: _ClassVar[ServerFeature]
SERVER_FEATURE_UNSPECIFIED: ServerFeature
SERVER_FEATURE_MODEL_MANAGEMENT: ServerFeature

class ServerLimits(_message.Message):
    __slots__ = ("max_queue", "max_queue_tokens", "max_batch", "max_request_bytes", "default_max_tokens", "client_requests_per_minute", "client_tokens_per_minute", "client_rows", "client_waiting")
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_REQUESTS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_TOKENS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ROWS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_WAITING_FIELD_NUMBER: _ClassVar[int]
    max_queue: int
    max_queue_tokens: int
    max_batch: int
    max_request_bytes: int
    default_max_tokens: int
    client_requests_per_minute: int
    client_tokens_per_minute: int
    client_rows: int
    client_waiting: int
    def __init__(self, max_queue: _Optional[int] = ..., max_queue_tokens: _Optional[int] = ..., max_batch: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., default_max_tokens: _Optional[int] = ..., client_requests_per_minute: _Optional[int] = ..., client_tokens_per_minute: _Optional[int] = ..., client_rows: _Optional[int] = ..., client_waiting: _Optional[int] = ...) -> None: ...
