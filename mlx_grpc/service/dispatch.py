"""Between the queue and the engine: carries out what the scheduler decides, and tells each call what the engine did.

Runs in the event loop, never waits, and knows no MLX. One dispatcher serves one model. Its engine comes and goes:
`attach` gives it a worker, `detach` takes a lost one away and puts its rows back into the queue.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence

from mlx_grpc.engine.messages import Cancel, Step, Submit, ToWorker
from mlx_grpc.errors import DeadlinePassed, InternalError, MlxGrpcError
from mlx_grpc.observe.stats import Stats
from mlx_grpc.request import Queued
from mlx_grpc.schedule.entry import Entry
from mlx_grpc.schedule.scheduler import Scheduler
from mlx_grpc.schedule.states import ROW_STATES, State
from mlx_grpc.service.generation import Generation

log = logging.getLogger(__name__)

Send = Callable[[ToWorker], None]


class Dispatcher:
    """The calls of one model that are accepted and not yet ended."""

    def __init__(self, model: str, scheduler: Scheduler, stats: Stats) -> None:
        self.scheduler = scheduler
        self._model = model
        self._stats = stats
        self.active_rows = 0
        """Rows in the engine's batch, by its own last word."""
        self.last_step_seconds = 0.0
        """When the engine last delivered, on the loop's clock."""
        self._loop = asyncio.get_running_loop()
        self._keys = itertools.count(1)
        self._live: dict[int, Generation] = {}
        self._untold: dict[int, Queued] = {}
        self._limited: dict[int, Generation] = {}
        self._send: Send | None = None
        self._pump_due: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    # Calls.

    @property
    def live(self) -> Iterable[Generation]:
        """The accepted calls that have not ended."""
        return self._live.values()

    def submit(self, generation: Generation) -> None:
        """Accept a call. Raises QueueFull, NeverFits or DeadlineUnreachable, and then nothing has changed."""
        plan = generation.plan
        generation.key = next(self._keys)
        now_seconds = self._loop.time()
        placement = self.scheduler.submit(
            Entry(
                key=generation.key,
                priority=plan.priority,
                prompt_tokens=len(plan.prompt),
                reserved_tokens=len(plan.prompt) + plan.max_tokens,
                arrived_seconds=now_seconds,
                deadline_seconds=plan.deadline_seconds,
            ),
            now_seconds,
        )
        self._live[generation.key] = generation
        self._untold[generation.key] = Queued(placement.position, placement.estimated_wait_seconds)
        self._idle.clear()
        self._pump_soon()

    def drop(self, generation: Generation) -> None:
        """The reader has gone, or has all it wanted: nothing more is computed for it."""
        generation.drop()
        self._leave(generation.key)

    def fail(self, generation: Generation, error: MlxGrpcError) -> None:
        """End one call with an error."""
        generation.fail(error)
        self._leave(generation.key)

    def fail_all(self, make_error: Callable[[], MlxGrpcError]) -> None:
        """End every call with an error."""
        for generation in list(self._live.values()):
            self.fail(generation, make_error())

    async def idle(self) -> None:
        """Returns when no accepted call is left, in the queue or in the engine."""
        await self._idle.wait()

    def close(self) -> None:
        """No timer is left behind."""
        for handle in (self._pump_due, self._timer):
            if handle:
                handle.cancel()
        self._pump_due = self._timer = None

    # The engine.

    @property
    def attached(self) -> bool:
        """Whether there is an engine."""
        return self._send is not None

    def attach(self, send: Send) -> None:
        """An engine is ready: what waits may enter."""
        self._send = send
        self.last_step_seconds = self._loop.time()
        self._pump_soon()

    def detach(self) -> list[Generation]:
        """The engine is lost. Its rows wait again, in front of all others; returns the calls that were running."""
        self._send = None
        self.active_rows = 0
        running = [self._live[key] for key in self.scheduler.crashed(self._loop.time()) if key in self._live]
        self._settle()
        return running

    def on_step(self, step: Step) -> None:
        """Tell each call what the engine did for it, and let rows leave and enter."""
        now_seconds = self._loop.time()
        self.last_step_seconds = now_seconds
        self.active_rows = step.active_rows
        self._stats.generated_tokens[self._model] += len(step.tokens)
        self.scheduler.record_step(step.seconds, len(step.tokens), self._deliver_prefill(step))
        leaving = self._deliver_tokens(step, now_seconds)
        for failure in step.failed:
            self._row_failed(failure.row_id, failure.reason, now_seconds)
        for key in step.removed:
            self._gone(key, now_seconds)
        self._end_overdue(now_seconds)
        for key in leaving:
            self._leave(key)
        self._pump()

    # Inside.

    def _deliver_prefill(self, step: Step) -> int:
        """Returns how many prompt tokens the step processed."""
        processed = 0
        for progress in step.prefill:
            generation = self._live.get(progress.row_id)
            if generation is not None:
                processed += generation.prefilled(progress)
        return processed

    def _deliver_tokens(self, step: Step, now_seconds: float) -> list[int]:
        """Returns the keys of rows that ended here and are still in the engine."""
        leaving = []
        for token in step.tokens:
            generation = self._live.get(token.row_id)
            if generation is not None:
                if self.scheduler.state(token.row_id) is State.PREFILL:
                    self.scheduler.first_token(token.row_id, now_seconds)
                generation.token(token, now_seconds)
                if generation.ended and not token.finish:
                    leaving.append(token.row_id)
            if token.finish:
                self._finished(token.row_id, now_seconds)
        return leaving

    def _row_failed(self, key: int, reason: str, now_seconds: float) -> None:
        generation = self._live.get(key)
        if generation is not None:
            log.error("the engine refused row %d: %s", key, reason, extra={"request": generation.plan.generation_id})
            generation.fail(InternalError(f"the engine could not take the request: {reason}"))
        self._gone(key, now_seconds)

    def _end_overdue(self, now_seconds: float) -> None:
        """End the calls whose max_duration is over."""
        for key, generation in list(self._limited.items()):
            limit = generation.time_limit_seconds
            if generation.ended or limit is None:
                continue
            if limit <= now_seconds:
                generation.time_is_up(now_seconds)
                self._leave(key)

    def _leave(self, key: int) -> None:
        """A call has ended that the engine or the queue may still hold."""
        if self._live.pop(key, None) is None:
            return
        self._untold.pop(key, None)
        self._limited.pop(key, None)
        now_seconds = self._loop.time()
        if not self.scheduler.cancel_waiting(key):
            self.scheduler.leaving(key, now_seconds)
            if self._send:
                self._send(Cancel([key]))
        self._settle()
        self._pump_soon()

    def _finished(self, key: int, now_seconds: float) -> None:
        if self.scheduler.state(key) in ROW_STATES:
            self.scheduler.finished(key, now_seconds)
        self._forget(key)

    def _gone(self, key: int, now_seconds: float) -> None:
        if self.scheduler.state(key) in ROW_STATES:
            self.scheduler.removed(key, now_seconds)
        self._forget(key)

    def _forget(self, key: int) -> None:
        self._live.pop(key, None)
        self._limited.pop(key, None)
        self._settle()

    def _settle(self) -> None:
        if not self._live and not self.scheduler.running and not self.scheduler.waiting:
            self._idle.set()

    def _pump_soon(self) -> None:
        """Plan once for all that happens in this turn of the loop, so that calls that come together enter together."""
        if self._pump_due is None:
            self._pump_due = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        if self._pump_due is not None:
            self._pump_due.cancel()
            self._pump_due = None
        now_seconds = self._loop.time()
        plan = self.scheduler.plan(now_seconds)
        for key in plan.expired:
            generation = self._live.get(key)
            if generation is not None:
                self.fail(generation, DeadlinePassed("the call's deadline passed before it was done"))
        self._end_overdue(now_seconds)
        if self._send and plan.admit:
            self._admit(plan.admit, self._send, now_seconds)
        for key, event in self._untold.items():
            self._live[key].queued(event)
        self._untold.clear()
        self._set_timer(plan.wake_at_seconds)

    def _admit(self, keys: Sequence[int], send: Send, now_seconds: float) -> None:
        self.scheduler.admitted(keys, now_seconds)
        entering = [self._live[key] for key in keys]
        for generation in entering:
            self._untold.pop(generation.key, None)
            generation.admitted(now_seconds)
            if generation.time_limit_seconds is not None:
                self._limited[generation.key] = generation
        if not self.active_rows:
            self.last_step_seconds = now_seconds
        send(Submit([generation.row() for generation in entering]))

    def _set_timer(self, wake_at_seconds: float | None) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        limits = [limit for g in self._limited.values() if (limit := g.time_limit_seconds) is not None]
        moments = [moment for moment in (wake_at_seconds, min(limits, default=None)) if moment is not None]
        if moments:
            self._timer = self._loop.call_at(min(moments), self._pump)
