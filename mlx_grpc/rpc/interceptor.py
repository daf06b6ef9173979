"""Wraps every handler of ours: errors become statuses, calls get their ids, bytes that do not parse a proper answer.

opentelemetry's own gRPC instrumentation breaks coroutine handlers, so one interceptor serves all that has to be around
a call.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc.aio import ServicerContext

from mlx_grpc.errors import DeadlinePassed, InternalError, InvalidField, MlxGrpcError
from mlx_grpc.rpc.status import to_status
from mlx_grpc.rpc.unknown_fields import refuse_unknown_fields

log = logging.getLogger(__name__)

OUR_METHODS = "/mlx_grpc.v1."
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]]
Handler = Callable[[Any, ServicerContext], Awaitable[Any]]


class Unparsed:
    """Stands for a request whose bytes are no message."""


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Around each call of mlx_grpc's own services; health and reflection keep their libraries' ways."""

    def __init__(self) -> None:
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        """The wrapped handler, made once a method."""
        method = handler_call_details.method
        if not method.startswith(OUR_METHODS):
            return await continuation(handler_call_details)
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = _wrap(method, handler)
        return self._wrapped[method]


def _wrap(method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    parse = _lenient(handler.request_deserializer)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _guarded(method, handler.unary_stream), parse, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        _guarded(method, handler.unary_unary), parse, handler.response_serializer
    )


def _lenient(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """grpc would answer bytes that do not parse in its own words; ours name the field."""

    def parse_or_mark(data: bytes) -> Any:
        try:
            return parse(data)
        except Exception:  # protobuf's DecodeError, and UnicodeDecodeError in some of its builds
            return Unparsed()

    return parse_or_mark


def _guarded(method: str, handle: Handler) -> Handler:
    async def guarded(request: Any, context: ServicerContext) -> Any:
        try:
            if isinstance(request, Unparsed):
                raise InvalidField("the bytes are no such message, or hold text that is no UTF-8", field="request")
            refuse_unknown_fields(request)
            return await handle(request, context)
        except MlxGrpcError as error:
            await _abort(method, context, error)
        except grpc.aio.AbortError:
            raise
        except TimeoutError as error:
            # The client's deadline: grpc cancels the handler with this when it passes.
            await _abort(method, context, DeadlinePassed(str(error) or "the call's deadline passed"))
        except Exception:
            error_id = uuid.uuid4().hex[:12]
            log.exception("error %s in %s", error_id, method)
            await _abort(
                method,
                context,
                InternalError(f"an error of this server, {error_id} in its log", metadata={"error_id": error_id}),
            )

    return guarded


async def _abort(method: str, context: ServicerContext, error: MlxGrpcError) -> None:
    log.info("%s refused: %s %s %s", method, error.reason, error.field, error.message)
    status = to_status(error)
    # The ids that a servicer has set must not be lost to the details.
    status = status._replace(trailing_metadata=(*status.trailing_metadata, *(context.trailing_metadata() or ())))
    await context.abort_with_status(status)
