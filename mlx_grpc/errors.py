"""Every way a call can fail, in the project's own terms.

The server raises these; `rpc.status` turns them into gRPC statuses and the HTTP bridge into HTTP ones. The Python
client turns statuses back into the same classes, so that both sides speak of one tree:

    MlxGrpcError
    ├── InvalidField            INVALID_ARGUMENT     INVALID_FIELD
    │   ├── PromptTooLong       INVALID_ARGUMENT     PROMPT_TOO_LONG
    │   └── NeverFits           INVALID_ARGUMENT     NEVER_FITS
    ├── UnsupportedField        UNIMPLEMENTED        UNSUPPORTED_FIELD
    ├── ModelNotFound           NOT_FOUND            MODEL_NOT_FOUND
    ├── ModelFailed             FAILED_PRECONDITION  MODEL_FAILED
    ├── Unavailable             UNAVAILABLE          (the client's name for a server that cannot be reached)
    │   ├── ModelLoading        UNAVAILABLE          MODEL_LOADING
    │   └── Draining            UNAVAILABLE          DRAINING
    ├── QueueFull               RESOURCE_EXHAUSTED   QUEUE_FULL
    ├── IntakeFull              RESOURCE_EXHAUSTED   INTAKE_FULL
    ├── RateLimited             RESOURCE_EXHAUSTED   RATE_LIMITED
    ├── SlowReader              RESOURCE_EXHAUSTED   SLOW_READER
    ├── DeadlineExceeded        DEADLINE_EXCEEDED    (seen by the client alone)
    │   ├── DeadlineUnreachable DEADLINE_EXCEEDED    DEADLINE_UNREACHABLE
    │   └── DeadlinePassed      DEADLINE_EXCEEDED    DEADLINE_PASSED
    ├── CancelledByAdmin        ABORTED              CANCELLED_BY_ADMIN
    ├── NoToken                 UNAUTHENTICATED      NO_TOKEN
    ├── WrongScope              PERMISSION_DENIED    WRONG_SCOPE
    ├── PoisonRequest           INTERNAL             POISON_REQUEST
    ├── NonfiniteLogits         INTERNAL             NONFINITE_LOGITS
    └── InternalError           INTERNAL             INTERNAL
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

DOMAIN = "mlx_grpc"


class MlxGrpcError(Exception):
    """Base of the tree. `code` is the gRPC status name, `reason` the stable word that programs may compare.

    `field` is the path of the field at fault ("sampling.top_k"), `retry_after_seconds` how long to wait before trying
    again, `resource` the name of what was not found, `metadata` further facts as text; each may be empty.
    """

    code: ClassVar[str] = "UNKNOWN"
    reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        retry_after_seconds: float | None = None,
        resource: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_seconds = retry_after_seconds
        self.resource = resource
        self.metadata = dict(metadata or {})


class InvalidField(MlxGrpcError):
    """A field holds what no request may hold."""

    code, reason = "INVALID_ARGUMENT", "INVALID_FIELD"


class PromptTooLong(InvalidField):
    """The prompt leaves no room in the model's context; metadata: `prompt_tokens` and `context_length`."""

    reason = "PROMPT_TOO_LONG"


class NeverFits(InvalidField):
    """The request needs more KV cache than the whole memory budget."""

    reason = "NEVER_FITS"


class UnsupportedField(MlxGrpcError):
    """A good field that this model or build cannot honour."""

    code, reason = "UNIMPLEMENTED", "UNSUPPORTED_FIELD"


class ModelNotFound(MlxGrpcError):
    """No such model here."""

    code, reason = "NOT_FOUND", "MODEL_NOT_FOUND"


class ModelFailed(MlxGrpcError):
    """The model could not be loaded, or its engine died too often."""

    code, reason = "FAILED_PRECONDITION", "MODEL_FAILED"


class Unavailable(MlxGrpcError):
    """Nobody can serve this now; trying again later, or elsewhere, may help."""

    code = "UNAVAILABLE"


class ModelLoading(Unavailable):
    """The model is loading, or its engine restarting."""

    reason = "MODEL_LOADING"


class Draining(Unavailable):
    """The server is going down."""

    reason = "DRAINING"


class QueueFull(MlxGrpcError):
    """The bounded queue has no place; `retry_after_seconds` comes from the measured rate."""

    code, reason = "RESOURCE_EXHAUSTED", "QUEUE_FULL"


class IntakeFull(MlxGrpcError):
    """Too many bytes were taken in and not yet answered, of all clients or of this connection."""

    code, reason = "RESOURCE_EXHAUSTED", "INTAKE_FULL"


class RateLimited(MlxGrpcError):
    """The client has had its share of requests, tokens, rows or places for now."""

    code, reason = "RESOURCE_EXHAUSTED", "RATE_LIMITED"


class SlowReader(MlxGrpcError):
    """The client did not read its stream for too long."""

    code, reason = "RESOURCE_EXHAUSTED", "SLOW_READER"


class DeadlineExceeded(MlxGrpcError):
    """The call's deadline ran out."""

    code = "DEADLINE_EXCEEDED"


class DeadlineUnreachable(DeadlineExceeded):
    """By measured rates the first token cannot come before the deadline."""

    reason = "DEADLINE_UNREACHABLE"


class DeadlinePassed(DeadlineExceeded):
    """The deadline ran out in the queue, in prefill or in decode."""

    reason = "DEADLINE_PASSED"


class CancelledByAdmin(MlxGrpcError):
    """An operator ended the request."""

    code, reason = "ABORTED", "CANCELLED_BY_ADMIN"


class NoToken(MlxGrpcError):
    """No bearer token, or one that is not known."""

    code, reason = "UNAUTHENTICATED", "NO_TOKEN"


class WrongScope(MlxGrpcError):
    """The caller may not do this."""

    code, reason = "PERMISSION_DENIED", "WRONG_SCOPE"


class PoisonRequest(MlxGrpcError):
    """The request crashed the engine alone, twice."""

    code, reason = "INTERNAL", "POISON_REQUEST"


class NonfiniteLogits(MlxGrpcError):
    """The model's logits for this request are not finite: it cannot go on. Other requests were not touched."""

    code, reason = "INTERNAL", "NONFINITE_LOGITS"


class InternalError(MlxGrpcError):
    """A bug of ours; metadata `error_id` is in the server's log."""

    code, reason = "INTERNAL", "INTERNAL"


BY_REASON: Mapping[str, type[MlxGrpcError]] = {
    kind.reason: kind
    for kind in (
        InvalidField, PromptTooLong, NeverFits, UnsupportedField, ModelNotFound, ModelFailed, ModelLoading, Draining,
        QueueFull, IntakeFull, RateLimited, SlowReader, DeadlineUnreachable, DeadlinePassed, CancelledByAdmin,
        NoToken, WrongScope, PoisonRequest, NonfiniteLogits, InternalError,
    )
}  # fmt: skip
