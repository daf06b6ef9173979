"""The accepted calls of one model that have not ended, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from mlx_grpc.engine.messages import Cancel, ToWorker
from mlx_grpc.errors import MlxGrpcError
from mlx_grpc.request import Queued
from mlx_grpc.schedule.scheduler import Scheduler
from mlx_grpc.schedule.states import ROW_STATES
from mlx_grpc.service.generation.call import Generation
from mlx_grpc.service.hosting.recovery import Recovery

Send = Callable[[ToWorker], None]


class LiveCalls:
    """Every call that the scheduler knows and somebody waits for. A call leaves once: its reader went, it failed, its
    time is up, or the engine ended it; the scheduler, and where it holds a row the engine, are told."""

    def __init__(self, scheduler: Scheduler, recovery: Recovery) -> None:
        self.scheduler = scheduler
        self._recovery = recovery
        self._loop = asyncio.get_running_loop()
        self._send: Send | None = None
        self._live: dict[int, Generation] = {}
        self._untold: dict[int, Queued] = {}
        """Accepted in this turn of the loop: told that they wait only if they still do at its end."""
        self._limited: dict[int, Generation] = {}
        """In the batch, with a max_duration."""
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def live(self) -> Iterable[Generation]:
        """The accepted calls that have not ended."""
        return self._live.values()

    def drop(self, generation: Generation) -> None:
        """The reader has gone, or has all it wanted: nothing more is computed for it."""
        generation.drop()
        self._leave(generation.key)

    def fail(self, generation: Generation, error: MlxGrpcError) -> None:
        """End one call with an error."""
        generation.fail(error)
        self._leave(generation.key)

    def fail_keys(self, keys: Iterable[int], error: Callable[[], MlxGrpcError]) -> None:
        """End these calls, those of them that are still live."""
        for key in keys:
            if key in self._live:
                self.fail(self._live[key], error())

    def fail_all(self, error: Callable[[], MlxGrpcError]) -> None:
        """End every call with an error."""
        self.fail_keys(list(self._live), error)

    async def idle(self) -> None:
        """Returns when no accepted call is left, in the queue or in the engine."""
        await self._idle.wait()

    def changed(self) -> None:
        """Something happened that may let others enter; the dispatcher plans anew."""

    def _leave(self, key: int) -> None:
        """A call has ended that the engine or the queue may still hold."""
        if self._live.pop(key, None) is None:
            return
        self._untold.pop(key, None)
        self._limited.pop(key, None)
        self._recovery.ended(key)
        if not self.scheduler.ledger.cancel_waiting(key):
            self.scheduler.ledger.leaving(key, self._loop.time())
            if self._send:
                self._send(Cancel([key]))
        self._settle()
        self.changed()

    def _row_ended(self, key: int, removed: bool) -> None:
        """The engine says that the row is gone: it finished, or was taken out."""
        if self.scheduler.ledger.state(key) in ROW_STATES:
            end = self.scheduler.ledger.removed if removed else self.scheduler.ledger.finished
            end(key, self._loop.time())
        self._live.pop(key, None)
        self._limited.pop(key, None)
        self._recovery.ended(key)
        self._settle()

    def _end_overdue(self, now_seconds: float) -> None:
        """End the calls whose max_duration is over."""
        for key, generation in list(self._limited.items()):
            limit = generation.time_limit_seconds
            if not generation.ended and limit is not None and limit <= now_seconds:
                generation.time_is_up(now_seconds)
                self._leave(key)

    def _settle(self) -> None:
        if not self._live and not self.scheduler.ledger.running and not self.scheduler.ledger.waiting:
            self._idle.set()
