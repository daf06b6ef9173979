"""How late the event loop is: the time between when a callback was due and when it ran."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from mlx_grpc.observe.stats import Stats

INTERVAL_SECONDS = 0.5
WORST_OF_SECONDS = 60.0


async def measure_lag(stats: Stats, interval_seconds: float = INTERVAL_SECONDS) -> None:
    """Write the lag into `stats` for ever; cancel to end."""
    loop = asyncio.get_running_loop()
    recent: deque[float] = deque(maxlen=max(1, int(WORST_OF_SECONDS / interval_seconds)))
    while True:
        due_seconds = loop.time() + interval_seconds
        await asyncio.sleep(interval_seconds)
        stats.loop_lag_seconds = max(0.0, loop.time() - due_seconds)
        recent.append(stats.loop_lag_seconds)
        stats.worst_loop_lag_seconds = max(recent)


async def cancelled(task: asyncio.Task[None] | None) -> None:
    """Returns when the task, cancelled here, has ended."""
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
