"""How long a body or a message may be on its way. Pure."""

from __future__ import annotations

ARRIVAL_SECONDS = 30.0
"""A body or a WebSocket message has so long to arrive, and longer as more of it comes; protects the bytes that others
could send, from clients that never end what they began."""
ARRIVAL_BYTES_PER_SECOND = 16 * 1024
"""Who is at least so fast is never too slow, whatever the size."""


def due_seconds(began_seconds: float, received_bytes: int) -> float:
    """When it must be there, by the clock that says when it began."""
    return began_seconds + ARRIVAL_SECONDS + received_bytes / ARRIVAL_BYTES_PER_SECOND
