"""The project's errors as gRPC statuses, with details that programs can read. The one place where that happens."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from mlx_grpc.errors import DOMAIN, MlxGrpcError
from mlx_grpc.rpc.convert import duration

MAX_TEXT_CHARACTERS = 512
"""Of each text that came from outside, so that all details stay under 4 KiB."""


def to_status(error: MlxGrpcError) -> grpc.Status:
    """What the client gets: code, message and ErrorInfo; RetryInfo, BadRequest and ResourceInfo where they apply."""
    message = _cut(error.message)
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={_cut(key, 64): _cut(value, 128) for key, value in list(error.metadata.items())[:8]},
        )
    ]
    if error.retry_after_seconds is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration(error.retry_after_seconds)))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=_cut(error.field, 256), description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.resource:
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type="model", resource_name=_cut(error.resource, 256), description=message
            )
        )
    packed = []
    for detail in details:
        packed.append(Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message, details=packed)
    return rpc_status.to_status(status)


def _cut(text: str, characters: int = MAX_TEXT_CHARACTERS) -> str:
    """Bounded, and free of what could not be encoded."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= characters else text[: characters - 1] + "…"
