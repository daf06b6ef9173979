"""Watches the server: one task takes a snapshot a second, and all who watch share it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from mlx_grpc.observe.lag import cancelled, measure_lag
from mlx_grpc.observe.snapshot import Snapshot
from mlx_grpc.service.service import Service
from mlx_grpc.service.survey import Survey

INTERVAL_SECONDS = 1.0
HISTORY_POINTS = 180


@dataclass(frozen=True, slots=True)
class Frame:
    """A snapshot and its number; numbers only grow."""

    number: int
    snapshot: Snapshot


class Monitor:
    """`close` must follow `start`."""

    def __init__(self, service: Service, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self.service = service
        self.history: deque[Frame] = deque(maxlen=HISTORY_POINTS)
        """The last frames, oldest first."""
        self.closing = False
        self._survey = Survey(service)
        self._interval_seconds = interval_seconds
        self._number = 0
        self._next = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Take the first snapshot, and go on."""
        self._tick()
        self._tasks = [
            asyncio.create_task(self._run(), name="monitor"),
            asyncio.create_task(measure_lag(self.service.stats), name="loop lag"),
        ]

    async def close(self) -> None:
        """End the tasks and everybody's waiting."""
        self.closing = True
        self._next.set()
        for task in self._tasks:
            await cancelled(task)

    def fresh(self) -> Snapshot:
        """The server now, not a second ago."""
        return self._survey.take()

    async def after(self, number: int) -> Frame | None:
        """The latest frame, once it is a later one than `number`; who is slow misses those between. None at the end."""
        while not self.closing:
            if self.history and self.history[-1].number > number:
                return self.history[-1]
            await self._next.wait()
        return None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_seconds)
            self._tick()

    def _tick(self) -> None:
        self._number += 1
        self.history.append(Frame(self._number, self._survey.tick()))
        told, self._next = self._next, asyncio.Event()
        told.set()
