"""A scripted engine that steps when the test says so, and turns of the event loop until something holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from mlx_grpc.testing import Script
from tests.helpers.openai import PATIENCE_SECONDS, Bridge, bridge


class Gate:
    """Lets the engine take steps."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        # Open for both, so that neither side waits for the other.
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def step(self, steps: int = 1) -> None:
        """So many steps more."""
        os.write(self._file, b"." * steps)

    def free(self) -> None:
        """As many steps as a test can need."""
        with contextlib.suppress(BlockingIOError):
            self.step(60_000)

    def close(self) -> None:
        os.close(self._file)


@asynccontextmanager
async def gated(folder: Path, script: Script | None = None, **settings: Any) -> AsyncIterator[tuple[Bridge, Gate]]:
    """A server whose engine waits for the test."""
    gate = Gate(folder / "gate")
    script = msgspec.structs.replace(script or Script(), gate_path=str(folder / "gate"))
    try:
        async with bridge(script, **settings) as running:
            try:
                yield running, gate
            finally:
                gate.free()
    finally:
        gate.close()


async def until(holds: Callable[[], bool]) -> None:
    """Turns the event loop until it holds; for what the server has no event to tell of."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def freed(running: Bridge) -> None:
    """Returns when no call is left, in the queue or in the engine."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await running.server.catalog.get("").dispatcher.idle()


async def accepted(running: Bridge, calls: int) -> None:
    """Returns when so many calls were accepted since the server started."""
    await until(lambda: running.server.server.stats.accepted.total() == calls)
