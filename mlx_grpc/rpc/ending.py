"""How a call ends that is refused or fails: with a status, and with a line in the log."""

from __future__ import annotations

import logging
import time
import uuid

from mlx_grpc.errors import InternalError, InvalidField, MlxGrpcError, UnsupportedField
from mlx_grpc.rpc.context import Context
from mlx_grpc.rpc.status import to_status

log = logging.getLogger(__name__)


def with_id(error: MlxGrpcError) -> MlxGrpcError:
    """A bug of ours gets an id that the client can quote and the log has."""
    if isinstance(error, InternalError) and "error_id" not in error.metadata:
        error_id = error.metadata["error_id"] = uuid.uuid4().hex[:12]
        error.message += f" ({error_id} in the server's log)"
    return error


async def abort(method: str, context: Context, error: MlxGrpcError, entered_seconds: float) -> None:
    """End the call with the error's status, and log how long after its handler was entered."""
    # grpc keeps what was raised until the garbage collector comes, and with a traceback the message that is at fault.
    error.__traceback__ = error.__context__ = error.__cause__ = None
    status = to_status(error)
    hints: tuple[tuple[str, str], ...] = ()
    if error.retry_after_seconds is not None:  # what grpc's own retries read; RetryInfo is for programs
        hints = (("grpc-retry-pushback-ms", str(round(error.retry_after_seconds * 1000))),)
    ids = context.trailing_metadata() or ()  # abort would replace the ids that a servicer has set
    try:
        await context.abort(status.code, status.details, (*status.trailing_metadata, *hints, *ids))
    finally:
        # What a message says of a field may quote the request, which is nobody's business but the caller's.
        quotes = isinstance(error, InvalidField | UnsupportedField)
        log.info(
            "%s ended: %s %s", method, error.reason, error.field if quotes else status.details,
            extra={"reason": error.reason, "seconds": round(time.monotonic() - entered_seconds, 6)},
        )  # fmt: skip
