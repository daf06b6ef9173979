"""Wraps every handler of ours: errors become statuses, calls keep their ids, bytes that do not parse are answered.

opentelemetry's own gRPC instrumentation breaks coroutine handlers, so one interceptor serves all that has to be around
a call. CancelledError is not for it: grpc cancels a handler when its client cancels, disconnects or runs out of time,
and the way out through the generation's context is what frees the row.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from mlx_grpc.auth.access import Access
from mlx_grpc.auth.tokens import TokenScope
from mlx_grpc.errors import InternalError, InvalidField, MlxGrpcError, UnsupportedField
from mlx_grpc.observe.traces import incoming
from mlx_grpc.rpc.context import Context, authorization_of, note_token
from mlx_grpc.rpc.status import to_status
from mlx_grpc.rpc.unknown_fields import refuse_unknown_fields

log = logging.getLogger(__name__)

OUR_METHODS = "/mlx_grpc.v1."
OPEN_METHODS = "/grpc.health.v1.Health/"
"""These need no token: probes have none. Reflection needs one."""
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic for its types alone
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]]
Handler = Callable[[Any, Context], Awaitable[Any]]


class Unparsed:
    """Stands for a request whose bytes are no message."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Around each call of mlx_grpc's own services; health and reflection keep their libraries' ways."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._wrapped: dict[str, MethodHandler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> MethodHandler | None:
        """The wrapped handler, made once a method; None for a method that there is not."""
        method = handler_call_details.method
        if not method.startswith(OPEN_METHODS):
            try:
                sent = authorization_of(handler_call_details.invocation_metadata)
                note_token(self._access.require(sent, TokenScope.GENERATE))
            except MlxGrpcError as error:
                return _refusing(method, error)
        if not method.startswith(OUR_METHODS):
            return await continuation(handler_call_details)
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = _wrap(method, handler)
        return self._wrapped[method]


def _refusing(method: str, error: MlxGrpcError) -> MethodHandler:
    """Answers before the request is read: a handler of a stream is called without one."""

    async def refuse(requests: Any, context: Context) -> None:
        await _abort(method, context, error, time.monotonic())

    make: Any = grpc.stream_stream_rpc_method_handler
    refusing: MethodHandler = make(refuse)
    return refusing


def _wrap(method: str, handler: Any) -> MethodHandler:
    # `Any`, since grpc's types know the handlers of its threaded server alone.
    make: Any = (
        grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    )
    handle = handler.unary_stream if handler.response_streaming else handler.unary_unary
    wrapped: MethodHandler = make(
        _guarded(method, handle), _lenient(handler.request_deserializer), handler.response_serializer
    )
    return wrapped


def _lenient(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """grpc would answer bytes that do not parse in its own words; ours name the field."""

    def parse_or_mark(data: bytes) -> Any:
        try:
            return parse(data)
        except Exception:  # protobuf's DecodeError, and UnicodeDecodeError in some of its builds
            return Unparsed()

    return parse_or_mark


def _guarded(method: str, handle: Handler) -> Handler:
    async def guarded(request: Any, context: Context) -> Any:
        entered_seconds = time.monotonic()
        try:
            if isinstance(request, Unparsed):
                raise InvalidField("the bytes are no such message, or hold text that is no UTF-8", field="request")
            refuse_unknown_fields(request)
            incoming(context.invocation_metadata() or ())
            return await handle(request, context)
        except MlxGrpcError as error:
            await _abort(method, context, _with_id(error), entered_seconds)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if context.cancelled():  # a write to a client that has just gone
                log.info("%s: the client went away", method)
                return None
            internal = _with_id(InternalError("an error of this server"))
            log.error("error %s in %s", internal.metadata["error_id"], method, exc_info=error)
            await _abort(method, context, internal, entered_seconds)

    return guarded


def _with_id(error: MlxGrpcError) -> MlxGrpcError:
    """A bug of ours gets an id that the client can quote and the log has."""
    if isinstance(error, InternalError) and "error_id" not in error.metadata:
        error_id = error.metadata["error_id"] = uuid.uuid4().hex[:12]
        error.message += f" ({error_id} in the server's log)"
    return error


async def _abort(method: str, context: Context, error: MlxGrpcError, entered_seconds: float) -> None:
    """End the call with the error's status, and log how long after its handler was entered."""
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
            "%s ended: %s %s", method, error.reason, error.field if quotes else error.message,
            extra={"reason": error.reason, "seconds": round(time.monotonic() - entered_seconds, 6)},
        )  # fmt: skip
