"""gRPC statuses back into the classes of `mlx_grpc.errors`.

A status of the server carries google.rpc.Status details: its ErrorInfo's reason names the class. A status
that gRPC made itself (nobody there, a deadline seen on this side, a message too large) has none: its code
names the nearest class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from mlx_grpc import errors
from mlx_grpc.errors import DOMAIN, MlxGrpcError

DETAILS_KEY = "grpc-status-details-bin"
# Trailing metadata that goes into the error's metadata, under a plain name.
TRAILING_KEYS = {"x-request-id": "request_id", "x-generation-id": "generation_id"}


class Cancelled(MlxGrpcError):
    """The call was cancelled: its client was closed, or something on the way ended it."""

    code = "CANCELLED"


class ResourceExhausted(MlxGrpcError):
    """A limit of gRPC's own or of a proxy, such as a message that is too large; the message says which."""

    code = "RESOURCE_EXHAUSTED"


BY_CODE: dict[str, type[MlxGrpcError]] = {
    "CANCELLED": Cancelled,
    "INVALID_ARGUMENT": errors.InvalidField,
    "NOT_FOUND": errors.ModelNotFound,
    "FAILED_PRECONDITION": errors.ModelFailed,
    "UNIMPLEMENTED": errors.UnsupportedField,
    "UNAVAILABLE": errors.Unavailable,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "ABORTED": errors.CancelledByAdmin,
    "UNAUTHENTICATED": errors.NoToken,
    "PERMISSION_DENIED": errors.WrongScope,
    "INTERNAL": errors.InternalError,
}

Pairs = Iterable[Any]  # of (key, str or bytes); the sync API's and asyncio's types differ


def from_rpc_error(error: grpc.RpcError) -> MlxGrpcError:
    """The error of our tree for one of gRPC's, sync or asyncio. Raise it `from` the original."""
    return from_status(error.code().name, error.details() or "", error.trailing_metadata() or ())


def from_status(code: str, message: str, trailing: Pairs) -> MlxGrpcError:
    """The error for a status code's name, its message and its trailing metadata.

    The error's `metadata` has `grpc_code`, the server's ErrorInfo metadata, and `request_id` and
    `generation_id` where the trailing metadata has them. A reason that this version does not know is kept as
    `reason` there.
    """
    pairs = dict(trailing)
    metadata = {"grpc_code": code}
    metadata |= {name: str(pairs[key]) for key, name in TRAILING_KEYS.items() if key in pairs}
    kind = BY_CODE.get(code, MlxGrpcError)
    facts: dict[str, Any] = {}
    for detail in _details(pairs.get(DETAILS_KEY)):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            if detail.domain != DOMAIN:
                continue
            metadata |= dict(detail.metadata)
            known = errors.BY_REASON.get(detail.reason)
            kind = known or kind
            if known is None:
                metadata["reason"] = detail.reason
        elif isinstance(detail, error_details_pb2.RetryInfo):
            facts["retry_after_seconds"] = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
        elif isinstance(detail, error_details_pb2.BadRequest) and detail.field_violations:
            facts["field"] = detail.field_violations[0].field
        elif isinstance(detail, error_details_pb2.ResourceInfo):
            facts["resource"] = detail.resource_name
    return kind(message or code, metadata=metadata, **facts)


_KINDS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.RetryInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.ResourceInfo,
)


def _details(packed: str | bytes | None) -> list[Any]:
    """The details of a kind we know; none from bytes that do not parse: the status still holds."""
    if not isinstance(packed, bytes):
        return []
    found = []
    try:
        for detail in status_pb2.Status.FromString(packed).details:
            kind = next((kind for kind in _KINDS if detail.type_url.endswith(f"/{kind.DESCRIPTOR.full_name}")), None)
            if kind is not None:
                found.append(kind.FromString(detail.value))
    except DecodeError:
        return found
    return found
