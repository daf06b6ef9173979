"""Cuts the bytes that come from a worker's pipe into messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from mlx_grpc.engine import messages
from mlx_grpc.engine.link.interface import OnMessage
from mlx_grpc.engine.messages import FRAME_HEADER_BYTES, MAX_FRAME_BYTES


class FrameReader(asyncio.Protocol):
    """Cuts what comes from the pipe into messages."""

    def __init__(self, on_message: OnMessage, on_broken: Callable[[str], None], closed: asyncio.Event) -> None:
        self._on_message = on_message
        self._on_broken = on_broken
        self._closed = closed
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        """Deliver every whole frame. A frame that cannot be is the end of this worker."""
        self._buffer += data
        try:
            while (body := self._next_body()) is not None:
                self._on_message(messages.decode_from_worker(body))
        except (ValueError, msgspec.MsgspecError) as error:
            self._buffer.clear()
            self._on_broken(f"sent what is no message: {error}")

    def _next_body(self) -> bytes | None:
        if len(self._buffer) < FRAME_HEADER_BYTES:
            return None
        end = FRAME_HEADER_BYTES + int.from_bytes(self._buffer[:FRAME_HEADER_BYTES], "big")
        if end > FRAME_HEADER_BYTES + MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {end} bytes")
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[FRAME_HEADER_BYTES:end])
        del self._buffer[:end]
        return body

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker closed its end."""
        self._closed.set()
