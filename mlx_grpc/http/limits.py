"""No request body is read past a limit, whatever its headers say."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_grpc.observe.traces import incoming


class BodyLimit:
    """Around an app: reading too large a body raises HTTPException 413 inside the app, which answers in its own form.

    The trace that a call belongs to is noted here as well, since every call passes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        incoming((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = not announced.isdigit() or int(announced[:20]) > self._max_bytes
        read_bytes = 0

        async def bounded() -> Message:
            nonlocal read_bytes
            message = {} if too_large else await receive()
            read_bytes += len(message.get("body", b""))
            if too_large or read_bytes > self._max_bytes:
                raise HTTPException(
                    413, f"the body is over the limit of {self._max_bytes} bytes", headers={"Connection": "close"}
                )
            return message

        await self._app(scope, bounded, send)
