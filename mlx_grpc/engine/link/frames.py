"""Cuts the bytes that come from a worker's pipe into messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from mlx_grpc.engine import messages
from mlx_grpc.engine.link.interface import OnMessage
from mlx_grpc.engine.messages import FRAME_HEADER_BYTES, MAX_FRAME_BYTES, FromWorker


class _TooLong(Exception):
    """A frame that no message is as long as."""


class FrameReader(asyncio.Protocol):
    """Cuts what comes from the pipe into messages."""

    def __init__(self, on_message: OnMessage, on_broken: Callable[[str], None], closed: asyncio.Event) -> None:
        self._on_message = on_message
        self._on_broken = on_broken
        self._closed = closed
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        """Deliver every whole frame. Bytes that are not a message are the end of this worker."""
        self._buffer += data
        while (message := self._next_message()) is not None:
            self._on_message(message)

    def _next_message(self) -> FromWorker | None:
        try:
            body = self._next_body()
            return None if body is None else messages.decode_from_worker(body)
        except (_TooLong, msgspec.MsgspecError) as error:
            self._buffer.clear()
            self._on_broken(f"sent what is not a message: {error}")
            return None

    def _next_body(self) -> bytes | None:
        if len(self._buffer) < FRAME_HEADER_BYTES:
            return None
        end = FRAME_HEADER_BYTES + int.from_bytes(self._buffer[:FRAME_HEADER_BYTES], "big")
        if end > FRAME_HEADER_BYTES + MAX_FRAME_BYTES:
            raise _TooLong(f"a frame of {end} bytes")
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[FRAME_HEADER_BYTES:end])
        del self._buffer[:end]
        return body

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker closed its end."""
        self._closed.set()
