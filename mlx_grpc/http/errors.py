"""The project's errors as HTTP answers."""

from __future__ import annotations

import logging
import math
import uuid

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from mlx_grpc.errors import InternalError, MlxGrpcError

log = logging.getLogger(__name__)

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""By gRPC status name."""

_CODES = {
    **{number: code for code, number in HTTP_STATUS.items()},
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    421: "PERMISSION_DENIED",
}


_REASONS = {
    404: "NO_SUCH_PATH",
    405: "METHOD_NOT_ALLOWED",
    408: "SLOW_BODY",
    413: "BODY_TOO_LARGE",
    415: "NOT_JSON",
}


def error_response(error: MlxGrpcError, status: int | None = None) -> JSONResponse:
    """{"error": {code, reason, message, field}} with the error's HTTP status or this one; Retry-After if it has one."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    status = status or HTTP_STATUS.get(error.code, 500)
    return plain_error(status, error.code, error.reason, error.message, field=error.field, headers=headers)


def plain_error(
    status: int, code: str, reason: str, message: str, *, field: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """An answer of that form for what is no error of the tree."""
    body = {"code": code, "reason": reason, "message": message, "field": field}
    return JSONResponse({"error": body}, status, headers={"Cache-Control": "no-store", **(headers or {})})


async def on_error(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler for errors of the tree."""
    assert isinstance(error, MlxGrpcError)
    return error_response(error)


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler for what it finds itself: no such path, no such method, a body that is too large."""
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "INVALID_ARGUMENT")
    reason = _REASONS.get(error.status_code, "BAD_REQUEST")
    return plain_error(error.status_code, code, reason, error.detail, headers=dict(error.headers or {}))


async def on_bug(request: Request, error: Exception) -> JSONResponse:
    """Starlette's handler for everything else: a bug of ours."""
    error_id = uuid.uuid4().hex[:12]
    log.error("error %s in %s %s", error_id, request.method, request.url.path, exc_info=error)
    return error_response(InternalError(f"an error of this server ({error_id} in its log)"))
