"""What the connections of one listener have in common."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from mlx_grpc.bounds.intake import Intake
from mlx_grpc.http.turns import Turns
from mlx_grpc.http.wire.places import Places


@dataclass(frozen=True, slots=True)
class Shared:
    """One listener's."""

    intake: Intake
    turns: Turns
    places: Places
    header_seconds: float
    """From the first moment, or the first byte after another request, to the end of the headers."""
    linger_seconds: float
    """For a client to stop sending a body that is not read."""
    write_seconds: float
    """A client that takes nothing of what is written for so long is cut off."""


def _waiting_bytes(transport: asyncio.Transport) -> int:
    try:
        return transport.get_write_buffer_size()
    except AttributeError:  # asyncio's TLS transport, closed twice, which then has a time of its own to end
        return 0


class Stuck:
    """Notices a client that takes nothing of what is written to it."""

    def __init__(self) -> None:
        self._bytes = 0
        self._since_seconds = math.inf

    def for_seconds(self, transport: asyncio.Transport, writing_waits: bool, now_seconds: float) -> float:
        """How long no byte has gone out, as far as some wait; to be asked about once a second."""
        before, self._bytes = self._bytes, _waiting_bytes(transport)
        waits = self._bytes > 0 and (writing_waits or transport.is_closing())
        if not waits or self._bytes < before:
            self._since_seconds = math.inf
            return 0.0
        self._since_seconds = min(self._since_seconds, now_seconds)
        return now_seconds - self._since_seconds
