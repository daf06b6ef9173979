"""A worker in a thread of this process, as tests may have it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable

from mlx_grpc.engine.link.interface import OnLost, OnMessage
from mlx_grpc.engine.messages import Close, ToWorker
from mlx_grpc.engine.protocol import OpenEngine
from mlx_grpc.engine.worker.loop import run
from mlx_grpc.engine.worker.open import open_engine as open_any


class ThreadLink:
    """A worker in a thread. `open_engine` is the worker's own unless a test brings another."""

    def __init__(self, on_message: OnMessage, on_lost: OnLost, open_engine: OpenEngine = open_any) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._open_engine = open_engine
        self._inbox: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._ended = asyncio.Event()
        self._closing = False

    @property
    def pid(self) -> int | None:
        """None: there is no child."""
        return None

    async def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self, message: ToWorker) -> None:
        """Put it into the inbox."""
        self._inbox.put(message)

    def kill(self) -> None:
        """A thread cannot be killed: it ends after its step."""
        self._inbox.put(Close())

    async def close(self) -> None:
        """Returns when the thread has ended."""
        self._closing = True
        self._inbox.put(Close())
        if self._thread.ident is not None:
            await self._ended.wait()
            self._thread.join()

    def _run(self) -> None:
        why = "its thread ended"
        try:
            run(self._inbox, lambda message: self._in_loop(self._on_message, message), self._open_engine)
        except Exception as error:  # whatever a step raises is the engine's end, as it would be a child's
            why = f"its thread raised {type(error).__name__}: {error}"
        self._in_loop(self._end, why)

    def _in_loop(self, call: Callable[..., None], argument: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, argument)

    def _end(self, why: str) -> None:
        self._ended.set()
        if not self._closing:
            self._on_lost(why)
