"""Around each method's handler: takes the call's message in, and turns errors into statuses.

grpc enters a handler of a single request only when the whole message is in memory, however many do not end. So every
handler is given to grpc as one of a stream of bytes: it is entered on the call's headers, and reads by itself.

opentelemetry's own gRPC instrumentation breaks coroutine handlers, so this serves all that has to be around a call.
CancelledError is not for it: grpc cancels a handler when its client cancels, disconnects or runs out of time, and the
way out through the generation's context is what frees the row.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from mlx_grpc.bounds.intake import Holding
from mlx_grpc.errors import InternalError, InvalidField, MlxGrpcError
from mlx_grpc.observe.traces import incoming
from mlx_grpc.rpc.arrivals import Arrivals
from mlx_grpc.rpc.context import Context
from mlx_grpc.rpc.ending import abort, with_id
from mlx_grpc.rpc.parsing import Parser

log = logging.getLogger(__name__)

LARGE_METHODS = ("/mlx_grpc.v1.InferenceService/", "/mlx_grpc.v1.TokenizerService/")
"""Their requests may be as large as a message may be. Those of all others hold a name or two."""
SMALL_REQUEST_BYTES = 16 * 1024
LEAST_BYTES = 4 * 1024
"""What a call of the other methods counts for: a health watch keeps nothing of its message, and takes memory."""
CANCELLED_WITHIN_SECONDS = 0.05
"""A call that grpc has ended itself, such as one with a message over the limit, also looks as if no message had come;
then its handler is cancelled."""
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic for its types alone


class Guard:
    """Makes guarded handlers, for all methods of a server."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._one_at_a_time = asyncio.Lock()

    def wrap(self, method: str, handler: Any) -> MethodHandler:
        """What grpc gets in the handler's place."""
        max_bytes = None if method.startswith(LARGE_METHODS) else SMALL_REQUEST_BYTES
        parser = Parser(handler.request_deserializer, max_bytes, self._one_at_a_time)
        # `Any`, since grpc's types know the handlers of its threaded server alone.
        make: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        wrapped: MethodHandler = make(
            _guarded(method, handler, self._arrivals, parser), None, handler.response_serializer
        )
        return wrapped


def _guarded(method: str, handler: Any, arrivals: Arrivals, parser: Parser) -> Any:
    async def guarded(_: Any, context: Context) -> Any:
        entered_seconds = time.monotonic()
        connection = context.peer()
        try:
            incoming(context.invocation_metadata() or ())
            with arrivals.intake.open(connection, _never) as holding:
                messages = _Messages(method, context, arrivals, parser, holding, entered_seconds)
                if handler.request_streaming:
                    return await _converse(handler.stream_stream, messages, context)
                handle = handler.unary_stream if handler.response_streaming else handler.unary_unary
                # The message is the handler's alone: a call that lasts, such as a Watch, lets go of it.
                return await handle(await messages.only(), context)
        except MlxGrpcError as error:
            await abort(method, context, with_id(error), entered_seconds)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            if context.cancelled():  # a write to a client that has just gone
                log.info("%s: the client went away", method)
                return None
            internal = with_id(InternalError("an error of this server"))
            log.error("error %s in %s", internal.metadata["error_id"], method, exc_info=error)
            await abort(method, context, internal, entered_seconds)

    return guarded


async def _converse(handle: Any, messages: _Messages, context: Context) -> None:
    """For a handler that takes a stream and is a generator of answers: reflection's."""
    async with aclosing(handle(messages, context)) as answers:
        async for answer in answers:
            await context.write(answer)


class _Messages:
    """The messages of a call."""

    def __init__(
        self,
        method: str,
        context: Context,
        arrivals: Arrivals,
        parser: Parser,
        holding: Holding,
        entered_seconds: float,
    ) -> None:
        self._method = method
        self._context = context
        self._arrivals = arrivals
        self._parser = parser
        self._holding = holding
        self._entered_seconds = entered_seconds

    async def only(self) -> Any:
        """The message of a call that has one. Raises InvalidField when none comes, IntakeFull, and as parsing does."""
        message = await self._next()
        if message is None:
            await asyncio.sleep(CANCELLED_WITHIN_SECONDS)
            raise InvalidField("the call ended without a message", field="request")
        return message

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Any:
        if (message := await self._next()) is None:
            raise StopAsyncIteration
        return message

    async def _next(self) -> Any:
        data = await self._arrivals.read(self._context, self._holding.connection, self._end)
        if data is None:
            return None
        self._holding.grow(max(len(data), LEAST_BYTES) if self._parser.is_small else len(data))
        self._holding.arrived()
        return await self._parser(data)

    async def _end(self, error: MlxGrpcError) -> None:
        await abort(self._method, self._context, error, self._entered_seconds)


def _never() -> None:
    """A message that has arrived is not cut off."""
