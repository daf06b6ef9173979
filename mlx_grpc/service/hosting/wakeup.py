"""When the dispatcher plans again: at the end of this turn of the event loop, or at a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Wakeup:
    """Calls `act` once, however often it is asked for. `act` cancels what is left when it begins."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._loop = asyncio.get_running_loop()
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """After all that happens in this turn of the loop."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self._act)

    def at(self, moment_seconds: float | None) -> None:
        """At this moment of the loop's clock, and no longer at the one named before; None: at none."""
        if self._timer:
            self._timer.cancel()
        self._timer = None if moment_seconds is None else self._loop.call_at(moment_seconds, self._act)

    def cancel(self) -> None:
        """Nothing is left behind."""
        for handle in (self._soon, self._timer):
            if handle:
                handle.cancel()
        self._soon = self._timer = None
