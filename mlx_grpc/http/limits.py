"""No request body is read past a limit, whatever its headers say, nor for ever; and all of them count together."""

from __future__ import annotations

import asyncio
import logging

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_grpc.bounds.intake import RETRY_SECONDS, Holding, Intake
from mlx_grpc.errors import IntakeFull
from mlx_grpc.http import arrival
from mlx_grpc.observe.traces import incoming

log = logging.getLogger(__name__)

HOLDING = "mlx_grpc.holding"
"""In the scope: what holds the body's bytes until the call is answered."""
CLOSE_HEADER = (b"connection", b"close")


class BodyLimit:
    """Around an app: reading too much raises inside the app, which answers in its own form, and the connection closes.

    HTTPException 413 for a body that is too large, 408 for one that does not come; IntakeFull for one too many.
    The trace that a call belongs to is noted here as well, since every call passes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, intake: Intake) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        incoming((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        body = _Body(scope, receive, self._max_bytes, self._intake)
        scope[HOLDING] = body.holding
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.holding.close()


class _Body:
    """One request's, as the app reads it."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int, intake: Intake) -> None:
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        self.holding: Holding = intake.open(scope.get("client"), self._cut_off)
        self._too_large = not announced.isdigit() or int(announced[:20]) > max_bytes
        self._max_bytes = max_bytes
        self._scope = scope
        self._receive = receive
        self._read_bytes = 0
        self._began_seconds = asyncio.get_running_loop().time()
        self._reading: asyncio.Timeout | None = None
        self._cut = False
        self._whole = False

    async def receive(self) -> Message:
        """ASGI's, with the bounds. Raises HTTPException and IntakeFull; then the rest is not for reading."""
        if self._whole:
            return await self._receive()
        try:
            return await self._next()
        except (HTTPException, IntakeFull):
            # uvicorn then closes, as if the client had asked for it.
            self._scope["headers"] = [*self._scope["headers"], CLOSE_HEADER]
            self.holding.close()
            raise

    async def _next(self) -> Message:
        if self._too_large:
            raise self._over()
        message = await self._arrived()
        self._read_bytes += len(message.get("body", b""))
        if self._read_bytes > self._max_bytes:
            raise self._over()
        self.holding.grow(len(message.get("body", b"")))
        if not message.get("more_body"):
            self._whole = True
            self.holding.arrived()
        return message

    async def _arrived(self) -> Message:
        """The next message, unless it takes too long or is not to come."""
        if self._cut:
            raise self._wanted()
        try:
            async with asyncio.timeout_at(arrival.due_seconds(self._began_seconds, self._read_bytes)) as self._reading:
                return await self._receive()
        except TimeoutError:
            if self._cut:
                raise self._wanted() from None
            raise HTTPException(408, f"the body did not come in time: {self._read_bytes} bytes of it did") from None
        finally:
            self._reading = None

    def _cut_off(self) -> None:
        self._cut = True
        if self._reading and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    def _over(self) -> HTTPException:
        return HTTPException(413, f"the body is over the limit of {self._max_bytes} bytes")

    @staticmethod
    def _wanted() -> IntakeFull:
        message = "too much waits to be answered: the bytes of this body were wanted for others"
        return IntakeFull(message, retry_after_seconds=RETRY_SECONDS)
