"""A listening socket with a bound: connections past it are closed at once, whatever they say or do not say.

uvicorn counts a connection when it has sent a request, and so never those that are silent or in a TLS handshake.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

from mlx_grpc.bounds.descriptors import EXHAUSTED

PAUSE_SECONDS = 0.5
"""asyncio looks at a listener again 1 s after its accept failed for want of descriptors."""


class Seats:
    """How many connections a port has. Sockets may be closed by any thread."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.turned_away = 0
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether there was room for one more, which is then counted."""
        with self._lock:
            if self.taken >= self.most:
                self.turned_away += 1
                return False
            self.taken += 1
            return True

    def leave(self) -> None:
        """One is gone."""
        with self._lock:
            self.taken -= 1


class BoundedListener(socket.socket):
    """Takes over a bound socket, whose object is of no use afterwards. For asyncio's servers."""

    def __init__(self, bound: socket.socket, seats: Seats, farewell: bytes = b"") -> None:
        """`farewell` is sent to those that are turned away, as far as it can be without waiting."""
        super().__init__(bound.family, bound.type, bound.proto, fileno=bound.detach())
        self.setblocking(False)
        self._seats = seats
        self._farewell = farewell
        self._exhausted_seconds = -PAUSE_SECONDS

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises BlockingIOError when there is none, or it was turned away.

        OSError once, when no descriptor is left: asyncio then pauses for a second. It would go on to accept before
        that, a thousand times with a traceback each, so from then on it is told that there is none.
        """
        if time.monotonic() - self._exhausted_seconds < PAUSE_SECONDS:
            raise BlockingIOError(errno.EAGAIN, "no descriptor is free")
        try:
            accepted, address = super().accept()
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._exhausted_seconds = time.monotonic()
            raise
        if not self._seats.take():
            self._turn_away(accepted)
            raise BlockingIOError(errno.EAGAIN, "no seat is free")
        return _Seated(accepted, self._seats), address

    def _turn_away(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError):
            accepted.setblocking(False)
            accepted.send(self._farewell)
            accepted.shutdown(socket.SHUT_WR)


class _Seated(socket.socket):
    """Leaves its seat when it is closed, or forgotten."""

    def __init__(self, accepted: socket.socket, seats: Seats) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._leave = weakref.finalize(self, seats.leave)
        self._leave.atexit = False

    def close(self) -> None:
        """As every socket's."""
        super().close()
        self._leave()
