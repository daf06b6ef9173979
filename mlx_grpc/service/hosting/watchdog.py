"""Looks whether an engine that has work delivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LOOKS = 10
"""In the time that it allows; at least one a second."""


class Watchdog:
    """Watches one engine at a time: `start` with it, `stop` when it has gone. `on_stall` hears once that it has had
    work and delivered nothing, for so long beyond the time that its step may take."""

    def __init__(
        self, name: str, limit_seconds: float, overdue_seconds: Callable[[], float], on_stall: Callable[[], None]
    ) -> None:
        self._name = name
        self._limit_seconds = limit_seconds
        self._overdue_seconds = overdue_seconds
        self._on_stall = on_stall
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch from now on."""
        self.stop()
        self._task = asyncio.create_task(self._watch(), name=f"watchdog {self._name}")

    def stop(self) -> None:
        """Look no more; nothing is left when the loop has turned."""
        if self._task:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self._limit_seconds / LOOKS))
            if self._overdue_seconds() > self._limit_seconds:
                break
        self._task = None
        self._on_stall()
