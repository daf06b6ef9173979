"""Errors as HTTP answers in OpenAI's form, `{"error": {"message", "type", "param", "code"}}`. The one place for that.

What the openai SDKs do with them: they try 408, 409, 429 and 5xx again, after `retry-after-ms` or `Retry-After`, unless
`x-should-retry` says false.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from mlx_grpc import errors
from mlx_grpc.errors import MlxGrpcError

log = logging.getLogger(__name__)

MAX_TEXT_CHARACTERS = 512
INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"


class ApiError(Exception):
    """An answer that is an error. `param` is the field at fault in OpenAI's names; "" when there is none."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str = "",
        code: str = "invalid_value",
        kind: str = INVALID_REQUEST,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = _cut(message, MAX_TEXT_CHARACTERS)
        self.param = _cut(param, 256)
        self.code = code
        self.kind = kind
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON of the answer, and of the last event of a stream that fails."""
        facts = {"message": self.message, "type": self.kind, "param": self.param or None, "code": self.code}
        return msgspec.json.encode({"error": facts})


class _Kind(NamedTuple):
    """How a class of errors looks in HTTP. `again` is false where another try can only end the same way."""

    status: int
    kind: str
    code: str
    again: bool = True


# By class; a subclass that is not here looks like its base.
_KINDS: Mapping[type[MlxGrpcError], _Kind] = {
    errors.InvalidField: _Kind(400, INVALID_REQUEST, "invalid_value"),
    errors.PromptTooLong: _Kind(400, INVALID_REQUEST, "context_length_exceeded"),
    errors.NeverFits: _Kind(400, INVALID_REQUEST, "never_fits"),
    errors.UnsupportedField: _Kind(400, INVALID_REQUEST, "unsupported_parameter"),
    errors.NoToken: _Kind(401, "authentication_error", "invalid_api_key"),
    errors.WrongScope: _Kind(403, "permission_error", "wrong_scope"),
    errors.ModelNotFound: _Kind(404, INVALID_REQUEST, "model_not_found"),
    errors.CancelledByAdmin: _Kind(409, SERVER_ERROR, "cancelled_by_admin", again=False),
    errors.QueueFull: _Kind(429, "rate_limit_error", "queue_full"),
    errors.RateLimited: _Kind(429, "rate_limit_error", "rate_limited"),
    errors.IntakeFull: _Kind(429, "rate_limit_error", "intake_full"),
    errors.SlowReader: _Kind(429, "rate_limit_error", "slow_reader", again=False),
    errors.Unavailable: _Kind(503, SERVER_ERROR, "unavailable"),
    errors.ModelLoading: _Kind(503, SERVER_ERROR, "model_loading"),
    errors.Draining: _Kind(503, SERVER_ERROR, "draining"),
    errors.ModelFailed: _Kind(503, SERVER_ERROR, "model_failed", again=False),
    errors.DeadlineExceeded: _Kind(504, "timeout_error", "deadline_exceeded", again=False),
    errors.DeadlineUnreachable: _Kind(504, "timeout_error", "deadline_unreachable", again=False),
    errors.DeadlinePassed: _Kind(504, "timeout_error", "deadline_passed", again=False),
    errors.PoisonRequest: _Kind(500, SERVER_ERROR, "poison_request", again=False),
    errors.NonfiniteLogits: _Kind(500, SERVER_ERROR, "nonfinite_logits", again=False),
    MlxGrpcError: _Kind(500, SERVER_ERROR, "internal_error"),
}
RETRY_UNKNOWN_SECONDS = 1.0
"""Retry-After where the error itself names no time."""


def api_error(error: MlxGrpcError, param: str = "") -> ApiError:
    """A service's error as an answer; `param` is its field in the caller's names. A bug gets an id for the log."""
    found = next(_KINDS[base] for base in type(error).__mro__ if base in _KINDS)
    message = error.message
    if isinstance(error, errors.InternalError):
        error_id = error.metadata.setdefault("error_id", uuid.uuid4().hex[:12])
        log.error("error %s: %s", error_id, error.message)
        message = f"{error.message} ({error_id} in the server's log)"
    return ApiError(found.status, message, param=param, code=found.code, kind=found.kind, headers=_advice(error, found))


def internal_error(place: str, error: Exception) -> ApiError:
    """A bug of ours: logged whole under an id, of which the caller sees the id alone."""
    error_id = uuid.uuid4().hex[:12]
    log.error("error %s in %s", error_id, place, exc_info=error)
    return api_error(errors.InternalError("an error of this server", metadata={"error_id": error_id}))


def _advice(error: MlxGrpcError, found: _Kind) -> dict[str, str]:
    """Whether to try again, and when. Retry-After is in whole seconds, so the exact time stands beside it."""
    if not found.again:
        return {"x-should-retry": "false"}
    if found.status not in (429, 503):
        return {}
    seconds = RETRY_UNKNOWN_SECONDS if error.retry_after_seconds is None else error.retry_after_seconds
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}


def _cut(text: str, characters: int) -> str:
    """Bounded, and free of what could not be encoded."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= characters else text[: characters - 1] + "…"
