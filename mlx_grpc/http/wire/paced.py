"""Reads from a socket that are small, and handled in turns."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from functools import partial

from mlx_grpc.http.turns import READ_BYTES, Turns

log = logging.getLogger("uvicorn.error")


class Paced(asyncio.BufferedProtocol):
    """Stands behind a protocol of uvicorn's, which has `data_received` and `transport`.

    A connection whose bytes wait for their turn is not read from, so that at most one read of each waits.
    """

    turns: Turns
    read_bytes = READ_BYTES
    """What one read takes at most."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio fills it and calls `buffer_updated` at once."""
        return self.turns.buffer[: self.read_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes of the buffer were read."""
        data = bytes(self.turns.buffer[:nbytes])
        if self.turns.free:
            self.turns.do(partial(self._handle, data))
            return
        self.wire.pause_reading()
        self.turns.do(partial(self._handle_late, data))

    def _handle_late(self, data: bytes) -> None:
        self._handle(data)
        if not self.wire.is_closing() and not self.wants_silence:
            self.wire.resume_reading()

    def _handle(self, data: bytes) -> None:
        if self.wire.is_closing():
            return
        try:
            self.data_received(data)
        except Exception:
            log.exception("a connection is closed: its bytes could not be handled")
            self.wire.abort()

    @property
    @abstractmethod
    def wire(self) -> asyncio.Transport:
        """The connection's transport, as asyncio made it."""

    @property
    @abstractmethod
    def wants_silence(self) -> bool:
        """Whether reading is paused for another reason."""

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """uvicorn's, for the bytes of one read."""
