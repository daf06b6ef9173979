"""Decides on a call's headers whether it may be made, before anything of its message is read."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from mlx_grpc.auth.access import Access
from mlx_grpc.auth.tokens import TokenScope
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.rpc.context import Context, authorization_of, note_token
from mlx_grpc.rpc.ending import abort
from mlx_grpc.rpc.guard import Guard, MethodHandler

OPEN_METHODS = "/grpc.health.v1.Health/"
"""These need no token: probes have none. Reflection needs one."""
HEADER_OVERHEAD_BYTES = 32
"""For each header besides its name and value, as HTTP/2 counts SETTINGS_MAX_HEADER_LIST_SIZE."""
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["MethodHandler | None"]]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Around each call of every service."""

    def __init__(self, access: Access, guard: Guard, max_header_bytes: int) -> None:
        self._access = access
        self._guard = guard
        self._max_header_bytes = max_header_bytes
        self._wrapped: dict[str, MethodHandler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> MethodHandler | None:
        """The wrapped handler, made once a method; None for a method that does not exist."""
        method = handler_call_details.method
        header_bytes = _header_bytes(handler_call_details)
        if header_bytes > self._max_header_bytes:
            return _too_large(header_bytes, self._max_header_bytes)
        if not method.startswith(OPEN_METHODS):
            try:
                sent = authorization_of(handler_call_details.invocation_metadata)
                note_token(self._access.require(sent, TokenScope.GENERATE))
            except MlxGrpcError as error:
                return _refusing(method, error)
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = self._guard.wrap(method, handler)
        return self._wrapped[method]


def _header_bytes(details: grpc.HandlerCallDetails) -> int:
    """The headers as they are when decoded. grpc itself counts what compression has left of them."""
    return sum(
        (len(name) + len(value) + HEADER_OVERHEAD_BYTES for name, value in details.invocation_metadata),
        len(details.method),
    )


def _too_large(header_bytes: int, max_header_bytes: int) -> MethodHandler:
    """Without details, as grpc refuses those that it finds too large itself."""

    async def refuse(requests: Any, context: Context) -> None:
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the headers have {header_bytes} bytes, which may be at most {max_header_bytes}",
        )

    return _streaming(refuse)


def _refusing(method: str, error: MlxGrpcError) -> MethodHandler:
    """Answers before the request is read."""

    async def refuse(requests: Any, context: Context) -> None:
        await abort(method, context, error, time.monotonic())

    return _streaming(refuse)


def _streaming(handle: Callable[[Any, Context], Awaitable[None]]) -> MethodHandler:
    """A handler of a stream is called without a message."""
    make: Any = grpc.stream_stream_rpc_method_handler
    handler: MethodHandler = make(handle)
    return handler
