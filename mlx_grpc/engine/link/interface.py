"""What the service knows of a worker, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mlx_grpc.engine.messages import FromWorker, ToWorker

OnMessage = Callable[[FromWorker], None]
OnLost = Callable[[str], None]


class Link(Protocol):
    """What the service knows of a worker."""

    @property
    def pid(self) -> int | None:
        """The child's process id; None for a worker in this process."""

    async def start(self) -> None:
        """Start the worker. It waits for its Load message."""

    def send(self, message: ToWorker) -> None:
        """Send, without waiting. Nothing is sent to a worker that is lost: `on_lost` has told, or will."""

    def kill(self) -> None:
        """End the worker now, as a crash would: `on_lost` follows."""

    async def close(self) -> None:
        """End the worker and see it gone; `on_lost` is not called for it."""


StartLink = Callable[[OnMessage, OnLost], Link]
